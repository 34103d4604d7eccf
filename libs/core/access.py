"""Who may do what: roles and grants in MongoDB, decisions in memory.

    @strawberry.field(extensions=[Requires("wallet:read")])     # in a schema: may this caller read any wallet at all?
    scope = access.scope(caller, "wallet:read")                 # which ones?
    scope.permits(owner_id=…, tenant_id=…, id=…)                # this one, that was loaded?
    scope.query(owner="owner_id")                               # those, as a filter for MongoDB

A caller never reaches what is of another tenant, whatever a rule says: `all` is all of the caller's own tenant. `Scope`
alone sees to that. What all tenants share, such as policies, is for one of them to manage: `Access.demand_shared`.

Policies are versions in `core_service.policies`, each a whole set of roles; the highest that is valid is in force, on
top of the `BUILT_IN` roles. A version is never changed: a later one takes its place. Grants, one rule for one subject
each, are in `core_service.grants`. What changes is in force in this process at once, and in the others in a moment.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache, wraps
from itertools import groupby
from typing import Annotated, Any, Literal, Self, TypeVar, cast

import structlog
from graphql import GraphQLUnionType
from pydantic import BaseModel, ConfigDict, Field
from pymongo.errors import DuplicateKeyError, PyMongoError
from pymongo.read_concern import ReadConcern
from strawberry import Info, Schema
from strawberry.extensions import FieldExtension
from strawberry.types.base import StrawberryOptional
from strawberry.types.field import StrawberryField

from libs.access_engine import (
    ConditionError,
    Effect,
    Object,
    Permission,
    PermissionSyntaxError,
    Policy,
    Reach,
    Role,
    Rule,
    Scope as Reached,
    Subject,
)
from libs.access_engine.coverage import uncovered
from libs.access_engine.lint import Finding, lint
from libs.core import grants
from libs.core.clock import Clock, SystemClock
from libs.core.context import Caller, Context
from libs.core.decisions import Decisions
from libs.core.errors import Forbidden, InvalidInput, NotFound, Refusal, Unauthenticated, Unavailable
from libs.core.filters import within_tenant
from libs.core.grants import Grants, StoredGrant, rule_of, rule_text
from libs.core.ids import parse_id
from libs.core.migrations import Index
from libs.core.mongo import DURABLE, Database, Document, Session
from libs.core.pagination import Page, PageArgs, Paginator
from libs.core.pubsub import follow, tell
from libs.core.redis import Redis
from libs.core.tasks import ended

COLLECTION = "policies"
INDEXES = (Index(COLLECTION), *grants.INDEXES)

_BOTH = ("wallet:create", "wallet:read", "transfer:create", "transfer:read", "transaction:read", "limit:read")
_PLAYER = (*_BOTH, "limit:set", "exchange:create")
_SYSTEM = (
    *_BOTH,
    *("deposit:create", "withdrawal:create", "transfer:reverse", "exchange:create", "lot:manage"),
    *("hold:create", "hold:capture", "hold:void"),
    *("limit:manage", "account:manage"),
)
_OPERATOR = (
    *_SYSTEM,
    *("adjustment:create", "adjustment:approve", "wallet:freeze", "wallet:close", "wallet:credit"),
)
_SERVICE = (*_SYSTEM, "bet:create", "bet:settle")
# Of one's own account. An operator's is no wider: whoever manages another's factors can log in as them.
_ACCOUNT = (
    *("user:read", "user:update", "session:read", "session:revoke", "session:step_up"),
    *("factor:manage", "identity:manage"),
)
_SUPPORT = (
    *("user:read", "user:list", "user:suspend", "user:reset", "session:read", "session:revoke"),
    *("role:read", "grant:read", "audit:read"),
)
# An admin has all that the others have, and these.
_ADMIN = (
    *("user:delete", "role:assign", "grant:manage", "serviceaccount:manage", "apikey:read", "apikey:manage"),
    *("webhook:read", "webhook:manage", "ledger:verify"),
)
# Of what all tenants share: see `demand_shared`.
_PLATFORM = ("policy:read", "policy:manage", "signingkey:read", "signingkey:manage", "platform:read")

# What holds in an empty database. A stored role of the same name takes the place of one of these.
BUILT_IN = (
    Role.of("player", allow=[f"{action}:own" for action in (*_PLAYER, *_ACCOUNT)]),
    Role.of(
        "operator",
        allow=[*(f"{action}:tenant" for action in (*_OPERATOR, *_SUPPORT)), *(f"{action}:own" for action in _ACCOUNT)],
    ),
    Role.of("service", allow=[f"{action}:tenant" for action in _SERVICE]),
    Role.of("admin", allow=["*:*:tenant"]),
)

# All that is asked for, by resource: what the linter knows.
CATALOGUE: Mapping[str, frozenset[str]] = {
    resource: frozenset(action.split(":")[1] for action in actions)
    for resource, actions in groupby(
        sorted({*_OPERATOR, *_SERVICE, *_PLAYER, *_ACCOUNT, *_SUPPORT, *_ADMIN, *_PLATFORM}),
        key=lambda action: action.split(":")[0],
    )
}

_SYSTEM_CLOCK = SystemClock()
# The highest level that a caller can prove, see `Caller.level`.
_MAX_LEVEL = 2
_MAX_REASON = 500
# A policy is compiled while requests wait, and one document of MongoDB's holds it.
_MAX_ROLES, _MAX_RULES = 500, 10_000
_UNKNOWN = datetime.min.replace(tzinfo=UTC)
# All grants, so that those which are over do not stay in memory.
_READ_AGAIN_EVERY = timedelta(hours=6)

Resolve = TypeVar("Resolve", bound=Callable[..., Awaitable[list[Any]]])
T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Scope:
    """The objects of one kind that `caller` may do one thing with: always within the caller's own tenant."""

    caller: Caller
    rule: Reached
    action: str = ""
    clock: Clock = field(default=_SYSTEM_CLOCK, repr=False, compare=False)
    decisions: Decisions | None = field(default=None, repr=False, compare=False)
    _subject: Subject = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_subject", subject_of(self.caller))

    @property
    def nothing(self) -> bool:
        """Sure to be nothing at all: a list need not be read."""
        return not self.rule.possible(self._subject, self.clock.now())

    def permits(
        self,
        *,
        owner_id: str | None,
        tenant_id: str,
        id: str | None,  # noqa: A002
        attributes: Mapping[str, Any] | None = None,
    ) -> bool:
        """Whether one object, with these attributes, is among them. None: it has no owner, or no id that counts.

        `attributes` are what conditions may ask for. One that is asked for and not given allows nothing, and denies.
        """
        permitted = tenant_id == self.caller.tenant_id and self.rule.permits(
            self._subject,
            Object(id, owner_id, tenant_id, attributes),
            self.clock.now() if self.rule.bounded else None,
        )
        if not permitted and self.decisions is not None:
            self.decisions.denied(self.caller, self.action, id)
        return permitted

    def query(
        self,
        *,
        owner: str | None = "owner_id",
        tenant: str = "tenant_id",
        id: str = "_id",  # noqa: A002
        attributes: Mapping[str, str] | None = None,
    ) -> Document:
        """The same as a filter, given the names of the fields (`owner` None: these objects have none).

        `attributes` says in which field each is that conditions may ask for: the same ones as `permits` is given.
        Everything is under `$and`, so that a filter merged with it, `{**filter, **scope.query()}`, can only narrow it.
        """
        rule, in_tenant = self.rule, {tenant: self.caller.tenant_id}
        if rule.simple and self.caller.tenant_id and (rule.reach >= Reach.TENANT or (owner and self.caller.subject)):
            # What nearly every list is, without the algebra: 1 µs rather than 10.
            return {"$and": [in_tenant] if rule.reach >= Reach.TENANT else [in_tenant, {owner: self.caller.subject}]}
        predicate = rule.predicate(self._subject, self.clock.now() if rule.bounded else None)
        fields = {**(attributes or {}), "id": id, **({"owner_id": owner} if owner else {})}
        return {"$and": [in_tenant, *within_tenant(predicate, self.caller.tenant_id, fields)]}


def subject_of(caller: Caller) -> Subject:
    return Subject(caller.subject, caller.tenant_id, caller.roles, caller.brand_id, caller.level, caller.scopes)


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A stored policy. `roles` is None if it cannot be understood: it was never in force."""

    version: int
    roles: tuple[Role, ...] | None
    at: datetime
    actor: str
    reason: str


class Access:
    """The policy in force, one a process, kept up to date while it is open (`async with`)."""

    def __init__(
        self, database: Database, redis: Redis, clock: Clock, *, platform_tenant: str = "", poll_s: float = 30.0
    ) -> None:
        """`database` is `core_service`. A change is told over Redis; untold, it is found within `poll_s`.

        `platform_tenant`: whose users may manage what all tenants share; "" for nobody.
        """
        self.version = 0  # the stored version that is in force; 0: `BUILT_IN` alone
        self.newest = 0  # the highest stored version, valid or not
        self.decisions = Decisions()
        self._policy = Policy(BUILT_IN)
        self._policies = database[COLLECTION]
        self._grants = Grants(database, clock)
        self._revision = -1  # of the grants that are in force; -1: none was read yet
        self._read_again_at = clock.now()
        self._redis = redis
        self._platform_tenant = platform_tenant
        self._channel = redis.key("policies")
        self._clock = clock
        self._poll_s = poll_s
        self._reloaded_at = 0.0
        self._reloading = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Fails if MongoDB does: `BUILT_IN` alone could allow what a stored policy denies."""
        await self.reload()
        self._following = asyncio.create_task(follow(self._redis, self._channel, self.reload, poll_s=self._poll_s))
        return self

    async def __aexit__(self, *_: object) -> None:
        await ended(self._following)
        self.decisions.sum_up()

    async def check(self) -> dict[str, Any]:
        """For readiness: which version is in force; `Unavailable` once changes are not noticed any more."""
        age_s = asyncio.get_running_loop().time() - self._reloaded_at
        if age_s > 4 * self._poll_s:
            raise Unavailable("policies are not being reloaded", version=self.version, ageSeconds=round(age_s))
        return {"version": self.version}

    # Decisions.

    def scope(self, caller: Caller, action: str) -> Scope:
        """What `caller` may do `action` ("wallet:read") with."""
        return Scope(caller, self._reached(subject_of(caller), action), action, self._clock, self.decisions)

    def allows(self, caller: Caller, action: str, *, level: int = 0) -> bool:
        """Whether there may be anything at all that `caller` may do `action` with, having proven so many factors."""
        subject = subject_of(caller)
        reached = self._reached(subject, action)
        return caller.level >= level and reached.possible(subject, self._clock.now() if reached.bounded else None)

    def permits(self, caller: Caller, action: str, obj: Object) -> bool:
        """Whether `caller` may do `action` with this object."""
        return self.scope(caller, action).permits(
            owner_id=obj.owner_id, tenant_id=obj.tenant_id or "", id=obj.id, attributes=obj.attributes
        )

    def demand(self, caller: Caller, action: str, *, level: int = 0) -> None:
        """`Unauthenticated` or `Forbidden` unless `allows`. If more factors would help, the details say how many."""
        if self.allows(caller, action, level=level):
            self.decisions.allowed(caller, action)
            return
        self.decisions.denied(caller, action)
        if caller.kind == "anonymous":
            raise Unauthenticated("this needs a token")
        if needed := self._level_needed(caller, action, level):
            raise Forbidden("this needs another factor to be proven first", permission=action, level=needed)
        raise Forbidden(f"this needs the permission {action}", permission=action)

    def demand_shared(self, caller: Caller, action: str) -> None:
        """The same for what all tenants share: for the platform's own tenant alone, whatever roles others have."""
        self.demand(caller, action)
        if caller.tenant_id != self._platform_tenant:
            self.decisions.denied(caller, action)
            raise Forbidden("this is for the platform's own administrators", permission=action)

    def _level_needed(self, caller: Caller, action: str, at_least: int) -> int | None:
        for level in range(max(caller.level + 1, at_least), _MAX_LEVEL + 1):
            if self.allows(replace(caller, level=level), action):
                return level
        return None

    def _reached(self, subject: Subject, action: str) -> Reached:
        return self._policy.filter(subject, *_parse_action(action))

    # Administration. Whether the caller may administer at all is for the one who calls: `Requires("grant:manage")`.

    @property
    def roles(self) -> Mapping[str, Role]:
        """Those in force, by name."""
        return self._policy.roles

    async def grant(
        self,
        author: Caller,
        subject_id: str,
        permission: str,
        *,
        reason: str,
        effect: Literal["allow", "deny"] = "allow",
        brand_id: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        level: int = 0,
        condition: Mapping[str, Any] | None = None,
        session: Session | None = None,
    ) -> StoredGrant:
        """Gives a subject of the author's tenant one permission, or denies it that, without a role.

        `InvalidInput` for what is no rule; a `Refusal` with the code `GRANT_TOO_WIDE` if the author does not hold it
        all. With a `session` it is part of that transaction, and `changed()` must be awaited after its commit.
        """
        bounds = {"brand": brand_id or None, "from": since, "until": until, "level": level, "if": condition}
        data = {"permission": permission, **{key: value for key, value in bounds.items() if value is not None}}
        parse_id(subject_id, "subjectId")
        rule = _rule(data, Effect(effect))
        if until is not None and until <= max(filter(None, (self._clock.now(), since))):
            raise InvalidInput("the grant would be over before it begins", field="until")
        self._refuse_wider(author, [rule])
        return await self._write(
            lambda session: self._grants.insert(
                session, author.tenant_id, subject_id, rule, author=author.user_id, reason=_reason(reason)
            ),
            session,
        )

    async def revoke_grant(
        self, revoker: Caller, grant_id: str, *, reason: str, session: Session | None = None
    ) -> StoredGrant:
        """Ends a grant in the revoker's tenant; one that was revoked before stays as it is. `NotFound`.

        To lift a denial is to give: `GRANT_TOO_WIDE` as for `grant`. `session` as there.
        """
        found = await self._grants.load(revoker.tenant_id, parse_id(grant_id, "grantId"), session)
        if found is None:
            raise NotFound("there is no such grant", field="grantId")
        if found.rule.effect is Effect.DENY:
            self._refuse_wider(revoker, [found.rule])
        return await self._write(
            lambda session: self._grants.end(session, found, revoker=revoker.user_id, reason=_reason(reason)), session
        )

    async def load_grant(self, tenant_id: str, grant_id: str, session: Session | None = None) -> StoredGrant | None:
        return await self._grants.load(tenant_id, parse_id(grant_id, "grantId"), session)

    async def grants_of(self, tenant_id: str, subject_id: str, *, ended: bool = False) -> list[StoredGrant]:
        """A subject's, the oldest first; those that are over too, if `ended`."""
        return await self._grants.of(tenant_id, subject_id, ended=ended)

    async def grants_page(
        self, paginator: Paginator, tenant_id: str, args: PageArgs, *, subject_id: str = "", ended: bool = False
    ) -> Page[StoredGrant]:
        """A tenant's, or one subject's of it, the newest first."""
        return await self._grants.page(paginator, tenant_id, args, subject_id=subject_id, ended=ended)

    def wider_than(self, author: Caller, rules: Iterable[Rule | str]) -> list[str]:
        """Those of `rules`, permissions as text or what `Rule.of` made, that `author` does not wholly hold, as text.

        Nobody grants more than they hold. It may name one that several rules of the author's hold between them.
        """
        wanted = [rule if isinstance(rule, Rule) else _rule(rule, Effect.ALLOW) for rule in rules]
        held = uncovered(self._policy, subject_of(author), wanted, self._clock.now(), confined=True)
        return [str(rule) for rule in held]

    def wider_roles(self, author: Caller, roles: Iterable[str]) -> list[str]:
        """The same for what `roles`, those inherited from too, allow and deny: what an author must hold to assign them,
        and to take them away. `InvalidInput` for a role that does not exist.
        """
        names = list(roles)
        if unknown := [name for name in names if name not in self._policy.roles]:
            raise InvalidInput(f"there is no role {unknown[0]!r:.70}", field="roles")
        lineage = sorted(self._policy.lineage(names))
        return self.wider_than(author, [rule for name in lineage for rule in self._policy.roles[name].rules])

    def wider_policy(self, author: Caller, roles: Sequence[Role]) -> list[str]:
        """The same for what publishing `roles` would add for anyone: allowances that are new, denials that are gone.

        `InvalidInput` if they make no policy.
        """
        after = self._policy_of(roles)
        gained: list[Rule] = []
        for name in after.roles:
            new, old = _rules_of(after, name), _rules_of(self._policy, name)
            gained += [rule for rule in new - old if rule.effect is Effect.ALLOW]
            gained += [rule for rule in old - new if rule.effect is Effect.DENY]
        # A role that is not there any more takes its denials along.
        gained += [
            rule for name in self._policy.roles if name not in after.roles for rule in self._policy.roles[name].deny
        ]
        return self.wider_than(author, sorted(set(gained), key=str))

    def outranks(self, subject: Caller, author: Caller) -> list[str]:
        """What `subject` may do to others and `author` may not: nobody administers somebody who holds more.

        What one may do with one's own says nothing of rank, nor do denials, nor roles that there are not.
        """
        roles = self._policy.lineage([name for name in subject.roles if name in self._policy.roles])
        held = [rule for name in roles for rule in self._policy.roles[name].allow]
        held += [grant.rule for grant in self._policy.grants_of(subject.tenant_id, subject.subject)]
        now = self._clock.now()
        beyond = [
            rule
            for rule in held
            if rule.effect is Effect.ALLOW
            and rule.permission.target != "own"
            and (rule.bounds.until is None or rule.bounds.until > now)
        ]
        return self.wider_than(author, sorted(set(beyond), key=str))

    def lint(self, roles: Sequence[Role]) -> list[Finding]:
        """What is probably wrong with them, together with those of `BUILT_IN` whose place they do not take."""
        names = {role.name for role in roles}
        kept = [role for role in BUILT_IN if role.name not in names]
        findings = lint([*kept, *roles], catalogue=CATALOGUE, confined=True, now=self._clock.now())
        return [finding for finding in findings if finding.where.removeprefix("role ") in names]

    def locks_out(self, author: Caller, roles: Sequence[Role], permission: str) -> bool:
        """Whether `author` would not hold `permission` any more, were these the roles."""
        after = Policy(self._policy_of(roles).roles.values(), self._policy.grants)
        wanted = [_rule(permission, Effect.ALLOW)]
        return bool(uncovered(after, subject_of(author), wanted, self._clock.now(), confined=True))

    async def publish(
        self, roles: Sequence[Role], *, after: int, actor: str, reason: str, session: Session | None = None
    ) -> int:
        """Stores `roles` as the version that follows `after`, the `newest` that its author saw; answers its number.

        It is in force here at once, and everywhere in a moment. `InvalidInput` if they make no policy; a `Refusal`
        with code `POLICY_CHANGED` if `after` is not the newest. With a `session` it is part of that transaction, and
        `changed()` must be awaited after its commit. Whether the author holds all that it gives, says `wider_policy`.
        """
        self._policy_of(roles)
        stored = [_StoredRole.of(role) for role in roles]
        policy = _StoredPolicy(
            version=after + 1, roles=stored, at=self._clock.now(), actor=actor, reason=_reason(reason)
        )
        await self._insert(policy, session)
        if session is None:
            await self.changed()
        return policy.version

    async def policy_versions(self, paginator: Paginator, args: PageArgs) -> Page[PolicyVersion]:
        """The newest first. Version 0, `BUILT_IN` alone, is not among them."""
        page = await paginator.page(self._policies, {"_id": {"$gte": 1}}, args, order=[("_id", -1)])
        return page.map(_version_of)

    async def changed(self) -> None:
        """What was committed is in force, here at once and elsewhere in a moment. It does not fail."""
        await tell(self._redis, self._channel)
        with suppress(PyMongoError):  # it is stored; whoever was told, this process too, goes on trying
            await self.reload()

    def _refuse_wider(self, author: Caller, rules: Iterable[Rule]) -> None:
        if wider := self.wider_than(author, rules):
            raise Refusal(
                "GRANT_TOO_WIDE", "nobody grants more than they hold themselves", rule="grant.author", beyond=wider
            )

    def _policy_of(self, roles: Sequence[Role]) -> Policy:
        if len(roles) > _MAX_ROLES or sum(len(role.rules) for role in roles) > _MAX_RULES:
            raise InvalidInput(f"a policy has at most {_MAX_ROLES} roles and {_MAX_RULES} rules", field="roles")
        try:
            return _compiled([_StoredRole.of(role) for role in roles])
        except ValueError as error:
            raise InvalidInput(f"these roles make no policy: {error}", field="roles") from error

    async def _write(self, work: Callable[[Session], Awaitable[T]], session: Session | None) -> T:
        if session is not None:
            return await work(session)
        async with self._policies.database.client.start_session() as own:
            done = await own.with_transaction(work, read_concern=ReadConcern("snapshot"), write_concern=DURABLE)
        await self.changed()
        return done

    async def _insert(self, policy: "_StoredPolicy", session: Session | None) -> None:
        newest = await self._policies.find_one({}, sort=[("_id", -1)], session=session)
        with suppress(DuplicateKeyError):
            if policy.version == (newest["_id"] if newest else 0) + 1:
                await self._policies.insert_one(policy.model_dump(by_alias=True), session=session)
                return
        raise Refusal(
            "POLICY_CHANGED", "the policy was changed meanwhile", rule="policy.version", version=policy.version - 1
        )

    # Keeping up.

    async def reload(self) -> None:
        """Puts in force what was stored since: the newest valid policy, and the grants that changed."""
        async with self._reloading:
            await self._reload_policy()
            await self._reload_grants()
            self._reloaded_at = asyncio.get_running_loop().time()
        self.decisions.sum_up()  # what came last of a flood that is over

    async def _reload_policy(self) -> None:
        """One that is not valid is logged, once."""
        newest = self.newest
        async for document in self._policies.find({"_id": {"$gt": self.newest}}, sort=[("_id", -1)]):
            newest = max(newest, document["_id"])
            try:
                roles = _StoredPolicy.model_validate(document).compile().roles
            except ValueError as error:
                log.error("policy refused", version=document["_id"], in_force=self.version, error=str(error))
            else:
                self._policy = Policy(roles.values(), self._policy.grants)
                self.version = document["_id"]
                break
        self.newest = newest

    async def _reload_grants(self) -> None:
        if self._revision < 0 or self._clock.now() > self._read_again_at:
            # The revision first: what is written meanwhile is read once more, and not missed.
            revision = await self._grants.newest_revision()
            everything = [grant.engine() for grant in await self._grants.all_in_force()]
            self._policy = Policy(self._policy.roles.values(), everything)
            self._revision, self._read_again_at = revision, self._clock.now() + _READ_AGAIN_EVERY
        revision, holders = await self._grants.changed_holders(self._revision)
        if holders:
            changed = {holder: [grant.engine() for grant in await self._grants.of(*holder)] for holder in holders}
            self._policy, self._revision = self._policy.granting(changed), revision


class Requires(FieldExtension):
    """Lets a field be resolved only for a caller who may do `action` ("wallet:read").

    At a root, or without `of`: with anything at all; with which objects is decided by the store and the commands,
    through `Access.scope`. On a type's field, `of` makes of the parent the object that decides, and who may not see
    the field of this one finds null there, if the field can be null: a list of a hundred is no hundred errors, and
    null does not tell whether there is something to hide. If it cannot be null, it is an error: `Forbidden`.

    `level` is how many factors the caller must have proven, whatever the policy says.
    """

    def __init__(self, action: str, *, level: int = 0, of: Callable[[Any], Object] | None = None) -> None:
        """`ValueError` unless it reads `resource:action`."""
        _parse_action(action)
        self.action = action
        self.level = level
        self._of = of
        self._nullable = False

    def apply(self, field: StrawberryField) -> None:
        self._nullable = isinstance(field.type, StrawberryOptional)

    def resolve(self, next_: Callable[..., Any], source: Any, info: Info[Context], **arguments: Any) -> Any:
        context = info.context
        if self._of is None:
            context.platform.access.demand(context.caller, self.action, level=self.level)
        elif not self._sees(context, self._of(source)):
            if self._nullable:
                return None
            raise Forbidden(f"this needs the permission {self.action}", permission=self.action)
        return next_(source, info, **arguments)

    # Hands on what `next_` answers, be it plain, awaitable or an asynchronous generator, and costs no coroutine.
    resolve_async = resolve

    def _sees(self, context: Context, obj: Object) -> bool:
        return context.caller.level >= self.level and context.platform.access.permits(context.caller, self.action, obj)


class Public(FieldExtension):
    """Says of a root field or entity that it is for everyone, with a token or without."""

    action = "public"


def references(policy: Requires | Public) -> Callable[[Resolve], Resolve]:
    """The policy of an entity, on its `resolve_references` under the `@classmethod`: all null for whom it excludes."""

    def decorate(resolve: Resolve) -> Resolve:
        @wraps(resolve)
        async def guarded(cls: type, info: Info[Context], representations: Sequence[Any]) -> Any:
            context = info.context
            access = context.platform.access
            if isinstance(policy, Requires) and not access.allows(context.caller, policy.action, level=policy.level):
                access.decisions.denied(context.caller, policy.action)
                return [None] * len(representations)
            return await resolve(cls, info, representations)

        cast("Any", guarded).policy = policy
        return cast("Resolve", guarded)

    return decorate


def policy_of_root_fields(schema: Schema) -> dict[str, tuple[str, ...]]:
    """What each root field that `schema` serves requires: {"Query.wallet": ("wallet:read",)}. Empty: not declared.

    Federation's `_service` is public; its `_entities` is listed by the types it resolves ("_entities.Wallet").
    """
    served = schema._schema  # noqa: SLF001  (Strawberry has no public way to what is served)
    roots = [root for root in (served.query_type, served.mutation_type, served.subscription_type) if root]
    policies = {
        f"{root.name}.{name}": _declared(getattr(field.extensions.get("strawberry-definition"), "extensions", ()))
        for root in roots
        for name, field in root.fields.items()
    }
    if policies.pop("Query._service", None) is not None:
        policies["Query._service"] = (Public.action,)
    if policies.pop("Query._entities", None) is not None:
        for entity in cast("GraphQLUnionType", served.type_map["_Entity"]).types:
            resolve = getattr(entity.extensions["strawberry-definition"].origin, "resolve_references", None)
            policies[f"_entities.{entity.name}"] = _declared([getattr(resolve, "policy", None)])
    return policies


def _declared(extensions: Iterable[object]) -> tuple[str, ...]:
    return tuple(extension.action for extension in extensions if isinstance(extension, Requires | Public))


class _StoredRole(BaseModel):
    # A field that this release does not know, a condition say, cannot be ignored: the grant would be too wide.
    model_config = ConfigDict(strict=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    allow: list[str] = []
    deny: list[str] = []
    inherits: list[str] = []

    @classmethod
    def of(cls, role: Role) -> Self:
        allow, deny = [rule_text(rule) for rule in role.allow], [rule_text(rule) for rule in role.deny]
        return cls(name=role.name, allow=allow, deny=deny, inherits=list(role.inherits))

    def role(self) -> Role:
        allow = [rule_of(text, Effect.ALLOW) for text in self.allow]
        deny = [rule_of(text, Effect.DENY) for text in self.deny]
        return Role(self.name, (*allow, *deny), tuple(self.inherits))


class _StoredPolicy(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", populate_by_name=True)

    version: Annotated[int, Field(alias="_id", ge=1)]
    roles: list[_StoredRole]
    at: datetime
    actor: Annotated[str, Field(min_length=1)]
    reason: Annotated[str, Field(min_length=1)]

    def compile(self) -> Policy:
        """`ValueError`, of which the engine's errors are kinds, if it is none."""
        return _compiled(self.roles)


def _compiled(stored: Sequence[_StoredRole]) -> Policy:
    names = {role.name for role in stored}
    return Policy([*(role for role in BUILT_IN if role.name not in names), *(role.role() for role in stored)])


def _version_of(document: Document) -> PolicyVersion:
    try:
        roles: tuple[Role, ...] | None = tuple(role.role() for role in _StoredPolicy.model_validate(document).roles)
    except ValueError:
        roles = None
    told = {name: str(document.get(name, "")) for name in ("actor", "reason")}
    return PolicyVersion(document["_id"], roles, document.get("at", _UNKNOWN), told["actor"], told["reason"])


def _rules_of(policy: Policy, role: str) -> set[Rule]:
    return {rule for name in policy.lineage([role]) for rule in policy.roles[name].rules}


def _rule(data: str | Mapping[str, Any], effect: Effect) -> Rule:
    try:
        return Rule.of(data, effect)
    except PermissionSyntaxError as error:
        raise InvalidInput(str(error), field="permission", position=error.position) from error
    except ConditionError as error:
        raise InvalidInput(str(error), field="condition", path=error.path) from error
    except ValueError as error:
        raise InvalidInput(str(error), field="permission") from error


def _reason(text: str) -> str:
    if not text.strip() or len(text) > _MAX_REASON:
        raise InvalidInput(f"say why, in 1 to {_MAX_REASON} characters", field="reason")
    return text


@lru_cache(maxsize=1_024)
def _parse_action(action: str) -> tuple[str, str]:
    permission = Permission.parse(f"{action}:all")
    if "*" in (permission.resource, permission.action):
        raise ValueError(f"{action!r} must name one resource and one action")
    return permission.resource, permission.action
