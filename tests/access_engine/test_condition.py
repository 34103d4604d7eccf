import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from libs.access_engine import ConditionError, Effect, Object, Policy, Role, Subject
from libs.access_engine.condition import MAX_DEPTH, MAX_MEMBERS, MAX_TESTS, dump_condition, parse_condition
from tests.access_engine import reference

ANNA = Subject("anna", "acme", brand_id="b1", level=1, attributes={"limit": 100})
WALLET = Object(
    "w1", "anna", "acme", {"status": "open", "amount": 5, "tags": ["vip"], "at": datetime(2026, 3, 1, tzinfo=UTC)}
)


class TestTruth:
    @pytest.mark.parametrize(
        ("condition", "truth"),
        [
            ({"object.status": {"eq": "open"}}, True),
            ({"object.status": {"ne": "open"}}, False),
            ({"object.status": {"in": ["new", "open"]}}, True),
            ({"object.amount": {"le": 5}}, True),
            ({"object.amount": {"lt": {"ref": "subject.limit"}}}, True),
            ({"object.tags": {"contains": "vip"}}, True),
            ({"object.gone": {"exists": False}}, True),
            ({"object.owner_id": {"eq": {"ref": "subject.id"}}}, True),
            ({"object.at": {"lt": {"time": "2026-03-01T00:00:00+00:30"}}}, False),
            ({"object.at": {"lt": {"time": "2026-03-01T00:00:00-00:30"}}}, True),
            ({"subject.level": {"ge": 2}}, False),
            # Of another kind: unequal, but neither less nor more.
            ({"object.amount": {"eq": "5"}}, False),
            ({"object.amount": {"eq": True}}, False),
            ({"object.status": {"lt": 5}}, None),
            # What cannot be told.
            ({"object.gone": {"eq": "x"}}, None),
            ({"object.gone": {"ne": "x"}}, None),
            ({"not": {"object.gone": {"eq": "x"}}}, None),
            ({"object.amount": {"eq": {"ref": "subject.gone"}}}, None),
            ({"object.tags": {"eq": "vip"}}, None),
            ({"object.status": {"contains": "open"}}, None),
            # Unknown does not matter where the rest decides.
            ({"all": [{"object.gone": {"eq": 1}}, {"object.amount": {"eq": 6}}]}, False),
            ({"any": [{"object.gone": {"eq": 1}}, {"object.amount": {"eq": 5}}]}, True),
        ],
        ids=str,
    )
    def test_of(self, condition: dict[str, Any], truth: bool | None) -> None:
        assert parse_condition(condition).truth(ANNA, WALLET) is truth

    @settings(max_examples=800, deadline=None)
    @given(reference.conditions, reference.subjects, reference.objects)
    def test_is_what_the_reference_says_and_so_are_the_predicates(
        self, data: dict[str, Any], subject: Subject, obj: Object
    ) -> None:
        condition = parse_condition(data)
        truth = reference.truth(data, subject, obj)
        assert condition.truth(subject, obj) is truth
        assert condition.surely(subject, wanted=True).matches(obj) is (truth is True)
        assert condition.surely(subject, wanted=False).matches(obj) is (truth is False)
        assert parse_condition(json.loads(json.dumps(dump_condition(condition)))) == condition


class TestMissingAttributes:
    """Whatever is missing or misspelt, on either side of `not`, nothing is given away."""

    CONDITIONS = ({"object.frozen": {"eq": True}}, {"not": {"object.frozen": {"eq": True}}})

    @pytest.mark.parametrize("condition", CONDITIONS, ids=str)
    def test_allow_nothing(self, condition: dict[str, Any]) -> None:
        policy = Policy([Role.of("clerk", allow=[{"permission": "wallet:read:all", "if": condition}])])
        assert not policy.check(Subject("anna", "acme", ("clerk",)), "wallet", "read", Object("w1"))

    @pytest.mark.parametrize("condition", CONDITIONS, ids=str)
    def test_deny(self, condition: dict[str, Any]) -> None:
        deny = {"permission": "wallet:read:all", "if": condition}
        policy = Policy([Role.of("clerk", allow=["*:*:all"], deny=[deny])])
        assert not policy.check(Subject("anna", "acme", ("clerk",)), "wallet", "read", Object("w1"))

    def test_rules_that_differ_in_kind_alone_stay_two(self) -> None:
        conditions = [{"object.x": {"eq": value}} for value in (1, True)]
        role = Role.of("clerk", allow=[{"permission": "wallet:read:all", "if": each} for each in conditions])
        policy, clerk = Policy([role]), Subject("anna", "acme", ("clerk",))
        assert len(policy.filter(clerk, "wallet", "read").allow_if) == 2
        assert all(policy.check(clerk, "wallet", "read", Object(attributes={"x": value})) for value in (1, True))


def nested(depth: int) -> dict[str, Any]:
    condition: dict[str, Any] = {"object.x": {"eq": 1}}
    for _ in range(depth):
        condition = {"not": condition}
    return condition


TEST = {"object.x": {"eq": 1}}


class TestParse:
    @pytest.mark.parametrize(
        ("data", "path", "reason"),
        [
            (None, "if", "exactly one key"),
            ([], "if", "exactly one key"),
            ({}, "if", "exactly one key"),
            ({**TEST, "all": [TEST]}, "if", "exactly one key"),
            ({"all": []}, "if.all", "not empty"),
            ({"any": TEST}, "if.any", "takes a list"),
            ({"all": [TEST, {"status": {"eq": 1}}]}, "if.all[1].status", "nor an attribute"),
            ({"object.$where": {"eq": 1}}, "if.object.$where", "nor an attribute"),
            ({"object.a.b": {"eq": 1}}, "if.object.a.b", "nor an attribute"),
            ({"object.x": 1}, "if.object.x", "exactly one key"),
            ({"object.x": {"$ne": 1}}, "if.object.x.$ne", "no operator"),
            ({"object.x": {"regex": "a"}}, "if.object.x.regex", "no operator"),
            ({"object.x": {"eq": {"$gt": ""}}}, "if.object.x.eq", "no value"),
            ({"object.x": {"eq": None}}, "if.object.x.eq", "no value"),
            ({"object.x": {"eq": [1]}}, "if.object.x.eq", "no value"),
            ({"object.x": {"lt": True}}, "if.object.x.lt", "no order"),
            ({"object.x": {"in": []}}, "if.object.x.in", "list of 1 to"),
            ({"object.x": {"in": [1, [2]]}}, "if.object.x.in[1]", "no value"),
            ({"object.x": {"exists": 1}}, "if.object.x.exists", "true or false"),
            ({"object.x": {"eq": {"ref": "object.y"}}}, "if.object.x.eq", "attribute of the subject"),
            ({"object.x": {"eq": {"ref": ["subject.id"]}}}, "if.object.x.eq", "attribute of the subject"),
            ({"object.x": {"eq": {"time": "2026-03-01"}}}, "if.object.x.eq", "no instant"),
            ({"object.x": {"eq": float("nan")}}, "if.object.x.eq", "finite"),
            ({"object.x": {"eq": 2**63}}, "if.object.x.eq", "64 bits"),
            ({"object.x": {"eq": "a" * 257}}, "if.object.x.eq", "no longer than"),
            ({"object.x": {"eq": "\ud800"}}, "if.object.x.eq", "surrogates"),
            ({1: {"eq": 1}}, "if", "no text"),
            ({"all": [TEST] * MAX_TESTS}, f"if.all[{MAX_TESTS - 1}]", "no more than"),
            ({"object.x": {"in": list(range(MAX_MEMBERS + 1))}}, "if.object.x.in", "list of 1 to"),
            (nested(MAX_DEPTH), f"if{'.not' * MAX_DEPTH}", "no deeper"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_says_where_it_is_wrong(self, data: Any, path: str, reason: str) -> None:
        with pytest.raises(ConditionError, match=reason) as caught:
            parse_condition(data)
        assert caught.value.path == path

    def test_one_that_is_nested_for_ever(self) -> None:
        endless: dict[str, Any] = {}
        endless["not"] = endless
        with pytest.raises(ConditionError, match="no deeper"):
            parse_condition(endless)

    def test_a_bomb_of_shared_parts_is_not_unfolded(self) -> None:
        bomb: dict[str, Any] = TEST
        for _ in range(6):
            bomb = {"all": [bomb] * 50}
        with pytest.raises(ConditionError, match="no more than"):
            parse_condition(bomb)

    @settings(max_examples=300)
    @given(
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.dictionaries(st.sampled_from(["all", "not", "object.x", "eq", "in", "ref", "time"]), inner),
            ),
            max_leaves=8,
        )
    )
    def test_anything_else_is_a_condition_error(self, data: Any) -> None:
        with suppress(ConditionError):
            parse_condition(data)

    def test_what_a_denial_says_of_itself(self) -> None:
        role = Role.of("clerk", deny=[{"permission": "wallet:read:all", "if": TEST}])
        assert role.deny[0].effect is Effect.DENY
        assert str(role.deny[0]) == "deny wallet:read:all if {'object.x': {'eq': 1}}"
