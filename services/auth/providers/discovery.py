"""What a provider says of itself (OpenID Connect Discovery 1.0), and the keys that it signs with."""

import warnings
from contextlib import suppress

from authlib.oidc.discovery import get_well_known_url
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet, RSAKey
from pydantic import BaseModel, ConfigDict, ValidationError

from libs.core.errors import Unavailable
from services.auth.providers.kept import Kept
from services.auth.providers.outside import Outside

KEYS_MOST = 50
_RSA_BITS = 2048
# Never "oct": a shared secret among published keys would be everybody's.
_ASYMMETRIC = frozenset({"RSA", "EC", "OKP"})


class Metadata(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    id_token_signing_alg_values_supported: tuple[str, ...] = ("RS256",)
    authorization_response_iss_parameter_supported: bool = False


class _Jwks(BaseModel):
    keys: list[dict[str, object]]


class Discovery:
    """By issuer, from memory: asked for anew each hour, and keys as soon as one is missing."""

    def __init__(self, outside: Outside, *, keys_at_most_every_s: float = 10.0) -> None:
        self._outside = outside
        self._documents = Kept(self._document)
        self._keys = Kept(self._key_set, at_most_every_s=keys_at_most_every_s)

    async def metadata(self, issuer: str) -> Metadata:
        """`Unavailable` if there is none to be had, or none that is this issuer's."""
        return await self._documents.get(issuer)

    async def keys(self, metadata: Metadata, *, anew: bool = False) -> KeySet:
        return await self._keys.get(metadata.jwks_uri, anew=anew)

    async def _document(self, issuer: str) -> Metadata:
        body = await self._outside.get(get_well_known_url(issuer, external=True))
        try:
            metadata = Metadata.model_validate_json(body)
        except ValidationError:
            raise Unavailable("what the issuer answered is no discovery document") from None
        # Or else whoever may write there, or anybody on a shared host, could speak for another issuer.
        if metadata.issuer != issuer:
            raise Unavailable(f"the discovery document is of another issuer: {metadata.issuer[:200]}")
        endpoints = (metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri)
        if not all(map(self._outside.allows, endpoints)):
            raise Unavailable("the discovery document names an endpoint that is not https")
        return metadata

    async def _key_set(self, url: str) -> KeySet:
        try:
            published = _Jwks.model_validate_json(await self._outside.get(url)).keys[:KEYS_MOST]
        except ValidationError:
            raise Unavailable("what the issuer answered is not a JWKS") from None
        keys = [key for jwk in published if (key := _usable(jwk))]
        if not keys:
            raise Unavailable("the issuer publishes no key that can be used")
        return KeySet(keys)


def _usable(jwk: dict[str, object]) -> Key | None:
    """Keys of other kinds and for other uses are not ours to judge."""
    if jwk.get("kty") not in _ASYMMETRIC or jwk.get("use", "sig") != "sig" or "d" in jwk:
        return None
    with suppress(JoseError, ValueError, TypeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small keys, which are refused here
        key = JWKRegistry.import_key(dict(jwk))  # type: ignore[arg-type]
        if not isinstance(key, RSAKey) or key.raw_value.key_size >= _RSA_BITS:
            return key
    return None
