"""Devices that a user signed in on. Being known is reputation; being trusted stands in for the second factor."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

# Browsers keep nothing longer; and who has not come for a year is a stranger again.
KNOWN_FOR = timedelta(days=400)

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """One user's view of a device: a second user on it has a document, and a token, of their own.

    Who shares a token with somebody, or plants theirs in another's browser, would be trusted with the other's account.
    """

    id: str
    tenant_id: str
    user_id: str
    name: str
    agent: str
    address: str
    first_seen_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    trusted_until: datetime | None = None

    def trusted(self, now: datetime) -> bool:
        return self.trusted_until is not None and now < self.trusted_until


def new_device_token() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def device_id(tenant_id: str, user_id: str, token: str) -> str | None:
    """What is stored of the token, and no help in guessing it; None for what can be no token."""
    if not _TOKEN.fullmatch(token):
        return None
    return hashlib.sha256(f"device\0{tenant_id}\0{user_id}\0{token}".encode()).hexdigest()
