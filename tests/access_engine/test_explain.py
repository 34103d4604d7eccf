from datetime import timedelta

import pytest

from libs.access_engine import Effect, Grant, Object, Policy, Reach, Role, Rule, Subject
from libs.access_engine.explain import explain, who_can
from tests.access_engine.reference import NOW

ROLES = [
    Role.of("reader", allow=["wallet:read:own"]),
    Role.of("clerk", allow=["*:read:tenant", {"permission": "wallet:freeze:tenant", "level": 2}], inherits=["reader"]),
    Role.of("boss", deny=["wallet:read:w9"], inherits=["clerk"]),
]
GRANTS = [Grant("g1", "acme", "ben", Rule.of({"permission": "wallet:read:w1", "until": NOW}))]
POLICY = Policy(ROLES, GRANTS)
OWN, OTHERS, NINTH = (Object(i, owner, "acme") for i, owner in (("w1", "anna"), ("w2", "ben"), ("w9", "anna")))


def anna(*roles: str, level: int = 0, scopes: tuple[str, ...] | None = None) -> Subject:
    return Subject("anna", "acme", roles, level=level, scopes=scopes)


class TestExplain:
    def test_the_winner_has_the_path_to_it(self) -> None:
        found = explain(POLICY, anna("boss"), "wallet", "read", OWN, NOW)
        assert found.allowed
        assert found.winner
        assert (str(found.winner.rule), found.winner.via) == ("allow wallet:read:own", ("boss", "clerk", "reader"))
        assert [(str(each.rule), each.reason) for each in found.others] == [
            ("deny wallet:read:w9", "it is about another object"),
            ("allow *:read:tenant", "it says the same, less specifically"),
        ]

    def test_a_denial_wins(self) -> None:
        found = explain(POLICY, anna("boss"), "wallet", "read", NINTH, NOW)
        assert not found.allowed
        assert found.winner
        assert found.winner.via == ("boss",)
        assert {each.reason for each in found.others} == {"a denial wins over it"}

    @pytest.mark.parametrize(
        ("subject", "action", "obj", "reason"),
        [
            (anna("reader"), "read", OTHERS, "the object is not the subject's own"),
            (anna("clerk"), "freeze", Object("w1", tenant_id="other"), "the object is not of the subject's tenant"),
            (anna("clerk", level=1), "freeze", OWN, "it needs level 2, and the subject has 1"),
            (Subject("ben", "acme"), "read", OWN, "it was over at 2026-03-01T12:00:00+00:00"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_why_a_candidate_lost(self, subject: Subject, action: str, obj: Object, reason: str) -> None:
        found = explain(POLICY, subject, "wallet", action, obj, NOW)
        assert (found.allowed, found.winner) == (False, None)
        assert [each.reason for each in found.others] == [reason]

    def test_without_any_candidate(self) -> None:
        assert str(explain(POLICY, anna("gone"), "wallet", "read", OWN, NOW)) == "denied: no rule allows it"

    def test_scopes_that_do_not_let_it_through(self) -> None:
        found = explain(POLICY, anna("reader", scopes=("wallet:read:w2",)), "wallet", "read", OWN, NOW)
        assert str(found).splitlines() == [
            "denied: a rule allows it, but none of the subject's scopes does",
            "  lost: allow wallet:read:own (reader): it allows, but the scopes do not",
        ]

    def test_what_a_condition_found(self) -> None:
        when = {"all": [{"object.status": {"eq": "open"}}, {"not": {"object.gone": {"eq": 1}}}]}
        policy = Policy([Role.of("clerk", allow=[{"permission": "wallet:read:all", "if": when}])])
        [lost] = explain(policy, anna("clerk"), "wallet", "read", Object(attributes={"status": "open"}), NOW).others
        assert lost.reason == (
            "its condition cannot be told: {'object.status': {'eq': 'open'}} is true, object.status being 'open'; "
            "{'object.gone': {'eq': 1}} is unknown, object.gone being missing"
        )

    def test_a_denial_for_want_of_an_attribute(self) -> None:
        deny = {"permission": "wallet:read:all", "if": {"object.gone": {"eq": 1}}}
        policy = Policy([Role.of("clerk", allow=["*:*:all"], deny=[deny])])
        winner = explain(policy, anna("clerk"), "wallet", "read", OWN, NOW).winner
        assert winner
        assert winner.reason.startswith("it applies, as nothing shows that it does not")


class TestWhoCan:
    def test_do_it_at_all(self) -> None:
        found = who_can(POLICY, "wallet", "read", subjects=[anna("reader"), anna()], now=NOW - timedelta(hours=1))
        assert found.roles == {"boss": Reach.TENANT, "clerk": Reach.TENANT, "reader": Reach.OWN}
        assert found.grants == tuple(GRANTS)
        assert found.subjects == (anna("reader"),)

    def test_do_it_to_one_object(self) -> None:
        found = who_can(POLICY, "wallet", "read", NINTH, now=NOW)
        assert found.roles == {"clerk": Reach.TENANT, "reader": Reach.OWN}

    def test_not_by_a_grant_that_is_over(self) -> None:
        assert who_can(POLICY, "wallet", "read", OWN, now=NOW).grants == ()

    def test_not_by_a_grant_that_another_denies(self) -> None:
        denial = Grant("g2", "acme", "ben", Rule.of("wallet:*:w1", Effect.DENY))
        policy = Policy(ROLES, [*GRANTS, denial])
        assert who_can(policy, "wallet", "read", OWN, now=NOW - timedelta(hours=1)).grants == ()
