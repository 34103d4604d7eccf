from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from libs.access_engine import (
    Object,
    Permission,
    Policy,
    PolicyError,
    Role,
    RoleCycle,
    Roles,
    Scope,
    Subject,
    UnknownRole,
)

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
        chain = [Role.of(f"r{n}", inherits=[f"r{n + 1}"]) for n in range(2_000)]
        policy = Policy([*chain, Role.of("r2000", allow=["wallet:read:own"])])
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


# The rules once more, as plainly as they can be said: what the compiled policy is held against.


def reference_check(roles: dict[str, Role], subject: Subject, resource: str, action: str, obj: Object) -> bool:
    names = set(subject.roles) & roles.keys()
    while inherited := {parent for name in names for parent in roles[name].inherits} - names:
        names |= inherited

    def covers(permission: Permission) -> bool:
        same_tenant = obj.tenant_id == subject.tenant_id
        targets = {"own": same_tenant and obj.owner_id == subject.id, "tenant": same_tenant, "all": True, "*": True}
        return (
            permission.resource in (resource, "*")
            and permission.action in (action, "*")
            and targets.get(permission.target, permission.target == obj.id)
        )

    denied = any(covers(rule.permission) for name in names for rule in roles[name].deny)
    return not denied and any(covers(rule.permission) for name in names for rule in roles[name].allow)


ids = st.sampled_from(["x1", "x2", "x3"])
people = st.sampled_from(["anna", "ben"])
tenants = st.sampled_from(["acme", "other"])
resources = st.sampled_from(["wallet", "transfer"])
actions = st.sampled_from(["read", "create"])
targets = st.one_of(st.sampled_from(["own", "tenant", "all", "*"]), ids)
permissions = st.lists(
    st.builds(Permission, st.one_of(st.just("*"), resources), st.one_of(st.just("*"), actions), targets), max_size=4
)
objects = st.builds(Object, ids, st.one_of(st.none(), people), st.one_of(st.none(), tenants))


@st.composite
def role_lists(draw: st.DrawFn) -> list[Role]:
    names = [f"r{n}" for n in range(draw(st.integers(1, 6)))]
    return [
        Role.of(
            name,
            allow=map(str, draw(permissions)),
            deny=map(str, draw(permissions)),
            inherits=draw(parents_among(names[:n])),
        )
        for n, name in enumerate(names)
    ]


def parents_among(earlier: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(earlier), max_size=2) if earlier else st.just([])


subjects = st.builds(
    Subject, people, tenants, st.lists(st.sampled_from(["r0", "r1", "r2", "r3", "gone"]), max_size=3).map(tuple)
)


class TestAgainstTheReference:
    @settings(max_examples=300, deadline=None)
    @given(role_lists(), subjects, resources, actions, st.lists(objects, min_size=1, max_size=6))
    def test_check_and_filter_agree_with_it(
        self, roles: list[Role], subject: Subject, resource: str, action: str, objs: list[Object]
    ) -> None:
        policy = Policy(roles)
        scope = policy.filter(subject.roles, resource, action)
        for obj in objs:
            expected = reference_check({role.name: role for role in roles}, subject, resource, action, obj)
            assert policy.check(subject, resource, action, obj) == expected
            assert scope.permits(subject, obj) == expected
            assert not (scope.nothing and expected)

    @given(role_lists(), subjects, resources, actions)
    def test_a_scope_that_is_not_nothing_permits_some_object(
        self, roles: list[Role], subject: Subject, resource: str, action: str
    ) -> None:
        policy = Policy(roles)
        every = [
            Object(i, o, t) for i in ("x1", "x2", "x3", "new") for o in ("anna", "ben", None) for t in ("acme", "other")
        ]
        some = any(policy.check(subject, resource, action, obj) for obj in every)
        assert some != policy.filter(subject.roles, resource, action).nothing
