from datetime import timedelta
from typing import Any

import pytest

from libs.access_engine import Grant, Policy, Role, Rule, Subject
from libs.access_engine.diff import diff
from libs.access_engine.lint import lint
from tests.access_engine.reference import NOW

CATALOGUE = {"wallet": ["read", "freeze"], "audit": ["read"]}


def found(*roles: Role, **options: Any) -> list[tuple[str, str]]:
    return [(finding.code, finding.where) for finding in lint(roles, now=NOW, **options)]


class TestLint:
    def test_nothing_wrong(self) -> None:
        reader = Role.of("reader", allow=["wallet:read:own"], deny=["wallet:read:w9"])
        assert found(reader, Role.of("clerk", allow=["*:read:tenant"]), catalogue=CATALOGUE) == []

    @pytest.mark.parametrize(
        ("roles", "code"),
        [
            ([Role.of("a", inherits=["b"]), Role.of("b", inherits=["a"])], "inheritance-cycle"),
            ([Role.of("a", inherits=["gone"])], "unknown-role"),
            ([Role.of("a"), Role.of("a")], "no-policy"),
            ([Role.of("a", allow=["walet:read:own"])], "unknown-resource"),
            ([Role.of("a", allow=["wallet:raed:own"])], "unknown-action"),
            ([Role.of("a", allow=["audit:freeze:own"])], "unknown-action"),
            ([Role.of("a", allow=["*:fly:own"])], "unknown-action"),
            ([Role.of("a", allow=["wallet:read:own", "wallet:read:tenant"])], "unreachable-rule"),
            ([Role.of("a", allow=["wallet:read:own", "wallet:read:own"])], "unreachable-rule"),
            ([Role.of("a", allow=["wallet:read:all", "wallet:read:*"])], "unreachable-rule"),
            ([Role.of("a", allow=[{"permission": "wallet:read:own", "until": NOW}])], "unreachable-rule"),
            (
                [
                    Role.of(
                        "a",
                        allow=[
                            {
                                "permission": "wallet:read:own",
                                "if": {"all": [{"object.x": {"eq": 1}}, {"object.x": {"in": [2, 3]}}]},
                            }
                        ],
                    )
                ],
                "unreachable-rule",
            ),
            ([Role.of("a", allow=["wallet:read:own"], deny=["wallet:*:tenant"])], "shadowed-allow"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_finds(self, roles: list[Role], code: str) -> None:
        assert found(*roles, catalogue=CATALOGUE) == [(code, f"role {roles[0].name}")]

    def test_what_an_ancestor_leaves_nothing_to_say(self) -> None:
        base = Role.of("base", allow=["wallet:read:tenant"], deny=["audit:read:all"])
        clerk = Role.of("clerk", allow=["wallet:read:own", "audit:read:own"], inherits=["base"])
        assert found(base, clerk) == [("unreachable-rule", "role clerk"), ("shadowed-allow", "role clerk")]

    def test_says_what_was_meant(self) -> None:
        [finding] = lint([Role.of("a", allow=["walet:read:own"])], catalogue=CATALOGUE, now=NOW)
        assert "did you mean 'wallet'?" in str(finding)

    def test_a_grant_wider_than_its_authors_own(self) -> None:
        clerk = Role.of("clerk", allow=["wallet:read:tenant"])
        grants = [
            Grant("g1", "acme", "ben", Rule.of("wallet:read:own"), "anna"),
            Grant("g2", "acme", "ben", Rule.of("wallet:freeze:own"), "anna"),
        ]
        authors = {("acme", "anna"): Subject("anna", "acme", ("clerk",))}
        assert found(clerk, grants=grants, authors=authors) == [("grant-too-wide", "grant g2")]


class TestDiff:
    def test_of_the_same(self) -> None:
        policy = Policy([Role.of("a", allow=["wallet:read:own"])])
        assert not diff(policy, policy)
        assert str(diff(policy, policy)) == "no change"

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            ({}, {"allow": ["wallet:read:own"]}, ["wider    a: wallet:read  nothing → own"]),
            ({"allow": ["wallet:read:own"]}, {}, ["narrower a: wallet:read  own → nothing"]),
            ({"allow": ["wallet:read:own"]}, {"allow": ["wallet:read:w1"]}, ["changed  a: wallet:read  own → w1"]),
            ({"allow": ["*:*:own"]}, {"allow": ["*:*:tenant"]}, ["wider    a: *:*  own → tenant"]),
            # Said of the one pair that both rules are about, though no rule names it.
            (
                {"allow": ["wallet:*:all"]},
                {"allow": ["wallet:*:all"], "deny": ["*:read:w1"]},
                ["narrower a: wallet:read  all → all but not w1"],
            ),
        ],
        ids=str,
    )
    def test_by_effect(self, old: dict[str, Any], new: dict[str, Any], expected: list[str]) -> None:
        found = diff(Policy([Role.of("a", **old)]), Policy([Role.of("a", **new)]))
        assert str(found).splitlines() == expected

    def test_through_a_role_that_it_inherits_from(self) -> None:
        old, new = ([Role.of("b", allow=allow), Role.of("a", inherits=["b"])] for allow in ([], ["wallet:read:own"]))
        assert [(change.role, change.kind) for change in diff(Policy(old), Policy(new)).changes] == [
            ("a", "wider"),
            ("b", "wider"),
        ]

    def test_of_grants(self) -> None:
        one, other = (Grant(f"g{n}", "acme", "anna", Rule.of("wallet:read:own")) for n in (1, 2))
        late = Grant("g3", "acme", "anna", Rule.of({"permission": "wallet:read:own", "until": NOW + timedelta(1)}))
        found = diff(Policy([], [one, other]), Policy([], [other, late]))
        assert (found.granted, found.revoked) == ((late,), (one,))
