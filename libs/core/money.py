"""Money: a positive whole number of minor units and a currency code. No float, no rounding, no mixing of currencies."""

import re
from dataclasses import dataclass

from libs.core.errors import InvalidInput

INT64_MAX = 2**63 - 1

# ISO 4217 codes, and the longer tickers that crypto assets use.
CURRENCY_PATTERN = re.compile(r"[A-Z][A-Z0-9]{2,11}", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,19}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Money:
    """An amount that can be moved: 1 ≤ `amount_minor` ≤ 2⁶³-1, in the currency's minor unit."""

    amount_minor: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.amount_minor) is not int or not 0 < self.amount_minor <= INT64_MAX:
            raise InvalidInput("an amount is a whole number of minor units from 1 to 2^63-1", field="amount")
        if not CURRENCY_PATTERN.fullmatch(self.currency):
            raise InvalidInput("a currency is 3 to 12 upper-case letters or digits, such as EUR", field="currency")

    def __str__(self) -> str:
        return f"{self.amount_minor} {self.currency} (minor units)"


def parse_minor_units(value: object) -> int:
    """An int64 ≥ 0 from the decimal digits that GraphQL's `BigInt` carries. `ValueError` on anything else."""
    if type(value) is int and 0 <= value <= INT64_MAX:
        return value
    if isinstance(value, str) and _DIGITS.fullmatch(value) and int(value) <= INT64_MAX:
        return int(value)
    raise ValueError("not a whole number from 0 to 2^63-1")
