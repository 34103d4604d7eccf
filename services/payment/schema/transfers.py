"""Transfers and the transactions they write."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Self

import strawberry
from strawberry import ID, Info
from strawberry.scalars import JSON

from libs.core.access import Requires, references
from libs.core.context import Context
from libs.core.graphql import BigInt, Problem
from libs.core.ids import parse_id
from libs.core.pagination import Connection, Page, PageArgs
from services.payment import commands, domain, store
from services.payment.commands import FromLot, NewBet, NewDeposit, NewTransfer, NewWin, NewWithdrawal
from services.payment.domain import Bucket, Direction, TransferKind, WalletKind, WalletStatus, parse_transfer_id
from services.payment.schema.common import metadata_of, money_of, payment_of, scope_of, visible_wallets
from services.payment.schema.journal import receipt_for

strawberry.enum(Bucket, description="A wallet's money is kept in three buckets: free, bonus and held.")
strawberry.enum(WalletKind, description="A player's wallet, or one of the tenant's own.")
strawberry.enum(WalletStatus)
strawberry.enum(TransferKind)
strawberry.enum(Direction, name="TransactionDirection")


@strawberry.enum(description="Whether transfers that are sent together stand or fall together.")
class TransfersMode(Enum):
    INDEPENDENT = "independent"
    ATOMIC = "atomic"


@strawberry.type(description="One line of the ledger: what a transfer did to one bucket of a wallet.")
class Transaction:
    id: ID
    wallet_id: ID
    transfer_id: ID
    kind: TransferKind
    bucket: Bucket
    lot: ID | None = strawberry.field(description="The grant that this bonus money is of.")
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
            lot=ID(row["lot"]) if "lot" in row else None,
            direction=Direction(row["direction"]),
            amount=BigInt(row["amount"]),
            currency=row["currency"],
            balance_after=BigInt(row["balance_after"]),
            sequence=BigInt(row["sequence"]),
            reference=row["reference"],
            created_at=row["at"],
        )


@strawberry.federation.type(keys=["id"], description="An accepted movement of money between two buckets.")
class Transfer:
    id: ID = strawberry.field(
        description="The operation's; of its further transfers `<operation id>.1` and so on, of a hold that came due "
        "`<hold id>.expiry`."
    )
    kind: TransferKind
    amount: BigInt
    currency: str
    source_wallet_id: ID
    destination_wallet_id: ID
    reference: str
    metadata: JSON
    created_at: datetime
    operation_id: ID = strawberry.field(
        description="The id that was asked under: one operation can be several transfers."
    )
    hold_id: ID | None = strawberry.field(description="What a capture, void or expiry is of.")
    reverses: ID | None = strawberry.field(description="The transfer that a reversal is of.")
    transactions: list[Transaction] = strawberry.field(
        description="The debit and the credit, as far as they are on wallets that you may see."
    )

    @classmethod
    def of(cls, info: Info[Context], transfer: domain.Transfer) -> Self:
        sight = payment_of(info).platform.access.scope(info.context.caller, "transaction:read")
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
            operation_id=ID(transfer.operation_id),
            hold_id=ID(transfer.hold_id) if transfer.hold_id else None,
            reverses=ID(transfer.reverses) if transfer.reverses else None,
            transactions=[
                Transaction.of(store.transaction_row(transfer, line))
                for line in (transfer.debit, transfer.credit)
                if sight.permits(owner_id=line.owner_id, tenant_id=transfer.tenant_id, id=line.wallet_id)
            ],
        )

    @strawberry.field(
        description="Proof that the signed journal holds this: see scripts/receipt.py. Null for the first minute.",
        extensions=[Requires("transaction:read")],
    )
    async def receipt(self, info: Info[Context]) -> JSON | None:
        return await receipt_for(info, self.id)

    @strawberry.field(
        description="All transfers of the same operation, this one among them.", extensions=[Requires("transfer:read")]
    )
    async def operation_transfers(self, info: Info[Context]) -> list["Transfer"]:
        found = await store.operation(payment_of(info).platform.mongo.db, info.context.tenant_id, self.operation_id)
        scope = scope_of(info, "transfer:read")
        return [Transfer.of(info, transfer) for transfer in found if transfer.visible_to(scope)]

    @classmethod
    @references(Requires("transfer:read"))
    async def resolve_references(
        cls, info: Info[Context], representations: Sequence[Mapping[str, Any]]
    ) -> list[Self | None]:
        scope = scope_of(info, "transfer:read")
        ids = [parse_transfer_id(r.get("id"), "representations.id") for r in representations]
        found = await store.transfers_by_id(payment_of(info).platform.mongo.db, info.context.tenant_id, ids)
        return [cls.of(info, found[i]) if i in found and found[i].visible_to(scope) else None for i in ids]


@strawberry.input(description="`from` is included, `until` is not.")
class TransferFilter:
    owner_id: ID | None = None
    from_: datetime | None = strawberry.field(default=None, name="from")
    until: datetime | None = None


OPERATION_ID = (
    "Yours to choose and to keep until this is answered: sent again, it gives the same answer and moves nothing."
)


@strawberry.input
class OperationInput:
    id: ID = strawberry.field(description=OPERATION_ID)
    reference: str = ""
    metadata: JSON = strawberry.field(default_factory=dict)
    dry_run: bool = strawberry.field(
        default=False,
        description="The same verdict, and nothing is written: the answer says what would be.",
    )


@strawberry.input
class ConfirmableInput(OperationInput):
    step_up_token: str = strawberry.field(
        default="",
        description="Of completeStepUp, for exactly this: once STEP_UP_REQUIRED says so. It is in vain, but does no "
        "harm, where none is needed.",
    )


@strawberry.input
class DepositInput(OperationInput):
    wallet_id: ID
    amount: BigInt
    currency: str


@strawberry.input
class WithdrawInput(ConfirmableInput):
    wallet_id: ID
    amount: BigInt
    currency: str


@strawberry.input
class TransferInput(ConfirmableInput):
    source_wallet_id: ID
    destination_wallet_id: ID
    amount: BigInt
    currency: str


@strawberry.input(description="The part of a stake that a lot of bonus money pays.")
class LotStakeInput:
    lot: ID
    amount: BigInt


@strawberry.input(description="A stake of real money, of bonus money, or of both.")
class PlaceBetInput(OperationInput):
    wallet_id: ID
    amount: BigInt = strawberry.field(default=BigInt(0), description="Of real money; it is taken first.")
    currency: str
    lots: list[LotStakeInput] = strawberry.field(default_factory=list)


@strawberry.input
class SettleBetInput(OperationInput):
    wallet_id: ID
    amount: BigInt
    currency: str
    lot: ID | None = strawberry.field(default=None, description="What was won with bonus money goes to its lot.")


TransferResult = Annotated[Transfer | Problem, strawberry.union("TransferResult")]


@strawberry.type
class TransferQueries:
    @strawberry.field(
        description="Null if there is none, or none that you may see.", extensions=[Requires("transfer:read")]
    )
    async def transfer(self, info: Info[Context], id: ID) -> Transfer | None:  # noqa: A002
        database, scope = payment_of(info).platform.mongo.db, scope_of(info, "transfer:read")
        found = (await store.transfers_by_id(database, info.context.tenant_id, [parse_transfer_id(id, "id")])).get(id)
        return Transfer.of(info, found) if found and found.visible_to(scope) else None

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
        return await transactions_of(info, wallet_id, bucket, PageArgs(first, after, last, before))

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
        payment, wanted = payment_of(info), filter or TransferFilter()
        page = await store.transfer_history(
            payment.platform.mongo.db,
            payment.paginator,
            scope_of(info, "transfer:read"),
            wanted.owner_id,
            (wanted.from_, wanted.until),
            PageArgs(first, after, last, before),
        )
        return Connection.of(page, lambda transfer: Transfer.of(info, transfer))


@strawberry.type
class TransferMutations:
    @strawberry.mutation(
        description="Money that came in from outside, credited by an operator.", extensions=[Requires("deposit:create")]
    )
    async def deposit(self, info: Info[Context], input: DepositInput) -> TransferResult:  # noqa: A002
        new = NewDeposit(
            **asked(input),
            wallet_id=parse_id(input.wallet_id, "input.walletId"),
            money=money_of(input.amount, input.currency, "input"),
        )
        return transfer_result(info, await commands.deposit(payment_of(info), info.context, new))

    @strawberry.mutation(
        description="Money that leaves for outside. A fee is a transfer of its own, of the same operation.",
        extensions=[Requires("withdrawal:create")],
    )
    async def withdraw(self, info: Info[Context], input: WithdrawInput) -> TransferResult:  # noqa: A002
        new = NewWithdrawal(
            **asked(input),
            step_up_token=input.step_up_token,
            wallet_id=parse_id(input.wallet_id, "input.walletId"),
            money=money_of(input.amount, input.currency, "input"),
        )
        return transfer_result(info, await commands.withdraw(payment_of(info), info.context, new))

    @strawberry.mutation(description="A stake goes to the house.", extensions=[Requires("bet:create")])
    async def place_bet(self, info: Info[Context], input: PlaceBetInput) -> TransferResult:  # noqa: A002
        new = NewBet(
            **asked(input),
            wallet_id=parse_id(input.wallet_id, "input.walletId"),
            real=money_of(input.amount, input.currency, "input") if input.amount else None,
            lots=[
                FromLot(parse_id(part.lot, "input.lots.lot"), money_of(part.amount, input.currency, f"input.lots.{n}"))
                for n, part in enumerate(input.lots)
            ],
        )
        return transfer_result(info, await commands.place_bet(payment_of(info), info.context, new))

    @strawberry.mutation(description="What was won comes from the house.", extensions=[Requires("bet:settle")])
    async def settle_bet(self, info: Info[Context], input: SettleBetInput) -> TransferResult:  # noqa: A002
        new = NewWin(
            **asked(input),
            wallet_id=parse_id(input.wallet_id, "input.walletId"),
            money=money_of(input.amount, input.currency, "input"),
            lot="" if input.lot is None else parse_id(input.lot, "input.lot"),
        )
        return transfer_result(info, await commands.settle_bet(payment_of(info), info.context, new))

    @strawberry.mutation(
        description="From the real bucket of one wallet to that of another.", extensions=[Requires("transfer:create")]
    )
    async def transfer(self, info: Info[Context], input: TransferInput) -> TransferResult:  # noqa: A002
        new = _new_transfer(input, "input")
        return transfer_result(info, await commands.transfer(payment_of(info), info.context, new))

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
        return [transfer_result(info, outcome) for outcome in await send(payment_of(info), info.context, news)]


async def transactions_of(
    info: Info[Context], wallet_id: str, bucket: Bucket | None, args: PageArgs
) -> Connection[Transaction]:
    """Empty for a wallet that the caller may not see, as for one that does not exist."""
    visible = await visible_wallets(info, [wallet_id], "transaction:read")
    if wallet_id not in visible:
        return Connection.of(Page.empty(), Transaction.of)
    payment = payment_of(info)
    page = await store.transactions(payment.platform.mongo.db, payment.paginator, visible[wallet_id], bucket, args)
    return Connection.of(page, Transaction.of)


def asked(given: OperationInput, field: str = "input") -> dict[str, Any]:
    """What `commands.payment.Asked` holds."""
    return {
        "id": parse_id(given.id, f"{field}.id"),
        "reference": given.reference,
        "metadata": metadata_of(given.reference, given.metadata, field),
        "dry_run": given.dry_run,
    }


def _new_transfer(given: TransferInput, field: str) -> NewTransfer:
    return NewTransfer(
        **asked(given, field),
        step_up_token=given.step_up_token,
        source_id=parse_id(given.source_wallet_id, f"{field}.sourceWalletId"),
        destination_id=parse_id(given.destination_wallet_id, f"{field}.destinationWalletId"),
        money=money_of(given.amount, given.currency, field),
    )


def transfer_result(info: Info[Context], outcome: domain.Outcome) -> TransferResult:
    return Transfer.of(info, outcome) if isinstance(outcome, domain.Transfer) else Problem.of(outcome)
