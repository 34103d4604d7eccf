"""ID tokens (OpenID Connect Core 1.0 section 3.1.3.7): Authlib checks the claims, joserfc the signature."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import ClaimError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from services.auth.providers.answers import invalid

# By public key, all of them: with `none` or a shared secret anybody could sign, given the published keys.
ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
LEEWAY_S = 60
_SUBJECT_CHARS = 255  # what the standard allows


class UnknownKey(Exception):
    """The issuer may have rotated its keys: worth one look."""


@dataclass(frozen=True, slots=True)
class Expected:
    issuer: str
    client_id: str
    nonce: str
    access_token: str
    algorithms: Collection[str]


def claims_of(id_token: object, keys: KeySet, expected: Expected, now: datetime) -> Mapping[str, Any]:
    """The claims, all of them checked; `UnknownKey`, or a `Refusal` that names what is wrong."""
    if not isinstance(id_token, str) or not id_token:
        raise invalid("oauth.id_token")
    registry = JWSRegistry(algorithms=sorted(ALGORITHMS & set(expected.algorithms)), strict_check_header=False)
    try:
        token = jwt.decode(id_token, keys, registry=registry)
    except InvalidKeyIdError:
        raise UnknownKey from None
    except (JoseError, ValueError, TypeError, KeyError):
        raise invalid("oauth.id_token.signature") from None
    options: dict[str, Any] = {
        "iss": {"essential": True, "value": expected.issuer},
        "aud": {"essential": True, "value": expected.client_id},
        "sub": {"essential": True},
        "nonce": {"essential": True, "value": expected.nonce},
    }
    params = {"client_id": expected.client_id, "nonce": expected.nonce, "access_token": expected.access_token}
    claims = CodeIDToken(token.claims, token.header, options, params)
    try:
        claims.validate(now=int(now.timestamp()), leeway=LEEWAY_S)
    except ClaimError as error:
        raise invalid(f"oauth.id_token.{error.claim}") from None
    except (JoseError, ValueError, TypeError):
        raise invalid("oauth.id_token.claims") from None
    if len(token.claims["sub"]) > _SUBJECT_CHARS or not token.claims["sub"].isprintable():
        raise invalid("oauth.id_token.sub")
    return token.claims
