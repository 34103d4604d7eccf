"""What is said to users, beside what it is said with."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Channel = Literal["email", "sms"]

# What there is to say; how it is put, in which language, is up to whoever sends it.
TEMPLATES = frozenset(
    {
        "registration",
        "already_registered",
        "login_code",
        "password_reset",
        "no_account",
        "verify_identifier",
        "step_up",
        "security_notice",
    }
)


@dataclass(frozen=True, slots=True)
class Message:
    """`params`: what the template says beside its words: `code`, `link`, `locale`, `what`, `operation`."""

    id: str
    tenant_id: str
    channel: Channel
    recipient: str
    template: str
    params: Mapping[str, Any]
    expires_at: datetime
