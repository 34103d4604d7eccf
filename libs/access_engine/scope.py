"""What a set of roles reaches of one kind of object: the answer that `check` and `filter` share."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from libs.access_engine.permission import Permission, Reach


@dataclass(frozen=True, slots=True)
class Subject:
    """Whoever asks. An empty `id` or `tenant_id` is nobody's: it owns nothing and belongs nowhere."""

    id: str
    tenant_id: str
    roles: tuple[str, ...] | frozenset[str]


@dataclass(frozen=True, slots=True)
class Object:
    """Whatever is asked about. None: it has no such attribute (a system's wallet has no owner)."""

    id: str | None = None
    owner_id: str | None = None
    tenant_id: str | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """The objects within `reach` or among `ids`, except those within `denied_reach` or among `denied_ids`."""

    reach: Reach = Reach.NOTHING
    ids: frozenset[str] = field(default=frozenset())
    denied_reach: Reach = Reach.NOTHING
    denied_ids: frozenset[str] = field(default=frozenset())

    @classmethod
    def of(cls, allowed: Iterable[Permission], denied: Iterable[Permission]) -> Self:
        """In its simplest form: what is wholly denied is not kept as allowed, so that `nothing` tells the truth.

        As the reaches are nested, the union of several is the widest of them.
        """
        reach, ids = _widest(allowed)
        denied_reach, denied_ids = _widest(denied)
        reach = reach if reach > denied_reach else Reach.NOTHING
        ids = ids - denied_ids if denied_reach < Reach.ALL else frozenset()
        if reach is Reach.NOTHING and not ids:
            return cls()
        return cls(reach, ids, denied_reach, denied_ids)

    @property
    def nothing(self) -> bool:
        """No object at all, whatever it is."""
        return self.reach is Reach.NOTHING and not self.ids

    def permits(self, subject: Subject, obj: Object) -> bool:
        distance = _distance(subject, obj)
        if distance <= self.denied_reach or obj.id in self.denied_ids:
            return False
        return distance <= self.reach or obj.id in self.ids


def _widest(permissions: Iterable[Permission]) -> tuple[Reach, frozenset[str]]:
    reach, ids = Reach.NOTHING, set()
    for permission in permissions:
        if permission.reach is Reach.NOTHING:
            ids.add(permission.target)
        else:
            reach = max(reach, permission.reach)
    return reach, frozenset(ids)


def _distance(subject: Subject, obj: Object) -> Reach:
    """The narrowest reach from `subject` that includes `obj`. What is of another tenant is never one's own."""
    if not subject.tenant_id or obj.tenant_id != subject.tenant_id:
        return Reach.ALL
    if not subject.id or obj.owner_id != subject.id:
        return Reach.TENANT
    return Reach.OWN
