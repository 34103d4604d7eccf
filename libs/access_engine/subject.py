"""Who asks, and about what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Subject:
    """Whoever asks. An empty `id`, `tenant_id` or `brand_id` is nobody's: it owns nothing and belongs nowhere.

    `level` counts the factors that were proven. `scopes` are permissions that the subject is narrowed to, those of an
    API key say: it may do what its roles and grants allow and one of them covers. None: it is not narrowed.
    """

    id: str
    tenant_id: str
    roles: tuple[str, ...] | frozenset[str] = ()
    brand_id: str = ""
    level: int = 0
    scopes: tuple[str, ...] | None = None
    attributes: Mapping[str, Any] | None = field(default=None, hash=False)

    def attribute(self, name: str) -> Any:
        """None if it has none of that name."""
        if name in _OF_SUBJECTS:
            value = getattr(self, name)
            return None if value == "" else value
        return self.attributes.get(name) if self.attributes else None


@dataclass(frozen=True, slots=True)
class Object:
    """Whatever is asked about. None: it has no such attribute (a system's wallet has no owner)."""

    id: str | None = None
    owner_id: str | None = None
    tenant_id: str | None = None
    attributes: Mapping[str, Any] | None = field(default=None, hash=False)

    def attribute(self, name: str) -> Any:
        """None if it has none of that name, or if that is null, which is the same."""
        if name in OF_OBJECTS:
            return getattr(self, name)
        return self.attributes.get(name) if self.attributes else None


_OF_SUBJECTS = frozenset({"id", "tenant_id", "brand_id", "level", "roles"})
# These names an attribute cannot take.
OF_OBJECTS = frozenset({"id", "owner_id", "tenant_id"})
