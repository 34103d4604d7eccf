"""Users: oneself, and what others may see of one."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Self

import strawberry
from strawberry import ID, Info

from libs.core.access import Requires, references
from libs.core.context import Context
from libs.core.graphql import Problem
from services.auth.commands import identifiers, profile
from services.auth.commands.flows import Started
from services.auth.domain import users as domain
from services.auth.domain.identifiers import parse_username
from services.auth.domain.users import UserStatus
from services.auth.schema.common import auth_of, ids_of, or_problem, recipient_of, scope_of, text_of
from services.auth.store import users as stored


@strawberry.federation.type(keys=["id"], description="Somebody, or some program, that a tenant knows.")
class User:
    id: ID
    kind: str = strawberry.field(description="user or service.")
    status: UserStatus
    roles: list[str]
    email: str | None
    phone: str | None
    username: str | None
    name: str
    locale: str
    second_factors: list[str] = strawberry.field(description="The kinds that are enabled: totp, passkey.")
    has_password: bool
    password_changed_at: datetime | None
    must_reset: bool = strawberry.field(description="The password is not accepted until it is reset.")
    created_at: datetime

    @classmethod
    def of(cls, user: domain.User) -> Self:
        return cls(
            id=ID(user.id),
            kind=user.kind,
            status=user.status,
            roles=list(user.roles),
            email=user.email or None,
            phone=user.phone or None,
            username=user.username or None,
            name=user.name,
            locale=user.locale,
            second_factors=list(user.second_factors),
            has_password=bool(user.password),
            password_changed_at=user.password_changed_at,
            must_reset=user.must_reset,
            created_at=user.created_at,
        )

    @classmethod
    @references(Requires("user:read"))
    async def resolve_references(
        cls, info: Info[Context], representations: Sequence[Mapping[str, Any]]
    ) -> list[Self | None]:
        ids, scope = ids_of(representations), scope_of(info, "user:read")
        found = await stored.by_ids(auth_of(info).database, info.context.tenant_id, ids)
        seen = {u.id: u for u in found if scope.permits(owner_id=u.id, tenant_id=u.tenant_id, id=u.id)}
        return [cls.of(seen[i]) if i in seen else None for i in ids]


@strawberry.type(description="Something was begun. `flowId` is yours alone: it is needed for the next step.")
class FlowStarted:
    flow_id: str
    expires_at: datetime
    resend_at: datetime | None = strawberry.field(description="From when on another code can be sent.")

    @classmethod
    def of(cls, started: Started) -> Self:
        return cls(flow_id=started.token, expires_at=started.expires_at, resend_at=started.resend_at)


FlowResult = Annotated[FlowStarted | Problem, strawberry.union("FlowResult")]
UserResult = Annotated[User | Problem, strawberry.union("UserResult")]


@strawberry.input(description="One of them.")
class IdentifierInput:
    email: str | None = None
    phone: str | None = None


@strawberry.input
class VerifyIdentifierInput:
    flow_id: str
    code: str


@strawberry.input(description="What is left out stays as it is.")
class ProfileInput:
    username: str | None = None
    name: str | None = None


@strawberry.type
class UserQueries:
    @strawberry.field(description="Who you are.", extensions=[Requires("user:read")])
    async def me(self, info: Info[Context]) -> User:
        return User.of(await profile.me(auth_of(info), info.context))


@strawberry.type
class UserMutations:
    @strawberry.mutation(
        description="An address or number that you are reached at from now on, in place of the one before. A code is "
        "sent there. Needs that you signed in lately.",
        extensions=[Requires("user:update")],
    )
    async def add_identifier(self, info: Info[Context], input: IdentifierInput) -> FlowResult:  # noqa: A002
        recipient = recipient_of(input.email, input.phone)
        started = await or_problem(identifiers.add(auth_of(info), info.context, recipient))
        return started if isinstance(started, Problem) else FlowStarted.of(started)

    @strawberry.mutation(extensions=[Requires("user:update")])
    async def verify_identifier(self, info: Info[Context], input: VerifyIdentifierInput) -> UserResult:  # noqa: A002
        return _user(await or_problem(identifiers.verify(auth_of(info), info.context, input.flow_id, input.code)))

    @strawberry.mutation(extensions=[Requires("user:update")])
    async def update_profile(self, info: Info[Context], input: ProfileInput) -> UserResult:  # noqa: A002
        username = parse_username(input.username, "input.username") if input.username is not None else None
        name = text_of(input.name, "input.name") if input.name is not None else None
        return _user(await or_problem(identifiers.rename(auth_of(info), info.context, username, name)))


def _user(changed: domain.User | Problem) -> User | Problem:
    return changed if isinstance(changed, Problem) else User.of(changed)
