"""Nothing is edited or deleted: what was wrong is reversed, or adjusted, by somebody who says why."""

from dataclasses import dataclass, replace
from enum import StrEnum

from libs.core.context import Context
from libs.core.errors import Refusal
from libs.core.money import Money
from libs.core.tenants import SystemWallet, system_wallet_id
from services.payment import store
from services.payment.commands.payment import Asked, Payment, amount_of, check_reason, operation, system_end
from services.payment.domain import (
    Bucket,
    Direction,
    End,
    Leg,
    Outcome,
    Reverse,
    Transaction,
    Transfer,
    TransferKind,
    refusals,
)
from services.payment.domain.requests import AdjustmentRequest, RequestStatus
from services.payment.settings import PaymentConfig


class Shortfall(StrEnum):
    """What happens if the money is not there any more: nothing is reversed, or the rest is owed to the house."""

    REFUSE = "refuse"
    RECEIVABLE = "receivable"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReversal(Asked):
    """Of all of a transfer, or with `amount_minor` of a part. `reference` is the reason."""

    transfer_id: str
    amount_minor: int | None = None
    shortfall: Shortfall = Shortfall.REFUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAdjustment(Asked):
    """Given to a wallet by the house, or taken from it. `reference` is the reason."""

    wallet_id: str
    direction: Direction
    money: Money


async def reverse(payment: Payment, context: Context, new: NewReversal) -> Outcome:
    check_reason(new.reference)
    tenant_id = context.tenant_id
    original = (await store.transfers_by_id(payment.platform.mongo.db, tenant_id, [new.transfer_id])).get(
        new.transfer_id
    )
    if original is None or not original.visible_to(payment.platform.access.scope(context.caller, "transfer:read")):
        return refusals.transfer_not_found(new.transfer_id)
    currency = original.money.currency
    amount = original.money.amount_minor if new.amount_minor is None else new.amount_minor
    receivable = system_end(context, SystemWallet.RECEIVABLE, currency)
    kind = TransferKind.REVERSAL
    money = amount_of(amount, currency)
    leg = Leg(kind, _end(original, original.credit), _end(original, original.debit), money)
    owed = receivable if new.shortfall is Shortfall.RECEIVABLE else None
    terms = Reverse(original.id, owed, hold_id=original.hold_id)
    asked = operation(payment, context, new, "transfer:reverse", kind, [leg], amount=leg.money, terms=terms)
    return await payment.ledger.post(asked, context.deadline)


def _end(original: Transfer, line: Transaction) -> End:
    """Where this line's money is now. What was captured is not held again: it goes back to the real bucket."""
    if line.is_system:
        tenant_id, currency = original.tenant_id, original.money.currency
        kind = next(k for k in SystemWallet if system_wallet_id(tenant_id, k, currency) == line.wallet_id)
        return End.of_system(tenant_id, kind, currency)
    bucket = Bucket.REAL if line.bucket == Bucket.LOCKED else Bucket(line.bucket)
    return End(line.wallet_id, bucket, line.lot)


async def adjust(payment: Payment, context: Context, new: NewAdjustment) -> Outcome | AdjustmentRequest:
    """Done at once up to the tenant's threshold; above it, it waits for another operator (four eyes).

    What waits, or was rejected, is not done because the threshold is another one when it is asked for again.
    """
    check_reason(new.reference)
    await payment.platform.tenants.currency(context.tenant_id, new.money.currency)
    config = payment.platform.config.get(PaymentConfig, context.tenant_id)
    before = await store.request(payment.platform.mongo.db, context.tenant_id, new.id)
    if before is None and new.money.amount_minor <= config.adjustment_threshold(new.money.currency):
        return await _adjust(payment, context, new, "adjustment:create")
    return await _request(payment, context, new, before)


async def _request(
    payment: Payment, context: Context, new: NewAdjustment, before: AdjustmentRequest | None
) -> Outcome | AdjustmentRequest:
    """The verdict is given now, so that nobody approves what cannot be done; it is given again when it is done."""
    database = payment.platform.mongo.db
    verdict = await _adjust(payment, context, replace(new, dry_run=True), "adjustment:create")
    done = await store.transfers_by_id(database, context.tenant_id, [new.id])
    if isinstance(verdict, Refusal) or new.id in done:
        return verdict
    fresh = AdjustmentRequest(
        id=new.id,
        tenant_id=context.tenant_id,
        wallet_id=new.wallet_id,
        direction=new.direction,
        money=new.money,
        reason=new.reference,
        requested_by=context.caller.user_id,
        requested_at=payment.platform.clock.now(),
    )
    line = verdict.credit if new.direction is Direction.CREDIT else verdict.debit
    stored = before or (fresh if new.dry_run else await store.open_request(database, fresh, line.owner_id))
    if stored.asks_for_the_same(fresh):
        return stored
    return refusals.idempotency_mismatch(new.id)


async def approve(payment: Payment, context: Context, request_id: str) -> Outcome:
    """By another than who asked. Approved twice, it is done once.

    What would be refused now stays as it is, to be approved later or rejected. Once approved it stays approved, even if
    it is refused in that very moment: reopened, it could be rejected while another approval gets it done.
    """
    asked = await _asked(payment, context, request_id, RequestStatus.APPROVED)
    if isinstance(asked, Refusal):
        return asked
    new = NewAdjustment(
        id=asked.id, wallet_id=asked.wallet_id, direction=asked.direction, money=asked.money, reference=asked.reason
    )
    verdict = await _adjust(payment, context, replace(new, dry_run=True), "adjustment:approve")
    if isinstance(verdict, Refusal):
        return verdict
    approved = await _decide(payment, context, request_id, RequestStatus.APPROVED)
    if isinstance(approved, Refusal):
        return approved
    return await _adjust(payment, context, new, "adjustment:approve")


async def reject(payment: Payment, context: Context, request_id: str) -> AdjustmentRequest | Refusal:
    return await _decide(payment, context, request_id, RequestStatus.REJECTED)


async def _decide(
    payment: Payment, context: Context, request_id: str, status: RequestStatus
) -> AdjustmentRequest | Refusal:
    """Decided before it is done: a process that dies between the two leaves it approved, to be approved again."""
    database, by = payment.platform.mongo.db, context.caller.user_id
    while True:
        asked = await _asked(payment, context, request_id, status)
        if isinstance(asked, Refusal):
            return asked
        decided = await store.decide_request(database, asked, status, by, payment.platform.clock.now())
        if decided:
            return decided


async def _asked(
    payment: Payment, context: Context, request_id: str, status: RequestStatus
) -> AdjustmentRequest | Refusal:
    """What the caller may make `status`."""
    asked = await store.request(payment.platform.mongo.db, context.tenant_id, request_id)
    if asked is None or not await _may_decide(payment, context, asked):
        return Refusal("REQUEST_NOT_FOUND", "there is no such request", rule="request.access", id=request_id)
    return asked.refusal(status, context.caller.user_id) or asked


async def _may_decide(payment: Payment, context: Context, asked: AdjustmentRequest) -> bool:
    scope = payment.platform.access.scope(context.caller, "adjustment:approve")
    found = await store.wallets_by_id(payment.platform.mongo.db, context.tenant_id, [asked.wallet_id])
    return any(scope.permits(owner_id=w.owner_id, tenant_id=w.tenant_id, id=w.id) for w in found)


async def _adjust(payment: Payment, context: Context, new: NewAdjustment, action: str) -> Outcome:
    house, wallet = system_end(context, SystemWallet.HOUSE, new.money.currency), End(new.wallet_id)
    source, destination = (house, wallet) if new.direction is Direction.CREDIT else (wallet, house)
    kind = TransferKind.ADJUSTMENT
    leg = Leg(kind, source, destination, new.money)
    return await payment.ledger.post(operation(payment, context, new, action, kind, [leg]), context.deadline)
