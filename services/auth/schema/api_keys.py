"""Service accounts and their API keys."""

from datetime import datetime
from typing import Annotated, Self

import strawberry
from strawberry import ID, Info

from libs.core.access import Public, Requires
from libs.core.context import Context
from libs.core.errors import InvalidInput
from libs.core.graphql import Problem
from libs.core.ids import parse_id
from libs.core.pagination import Connection, PageArgs
from services.auth.commands import api_keys
from services.auth.commands.administration import demand_tenant
from services.auth.commands.api_keys import NewKey
from services.auth.domain import api_keys as domain
from services.auth.domain.api_keys import MAX_NETWORKS, parse_networks
from services.auth.domain.user_lists import UserFilter, UserKind
from services.auth.schema.common import auth_of, or_problem, text_of
from services.auth.schema.users import User, UserResult
from services.auth.store import api_keys as stored, users

_KEY_CHARS = 200


@strawberry.type(description="What a program shows who it is with. The key itself is shown once, when it is made.")
class ApiKey:
    id: ID
    account_id: ID
    name: str
    scopes: list[str] = strawberry.field(description="What it may do, of what its account may.")
    networks: list[str] = strawberry.field(description="From where alone it is accepted; empty: from anywhere.")
    created_at: datetime
    created_by: str
    expires_at: datetime
    last_used_at: datetime | None = strawberry.field(description="To the hour.")
    last_address: str | None
    revoked_at: datetime | None
    revoked_by: str | None

    @classmethod
    def of(cls, key: domain.ApiKey) -> Self:
        return cls(
            id=ID(key.id),
            account_id=ID(key.account_id),
            name=key.name,
            scopes=list(key.scopes),
            networks=list(key.networks),
            created_at=key.created_at,
            created_by=key.created_by,
            expires_at=key.expires_at,
            last_used_at=key.last_used_at,
            last_address=key.last_address or None,
            revoked_at=key.revoked_at,
            revoked_by=key.revoked_by or None,
        )


@strawberry.type
class ApiKeyMade:
    api_key: ApiKey
    key: str = strawberry.field(description="Keep it: nobody can show it again.")


@strawberry.type(description="Good for some minutes; then exchange the key again.")
class AccessToken:
    access_token: str
    expires_in_s: int


@strawberry.input
class ServiceAccountInput:
    name: str
    roles: list[str]
    reason: str


@strawberry.input
class ApiKeyInput:
    account_id: ID
    name: str
    scopes: list[str] = strawberry.field(description="Permissions `resource:action:target`; neither you nor the "
                                         "account may hold less.")  # fmt: skip
    networks: list[str] = strawberry.field(default_factory=list, description="Such as 192.0.2.0/24.")
    expires_at: datetime | None = None

    def new_key(self) -> NewKey:
        if len(self.networks) > MAX_NETWORKS:
            raise InvalidInput(f"a key has at most {MAX_NETWORKS} networks", field="input.networks")
        return NewKey(
            account_id=parse_id(self.account_id, "input.accountId"),
            name=text_of(self.name, "input.name"),
            scopes=self.scopes,
            networks=parse_networks(self.networks, "input.networks"),
            expires_at=self.expires_at,
        )


@strawberry.input
class RevokeApiKeyInput:
    key_id: ID
    reason: str


ApiKeyMadeResult = Annotated[ApiKeyMade | Problem, strawberry.union("ApiKeyMadeResult")]
ApiKeyResult = Annotated[ApiKey | Problem, strawberry.union("ApiKeyResult")]
AccessTokenResult = Annotated[AccessToken | Problem, strawberry.union("AccessTokenResult")]


@strawberry.type
class ApiKeyQueries:
    @strawberry.field(
        description="Users that are programs, the newest first.", extensions=[Requires("serviceaccount:manage")]
    )
    async def service_accounts(
        self,
        info: Info[Context],
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[User]:
        demand_tenant(info.context, "serviceaccount:manage")
        auth, args = auth_of(info), PageArgs(first, after, last, before)
        wanted = UserFilter(kind=UserKind.SERVICE)
        page = await users.page_of(auth.database, auth.paginator, info.context.tenant_id, wanted, args)
        return Connection.of(page, User.of)

    @strawberry.field(
        description="Of one account, or of all; the newest first, those that are over, too.",
        extensions=[Requires("apikey:read")],
    )
    async def api_keys(
        self,
        info: Info[Context],
        account_id: ID | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[ApiKey]:
        demand_tenant(info.context, "apikey:read")
        auth, args = auth_of(info), PageArgs(first, after, last, before)
        account = parse_id(account_id, "accountId") if account_id is not None else ""
        page = await stored.page_of(auth.database, auth.paginator, info.context.tenant_id, args, account_id=account)
        return Connection.of(page, ApiKey.of)


@strawberry.type
class ApiKeyMutations:
    @strawberry.mutation(
        description="A user that is a program, with roles that you hold. Needs that you signed in lately.",
        extensions=[Requires("serviceaccount:manage")],
    )
    async def create_service_account(self, info: Info[Context], input: ServiceAccountInput) -> UserResult:  # noqa: A002
        demand_tenant(info.context, "serviceaccount:manage")
        name = text_of(input.name, "input.name")
        made = await or_problem(api_keys.create_account(auth_of(info), info.context, name, input.roles, input.reason))
        return made if isinstance(made, Problem) else User.of(made)

    @strawberry.mutation(
        description="The answer holds the key, this once. Needs that you signed in lately.",
        extensions=[Requires("apikey:manage")],
    )
    async def create_api_key(self, info: Info[Context], input: ApiKeyInput) -> ApiKeyMadeResult:  # noqa: A002
        made = await or_problem(api_keys.create(auth_of(info), info.context, input.new_key()))
        return made if isinstance(made, Problem) else ApiKeyMade(api_key=ApiKey.of(made.key), key=made.text)

    @strawberry.mutation(
        description="Its tokens are refused within a second or two.", extensions=[Requires("apikey:manage")]
    )
    async def revoke_api_key(self, info: Info[Context], input: RevokeApiKeyInput) -> ApiKeyResult:  # noqa: A002
        key_id = parse_id(input.key_id, "input.keyId")
        revoked = await or_problem(api_keys.revoke(auth_of(info), info.context, key_id, input.reason))
        return revoked if isinstance(revoked, Problem) else ApiKey.of(revoked)

    @strawberry.mutation(
        description="An access token for a key. Any that is not accepted gets the same answer.", extensions=[Public()]
    )
    async def exchange_api_key(self, info: Info[Context], key: str) -> AccessTokenResult:
        made = await or_problem(api_keys.exchange(auth_of(info), info.context, key[:_KEY_CHARS]))
        if isinstance(made, Problem):
            return made
        return AccessToken(access_token=made.access_token, expires_in_s=made.expires_in_s)
