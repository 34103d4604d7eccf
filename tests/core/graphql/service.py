"""A subgraph that has one of everything, for the endpoint's tests. Its token is `Bearer <user>[:<seconds to live>]`."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import strawberry
from pymongo.errors import AutoReconnect, ServerSelectionTimeoutError
from starlette.datastructures import Headers
from starlette.types import Scope
from strawberry.scalars import JSON

from libs.core.context import Caller, Context, Deadline
from libs.core.errors import Forbidden, InvalidInput, Refusal, Unauthenticated
from libs.core.graphql import BigInt, GraphQLEndpoint, Limits, Problem, build_schema
from libs.core.ids import new_id

Info = strawberry.Info[Context, None]


@strawberry.federation.type(keys=["id"])
class Wallet:
    id: str
    balance: BigInt
    owner_id: str | None = None
    opened_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    @strawberry.field
    async def transactions(self, first: int = 20, before: int | None = None) -> list["Transaction"]:
        return [Transaction(id=f"t{n}", amount=BigInt(n)) for n in range(first)]

    @strawberry.field
    def again(self) -> "Wallet":
        return self

    @classmethod
    async def resolve_references(cls, info: Info, representations: list[dict[str, Any]]) -> list["Wallet | None"]:
        return [None if r["id"] == "hidden" else cls(id=r["id"], balance=BigInt(5)) for r in representations]


@strawberry.type
class Transaction:
    id: str
    amount: BigInt
    wallet_id: str = "w1"
    direction: str = "credit"
    currency: str = "EUR"
    bucket: str = "real"
    sequence: int = 1
    balance_after: BigInt = BigInt(100)


class Broken:
    """Looks like a wallet from afar."""

    id = None
    balance = "not an integer"


@strawberry.type
class Query:
    @strawberry.field
    def hello(self) -> str:
        return "world"

    @strawberry.field
    async def wallet(self, called: str = "w1") -> Wallet:
        return Wallet(id=called, balance=BigInt(2**53 + 1))

    @strawberry.field
    async def maybe_wallet(self) -> Wallet | None:
        return cast("Wallet", Broken())

    @strawberry.field
    async def wallets(self, ids: list[int] | None = None) -> list[Wallet]:
        return [Wallet(id="w1", balance=BigInt(1))]

    @strawberry.field
    async def fails(self, how: str) -> str | None:
        match how:
            case "input":
                raise InvalidInput("that is wrong", field="how", amount=10**30)
            case "forbidden":
                raise Forbidden("not yours")
            case "away":
                raise ServerSelectionTimeoutError("mongo-7.internal:27017: timed out")
            case "unknown":
                raise AutoReconnect("mongo-7.internal:27017", {"errorLabels": ["UnknownTransactionCommitResult"]})
            case _:
                raise RuntimeError("password=hunter2")

    @strawberry.field
    async def slow(self) -> str:
        await asyncio.sleep(60)
        return "too late"

    @strawberry.field
    def whoami(self, info: Info) -> str:
        return info.context.caller.subject

    @strawberry.field
    def unspeakable(self) -> JSON:
        return cast("JSON", {1})

    @strawberry.field
    async def neither(self) -> Wallet | Problem | None:
        return cast("Wallet", {"password": "hunter2"})


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def pay(self, amount: BigInt) -> Wallet | Problem:
        if amount > 100:
            return Problem.of(Refusal("INSUFFICIENT_FUNDS", "not enough", rule="balance", available=2**60))
        return Wallet(id="w1", balance=amount)

    @strawberry.mutation
    async def pay_slowly(self) -> str:
        await asyncio.sleep(60)
        return "too late"


# The `ticks` that are running now, by the name that the subscriber gave them.
running: set[str] = set()


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int = 3) -> AsyncIterator[int]:
        for number in range(1, to + 1):
            yield number

    @strawberry.subscription
    async def ticks(self, name: str) -> AsyncIterator[Wallet]:
        running.add(name)
        try:
            while True:
                yield Wallet(id=name, balance=BigInt(1))
                await asyncio.sleep(0.01)
        finally:
            running.discard(name)

    @strawberry.subscription
    async def breaks(self) -> AsyncIterator[int]:
        yield 1
        raise RuntimeError("password=hunter2")


async def context(scope: Scope, headers: Headers, params: Mapping[str, Any] | None) -> Context:
    token = (params or {}).get("authorization") or headers.get("authorization") or ""
    if token == "Bearer bad":
        raise Unauthenticated("this token is not accepted")
    user, _, ttl = token.removeprefix("Bearer ").partition(":")
    caller = Caller(
        tenant_id="acme",
        subject=user,
        session_id=f"session-{user}" if user else "",
        kind="user" if user else "anonymous",
        expires_at=datetime.now(UTC) + timedelta(seconds=float(ttl)) if ttl else None,
    )
    correlation = headers.get("x-correlation-id") or new_id()
    return Context(caller, correlation, Deadline.after(float(headers.get("x-timeout-s", 5))), cast(Any, None))


schema = build_schema(Query, Mutation, Subscription)


def endpoint(*, development: bool = True, **limits: Any) -> GraphQLEndpoint:
    return GraphQLEndpoint(schema, context, limits=Limits(**limits), development=development)


app = endpoint()
