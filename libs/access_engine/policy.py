"""Roles and grants, and the policy that they make together: compiled once, never changed."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Self

from libs.access_engine.permission import Permission, PermissionSyntaxError
from libs.access_engine.rule import Grant, Role, Rule
from libs.access_engine.scope import Scope
from libs.access_engine.subject import Object, Subject

Roles = tuple[str, ...] | frozenset[str]
Holder = tuple[str, str]  # a tenant's id and a subject's

# What is cached, in entries: the sets of roles that callers have are few, the actions of a platform some hundreds.
_ROLE_SETS = 1_024
_SCOPES = 16_384
_SCOPES_OF_A_HOLDER = 64


class PolicyError(ValueError):
    """These roles make no policy."""


class UnknownRole(PolicyError):
    """`role` inherits from `inherited`, which is not there."""

    def __init__(self, role: str, inherited: str) -> None:
        super().__init__(f"role {role!r} inherits from {inherited!r}, which does not exist")
        self.role = role
        self.inherited = inherited


class RoleCycle(PolicyError):
    """`path` begins and ends with the same role, and each role in it inherits from the next."""

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__(f"roles inherit in a circle: {' → '.join(path)}")
        self.path = tuple(path)


class Policy:
    """Immutable, and safe to share. A role that a subject has and the policy does not know grants nothing.

    What is cached is what roles reach (`Scope`), never a decision: rules with a time or a condition are looked at anew
    for each, so that a grant ends when it ends.
    """

    __slots__ = ("_by_action", "_held", "_narrowed", "_roles", "_scope")

    def __init__(self, roles: Iterable[Role], grants: Iterable[Grant] = ()) -> None:
        """Raises `UnknownRole`, `RoleCycle`, or `PolicyError` for two roles of one name."""
        self._roles = _by_name(roles)
        _check_inheritance(self._roles)
        self._by_action = lru_cache(maxsize=_ROLE_SETS)(self._group_by_action)
        self._scope = lru_cache(maxsize=_SCOPES)(self._find_scope)
        self._narrowed = lru_cache(maxsize=_SCOPES)(self._find_narrowed)
        self._held: dict[Holder, _Held] = _by_holder(grants)

    def granting(self, changed: Mapping[Holder, Iterable[Grant]]) -> Self:
        """The same policy, where each holder in `changed` has those grants and no others. It compiles nothing anew."""
        other = object.__new__(type(self))
        other._roles, other._by_action = self._roles, self._by_action
        other._scope, other._narrowed = self._scope, self._narrowed
        gone = {holder for holder in changed if holder in self._held}
        held = (
            {holder: grants for holder, grants in self._held.items() if holder not in gone} if gone else {**self._held}
        )
        held.update(_by_holder(grant for grants in changed.values() for grant in grants))
        other._held = held
        return other

    @property
    def roles(self) -> Mapping[str, Role]:
        return self._roles

    def lineage(self, roles: Iterable[str]) -> frozenset[str]:
        """`roles` and all that they inherit from, as far as the policy knows them."""
        found = {role for role in roles if role in self._roles}
        waiting = list(found)
        while waiting:
            parents = set(self._roles[waiting.pop()].inherits) - found
            found |= parents
            waiting += parents
        return frozenset(found)

    def grants_of(self, tenant_id: str, subject_id: str) -> tuple[Grant, ...]:
        held = self._held.get((tenant_id, subject_id))
        return held.grants if held else ()

    @property
    def grants(self) -> Iterable[Grant]:
        return (grant for held in self._held.values() for grant in held.grants)

    def check(self, subject: Subject, resource: str, action: str, obj: Object, now: datetime | None = None) -> bool:
        """Whether `subject` may do `action` to `obj`, a `resource`. `now`: the current instant unless it is given."""
        if self._held or subject.scopes is not None:
            return self._scope_of(subject, resource, action).permits(subject, obj, now)
        return self._scope(subject.roles, resource, action).permits(subject, obj, now)

    def check_many(
        self, subject: Subject, requests: Iterable[tuple[str, str, Object]], now: datetime | None = None
    ) -> list[bool]:
        """`check` for each (resource, action, object), in their order."""
        return [self.check(subject, resource, action, obj, now) for resource, action, obj in requests]

    def filter(self, who: Subject | Roles, resource: str, action: str) -> Scope:
        """Which objects of the kind `resource` this subject may do `action` to: `check` permits exactly those.

        `.predicate(subject)` of it is for a store. Given mere roles, it is what those reach, without grants.
        """
        if isinstance(who, Subject):
            return self._scope_of(who, resource, action)
        return self._scope(who, resource, action)

    def _scope_of(self, subject: Subject, resource: str, action: str) -> Scope:
        held = self._held.get((subject.tenant_id, subject.id)) if self._held else None
        if held is not None:
            return held.scope(self, subject.roles, subject.scopes, resource, action)
        if subject.scopes is not None:
            return self._narrowed(subject.roles, subject.scopes, resource, action)
        return self._scope(subject.roles, resource, action)

    def _find_scope(self, roles: Roles, resource: str, action: str) -> Scope:
        return Scope.of(self.rules_for(roles, resource, action))

    def _find_narrowed(self, roles: Roles, scopes: tuple[str, ...], resource: str, action: str) -> Scope:
        return self._scope(roles, resource, action).narrowed(narrowing(scopes, resource, action))

    def rules_for(self, roles: Roles, resource: str, action: str) -> Iterable[Rule]:
        """The rules of `roles`, inherited ones too, that are about this action on this resource."""
        by_action = self._by_action(frozenset(roles))
        # A rule covers the action under its own name or under "*": four places to look, however many rules there are.
        for place in ((resource, action), (resource, "*"), ("*", action), ("*", "*")):
            yield from by_action.get(place, ())

    def _group_by_action(self, roles: frozenset[str]) -> Mapping[tuple[str, str], tuple[Rule, ...]]:
        by_action: defaultdict[tuple[str, str], dict[Rule, None]] = defaultdict(dict)
        for name in self.lineage(roles):
            for rule in self._roles[name].rules:
                by_action[rule.permission.resource, rule.permission.action][rule] = None
        return {place: tuple(rules) for place, rules in by_action.items()}


class _Held:
    """The grants of one holder, and what they and their roles reach together, as far as it was asked for."""

    __slots__ = ("_scopes", "grants")

    def __init__(self, grants: Sequence[Grant]) -> None:
        self.grants = tuple(grants)
        self._scopes: dict[tuple[Roles, tuple[str, ...] | None, str, str], Scope] = {}

    def scope(self, policy: Policy, roles: Roles, scopes: tuple[str, ...] | None, resource: str, action: str) -> Scope:
        key = (roles, scopes, resource, action)
        if (scope := self._scopes.get(key)) is None:
            granted = (grant.rule for grant in self.grants if covers_action(grant.rule.permission, resource, action))
            scope = Scope.of([*policy.rules_for(roles, resource, action), *granted])
            if scopes is not None:
                scope = scope.narrowed(narrowing(scopes, resource, action))
            if len(self._scopes) >= _SCOPES_OF_A_HOLDER:
                self._scopes.clear()
            self._scopes[key] = scope
        return scope


def covers_action(permission: Permission, resource: str, action: str) -> bool:
    return permission.resource in (resource, "*") and permission.action in (action, "*")


def narrowing(scopes: tuple[str, ...], resource: str, action: str) -> Scope:
    """What `scopes` let through. One that is no permission lets nothing through: who knows what was meant."""
    rules = []
    for text in scopes:
        try:
            permission = Permission.parse(text)
        except PermissionSyntaxError:
            continue
        if covers_action(permission, resource, action):
            rules.append(Rule(permission))
    return Scope.of(rules)


def _by_name(roles: Iterable[Role]) -> Mapping[str, Role]:
    by_name: dict[str, Role] = {}
    for role in roles:
        if role.name in by_name:
            raise PolicyError(f"two roles have the name {role.name!r}")
        by_name[role.name] = role
    return by_name


def _by_holder(grants: Iterable[Grant]) -> dict[Holder, _Held]:
    by_holder: defaultdict[Holder, list[Grant]] = defaultdict(list)
    for grant in grants:
        by_holder[grant.tenant_id, grant.subject_id].append(grant)
    return {holder: _Held(grants) for holder, grants in by_holder.items()}


def _check_inheritance(roles: Mapping[str, Role]) -> None:
    for role in roles.values():
        for parent in role.inherits:
            if parent not in roles:
                raise UnknownRole(role.name, parent)
    try:
        TopologicalSorter({role.name: role.inherits for role in roles.values()}).prepare()
    except CycleError as error:
        raise RoleCycle(error.args[1][::-1]) from None
