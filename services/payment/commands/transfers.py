"""Money between players, in from outside and out again, and at play."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from libs.core.context import Context
from libs.core.errors import CoreError, InvalidInput, Refusal
from libs.core.money import Money
from libs.core.tenants import SystemWallet
from services.payment import store
from services.payment.commands.payment import Asked, Payment, operation, system_end
from services.payment.commands.step_up import Confirmable, unproven
from services.payment.domain import Bucket, End, Leg, Operation, Outcome, TransferKind, Unproven, refusals
from services.payment.domain.fees import legs_with_fee
from services.payment.ledger import SET_LIMIT
from services.payment.settings import PaymentConfig

# Each is a transfer of its own, and a group is bounded by its operations.
STAKE_LOTS_LIMIT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTransfer(Confirmable):
    source_id: str
    destination_id: str
    money: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDeposit(Asked):
    wallet_id: str
    money: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWithdrawal(Confirmable):
    wallet_id: str
    money: Money


@dataclass(frozen=True, slots=True)
class FromLot:
    lot: str
    money: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBet(Asked):
    """A stake of real money, of bonus money, or of both: at least one of them."""

    wallet_id: str
    real: Money | None
    lots: Sequence[FromLot] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWin(Asked):
    """With a `lot`, what was won with bonus money stays bonus money."""

    wallet_id: str
    money: Money
    lot: str = ""


async def transfer(payment: Payment, context: Context, new: NewTransfer) -> Outcome:
    return await payment.ledger.post(await _transfer(payment, context, new), context.deadline)


async def transfer_each(payment: Payment, context: Context, news: Sequence[NewTransfer]) -> list[Outcome]:
    """Many transfers, each with an answer of its own: one that could not be done for now does not hide the others'."""
    ledger, deadline = payment.ledger, context.deadline
    operations = [await _transfer(payment, context, new) for new in _some(news)]
    posts = (ledger.post(asked, deadline) for asked in operations)
    return [_outcome(answer) for answer in await asyncio.gather(*posts, return_exceptions=True)]


def _outcome(answer: Outcome | BaseException) -> Outcome:
    if isinstance(answer, CoreError) and not isinstance(answer, Refusal):
        return Refusal(answer.code, answer.message, rule="service", **answer.details)
    if isinstance(answer, BaseException) and not isinstance(answer, Refusal):
        raise answer
    return answer


async def transfer_all(payment: Payment, context: Context, news: Sequence[NewTransfer]) -> list[Outcome]:
    """Many transfers of which either all are done or none."""
    operations = [await _transfer(payment, context, new) for new in _some(news)]
    return await payment.ledger.post_all(operations, context.deadline)


def _some(news: Sequence[NewTransfer]) -> Sequence[NewTransfer]:
    if not 0 < len(news) <= SET_LIMIT:
        raise InvalidInput(f"1 to {SET_LIMIT} transfers at a time", field="input.transfers")
    if len({new.id for new in news}) < len(news):
        raise InvalidInput("each transfer needs an id of its own", field="input.transfers")
    if len({new.dry_run for new in news}) > 1:
        raise InvalidInput("either all are a dry run or none is", field="input.transfers")
    return news


async def _transfer(payment: Payment, context: Context, new: NewTransfer) -> Operation:
    """A player's own transfer is real → real; only the system moves between buckets."""
    kind = TransferKind.TRANSFER
    leg = Leg(kind, End(new.source_id), End(new.destination_id), new.money)
    missing = await unproven(
        payment, context, new, "transfer", new.money, source=new.source_id, payee=new.destination_id
    )
    return operation(payment, context, new, "transfer:create", kind, [leg], unproven=missing)


async def deposit(payment: Payment, context: Context, new: NewDeposit) -> Outcome:
    """Money from outside: the other side is the tenant's nostro wallet, which shows what its bank should hold."""
    await payment.platform.tenants.currency(context.tenant_id, new.money.currency)
    nostro = system_end(context, SystemWallet.NOSTRO, new.money.currency)
    return await _with_fee(payment, context, new, TransferKind.DEPOSIT, nostro, End(new.wallet_id))


async def withdraw(payment: Payment, context: Context, new: NewWithdrawal) -> Outcome:
    await payment.platform.tenants.currency(context.tenant_id, new.money.currency)
    nostro = system_end(context, SystemWallet.NOSTRO, new.money.currency)
    missing = await unproven(payment, context, new, "withdraw", new.money, source=new.wallet_id)
    return await _with_fee(payment, context, new, TransferKind.WITHDRAWAL, End(new.wallet_id), nostro, unproven=missing)


async def _with_fee(
    payment: Payment,
    context: Context,
    new: NewDeposit | NewWithdrawal,
    kind: TransferKind,
    source: End,
    destination: End,
    *,
    unproven: Unproven | None = None,
) -> Outcome:
    money = new.money
    fee = payment.platform.config.get(PaymentConfig, context.tenant_id).fee(kind, money.currency)
    fees, house = (system_end(context, w, money.currency) for w in (SystemWallet.FEE, SystemWallet.HOUSE))
    legs = legs_with_fee(kind, source, destination, money, fee, fees=fees, house=house)
    if legs is None:
        # Fees change: what was done under another one is answered as it was done.
        done = await store.transfers_by_id(payment.platform.mongo.db, context.tenant_id, [new.id])
        if not done:
            return refusals.fee_exceeds_amount(fee.of(money.amount_minor), money)
        legs = [Leg(kind, source, destination, money)]
    asked = operation(payment, context, new, f"{kind}:create", kind, legs, amount=money, unproven=unproven)
    return await payment.ledger.post(asked, context.deadline)


async def place_bet(payment: Payment, context: Context, new: NewBet) -> Outcome:
    """The stake goes to the house, all of it or nothing: real money first, then the lots in the order given."""
    kind = TransferKind.BET
    parts = [(End(new.wallet_id), new.real)] if new.real else []
    parts += [(End(new.wallet_id, Bucket.BONUS, part.lot), part.money) for part in new.lots]
    if not parts:
        raise InvalidInput("a bet has a stake: an amount, lots, or both", field="input.amount")
    if len(new.lots) > STAKE_LOTS_LIMIT:
        raise InvalidInput(f"a stake is of at most {STAKE_LOTS_LIMIT} lots", field="input.lots")
    if len({money.currency for _, money in parts}) > 1 or len({end for end, _ in parts}) < len(parts):
        raise InvalidInput("each lot is named once, and all are of one currency", field="input.lots")
    house = system_end(context, SystemWallet.HOUSE, parts[0][1].currency)
    legs = [Leg(kind, end, house, money) for end, money in parts]
    return await payment.ledger.post(operation(payment, context, new, "bet:create", kind, legs), context.deadline)


async def settle_bet(payment: Payment, context: Context, new: NewWin) -> Outcome:
    kind = TransferKind.WIN
    house = system_end(context, SystemWallet.HOUSE, new.money.currency)
    destination = End(new.wallet_id, Bucket.BONUS, new.lot) if new.lot else End(new.wallet_id)
    leg = Leg(kind, house, destination, new.money)
    return await payment.ledger.post(operation(payment, context, new, "bet:settle", kind, [leg]), context.deadline)
