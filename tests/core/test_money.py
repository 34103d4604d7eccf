import pytest
from hypothesis import given, strategies as st

from libs.core.errors import InvalidInput
from libs.core.money import INT64_MAX, Money, parse_minor_units


class TestMoney:
    @pytest.mark.parametrize("amount", [1, INT64_MAX])
    def test_bounds(self, amount: int) -> None:
        assert Money(amount, "EUR").amount_minor == amount

    @pytest.mark.parametrize("amount", [0, -1, INT64_MAX + 1, 1.0, True, "5", None])
    def test_refuses_the_amount(self, amount: int) -> None:
        with pytest.raises(InvalidInput) as refused:
            Money(amount, "EUR")
        assert refused.value.field == "amount"

    @pytest.mark.parametrize("currency", ["", "eur", "EU", "EUR ", "EUR\n", "€UR", "1EU", "A" * 13])
    def test_refuses_the_currency(self, currency: str) -> None:
        with pytest.raises(InvalidInput) as refused:
            Money(5, currency)
        assert refused.value.field == "currency"


class TestParseMinorUnits:
    @given(st.integers(0, INT64_MAX))
    def test_digits_and_ints(self, amount: int) -> None:
        assert parse_minor_units(str(amount)) == parse_minor_units(amount) == amount

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(str(INT64_MAX + 1), id="over 64 bits"),
            pytest.param(INT64_MAX + 1, id="an int over 64 bits"),
            pytest.param("-1", id="negative"),
            pytest.param("1.0", id="fractional"),
            pytest.param("1e3", id="an exponent"),
            pytest.param("1_000", id="Python's separator"),
            pytest.param(" 1", id="a blank"),
            pytest.param("1\n", id="a line's end"),
            pytest.param("٣", id="a digit of another script"),
            pytest.param("9" * 5_000, id="digits that int() would take long for"),
            pytest.param("", id="nothing"),
            pytest.param(1.0, id="a float"),
            pytest.param(True, id="a boolean"),
            pytest.param({"$gt": 0}, id="an operator"),
        ],
    )
    def test_refused(self, value: object) -> None:
        with pytest.raises(ValueError, match="not a whole number"):
            parse_minor_units(value)
