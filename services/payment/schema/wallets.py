"""Wallets and balances."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Self

import strawberry
from strawberry import ID, Info

from libs.core.access import Public, Requires, references
from libs.core.context import Context
from libs.core.errors import InvalidInput, NotFound, Refusal
from libs.core.graphql import BigInt, Problem
from libs.core.ids import parse_id
from libs.core.pagination import Connection, PageArgs
from services.payment import commands, domain, store
from services.payment.commands import NewWallet
from services.payment.domain import Bucket, WalletKind, WalletStatus
from services.payment.schema.common import ids_of, payment_of, scope_of, visible_wallets
from services.payment.schema.transfers import Transaction, transactions_of

WATCH_LIMIT = 100


@strawberry.type(description="What a wallet holds, in minor units.")
class WalletBalance:
    real: BigInt
    bonus: BigInt
    locked: BigInt = strawberry.field(description="Held for something that is under way.")
    available: BigInt = strawberry.field(description="Real and bonus; what is held never counts.")

    @classmethod
    def of(cls, buckets: Mapping[str, int]) -> Self:
        real, bonus = buckets[Bucket.REAL], buckets[Bucket.BONUS]
        return cls(
            real=BigInt(real),
            bonus=BigInt(bonus),
            locked=BigInt(buckets[Bucket.LOCKED]),
            available=BigInt(real + bonus),
        )


@strawberry.type(description="Bonus money of one grant.")
class WalletLot:
    lot: ID
    amount: BigInt


@strawberry.federation.type(keys=["id"])
class Wallet:
    id: ID
    owner_id: ID
    kind: WalletKind
    category: str
    currency: str
    status: WalletStatus
    balance: WalletBalance
    lots: list[WalletLot] = strawberry.field(description="What the bonus bucket is made of.")
    credit_limit: BigInt = strawberry.field(description="How far below zero the real bucket may go.")
    created_at: datetime

    @strawberry.field(description="Null for the system's own.")
    def owner(self) -> "User | None":
        return User(id=self.owner_id) if self.kind is WalletKind.USER else None

    @strawberry.field(description="Newest first.", extensions=[Requires("transaction:read")])
    async def transactions(
        self,
        info: Info[Context],
        bucket: Bucket | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[Transaction]:
        return await transactions_of(info, self.id, bucket, PageArgs(first, after, last, before))

    @classmethod
    def of(cls, wallet: domain.Wallet) -> Self:
        return cls(
            id=ID(wallet.id),
            owner_id=ID(wallet.owner_id),
            kind=WalletKind(wallet.kind),
            category=wallet.category,
            currency=wallet.currency,
            status=WalletStatus(wallet.status),
            balance=WalletBalance.of(wallet.buckets),
            lots=[WalletLot(lot=ID(lot), amount=BigInt(amount)) for lot, amount in sorted(wallet.lots.items())],
            credit_limit=BigInt(wallet.credit_limit),
            created_at=wallet.created_at,
        )

    @classmethod
    @references(Requires("wallet:read"))
    async def resolve_references(
        cls, info: Info[Context], representations: Sequence[Mapping[str, Any]]
    ) -> list[Self | None]:
        ids = ids_of(representations)
        found = await visible_wallets(info, ids)
        return [cls.of(found[i]) if i in found else None for i in ids]


@strawberry.type(description="All that an owner has in one currency.")
class UserBalance:
    currency: str
    balance: WalletBalance
    wallets: list[Wallet]


@strawberry.federation.type(keys=["id"], description="A user, as far as payment knows one: by wallets.")
class User:
    id: ID

    # Null if it cannot be said: what others know of the user is answered all the same.
    @strawberry.field(extensions=[Requires("wallet:read")])
    async def balances(self, info: Info[Context]) -> list[UserBalance] | None:
        return await _balances(info, self.id)

    @classmethod
    @references(Public())
    async def resolve_references(
        cls, info: Info[Context], representations: Sequence[Mapping[str, Any]]
    ) -> list[Self | None]:
        """Whether there is such a user is auth's to say; what they own is shown or hidden by the fields."""
        return [cls(id=ID(i)) for i in ids_of(representations)]


@strawberry.input(description="What is left out does not narrow.")
class WalletFilter:
    owner_id: ID | None = None
    kind: WalletKind | None = None
    category: str | None = None
    currency: str | None = None
    status: WalletStatus | None = None


@strawberry.input
class CreateWalletInput:
    currency: str
    category: str = "main"
    owner_id: ID | None = strawberry.field(default=None, description="You, if left out.")


@strawberry.input
class WalletStandingInput:
    wallet_id: ID
    reason: str


@strawberry.input
class CreditLimitInput(WalletStandingInput):
    amount: BigInt


WalletResult = Annotated[Wallet | Problem, strawberry.union("WalletResult")]


@strawberry.type
class WalletQueries:
    @strawberry.field(
        description="Null if there is none, or none that you may see.", extensions=[Requires("wallet:read")]
    )
    async def wallet(self, info: Info[Context], id: ID) -> Wallet | None:  # noqa: A002
        found = await visible_wallets(info, [parse_id(id, "id")])
        return Wallet.of(found[id]) if id in found else None

    @strawberry.field(description="Newest first.", extensions=[Requires("wallet:read")])
    async def wallets(
        self,
        info: Info[Context],
        filter: WalletFilter | None = None,  # noqa: A002
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[Wallet]:
        payment, wanted = payment_of(info), filter or WalletFilter()
        page = await store.wallets(
            payment.platform.mongo.db,
            payment.paginator,
            scope_of(info, "wallet:read"),
            {
                "owner_id": wanted.owner_id,
                "kind": wanted.kind,
                "category": wanted.category,
                "currency": wanted.currency,
                "status": wanted.status,
            },
            PageArgs(first, after, last, before),
        )
        return Connection.of(page, Wallet.of)

    @strawberry.field(
        description="By currency, over all of an owner's wallets: yours, if left out.",
        extensions=[Requires("wallet:read")],
    )
    async def user_balances(self, info: Info[Context], owner_id: ID | None = None) -> list[UserBalance]:
        return await _balances(info, parse_id(owner_id or info.context.caller.user_id, "ownerId"))


@strawberry.type
class WalletMutations:
    @strawberry.mutation(
        description="Yours, or another's if you may. One per owner, category and currency: asked twice, the same one.",
        extensions=[Requires("wallet:create")],
    )
    async def create_wallet(self, info: Info[Context], input: CreateWalletInput) -> WalletResult:  # noqa: A002
        owner_id = parse_id(input.owner_id or info.context.caller.user_id, "input.ownerId")
        new = NewWallet(owner_id, input.category, input.currency)
        try:
            return Wallet.of(await commands.create_wallet(payment_of(info), info.context, new))
        except Refusal as refusal:
            return Problem.of(refusal)

    @strawberry.mutation(
        description="Nothing leaves it and nothing comes in but corrections, until it is unfrozen.",
        extensions=[Requires("wallet:freeze")],
    )
    async def freeze_wallet(self, info: Info[Context], input: WalletStandingInput) -> WalletResult:  # noqa: A002
        return _wallet_result(await commands.freeze(payment_of(info), info.context, *_standing(input)))

    @strawberry.mutation(extensions=[Requires("wallet:freeze")])
    async def unfreeze_wallet(self, info: Info[Context], input: WalletStandingInput) -> WalletResult:  # noqa: A002
        return _wallet_result(await commands.unfreeze(payment_of(info), info.context, *_standing(input)))

    @strawberry.mutation(description="For good, and only once nothing is in it.", extensions=[Requires("wallet:close")])
    async def close_wallet(self, info: Info[Context], input: WalletStandingInput) -> WalletResult:  # noqa: A002
        return _wallet_result(await commands.close(payment_of(info), info.context, *_standing(input)))

    @strawberry.mutation(
        description="How far below zero the real bucket may go.", extensions=[Requires("wallet:credit")]
    )
    async def set_credit_limit(self, info: Info[Context], input: CreditLimitInput) -> WalletResult:  # noqa: A002
        wallet_id, reason = _standing(input)
        changed = await commands.set_credit_limit(payment_of(info), info.context, wallet_id, input.amount, reason)
        return _wallet_result(changed)


@strawberry.type
class WalletSubscriptions:
    @strawberry.subscription(
        description="A wallet, each time that money came or went: yours, or those that you name. What happened while "
        "the connection was away is made up for by one message a wallet.",
        extensions=[Requires("wallet:read")],
    )
    async def balance_changed(self, info: Info[Context], wallet_ids: list[ID] | None = None) -> AsyncIterator[Wallet]:
        named = await _watched(info, wallet_ids)
        owner_id = info.context.caller.user_id
        async with payment_of(info).balances.watch(info.context.tenant_id, owner_id, named) as changes:
            async for change in changes:
                scope = scope_of(info, "wallet:read")
                for wallet in [change] if change else await _all_watched(info, named):
                    if scope.permits(owner_id=wallet.owner_id, tenant_id=wallet.tenant_id, id=wallet.id):
                        yield Wallet.of(wallet)


async def _watched(info: Info[Context], wallet_ids: Sequence[str] | None) -> frozenset[str]:
    """The wallets that a subscription names; none means the caller's own, also those that are yet to come."""
    if wallet_ids is not None and not 0 < len(wallet_ids) <= WATCH_LIMIT:
        raise InvalidInput(f"name 1 to {WATCH_LIMIT} wallets, or none for your own", field="walletIds")
    named = frozenset(parse_id(i, "walletIds") for i in wallet_ids or ())
    if len(await visible_wallets(info, list(named))) < len(named):
        raise NotFound("one of these wallets does not exist, or is not yours to see", field="walletIds")
    return named


async def _all_watched(info: Info[Context], named: frozenset[str]) -> list[domain.Wallet]:
    database = payment_of(info).platform.mongo.db
    if named:
        return await store.wallets_by_id(database, info.context.tenant_id, named)
    return await store.wallets_of(database, scope_of(info, "wallet:read"), info.context.caller.user_id)


async def _balances(info: Info[Context], owner_id: str) -> list[UserBalance]:
    """Empty for an owner that the caller may not see, as for one who has nothing."""
    payment, scope = payment_of(info), scope_of(info, "wallet:read")
    by_currency: dict[str, list[domain.Wallet]] = {}
    for wallet in await store.wallets_of(payment.platform.mongo.db, scope, owner_id):
        by_currency.setdefault(wallet.currency, []).append(wallet)
    return [
        UserBalance(
            currency=currency,
            balance=WalletBalance.of({b: sum(w.buckets[b] for w in wallets) for b in Bucket}),
            wallets=[Wallet.of(w) for w in wallets],
        )
        for currency, wallets in sorted(by_currency.items())
    ]


def _standing(given: WalletStandingInput) -> tuple[str, str]:
    return parse_id(given.wallet_id, "input.walletId"), given.reason


def _wallet_result(changed: domain.Wallet | Refusal) -> WalletResult:
    return Problem.of(changed) if isinstance(changed, Refusal) else Wallet.of(changed)
