"""Signing keys, for the platform's own administrators."""

from datetime import datetime
from typing import Annotated, Self

import strawberry
from strawberry import ID, Info

from libs.core.access import Requires
from libs.core.context import Context
from libs.core.errors import InvalidInput
from libs.core.graphql import Problem
from services.auth import keys
from services.auth.commands import signing_keys
from services.auth.schema.common import auth_of, or_problem

_KID_CHARS = 128


@strawberry.type(description="What access tokens are signed with. It signs from `signsFrom` until the next one does.")
class SigningKey:
    id: ID
    number: int
    created_at: datetime
    signs_from: datetime
    withdrawn_at: datetime | None

    @classmethod
    def of(cls, key: keys.SigningKey) -> Self:
        return cls(
            id=ID(key.kid),
            number=key.number,
            created_at=key.created_at,
            signs_from=key.signs_from,
            withdrawn_at=key.withdrawn_at,
        )


@strawberry.input
class WithdrawSigningKeyInput:
    key_id: ID
    reason: str


SigningKeyResult = Annotated[SigningKey | Problem, strawberry.union("SigningKeyResult")]


@strawberry.type
class SigningKeyQueries:
    @strawberry.field(
        description="Those that any token may be signed with, by number.", extensions=[Requires("signingkey:read")]
    )
    async def signing_keys(self, info: Info[Context]) -> list[SigningKey]:
        return [SigningKey.of(key) for key in signing_keys.known(auth_of(info), info.context)]


@strawberry.type
class SigningKeyMutations:
    @strawberry.mutation(
        description="For a key that somebody else may have. All tokens that it signed are refused within a second or "
        "two, of all tenants, and everybody refreshes. Needs that you signed in lately.",
        extensions=[Requires("signingkey:manage")],
    )
    async def withdraw_signing_key(self, info: Info[Context], input: WithdrawSigningKeyInput) -> SigningKeyResult:  # noqa: A002
        if not 0 < len(input.key_id) <= _KID_CHARS:
            raise InvalidInput("this is no key's id", field="input.keyId")
        done = await or_problem(signing_keys.withdraw(auth_of(info), info.context, str(input.key_id), input.reason))
        return done if isinstance(done, Problem) else SigningKey.of(done)
