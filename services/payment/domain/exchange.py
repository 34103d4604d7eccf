"""Currencies against each other: what an amount of one is in another, at a rate, to the last minor unit."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from libs.core.money import INT64_MAX, Money

BASIS_POINTS = 10_000


@dataclass(frozen=True, slots=True)
class Quote:
    """What one amount buys of another currency, until it expires. Its id is that of the exchange that takes it up."""

    id: str
    tenant_id: str
    owner_id: str
    source: Money
    target: Money
    rate: str
    at: datetime
    expires_at: datetime

    @property
    def key(self) -> str:
        return f"{self.tenant_id}:{self.id}"


def effective_rate(rate: str, spread_basis_points: int) -> Fraction:
    """`rate` is a decimal: how many major units of the target one of the source is worth; the spread is the house's."""
    return Fraction(rate) * Fraction(BASIS_POINTS - spread_basis_points, BASIS_POINTS)


def converted(amount_minor: int, rate: Fraction, source_scale: int, target_scale: int) -> int:
    """In the target's minor units, rounded down: a fraction of one stays with the house. 0 if it is less than one.

    Exact: with a float the last unit would depend on the size of the amount. `OverflowError` past 64 bits.
    """
    exact = amount_minor * rate * Fraction(10) ** (target_scale - source_scale)
    whole = exact.numerator // exact.denominator
    if whole > INT64_MAX:
        raise OverflowError("more than 64 bits hold")
    return whole


def decimal(rate: Fraction) -> str:
    """For people: to 12 decimals."""
    return f"{Decimal(rate.numerator) / Decimal(rate.denominator):.12f}".rstrip("0").rstrip(".")
