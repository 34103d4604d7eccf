"""Money that is set aside: held, captured in one or several parts, and released."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from libs.core.context import Context, Deadline
from libs.core.errors import InvalidInput
from libs.core.money import Money
from libs.core.tenants import SystemWallet
from services.payment import store
from services.payment.commands.payment import Asked, Payment, amount_of, operation, system_end
from services.payment.commands.step_up import Confirmable, unproven
from services.payment.domain import (
    Bucket,
    Capture,
    End,
    Hold,
    Leg,
    Outcome,
    Place,
    Release,
    Transfer,
    TransferKind,
    expiry,
    refusals,
)
from services.payment.settings import PaymentConfig

RELEASED_AT_ONCE, RELEASED_WITHIN_S = 500, 10.0
LONGEST_HOLD = timedelta(days=400)
# Where the money goes when it is captured, unless the caller names a wallet.
CAPTURED_BY = {TransferKind.WITHDRAWAL: SystemWallet.NOSTRO, TransferKind.BET: SystemWallet.HOUSE}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHold(Confirmable):
    wallet_id: str
    money: Money
    purpose: TransferKind
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCapture(Confirmable):
    """`amount_minor` of what is held; `final` releases what is left of it."""

    hold_id: str
    amount_minor: int
    destination_id: str | None = None
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVoid(Asked):
    hold_id: str


async def hold(payment: Payment, context: Context, new: NewHold) -> Outcome:
    now = payment.platform.clock.now()
    if new.expires_at and new.expires_at > now + LONGEST_HOLD:
        raise InvalidInput(f"a hold lasts at most {LONGEST_HOLD.days} days", field="input.expiresAt")
    lasting = payment.platform.config.get(PaymentConfig, context.tenant_id).hold_duration
    terms = Place(new.expires_at or now + lasting, new.purpose, asked=new.expires_at is not None)
    kind, wallet = TransferKind.HOLD, new.wallet_id
    leg = Leg(kind, End(wallet), End(wallet, Bucket.LOCKED), new.money)
    # A stake stays with the house; what else is held is on its way out.
    missing = (
        None
        if new.purpose is TransferKind.BET
        else await unproven(payment, context, new, "hold", new.money, source=wallet)
    )
    asked = operation(payment, context, new, "hold:create", kind, [leg], terms=terms, unproven=missing)
    return await payment.ledger.post(asked, context.deadline)


async def capture(payment: Payment, context: Context, new: NewCapture) -> Outcome:
    held = await _visible(payment, context, new.hold_id, "hold:capture")
    if held is None:
        return refusals.hold_not_found(new.hold_id)
    kind = TransferKind.CAPTURE
    money = amount_of(new.amount_minor, held.currency)
    leg = Leg(kind, _locked(held), _destination(context, held, new), money)
    missing = await unproven(
        payment, context, new, "capture", money, source=held.wallet_id, payee=new.destination_id or ""
    )
    terms = Capture(held.id, new.final)
    asked = operation(payment, context, new, "hold:capture", kind, [leg], terms=terms, unproven=missing)
    return await payment.ledger.post(asked, context.deadline)


def _destination(context: Context, held: Hold, new: NewCapture) -> End:
    if new.destination_id:
        return End(new.destination_id)
    system = CAPTURED_BY.get(TransferKind(held.purpose))
    if system is None:
        raise InvalidInput("this hold is for a transfer: say to which wallet", field="input.destinationWalletId")
    return system_end(context, system, held.currency)


async def void(payment: Payment, context: Context, new: NewVoid) -> Outcome:
    held = await _visible(payment, context, new.hold_id, "hold:void")
    if held is None:
        return refusals.hold_not_found(new.hold_id)
    kind = TransferKind.VOID
    leg = Leg(kind, _locked(held), End(held.wallet_id), Money(held.amount, held.currency))
    asked = operation(payment, context, new, "hold:void", kind, [leg], terms=Release(held.id))
    return await payment.ledger.post(asked, context.deadline)


async def release_overdue(payment: Payment) -> None:
    """Gives back what is left of holds that nobody captured in time, until none is left or none can be released."""
    database, clock = payment.platform.mongo.db, payment.platform.clock
    while overdue := await store.overdue_holds(database, clock.now(), RELEASED_AT_ONCE):
        posts = (payment.ledger.post(expiry(held), Deadline.after(RELEASED_WITHIN_S)) for held in overdue)
        outcomes = await asyncio.gather(*posts)
        if not any(isinstance(outcome, Transfer) for outcome in outcomes):
            return


def _locked(held: Hold) -> End:
    return End(held.wallet_id, Bucket.LOCKED)


async def _visible(payment: Payment, context: Context, hold_id: str, action: str) -> Hold | None:
    """Whose wallet it is never changes; what is left of it is decided in the ledger."""
    found = await store.hold(payment.platform.mongo.db, context.tenant_id, hold_id)
    scope = payment.platform.access.scope(context.caller, action)
    if found and scope.permits(owner_id=found.owner_id, tenant_id=found.tenant_id, id=found.wallet_id):
        return found
    return None
