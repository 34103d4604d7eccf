import re

import pytest
from hypothesis import given, strategies as st

from libs.access_engine import Permission, PermissionSyntaxError, Reach

WELL_FORMED = re.compile(r"(\*|[A-Za-z0-9][\w-]{0,63})(:(\*|[A-Za-z0-9][\w-]{0,63})){2}", re.ASCII)


class TestParse:
    @pytest.mark.parametrize(
        "text",
        ["wallet:read:own", "wallet:*:tenant", "*:*:all", "*:*:*", "kyc-profile:read:0192f3a1-77", "Wallet:read:own"],
    )
    def test_reads_back_as_it_was_written(self, text: str) -> None:
        assert str(Permission.parse(text)) == text

    @pytest.mark.parametrize(
        ("text", "position", "reason"),
        [
            ("", 0, "resource is empty"),
            ("wallet", 6, "the action are missing"),
            ("wallet:read", 11, "the target are missing"),
            ("wallet:read:", 12, "target is empty"),
            (":read:own", 0, "resource is empty"),
            ("wallet::own", 7, "action is empty"),
            ("wallet:read:own:x", 15, "no more than three parts"),
            ("wallet:read:own:", 15, "no more than three parts"),
            (" wallet:read:own", 0, "cannot begin with ' '"),
            ("wallet:read:own ", 15, "cannot hold ' '"),
            ("wallet:read:own\n", 15, "cannot hold"),
            ("wal*:read:own", 3, "cannot hold '*'"),
            ("wallet:**:own", 7, "cannot begin with '*'"),
            ("wallet:read:Own", 12, "lower case"),
            ("wallet:read:ALL", 12, "lower case"),
            ("wallet:read:$ne", 12, "cannot begin with '$'"),
            ("wållet:read:own", 1, "cannot hold 'å'"),
            (f"wallet:{'a' * 65}:own", 71, "longer than 64"),
        ],
    )
    def test_says_where_it_is_wrong(self, text: str, position: int, reason: str) -> None:
        with pytest.raises(PermissionSyntaxError, match=reason.replace("*", r"\*").replace("$", r"\$")) as caught:
            Permission.parse(text)
        assert caught.value.position == position

    @given(st.text(max_size=80).filter(lambda text: not WELL_FORMED.fullmatch(text)))
    def test_any_other_text_is_refused_inside_it(self, text: str) -> None:
        with pytest.raises(PermissionSyntaxError) as caught:
            Permission.parse(text)
        assert 0 <= caught.value.position <= len(text)


class TestReach:
    @pytest.mark.parametrize(
        ("target", "reach"),
        [("own", Reach.OWN), ("tenant", Reach.TENANT), ("all", Reach.ALL), ("*", Reach.ALL), ("w1", Reach.NOTHING)],
    )
    def test_of_each_target(self, target: str, reach: Reach) -> None:
        assert Permission.parse(f"wallet:read:{target}").reach is reach
