"""What a client is given of a session: an access token for the next minutes, and a refresh token for after."""

import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256

from services.auth.commands.auth import Auth
from services.auth.domain.sessions import Session
from services.auth.domain.users import User
from services.auth.tokens import access_token


@dataclass(frozen=True, slots=True)
class SignedIn:
    """`refresh_token` is good once, `device_token` for as long as the client keeps it."""

    user: User
    session_id: str
    access_token: str
    expires_in_s: int
    refresh_token: str
    device_token: str


def issue(auth: Auth, user: User, session: Session, refresh_token: str, device_token: str = "") -> SignedIn:
    """A session's tokens for the next minutes, none of which outlives it."""
    now = auth.platform.clock.now()
    lives = min(timedelta(seconds=auth.config(user.tenant_id).access_token_s), session.expires_at - now)
    token = access_token(auth.keys, auth.settings, user, session, now, lives)
    return SignedIn(user, session.id, token, int(lives.total_seconds()), refresh_token, device_token)


def new_refresh_token() -> str:
    return secrets.token_urlsafe(32)


def successor(refresh_token: str, seed: bytes) -> str:
    """The refresh token that follows. Neither who has the old one alone, nor who reads the database, can make it."""
    return hmac.new(refresh_token.encode(), seed, sha256).hexdigest()
