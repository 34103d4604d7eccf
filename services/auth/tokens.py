"""Tokens that every service reads: what a session looks like, and what somebody in it has confirmed."""

from datetime import datetime, timedelta
from typing import Any

from libs.core.ids import new_id
from libs.core.stepup import TYP as STEP_UP
from services.auth.domain.api_keys import ApiKey
from services.auth.domain.sessions import Session
from services.auth.domain.users import User
from services.auth.keys import SigningKeys
from services.auth.settings import AuthSettings


def access_token(
    keys: SigningKeys, settings: AuthSettings, user: User, session: Session, now: datetime, lives: timedelta
) -> str:
    """As in RFC 9068. `acr` is how many factors were proven, `auth_time` when the last of them was."""
    claims = _claims(settings, user, now, lives) | {
        "sid": session.id,
        "auth_time": int(session.authenticated_at.timestamp()),
        "acr": str(session.level),
        "amr": list(session.methods),
    }
    return keys.sign(claims, typ="at+jwt")


def key_token(
    keys: SigningKeys, settings: AuthSettings, account: User, key: ApiKey, now: datetime, lives: timedelta
) -> str:
    """What an API key is to every service: a session of its account that may do no more than `permissions`.

    It has no `auth_time`: there is nobody who could be asked to prove anything.
    """
    claims = _claims(settings, account, now, lives) | {"sid": key.id, "acr": "1", "permissions": list(key.scopes)}
    return keys.sign(claims, typ="at+jwt")


def _claims(settings: AuthSettings, user: User, now: datetime, lives: timedelta) -> dict[str, Any]:
    # Older ones are refused, by the second: one of the same second would be, too.
    issued_at = int(max(now, user.tokens_from or now).timestamp())
    return {
        "iss": settings.token_issuer,
        "aud": settings.token_audience,
        "sub": user.id,
        "tenant": user.tenant_id,
        "kind": user.kind,
        "roles": list(user.roles),
        "jti": new_id(),
        "iat": issued_at,
        "exp": issued_at + int(lives.total_seconds()),
    }


def step_up_token(keys: SigningKeys, settings: AuthSettings, session: Session, digest: str, lives: timedelta) -> str:
    """For `libs/core/stepup.py`: whoever is in `session` has just confirmed the operation of that digest."""
    issued_at = int(session.authenticated_at.timestamp())
    claims = {
        "iss": settings.token_issuer,
        "aud": settings.token_audience,
        "sub": session.user_id,
        "tenant": session.tenant_id,
        "sid": session.id,
        "jti": new_id(),
        "iat": issued_at,
        "exp": issued_at + int(lives.total_seconds()),
        "acr": str(session.level),
        "op": digest,
    }
    return keys.sign(claims, typ=STEP_UP)
