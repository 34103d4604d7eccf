"""Access tokens: what a session looks like to every service."""

from datetime import datetime, timedelta

from services.auth.domain.sessions import Session
from services.auth.domain.users import User
from services.auth.keys import SigningKeys
from services.auth.settings import AuthSettings

from libs.core.ids import new_id


def access_token(
    keys: SigningKeys, settings: AuthSettings, user: User, session: Session, now: datetime, lives: timedelta
) -> str:
    """As in RFC 9068. `acr` is how many factors were proven, `auth_time` when the last of them was."""
    issued_at = int(now.timestamp())
    claims = {
        "iss": settings.token_issuer,
        "aud": settings.token_audience,
        "sub": user.id,
        "tenant": user.tenant_id,
        "kind": user.kind,
        "roles": list(user.roles),
        "sid": session.id,
        "jti": new_id(),
        "iat": issued_at,
        "exp": issued_at + int(lives.total_seconds()),
        "auth_time": int(session.authenticated_at.timestamp()),
        "acr": str(session.level),
        "amr": list(session.methods),
    }
    return keys.sign(claims, typ="at+jwt")
