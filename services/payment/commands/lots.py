"""Bonus money: each grant is a lot, followed from its grant to its end."""

from dataclasses import dataclass

from libs.core.context import Context
from libs.core.money import Money
from libs.core.tenants import SystemWallet
from services.payment.commands.payment import Asked, Payment, operation, system_end
from services.payment.domain import Bucket, End, Leg, Outcome, TransferKind


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLotMovement(Asked):
    wallet_id: str
    lot: str
    money: Money

    @property
    def bonus(self) -> End:
        return End(self.wallet_id, Bucket.BONUS, self.lot)


async def grant_lot(payment: Payment, context: Context, new: NewLotMovement) -> Outcome:
    pool = system_end(context, SystemWallet.BONUS_POOL, new.money.currency)
    return await _post(payment, context, new, TransferKind.BONUS_GRANT, pool, new.bonus)


async def convert_lot(payment: Payment, context: Context, new: NewLotMovement) -> Outcome:
    """The wagering is done: bonus money becomes the player's own."""
    return await _post(payment, context, new, TransferKind.BONUS_CONVERSION, new.bonus, End(new.wallet_id))


async def forfeit_lot(payment: Payment, context: Context, new: NewLotMovement) -> Outcome:
    pool = system_end(context, SystemWallet.BONUS_POOL, new.money.currency)
    return await _post(payment, context, new, TransferKind.BONUS_FORFEIT, new.bonus, pool)


async def _post(
    payment: Payment, context: Context, new: NewLotMovement, kind: TransferKind, source: End, destination: End
) -> Outcome:
    await payment.platform.tenants.currency(context.tenant_id, new.money.currency)
    leg = Leg(kind, source, destination, new.money)
    return await payment.ledger.post(operation(payment, context, new, "lot:manage", kind, [leg]), context.deadline)
