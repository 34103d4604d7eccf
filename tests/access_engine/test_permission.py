import pytest
from hypothesis import given, strategies as st

from libs.access_engine import Permission, PermissionSyntaxError, Reach


class TestParse:
    @pytest.mark.parametrize(
        "text",
        ["wallet:read:own", "wallet:*:tenant", "*:*:all", "*:*:*", "kyc-profile:read:0192f3a1-77", "Wallet:read:own"],
    )
    def test_reads_back_as_it_was_written(self, text):
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
    def test_says_where_it_is_wrong(self, text, position, reason):
        with pytest.raises(PermissionSyntaxError, match=reason.replace("*", r"\*").replace("$", r"\$")) as caught:
            Permission.parse(text)
        assert caught.value.position == position

    @given(st.text(max_size=80))
    def test_any_text_is_a_permission_or_an_error_inside_the_text(self, text):
        try:
            read = str(Permission.parse(text))
        except PermissionSyntaxError as error:
            read, position = text, error.position
        else:
            position = 0
        assert read == text
        assert 0 <= position <= len(text)


class TestReach:
    @pytest.mark.parametrize(
        ("target", "reach"),
        [("own", Reach.OWN), ("tenant", Reach.TENANT), ("all", Reach.ALL), ("*", Reach.ALL), ("w1", Reach.NOTHING)],
    )
    def test_of_each_target(self, target, reach):
        assert Permission.parse(f"wallet:read:{target}").reach is reach
