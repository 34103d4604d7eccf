"""Flows: a piece of work that takes two requests, and what joins them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any


class FlowKind(StrEnum):
    REGISTRATION = "registration"
    VERIFICATION = "verification"
    PASSWORD_RESET = "password_reset"
    LOGIN_CODE = "login_code"
    SECOND_FACTOR = "second_factor"
    STEP_UP = "step_up"
    TOTP_SETUP = "totp_setup"
    PASSKEY_SETUP = "passkey_setup"
    PASSKEY_LOGIN = "passkey_login"
    OAUTH = "oauth"
    OAUTH_LINK = "oauth_link"
    OAUTH_CODE = "oauth_code"


@dataclass(frozen=True, slots=True)
class Flow:
    """`key` is the hash of the token that the client alone has. Without a `user_id` it is about nobody, and says so
    to nobody. `tries` counts this one, too."""

    key: str
    tenant_id: str
    kind: FlowKind
    user_id: str
    created_at: datetime
    expires_at: datetime
    tries: int
    data: Mapping[str, Any]


def flow_key(token: str) -> str:
    """256 random bits need no salt and no slow hash."""
    return sha256(token.encode()).hexdigest()
