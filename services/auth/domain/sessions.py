"""Sessions: from a login to its end."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

# Methods (RFC 8176) that are two factors by themselves: what one has, unlocked by what one knows or is.
TWO_IN_ONE = frozenset({"mfa"})


class EndReason(StrEnum):
    LOGOUT = "logout"
    REVOKED = "revoked"
    REPLAY = "refresh token replayed"
    PASSWORD = "password changed"
    FACTORS = "second factors changed"
    SUSPENDED = "suspended"
    DELETED = "deleted"
    OPERATOR = "revoked by an operator"
    CROWDED = "too many sessions"


@dataclass(frozen=True, slots=True)
class Session:
    """`expires_at` is its end in any case; `idle_until` is moved on by each use."""

    id: str
    tenant_id: str
    user_id: str
    created_at: datetime
    last_used_at: datetime
    authenticated_at: datetime
    methods: tuple[str, ...]
    level: int
    expires_at: datetime
    idle_until: datetime
    device: str = ""
    agent: str = ""
    address: str = ""
    place: str = ""
    ended_at: datetime | None = None
    end_reason: str = ""

    def alive(self, at: datetime) -> bool:
        return self.ended_at is None and at < min(self.expires_at, self.idle_until)


def level_of(methods: Sequence[str]) -> int:
    """How many factors these are, counted up to two: two codes that are sent are of one kind, and so one factor."""
    if TWO_IN_ONE & set(methods):
        return 2
    return min(2, len({_KIND.get(method, method) for method in methods}))


# What is sent somewhere, and what a provider vouches for, are something that one has access to.
_KIND = {"sms": "sent", "email": "sent", "fed": "sent"}
