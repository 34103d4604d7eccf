import pytest

from libs.core.errors import InvalidInput
from libs.core.ids import derived_id, new_id, parse_id


def test_new_ids_are_in_the_order_of_their_making() -> None:
    ids = [new_id() for _ in range(1_000)]
    assert ids == sorted(set(ids))


class TestDerivedId:
    def test_never_changes(self) -> None:
        assert derived_id("e1", "welcome-bonus") == derived_id("e1", "welcome-bonus")

    def test_parts_do_not_run_together(self) -> None:
        assert len({derived_id(*parts) for parts in (("a", "bc"), ("ab", "c"), ("abc",), ("a", "b", "c"))}) == 4


class TestParseId:
    @pytest.mark.parametrize("value", ["a", "0", "a-b_C9", "a" * 64])
    def test_well_formed(self, value: str) -> None:
        assert parse_id(value, "id") == value

    @pytest.mark.parametrize("value", ["", "-a", "_a", "a" * 65, "a.b", "a b", "a\n", "é", "$ne", 5, None, {"$ne": 1}])
    def test_malformed(self, value: object) -> None:
        with pytest.raises(InvalidInput) as refused:
            parse_id(value, "walletId")
        assert refused.value.field == "walletId"
