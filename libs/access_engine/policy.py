"""Roles, and the policy that they make together: compiled once, never changed."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Self

from libs.access_engine.permission import Permission
from libs.access_engine.scope import Object, Scope, Subject

Roles = tuple[str, ...] | frozenset[str]

# What is cached, in entries: the sets of roles that callers have are few, the actions of a platform some hundreds.
_ROLE_SETS = 1_024
_SCOPES = 16_384


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


@dataclass(frozen=True, slots=True)
class Role:
    """What its holders may and may not do, beside what the roles that it inherits from say."""

    name: str
    allow: tuple[Permission, ...] = ()
    deny: tuple[Permission, ...] = ()
    inherits: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, name: str, *, allow: Iterable[str] = (), deny: Iterable[str] = (), inherits: Iterable[str] = ()
    ) -> Self:
        """From permissions as text. Raises `PermissionSyntaxError`."""
        return cls(name, tuple(map(Permission.parse, allow)), tuple(map(Permission.parse, deny)), tuple(inherits))


@dataclass(slots=True)
class _Rules:
    allow: list[Permission]
    deny: list[Permission]


class Policy:
    """Immutable, and safe to share. A role that a subject has and the policy does not know grants nothing."""

    __slots__ = ("_by_action", "_lineage", "_roles", "_scope")

    def __init__(self, roles: Iterable[Role]) -> None:
        """Raises `UnknownRole`, `RoleCycle`, or `PolicyError` for two roles of one name."""
        self._roles = _by_name(roles)
        self._lineage = _lineages(self._roles)
        self._by_action = lru_cache(maxsize=_ROLE_SETS)(self._group_by_action)
        self._scope = lru_cache(maxsize=_SCOPES)(self._find_scope)

    def check(self, subject: Subject, resource: str, action: str, obj: Object) -> bool:
        """Whether `subject` may do `action` to `obj`, a `resource`."""
        return self._scope(subject.roles, resource, action).permits(subject, obj)

    def check_many(self, subject: Subject, requests: Iterable[tuple[str, str, Object]]) -> list[bool]:
        """`check` for each (resource, action, object), in their order."""
        return [self.check(subject, resource, action, obj) for resource, action, obj in requests]

    def filter(self, roles: Roles, resource: str, action: str) -> Scope:
        """Which objects of the kind `resource` these roles may do `action` to: `check` permits exactly those."""
        return self._scope(roles, resource, action)

    def _find_scope(self, roles: Roles, resource: str, action: str) -> Scope:
        by_action = self._by_action(frozenset(roles))
        # A rule covers the action under its own name or under "*": four places to look, however many rules there are.
        places = ((resource, action), (resource, "*"), ("*", action), ("*", "*"))
        found = [by_action[place] for place in places if place in by_action]
        return Scope.of((p for rules in found for p in rules.allow), (p for rules in found for p in rules.deny))

    def _group_by_action(self, roles: frozenset[str]) -> Mapping[tuple[str, str], _Rules]:
        by_action: defaultdict[tuple[str, str], _Rules] = defaultdict(lambda: _Rules([], []))
        for name in frozenset().union(*(self._lineage.get(role, ()) for role in roles)):
            role = self._roles[name]
            for permission in role.allow:
                by_action[permission.resource, permission.action].allow.append(permission)
            for permission in role.deny:
                by_action[permission.resource, permission.action].deny.append(permission)
        return dict(by_action)


def _by_name(roles: Iterable[Role]) -> Mapping[str, Role]:
    by_name: dict[str, Role] = {}
    for role in roles:
        if role.name in by_name:
            raise PolicyError(f"two roles have the name {role.name!r}")
        by_name[role.name] = role
    return by_name


def _lineages(roles: Mapping[str, Role]) -> Mapping[str, frozenset[str]]:
    """For each role, itself and every role that it inherits from, however far."""
    for role in roles.values():
        for parent in role.inherits:
            if parent not in roles:
                raise UnknownRole(role.name, parent)
    try:
        parents_first = list(TopologicalSorter({role.name: role.inherits for role in roles.values()}).static_order())
    except CycleError as error:
        raise RoleCycle(error.args[1][::-1]) from None
    lineages: dict[str, frozenset[str]] = {}
    for name in parents_first:
        lineages[name] = frozenset([name]).union(*(lineages[parent] for parent in roles[name].inherits))
    return lineages
