from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from libs.access_engine import Effect, Grant, Object, Policy, Role, Rule, Subject
from libs.access_engine.coverage import uncovered
from tests.access_engine import reference
from tests.access_engine.reference import NOW

OPEN = {"object.status": {"eq": "open"}}


def holds(allow: list[Any], wanted: Any, *, deny: tuple[Any, ...] = (), confined: bool = True, **subject: Any) -> bool:
    policy = Policy([Role.of("clerk", allow=allow, deny=deny)])
    author = Subject("anna", "acme", ("clerk",), **subject)
    return not uncovered(policy, author, [Rule.of(wanted)], NOW, confined=confined)


def until(hours: int) -> str:
    return (NOW + timedelta(hours=hours)).isoformat()


class TestUncovered:
    @pytest.mark.parametrize(
        ("allow", "wanted", "held"),
        [
            (["wallet:read:tenant"], "wallet:read:tenant", True),
            (["wallet:read:tenant"], "wallet:read:own", True),
            (["wallet:read:own"], "wallet:read:tenant", False),
            (["wallet:read:tenant"], "wallet:read:all", True),
            (["wallet:read:own"], "wallet:read:all", False),
            (["wallet:read:tenant"], "wallet:read:w1", True),
            (["wallet:read:own"], "wallet:read:w1", False),
            (["wallet:read:w1"], "wallet:read:w1", True),
            (["wallet:read:w1"], "wallet:read:w2", False),
            (["*:*:tenant"], "wallet:read:tenant", True),
            (["wallet:*:tenant"], "*:*:tenant", False),
            (["wallet:read:tenant"], "wallet:*:own", False),
            ([], "wallet:read:own", False),
        ],
    )
    def test_permissions(self, allow: list[str], wanted: str, held: bool) -> None:
        assert holds(allow, wanted) is held

    def test_an_id_may_be_of_another_tenant_unless_nobody_gets_there(self) -> None:
        assert not holds(["wallet:read:tenant"], "wallet:read:w1", confined=False)
        assert not holds(["wallet:read:tenant"], "wallet:read:all", confined=False)
        assert holds(["wallet:read:all"], "wallet:read:w1", confined=False)

    @pytest.mark.parametrize(
        ("bounds", "wanted", "held"),
        [
            ({"until": until(2)}, {"until": until(1)}, True),
            ({"until": until(2)}, {"until": until(3)}, False),
            ({"until": until(2)}, {}, False),
            ({"until": until(0)}, {"until": until(0)}, False),
            ({"from": until(1)}, {"from": until(1)}, False),
            ({"from": until(-1)}, {}, True),
            ({"level": 1}, {"level": 1}, True),
            ({"level": 1}, {}, False),
            ({"level": 2}, {"level": 2}, False),
            ({"brand": "b1"}, {"brand": "b1"}, True),
            ({"brand": "b1"}, {}, False),
            ({"brand": "b2"}, {"brand": "b2"}, False),
            ({"tenant": "acme"}, {}, True),
            ({"tenant": "other"}, {"tenant": "other"}, False),
            ({"if": OPEN}, {"if": OPEN}, True),
            ({"if": OPEN}, {"if": {"all": [OPEN, {"object.x": {"eq": 1}}]}}, True),
            ({"if": OPEN}, {}, False),
            ({"if": {"all": [OPEN, {"object.x": {"eq": 1}}]}}, {"if": OPEN}, False),
            ({}, {"if": OPEN}, True),
        ],
        ids=str,
    )
    def test_bounds(self, bounds: dict[str, Any], wanted: dict[str, Any], held: bool) -> None:
        allow = [{"permission": "wallet:read:tenant", **bounds}]
        assert holds(allow, {"permission": "wallet:read:own", **wanted}, level=1, brand_id="b1") is held

    @pytest.mark.parametrize(
        ("deny", "held"),
        [
            ("wallet:read:w1", False),
            ("*:read:own", False),
            ("wallet:close:all", True),
            ({"permission": "wallet:read:all", "until": until(0)}, True),
            ({"permission": "wallet:read:all", "from": until(5)}, False),
        ],
        ids=str,
    )
    def test_what_is_denied_to_the_author(self, deny: Any, held: bool) -> None:
        assert holds(["*:*:tenant"], "wallet:read:tenant", deny=(deny,)) is held

    def test_scopes_of_the_authors_key(self) -> None:
        assert not holds(["*:*:tenant"], "wallet:read:tenant", scopes=("wallet:read:own",))
        assert holds(["*:*:tenant"], "wallet:read:own", scopes=("wallet:read:own",))

    def test_what_the_author_was_granted(self) -> None:
        policy = Policy([], [Grant("g1", "acme", "anna", Rule.of("wallet:read:tenant"))])
        wanted = [Rule.of("wallet:read:own"), Rule.of("wallet:close:own", Effect.DENY)]
        assert uncovered(policy, Subject("anna", "acme"), wanted, NOW) == wanted[1:]

    @settings(max_examples=300, deadline=None)
    @given(
        reference.role_sets(),
        reference.subjects,
        reference.rules(),
        reference.resources,
        reference.actions,
        st.lists(reference.objects, min_size=1, max_size=4),
    )
    def test_nobody_gives_themselves_more_than_they_hold(
        self,
        roles: dict[str, Any],
        author: Subject,
        data: dict[str, Any],
        resource: str,
        action: str,
        objects: list[Object],
    ) -> None:
        policy = Policy([Role.of(name, **fields) for name, fields in roles.items()])
        rule = Rule.of(data)
        if uncovered(policy, author, [rule], NOW):
            return
        richer = policy.granting({(author.tenant_id, author.id): [Grant("g", author.tenant_id, author.id, rule)]})
        for obj in objects:
            gained = richer.check(author, resource, action, obj, NOW)
            assert gained == policy.check(author, resource, action, obj, NOW)
