import json
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from libs.access_engine import (
    Effect,
    Grant,
    Object,
    Policy,
    PolicyError,
    Role,
    RoleCycle,
    Roles,
    Rule,
    RuleError,
    Scope,
    Subject,
    UnknownRole,
)
from libs.access_engine.explain import explain
from libs.access_engine.predicate import NOTHING
from tests.access_engine import reference
from tests.access_engine.reference import NOW

ANNAS = Object("w1", owner_id="anna", tenant_id="acme")
BENS = Object("w2", owner_id="ben", tenant_id="acme")
FOREIGN = Object("w3", owner_id="anna", tenant_id="other")
HOUSE = Object("house", tenant_id="acme")
EVERY_OBJECT = [ANNAS, BENS, FOREIGN, HOUSE]


def anna(*roles: str) -> Subject:
    return Subject("anna", "acme", roles)


def permitted(policy: Policy, subject: Subject) -> list[str | None]:
    return [obj.id for obj in EVERY_OBJECT if policy.check(subject, "wallet", "read", obj)]


class TestCheck:
    @pytest.mark.parametrize(
        ("allow", "deny", "expected"),
        [
            ([], [], []),
            (["wallet:read:own"], [], ["w1"]),
            (["wallet:read:tenant"], [], ["w1", "w2", "house"]),
            (["wallet:read:all"], [], ["w1", "w2", "w3", "house"]),
            (["*:*:*"], [], ["w1", "w2", "w3", "house"]),
            (["wallet:read:w2"], [], ["w2"]),
            (["wallet:read:own", "wallet:read:w2"], [], ["w1", "w2"]),
            (["wallet:write:all", "transfer:read:all", "Wallet:read:all"], [], []),
            (["wallet:*:tenant"], ["wallet:read:own"], ["w2", "house"]),
            (["wallet:read:all"], ["wallet:*:tenant"], ["w3"]),
            (["wallet:read:tenant"], ["*:*:w2"], ["w1", "house"]),
            (["wallet:read:own", "wallet:read:w2"], ["wallet:read:own"], ["w2"]),
            (["wallet:read:w1"], ["wallet:read:own"], []),
            (["wallet:read:tenant"], ["wallet:read:all"], []),
        ],
    )
    def test_permits(self, allow: list[str], deny: list[str], expected: list[str]) -> None:
        policy = Policy([Role.of("clerk", allow=allow, deny=deny)])
        assert permitted(policy, anna("clerk")) == expected

    def test_role_that_is_not_in_the_policy(self) -> None:
        assert permitted(Policy([Role.of("clerk", allow=["*:*:all"])]), anna("Clerk", "root")) == []

    def test_subject_without_id_owns_nothing(self) -> None:
        policy = Policy([Role.of("clerk", allow=["wallet:read:own"])])
        nobodys = Object("w", owner_id="", tenant_id="acme")
        assert not policy.check(Subject("", "acme", ("clerk",)), "wallet", "read", nobodys)

    def test_subject_without_tenant_belongs_nowhere(self) -> None:
        policy = Policy([Role.of("clerk", allow=["wallet:read:tenant"])])
        assert not policy.check(Subject("anna", "", ("clerk",)), "wallet", "read", Object("w", tenant_id=""))

    def test_many_in_their_order(self) -> None:
        policy = Policy([Role.of("clerk", allow=["wallet:read:own"])])
        requests = [("wallet", "read", BENS), ("wallet", "read", ANNAS), ("wallet", "write", ANNAS)]
        assert policy.check_many(anna("clerk"), requests) == [False, True, False]


class TestInheritance:
    def test_comes_from_every_ancestor(self) -> None:
        policy = Policy(
            [
                Role.of("boss", inherits=["left", "right"]),
                Role.of("left", inherits=["base"]),
                Role.of("right", allow=["wallet:read:w2"], inherits=["base"]),
                Role.of("base", allow=["wallet:read:own"]),
            ]
        )
        assert permitted(policy, anna("boss")) == ["w1", "w2"]

    def test_denial_of_an_ancestor_wins(self) -> None:
        policy = Policy(
            [Role.of("base", deny=["wallet:read:own"]), Role.of("boss", allow=["*:*:all"], inherits=["base"])]
        )
        assert "w1" not in permitted(policy, anna("boss"))

    def test_denial_of_one_role_wins_over_the_other(self) -> None:
        policy = Policy([Role.of("suspended", deny=["*:*:all"]), Role.of("boss", allow=["*:*:all"])])
        assert permitted(policy, anna("boss", "suspended")) == []

    def test_circle_is_refused_with_its_path(self) -> None:
        roles = [Role.of("a", inherits=["b"]), Role.of("b", inherits=["c"]), Role.of("c", inherits=["a"])]
        with pytest.raises(RoleCycle) as caught:
            Policy(roles)
        path = caught.value.path
        assert path[0] == path[-1]
        assert set(pairwise(path)) == {("a", "b"), ("b", "c"), ("c", "a")}

    def test_role_that_inherits_from_itself(self) -> None:
        with pytest.raises(RoleCycle, match="a → a"):
            Policy([Role.of("a", inherits=["a"])])

    def test_unknown_ancestor(self) -> None:
        with pytest.raises(UnknownRole, match="'a' inherits from 'b'"):
            Policy([Role.of("a", inherits=["b"])])

    def test_two_roles_of_one_name(self) -> None:
        with pytest.raises(PolicyError, match="two roles"):
            Policy([Role.of("a"), Role.of("a")])

    def test_chain_of_thousands(self) -> None:
        chain = [Role.of(f"r{n}", inherits=[f"r{n + 1}"]) for n in range(20_000)]
        policy = Policy([*chain, Role.of("r20000", allow=["wallet:read:own"])])
        assert permitted(policy, anna("r0")) == ["w1"]


class TestFilter:
    def test_nothing_is_known_to_be_nothing(self) -> None:
        policy = Policy([Role.of("clerk", allow=["*:*:tenant", "*:*:w1"], deny=["*:*:tenant", "*:*:w1"])])
        assert policy.filter(("clerk",), "wallet", "read") == Scope()
        assert policy.filter(("clerk",), "wallet", "read").nothing

    def test_same_roles_in_another_order(self) -> None:
        policy = Policy([Role.of("a", allow=["wallet:read:own"]), Role.of("b", deny=["wallet:read:w1"])])
        orders: list[Roles] = [("a", "b"), ("b", "a"), frozenset("ab")]
        assert len({policy.filter(roles, "wallet", "read") for roles in orders}) == 1


def policy_of(roles: reference.Roles, grants: reference.Grants = ()) -> Policy:
    return Policy(
        [Role.of(name, **fields) for name, fields in roles.items()],
        [
            Grant(f"g{n}", grant["tenant"], grant["subject"], Rule.of(data, Effect(side)))
            for n, grant in enumerate(grants)
            for side in ("allow", "deny")
            for data in grant.get(side, ())
        ],
    )


class TestAgainstTheReference:
    @settings(max_examples=500, deadline=None)
    @given(
        reference.role_sets(),
        reference.grant_lists(),
        reference.subjects,
        reference.resources,
        reference.actions,
        st.lists(reference.objects, min_size=1, max_size=6),
    )
    def test_check_filter_and_explain_agree_with_it(
        self,
        roles: reference.Roles,
        grants: reference.Grants,
        subject: Subject,
        resource: str,
        action: str,
        objects: list[Object],
    ) -> None:
        policy = policy_of(roles, grants)
        scope = policy.filter(subject, resource, action)
        predicate = scope.predicate(subject, NOW)
        for obj in objects:
            expected = reference.permits(roles, grants, subject, resource, action, obj)
            assert policy.check(subject, resource, action, obj, NOW) == expected
            assert predicate.matches(obj) == expected, predicate
            assert explain(policy, subject, resource, action, obj, NOW).allowed == expected
            assert not expected or scope.possible(subject, NOW)

    @settings(max_examples=150, deadline=None)
    @given(reference.role_sets(), reference.grant_lists())
    def test_granting_bit_by_bit_makes_the_same_policy(self, roles: reference.Roles, grants: reference.Grants) -> None:
        whole = policy_of(roles, grants)
        policy = policy_of(roles)
        for grant in whole.grants:
            holder = (grant.tenant_id, grant.subject_id)
            policy = policy.granting({holder: [*policy.grants_of(*holder), grant]})
        assert set(policy.grants) == set(whole.grants)
        assert set(policy.granting({(g.tenant_id, g.subject_id): () for g in whole.grants}).grants) == set()

    @settings(max_examples=200, deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(["r0", "r1"]),
            st.fixed_dictionaries({side: st.lists(reference.permissions, max_size=4) for side in ("allow", "deny")}),
        ),
        reference.people.filter(bool),
        reference.resources,
        reference.actions,
    )
    def test_a_plain_scope_that_is_not_nothing_permits_some_object(
        self, roles: reference.Roles, person: str, resource: str, action: str
    ) -> None:
        policy, subject = policy_of(roles), Subject(person, "acme", ("r0", "r1"))
        every = [
            Object(i, o, t) for i in ("x1", "x2", "x3", "new") for o in (person, "x", None) for t in ("acme", "other")
        ]
        some = any(policy.check(subject, resource, action, obj) for obj in every)
        assert some != policy.filter(subject, resource, action).nothing


class TestGrants:
    def test_is_for_one_subject_of_one_tenant(self) -> None:
        policy = Policy([], [Grant("g1", "acme", "anna", Rule.of("wallet:read:w2"))])
        assert permitted(policy, anna()) == ["w2"]
        assert permitted(policy, Subject("anna", "other")) == permitted(policy, Subject("ben", "acme")) == []

    def test_denies_what_a_role_allows(self) -> None:
        policy = Policy(
            [Role.of("clerk", allow=["*:*:tenant"])],
            [Grant("g1", "acme", "anna", Rule.of("wallet:*:w1", Effect.DENY))],
        )
        assert permitted(policy, anna("clerk")) == ["w2", "house"]

    def test_ends_when_it_ends_though_it_was_asked_before(self) -> None:
        until = NOW + timedelta(seconds=1)
        rule = Rule.of({"permission": "wallet:read:tenant", "until": until})
        policy = Policy([Role.of("clerk", allow=[rule])], [Grant("g1", "acme", "ben", rule)])
        for who in (anna("clerk"), Subject("ben", "acme")):
            assert policy.check(who, "wallet", "read", ANNAS, NOW)
            assert not policy.check(who, "wallet", "read", ANNAS, until)
            assert policy.filter(who, "wallet", "read").predicate(who, until) == NOTHING
            assert not policy.filter(who, "wallet", "read").possible(who, until)

    def test_that_changed_leaves_the_others(self) -> None:
        grants = [Grant(f"g{n}", "acme", who, Rule.of("wallet:read:w2")) for n, who in enumerate(("anna", "ben"))]
        policy = Policy([], grants).granting({("acme", "anna"): []})
        assert [grant.subject_id for grant in policy.grants] == ["ben"]
        assert permitted(policy, anna()) == []


class TestScopesOfAKey:
    @pytest.mark.parametrize(
        ("scopes", "expected"),
        [
            (None, ["w1", "w2", "house"]),
            ((), []),
            (("wallet:read:own",), ["w1"]),
            (("wallet:*:w2", "transfer:read:all"), ["w2"]),
            (("*:*:*",), ["w1", "w2", "house"]),
            (("wallet:read", "*", ""), []),
        ],
    )
    def test_narrow_what_the_roles_give(self, scopes: tuple[str, ...] | None, expected: list[str]) -> None:
        policy = Policy([Role.of("clerk", allow=["wallet:read:tenant"])])
        subject = Subject("anna", "acme", ("clerk",), scopes=scopes)
        assert permitted(policy, subject) == expected
        assert policy.filter(subject, "wallet", "read").possible(subject) == bool(expected)

    def test_give_nothing_by_themselves(self) -> None:
        assert permitted(Policy([]), Subject("anna", "acme", (), scopes=("*:*:*",))) == []


class TestBounds:
    @pytest.mark.parametrize(
        ("bounds", "applies"),
        [
            ({"level": 1}, True),
            ({"level": 2}, False),
            ({"tenant": "acme"}, True),
            ({"tenant": "other"}, False),
            ({"brand": "b1"}, True),
            ({"brand": "b2"}, False),
            ({"from": NOW, "until": NOW + timedelta(hours=1)}, True),
            ({"until": NOW}, False),
            ({"from": NOW + timedelta(milliseconds=1)}, False),
        ],
    )
    def test_of_an_allowance(self, bounds: dict[str, Any], applies: bool) -> None:
        policy = Policy([Role.of("clerk", allow=[{"permission": "wallet:read:all", **bounds}])])
        subject = Subject("anna", "acme", ("clerk",), brand_id="b1", level=1)
        assert policy.check(subject, "wallet", "read", ANNAS, NOW) is applies

    @pytest.mark.parametrize("who", [Subject("anna", "acme", ("clerk",)), Subject("anna", "", ("clerk",), "b1")])
    def test_a_place_that_is_not_known_allows_nothing_and_denies(self, who: Subject) -> None:
        bounded = {"permission": "wallet:read:all", "brand": "b1", "tenant": "acme"}
        assert not permitted(Policy([Role.of("clerk", allow=[bounded])]), who)
        assert not permitted(Policy([Role.of("clerk", allow=["*:*:all"], deny=[bounded])]), who)

    def test_a_denial_is_not_escaped_by_proving_less(self) -> None:
        with pytest.raises(RuleError, match="a denial has no level"):
            Role.of("clerk", deny=[{"permission": "wallet:read:all", "level": 2}])

    @pytest.mark.parametrize(
        "data",
        [
            {"permission": "wallet:read:all", "only": "mondays"},
            {"permission": "wallet:read:all", "level": "2"},
            {"permission": "wallet:read:all", "level": True},
            {"permission": "wallet:read:all", "level": -1},
            {"permission": "wallet:read:all", "until": "tomorrow"},
            {"permission": "wallet:read:all", "until": "2026-03-01T12:00:00"},
            {"permission": "wallet:read:all", "until": 5},
            {"permission": "wallet:read:all", "brand": ""},
            {"permission": "wallet:read:all", "tenant": {"$ne": ""}},
            {"level": 2},
            ["wallet:read:all"],
            None,
        ],
        ids=str,
    )
    def test_what_is_no_rule_says_where(self, data: Any) -> None:
        with pytest.raises(RuleError, match=r"roles\.clerk\.allow\[0\]"):
            Role.of("clerk", allow=[data])

    @settings(max_examples=200)
    @given(reference.rules())
    def test_a_rule_reads_back_as_it_was_written(self, data: dict[str, Any]) -> None:
        rule = Rule.of(data)
        assert Rule.of(json.loads(json.dumps(rule.dump()))) == rule


class TestHugePolicies:
    def test_ten_thousand_conditional_rules_for_as_many_ids_cost_what_one_does(self) -> None:
        data = [{"permission": f"wallet:read:w{n}", "if": {"object.open": {"eq": True}}} for n in range(10_000)]
        scope = Policy([Role.of("clerk", allow=data)]).filter(("clerk",), "wallet", "read")
        assert scope.permits(anna("clerk"), Object("w9999", attributes={"open": True}), NOW)
        assert not scope.permits(anna("clerk"), Object("w9999", attributes={"open": False}), NOW)
        assert sum(1 for _ in scope._allowing.reaching(Object("w9999"), 3)) == 1
