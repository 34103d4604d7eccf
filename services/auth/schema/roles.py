"""Roles, the policy that says what they are, and grants."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

import strawberry
from strawberry import ID, Info
from strawberry.scalars import JSON

from libs import access_engine
from libs.access_engine.lint import Finding
from libs.core import access as core
from libs.core.access import BUILT_IN, Access, Requires
from libs.core.context import Context
from libs.core.errors import InvalidInput
from libs.core.grants import StoredGrant, rule_text
from libs.core.graphql import Problem
from libs.core.ids import parse_id
from libs.core.pagination import Connection, Page, PageArgs
from services.auth.commands import grants
from services.auth.commands.administration import demand_tenant
from services.auth.commands.grants import NewGrant
from services.auth.commands.roles import NewRole, assign, lint_policy, publish
from services.auth.schema.common import auth_of, or_problem
from services.auth.schema.users import User, UserResult

_MAX_ROLES = 200
_MAX_RULES = 500
_BUILT_IN = frozenset(role.name for role in BUILT_IN)


@strawberry.type(description="Rules are permissions `resource:action:target`, or JSON with what bounds them.")
class Role:
    name: str
    allow: list[str]
    deny: list[str]
    inherits: list[str]
    built_in: bool = strawberry.field(description="It has the name of one that is there without any policy.")

    @classmethod
    def of(cls, role: access_engine.Role) -> Self:
        return cls(
            name=role.name,
            allow=[rule_text(rule) for rule in role.allow],
            deny=[rule_text(rule) for rule in role.deny],
            inherits=list(role.inherits),
            built_in=role.name in _BUILT_IN,
        )


@strawberry.type(description="The roles of all tenants, as they were published; on top of the built-in ones.")
class PolicyVersion:
    version: int
    roles: list[Role] | None = strawberry.field(description="Null: it cannot be understood, and was never in force.")
    published_at: datetime
    actor: str
    reason: str

    @classmethod
    def of(cls, version: core.PolicyVersion) -> Self:
        known = None if version.roles is None else [Role.of(role) for role in version.roles]
        return cls(
            version=version.version, roles=known, published_at=version.at, actor=version.actor, reason=version.reason
        )


@strawberry.type(description="What is in force. `newest` is what a new version has to follow; 0: none was published.")
class PolicyInForce:
    version: int
    newest: int
    roles: list[Role]


@strawberry.type(description="What is probably wrong with a policy.")
class PolicyFinding:
    code: str
    where: str
    message: str

    @classmethod
    def of(cls, finding: Finding) -> Self:
        return cls(code=finding.code, where=finding.where, message=finding.message)


@strawberry.type
class PolicyPublished:
    version: int
    findings: list[PolicyFinding]


@strawberry.input
class RoleInput:
    name: str
    allow: list[str] = strawberry.field(default_factory=list)
    deny: list[str] = strawberry.field(default_factory=list)
    inherits: list[str] = strawberry.field(default_factory=list)

    def new_role(self) -> NewRole:
        if max(len(self.allow), len(self.deny), len(self.inherits)) > _MAX_RULES:
            raise InvalidInput(f"a role has at most {_MAX_RULES} rules", field="input.roles")
        return NewRole(self.name, tuple(self.allow), tuple(self.deny), tuple(self.inherits))


@strawberry.input
class PublishPolicyInput:
    after: int = strawberry.field(description="The newest version that you saw: see `policy`.")
    roles: list[RoleInput] = strawberry.field(description="All of them: those left out are gone, or as built in.")
    reason: str
    accept_findings: bool = strawberry.field(default=False, description="Publish in spite of what the linter finds.")


@strawberry.input
class SetUserRolesInput:
    user_id: ID
    roles: list[str] = strawberry.field(description="All that they have from now on.")
    reason: str


@strawberry.enum
class GrantEffect(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


@strawberry.type(description="One permission for one user, or what is denied to them.")
class Grant:
    id: ID
    user_id: ID
    effect: GrantEffect
    permission: str
    rule_text: str = strawberry.field(description="The permission, with all that bounds it.")
    since: datetime | None
    until: datetime | None
    level: int = strawberry.field(description="How many factors must have been proven.")
    condition: JSON | None
    author: str
    reason: str
    created_at: datetime
    revoked_at: datetime | None
    revoked_by: str | None

    @classmethod
    def of(cls, grant: StoredGrant) -> Self:
        bounds, told = grant.rule.bounds, grant.rule.dump()
        return cls(
            id=ID(grant.id),
            user_id=ID(grant.subject_id),
            effect=GrantEffect(grant.effect),
            permission=grant.permission,
            rule_text=str(grant.rule),
            since=bounds.since,
            until=bounds.until,
            level=bounds.level,
            condition=told.get("if") if isinstance(told, Mapping) else None,
            author=grant.author,
            reason=grant.reason,
            created_at=grant.created_at,
            revoked_at=grant.revoked_at,
            revoked_by=grant.revoked_by or None,
        )


@strawberry.input
class GrantPermissionInput:
    user_id: ID
    permission: str = strawberry.field(description="`resource:action:target`.")
    reason: str
    effect: GrantEffect = GrantEffect.ALLOW
    since: datetime | None = None
    until: datetime | None = None
    level: int = strawberry.field(default=0, description="How many factors they must have proven: 0, 1 or 2.")
    brand_id: ID | None = None
    condition: JSON | None = strawberry.field(
        default=None, description='What must be so, such as {"object.currency": {"eq": "EUR"}}.'
    )

    def new_grant(self) -> NewGrant:
        if self.condition is not None and not isinstance(self.condition, dict):
            raise InvalidInput("a condition is an object", field="input.condition")
        return NewGrant(
            user_id=parse_id(self.user_id, "input.userId"),
            permission=self.permission,
            effect="deny" if self.effect is GrantEffect.DENY else "allow",
            brand_id=parse_id(self.brand_id, "input.brandId") if self.brand_id is not None else "",
            since=self.since,
            until=self.until,
            level=self.level,
            condition=self.condition,
        )


@strawberry.input
class RevokeGrantInput:
    grant_id: ID
    reason: str


PolicyResult = Annotated[PolicyPublished | Problem, strawberry.union("PolicyResult")]
GrantResult = Annotated[Grant | Problem, strawberry.union("GrantResult")]


@strawberry.type
class RoleQueries:
    @strawberry.field(description="What roles there are, by name.", extensions=[Requires("role:read")])
    async def roles(self, info: Info[Context]) -> list[Role]:
        in_force = info.context.platform.access.roles
        return [Role.of(in_force[name]) for name in sorted(in_force)]

    @strawberry.field(
        description="What all tenants share; for the platform's own administrators.",
        extensions=[Requires("policy:read")],
    )
    async def policy(self, info: Info[Context]) -> PolicyInForce:
        access = _shared(info)
        named = [Role.of(access.roles[name]) for name in sorted(access.roles)]
        return PolicyInForce(version=access.version, newest=access.newest, roles=named)

    @strawberry.field(description="The newest first.", extensions=[Requires("policy:read")])
    async def policy_versions(
        self,
        info: Info[Context],
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[PolicyVersion]:
        page = await _shared(info).policy_versions(auth_of(info).paginator, PageArgs(first, after, last, before))
        return Connection.of(page, PolicyVersion.of)

    @strawberry.field(
        description="What the linter says of these roles. Nothing is published.",
        extensions=[Requires("policy:manage")],
    )
    async def policy_findings(self, info: Info[Context], roles: list[RoleInput]) -> list[PolicyFinding]:
        return [PolicyFinding.of(f) for f in lint_policy(auth_of(info), info.context, _new_roles(roles))]

    @strawberry.field(
        description="The newest first: of one user, or of all. `ended`: those that are over, too, for ninety days.",
        extensions=[Requires("grant:read")],
    )
    async def grants(
        self,
        info: Info[Context],
        user_id: ID | None = None,
        ended: bool = False,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[Grant]:
        demand_tenant(info.context, "grant:read")
        page: Page[StoredGrant] = await info.context.platform.access.grants_page(
            auth_of(info).paginator,
            info.context.tenant_id,
            PageArgs(first, after, last, before),
            subject_id=parse_id(user_id, "userId") if user_id is not None else "",
            ended=ended,
        )
        return Connection.of(page, Grant.of)


@strawberry.type
class RoleMutations:
    @strawberry.mutation(
        description="In force everywhere in a moment. For the platform's own administrators, signed in lately.",
        extensions=[Requires("policy:manage")],
    )
    async def publish_policy(self, info: Info[Context], input: PublishPolicyInput) -> PolicyResult:  # noqa: A002
        done = await or_problem(
            publish(
                auth_of(info),
                info.context,
                _new_roles(input.roles),
                after=input.after,
                reason=input.reason,
                accept_findings=input.accept_findings,
            )
        )
        if isinstance(done, Problem):
            return done
        return PolicyPublished(version=done.version, findings=[PolicyFinding.of(f) for f in done.findings])

    @strawberry.mutation(
        description="Their access tokens are refused within a second or two, and what refreshing gives has these. "
        "You have to hold every rule of each role that you give or take. Needs that you signed in lately.",
        extensions=[Requires("role:assign")],
    )
    async def set_user_roles(self, info: Info[Context], input: SetUserRolesInput) -> UserResult:  # noqa: A002
        user_id = parse_id(input.user_id, "input.userId")
        changed = await or_problem(assign(auth_of(info), info.context, user_id, input.roles, input.reason))
        return changed if isinstance(changed, Problem) else User.of(changed)

    @strawberry.mutation(
        description="In force everywhere in a moment. You have to hold all of it, for as long. Needs that you signed "
        "in lately.",
        extensions=[Requires("grant:manage")],
    )
    async def grant_permission(self, info: Info[Context], input: GrantPermissionInput) -> GrantResult:  # noqa: A002
        return _grant(await or_problem(grants.grant(auth_of(info), info.context, input.new_grant(), input.reason)))

    @strawberry.mutation(
        description="To lift a denial is to give, and asks for the same.", extensions=[Requires("grant:manage")]
    )
    async def revoke_grant(self, info: Info[Context], input: RevokeGrantInput) -> GrantResult:  # noqa: A002
        grant_id = parse_id(input.grant_id, "input.grantId")
        return _grant(await or_problem(grants.revoke(auth_of(info), info.context, grant_id, input.reason)))


def _shared(info: Info[Context]) -> Access:
    info.context.platform.access.demand_shared(info.context.caller, "policy:read")
    return info.context.platform.access


def _new_roles(given: list[RoleInput]) -> list[NewRole]:
    if len(given) > _MAX_ROLES:
        raise InvalidInput(f"a policy has at most {_MAX_ROLES} roles", field="input.roles")
    return [role.new_role() for role in given]


def _grant(done: StoredGrant | Problem) -> Grant | Problem:
    return done if isinstance(done, Problem) else Grant.of(done)
