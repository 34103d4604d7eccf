"""Payment's GraphQL: types, queries, mutations, subscriptions."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Self, cast

import strawberry
from strawberry import ID, Info
from strawberry.scalars import JSON

from libs.core.access import Public, Requires, Scope, references
from libs.core.context import Context
from libs.core.errors import InvalidInput, NotFound, Refusal
from libs.core.graphql import BigInt, Problem, build_schema
from libs.core.ids import parse_id
from libs.core.money import Money
from libs.core.pagination import Connection, Page, PageArgs
from services.payment import commands, domain, store
from services.payment.commands import NewDeposit, NewTransfer, NewWallet, Payment
from services.payment.domain import Bucket, Direction, TransferKind, WalletKind, WalletStatus, check_storable

WATCH_LIMIT = 100

strawberry.enum(Bucket, description="A wallet's money is kept in three buckets: free, bonus and held.")
strawberry.enum(WalletKind, description="A player's wallet, or one of the tenant's own.")
strawberry.enum(WalletStatus)
strawberry.enum(TransferKind)
strawberry.enum(Direction, name="TransactionDirection")


@strawberry.enum(description="Whether transfers that are sent together stand or fall together.")
class TransfersMode(Enum):
    INDEPENDENT = "independent"
    ATOMIC = "atomic"


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


@strawberry.type(description="One line of the ledger: what a transfer did to one bucket of a wallet.")
class Transaction:
    id: ID
    wallet_id: ID
    transfer_id: ID
    kind: TransferKind
    bucket: Bucket
    direction: Direction
    amount: BigInt
    currency: str
    balance_after: BigInt
    sequence: BigInt = strawberry.field(description="Counts the bucket's transactions, without gaps.")
    reference: str
    created_at: datetime

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        return cls(
            id=ID(row["_id"].partition(":")[2]),
            wallet_id=ID(row["wallet_id"]),
            transfer_id=ID(row["transfer_id"]),
            kind=TransferKind(row["kind"]),
            bucket=Bucket(row["bucket"]),
            direction=Direction(row["direction"]),
            amount=BigInt(row["amount"]),
            currency=row["currency"],
            balance_after=BigInt(row["balance_after"]),
            sequence=BigInt(row["sequence"]),
            reference=row["reference"],
            created_at=row["at"],
        )


@strawberry.federation.type(keys=["id"])
class Wallet:
    id: ID
    owner_id: ID
    kind: WalletKind
    category: str
    currency: str
    status: WalletStatus
    balance: WalletBalance
    created_at: datetime

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
        return await _transactions(info, self.id, bucket, PageArgs(first, after, last, before))

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
            created_at=wallet.created_at,
        )

    @classmethod
    @references(Requires("wallet:read"))
    async def resolve_references(
        cls, info: Info[Context], representations: Sequence[Mapping[str, Any]]
    ) -> list[Self | None]:
        ids = _ids(representations)
        found = await _visible_wallets(info, ids)
        return [cls.of(found[i]) if i in found else None for i in ids]


@strawberry.federation.type(keys=["id"], description="An accepted movement of money between two buckets.")
class Transfer:
    id: ID
    kind: TransferKind
    amount: BigInt
    currency: str
    source_wallet_id: ID
    destination_wallet_id: ID
    reference: str
    metadata: JSON
    created_at: datetime
    transactions: list[Transaction] = strawberry.field(
        description="The debit and the credit, as far as they are on wallets that you may see."
    )

    @classmethod
    def of(cls, info: Info[Context], transfer: domain.Transfer) -> Self:
        sight = _payment(info).platform.access.scope(info.context.caller, "transaction:read")
        return cls(
            id=ID(transfer.id),
            kind=TransferKind(transfer.kind),
            amount=BigInt(transfer.money.amount_minor),
            currency=transfer.money.currency,
            source_wallet_id=ID(transfer.debit.wallet_id),
            destination_wallet_id=ID(transfer.credit.wallet_id),
            reference=transfer.reference,
            metadata=JSON(transfer.metadata),
            created_at=transfer.at,
            transactions=[
                Transaction.of(store.transaction_row(transfer, line))
                for line in (transfer.debit, transfer.credit)
                if sight.permits(owner_id=line.owner_id, tenant_id=transfer.tenant_id, id=line.wallet_id)
            ],
        )

    @classmethod
    @references(Requires("transfer:read"))
    async def resolve_references(
        cls, info: Info[Context], representations: Sequence[Mapping[str, Any]]
    ) -> list[Self | None]:
        scope, ids = _scope(info, "transfer:read"), _ids(representations)
        found = await store.transfers_by_id(_payment(info).platform.mongo.db, info.context.tenant_id, ids)
        return [cls.of(info, found[i]) if i in found and found[i].visible_to(scope) else None for i in ids]


@strawberry.type(description="All that an owner has in one currency.")
class UserBalance:
    currency: str
    balance: WalletBalance
    wallets: list[Wallet]


@strawberry.federation.type(keys=["id"], description="A user, as far as payment knows one: by wallets.")
class User:
    id: ID

    @strawberry.field(extensions=[Requires("wallet:read")])
    async def balances(self, info: Info[Context]) -> list[UserBalance]:
        return await _balances(info, self.id)

    @classmethod
    @references(Public())
    async def resolve_references(
        cls, info: Info[Context], representations: Sequence[Mapping[str, Any]]
    ) -> list[Self | None]:
        """Whether there is such a user is auth's to say; what they own is shown or hidden by the fields."""
        return [cls(id=ID(i)) for i in _ids(representations)]


@strawberry.input(description="What is left out does not narrow.")
class WalletFilter:
    owner_id: ID | None = None
    kind: WalletKind | None = None
    category: str | None = None
    currency: str | None = None
    status: WalletStatus | None = None


@strawberry.input(description="`from` is included, `until` is not.")
class TransferFilter:
    owner_id: ID | None = None
    from_: datetime | None = strawberry.field(default=None, name="from")
    until: datetime | None = None


@strawberry.input
class CreateWalletInput:
    currency: str
    category: str = "main"
    owner_id: ID | None = strawberry.field(default=None, description="You, if left out.")


_ID = "Yours to choose and to keep until this is answered: sent again, it gives the same answer and moves nothing."


@strawberry.input
class DepositInput:
    id: ID = strawberry.field(description=_ID)
    wallet_id: ID
    amount: BigInt
    currency: str
    reference: str = ""
    metadata: JSON = strawberry.field(default_factory=dict)


@strawberry.input
class TransferInput:
    id: ID = strawberry.field(description=_ID)
    source_wallet_id: ID
    destination_wallet_id: ID
    amount: BigInt
    currency: str
    reference: str = ""
    metadata: JSON = strawberry.field(default_factory=dict)


WalletResult = Annotated[Wallet | Problem, strawberry.union("WalletResult")]
TransferResult = Annotated[Transfer | Problem, strawberry.union("TransferResult")]


@strawberry.type
class Query:
    @strawberry.field(
        description="Null if there is none, or none that you may see.", extensions=[Requires("wallet:read")]
    )
    async def wallet(self, info: Info[Context], id: ID) -> Wallet | None:  # noqa: A002
        found = await _visible_wallets(info, [parse_id(id, "id")])
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
        payment, wanted = _payment(info), filter or WalletFilter()
        page = await store.wallets(
            payment.platform.mongo.db,
            payment.paginator,
            _scope(info, "wallet:read"),
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

    @strawberry.field(description="A wallet's ledger, newest first.", extensions=[Requires("transaction:read")])
    async def transactions(
        self,
        info: Info[Context],
        wallet_id: ID,
        bucket: Bucket | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[Transaction]:
        wallet_id = ID(parse_id(wallet_id, "walletId"))
        return await _transactions(info, wallet_id, bucket, PageArgs(first, after, last, before))

    @strawberry.field(
        description="Over all of an owner's wallets, newest first.", extensions=[Requires("transfer:read")]
    )
    async def transfer_history(
        self,
        info: Info[Context],
        filter: TransferFilter | None = None,  # noqa: A002
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[Transfer]:
        payment, wanted = _payment(info), filter or TransferFilter()
        page = await store.transfer_history(
            payment.platform.mongo.db,
            payment.paginator,
            _scope(info, "transfer:read"),
            wanted.owner_id,
            (wanted.from_, wanted.until),
            PageArgs(first, after, last, before),
        )
        return Connection.of(page, lambda transfer: Transfer.of(info, transfer))


@strawberry.type
class Mutation:
    @strawberry.mutation(
        description="Yours, or another's if you may. One per owner, category and currency: asked twice, the same one.",
        extensions=[Requires("wallet:create")],
    )
    async def create_wallet(self, info: Info[Context], input: CreateWalletInput) -> WalletResult:  # noqa: A002
        owner_id = parse_id(input.owner_id or info.context.caller.user_id, "input.ownerId")
        new = NewWallet(owner_id, input.category, input.currency)
        try:
            return Wallet.of(await commands.create_wallet(_payment(info), info.context, new))
        except Refusal as refusal:
            return Problem.of(refusal)

    @strawberry.mutation(
        description="Money that came in from outside, credited by an operator.", extensions=[Requires("deposit:create")]
    )
    async def deposit(self, info: Info[Context], input: DepositInput) -> TransferResult:  # noqa: A002
        new = NewDeposit(
            id=parse_id(input.id, "input.id"),
            wallet_id=parse_id(input.wallet_id, "input.walletId"),
            money=_money(input, "input"),
            reference=input.reference,
            metadata=_metadata(input, "input"),
        )
        return _transfer_result(info, await commands.deposit(_payment(info), info.context, new))

    @strawberry.mutation(
        description="From the real bucket of one wallet to that of another.", extensions=[Requires("transfer:create")]
    )
    async def transfer(self, info: Info[Context], input: TransferInput) -> TransferResult:  # noqa: A002
        new = _new_transfer(input, "input")
        return _transfer_result(info, await commands.transfer(_payment(info), info.context, new))

    @strawberry.mutation(
        description="1 to 1,000 at once, with an answer for each, in order.", extensions=[Requires("transfer:create")]
    )
    async def transfers(
        self,
        info: Info[Context],
        input: list[TransferInput],  # noqa: A002
        mode: TransfersMode = TransfersMode.INDEPENDENT,
    ) -> list[TransferResult]:
        news = [_new_transfer(item, f"input.{n}") for n, item in enumerate(input)]
        send = commands.transfer_all if mode is TransfersMode.ATOMIC else commands.transfer_each
        return [_transfer_result(info, outcome) for outcome in await send(_payment(info), info.context, news)]


@strawberry.type
class Subscription:
    @strawberry.subscription(
        description="A wallet, each time that money came or went: yours, or those that you name. What happened while "
        "the connection was away is made up for by one message a wallet.",
        extensions=[Requires("wallet:read")],
    )
    async def balance_changed(self, info: Info[Context], wallet_ids: list[ID] | None = None) -> AsyncIterator[Wallet]:
        named = await _watched(info, wallet_ids)
        owner_id = info.context.caller.user_id
        async with _payment(info).balances.watch(info.context.tenant_id, owner_id, named) as changes:
            async for change in changes:
                scope = _scope(info, "wallet:read")
                for wallet in [change] if change else await _all_watched(info, named):
                    if scope.permits(owner_id=wallet.owner_id, tenant_id=wallet.tenant_id, id=wallet.id):
                        yield Wallet.of(wallet)


def _payment(info: Info[Context]) -> Payment:
    return cast("Payment", info.context.service)


def _scope(info: Info[Context], action: str) -> Scope:
    return info.context.platform.access.scope(info.context.caller, action)


def _ids(representations: Sequence[Mapping[str, Any]]) -> list[str]:
    return [parse_id(r.get("id"), "representations.id") for r in representations]


async def _visible_wallets(
    info: Info[Context], ids: Sequence[str], action: str = "wallet:read"
) -> dict[str, domain.Wallet]:
    payment, scope = _payment(info), _scope(info, action)
    found = await store.wallets_by_id(payment.platform.mongo.db, info.context.tenant_id, ids)
    return {w.id: w for w in found if scope.permits(owner_id=w.owner_id, tenant_id=w.tenant_id, id=w.id)}


async def _watched(info: Info[Context], wallet_ids: Sequence[str] | None) -> frozenset[str]:
    """The wallets that a subscription names; none means the caller's own, also those that are yet to come."""
    if wallet_ids is not None and not 0 < len(wallet_ids) <= WATCH_LIMIT:
        raise InvalidInput(f"name 1 to {WATCH_LIMIT} wallets, or none for your own", field="walletIds")
    named = frozenset(parse_id(i, "walletIds") for i in wallet_ids or ())
    if len(await _visible_wallets(info, list(named))) < len(named):
        raise NotFound("one of these wallets does not exist, or is not yours to see", field="walletIds")
    return named


async def _all_watched(info: Info[Context], named: frozenset[str]) -> list[domain.Wallet]:
    database = _payment(info).platform.mongo.db
    if named:
        return await store.wallets_by_id(database, info.context.tenant_id, named)
    return await store.wallets_of(database, _scope(info, "wallet:read"), info.context.caller.user_id)


async def _balances(info: Info[Context], owner_id: str) -> list[UserBalance]:
    """Empty for an owner that the caller may not see, as for one who has nothing."""
    payment, scope = _payment(info), _scope(info, "wallet:read")
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


async def _transactions(
    info: Info[Context], wallet_id: str, bucket: Bucket | None, args: PageArgs
) -> Connection[Transaction]:
    """Empty for a wallet that the caller may not see, as for one that does not exist."""
    visible = await _visible_wallets(info, [wallet_id], "transaction:read")
    if wallet_id not in visible:
        return Connection.of(Page.empty(), Transaction.of)
    payment = _payment(info)
    page = await store.transactions(payment.platform.mongo.db, payment.paginator, visible[wallet_id], bucket, args)
    return Connection.of(page, Transaction.of)


def _new_transfer(given: TransferInput, field: str) -> NewTransfer:
    return NewTransfer(
        id=parse_id(given.id, f"{field}.id"),
        source_id=parse_id(given.source_wallet_id, f"{field}.sourceWalletId"),
        destination_id=parse_id(given.destination_wallet_id, f"{field}.destinationWalletId"),
        money=_money(given, field),
        reference=given.reference,
        metadata=_metadata(given, field),
    )


def _money(given: TransferInput | DepositInput, field: str) -> Money:
    with _within(field):
        return Money(given.amount, given.currency)


def _metadata(given: TransferInput | DepositInput, field: str) -> dict[str, Any]:
    """Said here, where the field has a name that the caller knows; the ledger would refuse it too."""
    with _within(field):
        check_storable(given.reference, given.metadata)
    return cast("dict[str, Any]", given.metadata)


@contextmanager
def _within(field: str) -> Iterator[None]:
    """What is wrong with `amount` in here is wrong with `input.amount`."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(error.message, field=f"{field}.{error.field}") from None


def _transfer_result(info: Info[Context], outcome: domain.Outcome) -> TransferResult:
    return Transfer.of(info, outcome) if isinstance(outcome, domain.Transfer) else Problem.of(outcome)


schema = build_schema(Query, Mutation, Subscription, types=[User])
