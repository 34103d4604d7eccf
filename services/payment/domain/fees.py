"""What an operation costs, and who pays it. A fee is a leg of its own, so money is always conserved."""

from dataclasses import dataclass
from enum import StrEnum

from libs.core.money import Money
from services.payment.domain.operations import End, Leg, TransferKind

BASIS_POINTS = 10_000


class FeePayer(StrEnum):
    """Who bears it: the player on top of the amount, the player out of the amount, or the house."""

    ADDED = "added"
    DEDUCTED = "deducted"
    HOUSE = "house"


@dataclass(frozen=True, slots=True)
class Fee:
    """A flat part and a share of the amount (in 1/10,000), together at least `min_minor` and at most `max_minor`."""

    flat_minor: int = 0
    basis_points: int = 0
    min_minor: int = 0
    max_minor: int | None = None
    payer: FeePayer = FeePayer.DEDUCTED

    def of(self, amount_minor: int) -> int:
        """In minor units; the share is rounded half up."""
        share = (amount_minor * self.basis_points + BASIS_POINTS // 2) // BASIS_POINTS
        fee = max(self.flat_minor + share, self.min_minor)
        return fee if self.max_minor is None else min(fee, self.max_minor)


def legs_with_fee(
    kind: TransferKind, source: End, destination: End, money: Money, fee: Fee, *, fees: End, house: End
) -> list[Leg] | None:
    """The movement and its fee; None if nothing of the amount would be left.

    Of a deposit, what the player pays on top comes from outside like the amount itself.
    """
    charged = fee.of(money.amount_minor)
    if not charged:
        return [Leg(kind, source, destination, money)]
    player = destination if source.system else source
    moved = money.amount_minor
    match fee.payer:
        case FeePayer.ADDED:
            payer = source
        case FeePayer.HOUSE:
            payer = house
        case FeePayer.DEDUCTED:
            payer = player
            moved -= charged if player is source else 0
            if charged >= money.amount_minor:
                return None
    return [
        Leg(kind, source, destination, Money(moved, money.currency)),
        Leg(TransferKind.FEE, payer, fees, Money(charged, money.currency)),
    ]
