"""Who is calling: access tokens, verified here by every service for itself.

    identity = Identity(http, clock, jwks_url=…, issuer=…, audience=…)
    caller = await identity.authenticate("Bearer eyJ…")

A token is a JWT (RFC 9068) signed with EdDSA over Ed25519, and nothing else: no other algorithm, no other header than
`alg`, `typ` and `kid`, and no key but the issuer's own. What was verified is remembered by the token's hash until it
expires, is revoked, or its key is withdrawn: that makes a token seen before about 50 times cheaper.
"""

import asyncio
import heapq
import math
import random
import re
import time
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any, Literal, Self, TypeVar

import httpx
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt import PyJWTError
from jwt.api_jws import PyJWS
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from libs.core.clock import Clock
from libs.core.context import Caller
from libs.core.errors import Unauthenticated, Unavailable
from libs.core.http import fetch
from libs.core.ids import ID_PATTERN
from libs.core.tasks import ended

LEEWAY = timedelta(seconds=30)  # how far the issuer's clock may be ahead of ours
MAX_TOKEN_BYTES = 8 * 1024
MAX_VERIFIED = 10_000  # about 1 KB each
MAX_REVOCATIONS = 100_000
MAX_JWKS_BYTES = 64 * 1024

log = structlog.get_logger(__name__)

_jws = PyJWS(algorithms=["EdDSA"])
_ACCESS_TOKEN = "at+jwt"
_FOREVER = datetime.max.replace(tzinfo=UTC)
_TOKEN = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)

_KeyId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
# Ids become parts of queries, keys and log lines, so they are 64 plain characters: never an object, nor an operator.
_Id = Annotated[str, Field(pattern=f"^{ID_PATTERN.pattern}$")]
_Second = Annotated[int, Field(ge=0, le=253_402_300_799)]  # to the end of the year 9999, where datetime ends


class _Header(BaseModel):
    """`jwk`, `jku`, `x5u`, `x5c`, `crit`, `b64`, `zip` and any other are refused, so that none can mean something."""

    model_config = ConfigDict(strict=True, extra="forbid")

    alg: Literal["EdDSA"]
    typ: str
    kid: _KeyId


class SignedClaims(BaseModel):
    """What every JWT of the issuer says, of whichever type."""

    model_config = ConfigDict(strict=True, extra="ignore")

    iss: str
    aud: str | list[str]
    exp: _Second
    iat: _Second
    nbf: _Second = 0
    sub: _Id
    tenant: _Id
    sid: _Id


class _Claims(SignedClaims):
    roles: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=64)]
    kind: Literal["user", "service"] = "user"
    acr: Literal["1", "2"] = "1"
    auth_time: _Second | None = None
    permissions: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=64)] | None = None
    brand: _Id | None = None

    def caller(self) -> Caller:
        return Caller(
            tenant_id=self.tenant,
            subject=self.sub,
            roles=tuple(sorted(set(self.roles))),
            session_id=self.sid,
            kind=self.kind,
            expires_at=_instant(self.exp),
            level=int(self.acr),
            authenticated_at=None if self.auth_time is None else _instant(self.auth_time),
            scopes=None if self.permissions is None else tuple(self.permissions),
            brand_id=self.brand or "",
        )


class _Jwk(BaseModel):
    """A public key as in RFC 8037. One that comes with its private part, `d`, is everybody's and so nobody's."""

    model_config = ConfigDict(strict=True, extra="ignore")

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    kid: _KeyId
    x: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]
    d: None = None
    use: Literal["sig"] = "sig"
    alg: Literal["EdDSA"] = "EdDSA"


class _Jwks(BaseModel):
    keys: list[Any]


C = TypeVar("C", bound=SignedClaims)


@dataclass(frozen=True, slots=True)
class _Verified:
    caller: Caller
    kid: str
    issued_at: datetime


class Identity:
    """Verifies tokens. While it is open (`async with`) it also keeps the issuer's keys fresh."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        clock: Clock,
        *,
        jwks_url: str,
        issuer: str,
        audience: str,
        refresh_s: float = 60.0,
        fetch_at_most_every_s: float = 5.0,
        keep_s: float = 3600.0,
    ) -> None:
        """Keys are fetched every `refresh_s`, so that a withdrawn one is trusted no longer than that.

        A token with an unknown key is reason to fetch earlier, but not within `fetch_at_most_every_s` of the last
        time: an issuer must show a new key `refresh_s` before its first use. While the issuer is away the keys that
        it had are trusted for `keep_s`, which is longer than any token lives.
        """
        self._clock = clock
        self._issuer = issuer
        self._audience = audience
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._revoked = _Revocations(clock)
        self._keys = _Keys(
            http,
            jwks_url,
            withdrawn=self._forget_keys,
            refresh_s=refresh_s,
            at_most_every_s=fetch_at_most_every_s,
            keep_s=keep_s,
        )

    async def __aenter__(self) -> Self:
        self._refreshing = asyncio.create_task(self._keys.keep_fresh(), name="refresh the issuer's keys")
        return self

    async def __aexit__(self, *_: object) -> None:
        await ended(self._refreshing)
        await self._keys.close()

    async def authenticate(self, authorization: str) -> Caller:
        """The caller whom the header `Bearer …` speaks for.

        `Unauthenticated` if the token is not accepted; `Unavailable` if the issuer's keys could not be had.
        """
        token = _bearer(authorization)
        digest = sha256(token.encode()).digest()  # the token itself is a secret, and not kept
        verified = self._verified.get(digest) or await self._verify(token)
        self._refuse_if_over(verified)
        self._verified[digest] = verified
        self._verified.move_to_end(digest)
        if len(self._verified) > MAX_VERIFIED:
            self._verified.popitem(last=False)
        return verified.caller

    def revoke_session(self, session_id: str, until: datetime) -> None:
        """Refuses the session's tokens from now on, for as long as one could live: `until`."""
        self._revoked.add(("session", session_id), until)

    def revoke_subject(self, tenant_id: str, subject: str, *, issued_until: datetime, until: datetime) -> None:
        """The same for all tokens that `subject` was issued up to, and including the second of, `issued_until`."""
        self._revoked.add(("subject", tenant_id, subject), until, issued_until)

    def learn_keys(self, jwks: bytes) -> None:
        """What the issuer itself knows of its keys without asking: a JWKS, as it would be fetched."""
        self._keys.learn(jwks)

    def withdraw_key(self, kid: str) -> None:
        """Trusts nothing that the key signed any more, whatever the issuer's JWKS goes on saying for a while."""
        self._keys.withdraw(kid)

    async def claims(self, token: str, kind: type[C], *, typ: str) -> C:
        """Those of a JWT of another type than an access token's, that the issuer signed for us and that is not expired.

        It is not remembered; whether its session was revoked, and what else it says, is for who asks to judge.
        `Unauthenticated` and `Unavailable` as `authenticate`.
        """
        assert typ != _ACCESS_TOKEN, "for those there is authenticate()"
        claims, _ = await self._signed(token, kind, typ)
        if _instant(claims.exp) <= self._clock.now():
            raise Unauthenticated("the token is expired")
        return claims

    async def _verify(self, token: str) -> _Verified:
        claims, kid = await self._signed(token, _Claims, _ACCESS_TOKEN)
        return _Verified(claims.caller(), kid, _instant(claims.iat))

    async def _signed(self, token: str, kind: type[C], typ: str) -> tuple[C, str]:
        """The claims, and the key that signed them."""
        kid = _header(token, typ).kid
        key = await self._keys.get(kid)
        # From here on nothing waits: the key cannot be withdrawn before the token is remembered under it.
        try:
            claims = kind.model_validate_json(_jws.decode(token, key, algorithms=["EdDSA"]))
        except PyJWTError:
            raise Unauthenticated("the token's signature is not valid") from None
        except ValidationError as error:
            wrong = ", ".join(sorted({str(e["loc"][0]) if e["loc"] else "payload" for e in error.errors()}))
            raise Unauthenticated(f"the token's claims are missing or malformed: {wrong}") from None
        if claims.iss != self._issuer:
            raise Unauthenticated("the token is from another issuer")
        if self._audience not in ([claims.aud] if isinstance(claims.aud, str) else claims.aud):
            raise Unauthenticated("the token is for another audience")
        if _instant(max(claims.iat, claims.nbf)) > self._clock.now() + LEEWAY:
            raise Unauthenticated("the token is not valid yet")
        return claims, kid

    def _refuse_if_over(self, verified: _Verified) -> None:
        """What can become true of a token that was verified before."""
        caller = verified.caller
        if caller.expires_at is None or caller.expires_at <= self._clock.now():
            raise Unauthenticated("the token is expired")
        if self._revoked.covers(caller, verified.issued_at):
            raise Unauthenticated("the session is revoked")

    def _forget_keys(self, kids: set[str]) -> None:
        for digest in [digest for digest, verified in self._verified.items() if verified.kid in kids]:
            del self._verified[digest]


class _Keys:
    """The issuer's public keys by `kid`. One fetch at a time, shared by all who wait for it."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        *,
        withdrawn: Callable[[set[str]], None],
        refresh_s: float,
        at_most_every_s: float,
        keep_s: float,
    ) -> None:
        self._http = http
        self._url = url
        self._withdrawn = withdrawn
        self._refresh_s = refresh_s
        self._at_most_every_s = at_most_every_s
        self._keep_s = keep_s
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._banned: set[str] = set()
        self._tried_at = self._fetched_at = -math.inf  # on the monotonic clock
        self._fetching: asyncio.Task[None] | None = None

    async def get(self, kid: str) -> Ed25519PublicKey:
        """`Unauthenticated` if the issuer has no such key; `Unavailable` if it cannot be asked."""
        if (kid not in self._keys and kid not in self._banned) or self._too_old():
            await self._fetch_if_due()
        if self._too_old():
            raise Unavailable("the issuer's keys cannot be fetched, so no token can be verified")
        if kid in self._keys:
            return self._keys[kid]
        if self._failing():
            raise Unavailable("the token's key is not known yet, and the issuer cannot be asked for it")
        raise Unauthenticated("the token's key is not one of the issuer's")

    def withdraw(self, kid: str) -> None:
        self._banned.add(kid)
        self._keys.pop(kid, None)
        self._withdrawn({kid})

    async def keep_fresh(self) -> None:
        while True:
            await self._fetch_if_due()
            wait_s = self._at_most_every_s if self._failing() else self._refresh_s
            # Jitter, so that the processes of a platform do not ask all at once; never later than promised.
            await asyncio.sleep(wait_s * random.uniform(0.8, 1.0))

    async def close(self) -> None:
        if self._fetching:
            await ended(self._fetching)

    def _too_old(self) -> bool:
        return time.monotonic() - self._fetched_at > self._keep_s

    def _failing(self) -> bool:
        return self._fetched_at < self._tried_at

    async def _fetch_if_due(self) -> None:
        """Returns when the fetch under way, if any, is over; begins one unless the last is too recent."""
        if self._fetching is None or self._fetching.done():
            if time.monotonic() - self._tried_at < self._at_most_every_s:
                return
            self._fetching = asyncio.create_task(self._fetch())
        await asyncio.wait([self._fetching])

    async def _fetch(self) -> None:
        self._tried_at = time.monotonic()
        try:
            self.learn(await fetch(self._http, self._url, max_bytes=MAX_JWKS_BYTES))
        except Unavailable as error:
            log.warning(
                "the issuer's keys cannot be fetched", url=self._url, error=error.message, keeping=len(self._keys)
            )

    def learn(self, jwks: bytes) -> None:
        """`Unavailable` if it is none."""
        keys = _parse_jwks(jwks)
        keys = {kid: key for kid, key in keys.items() if kid not in self._banned}
        withdrawn = {kid for kid, key in self._keys.items() if keys.get(kid) != key}
        self._keys = keys
        self._fetched_at = self._tried_at = max(self._tried_at, time.monotonic())
        if withdrawn:
            log.info("keys withdrawn by the issuer", kids=sorted(withdrawn))
            self._withdrawn(withdrawn)


class _Revocations:
    """Kept until they are over. At most `MAX_REVOCATIONS`, beyond which the one that ends soonest is given up."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[tuple[str, ...], tuple[datetime, datetime]] = {}  # until, and issued until
        self._by_end: list[tuple[datetime, tuple[str, ...]]] = []

    def add(self, key: tuple[str, ...], until: datetime, issued_until: datetime = _FOREVER) -> None:
        before = self._until.get(key, (until, issued_until))
        self._until[key] = max(before[0], until), max(before[1], issued_until)
        heapq.heappush(self._by_end, (self._until[key][0], key))
        now = self._clock.now()
        while self._by_end and (self._by_end[0][0] <= now or len(self._by_end) > MAX_REVOCATIONS):
            end, key = heapq.heappop(self._by_end)
            if key in self._until and self._until[key][0] == end:
                del self._until[key]

    def covers(self, caller: Caller, issued_at: datetime) -> bool:
        if not self._until:
            return False
        keys = ("session", caller.session_id), ("subject", caller.tenant_id, caller.subject)
        return any(key in self._until and issued_at <= self._until[key][1] for key in keys)


def _bearer(authorization: str) -> str:
    if len(authorization) > MAX_TOKEN_BYTES:
        raise Unauthenticated(f"a token has at most {MAX_TOKEN_BYTES} bytes")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token or not token.isascii():
        raise Unauthenticated("the authorization must read 'Bearer', a space, and a token")
    return token


def _header(token: str, typ: str) -> _Header:
    """Only what leads to the key; the signature is over the same bytes, and checked afterwards."""
    if not _TOKEN.fullmatch(token):
        raise Unauthenticated("the token is not a signed JWT")
    segment = token.partition(".")[0]
    with suppress(ValueError):
        header = _Header.model_validate_json(urlsafe_b64decode(segment + "=" * (-len(segment) % 4)))
        if header.typ == typ:
            return header
    raise Unauthenticated(f"the token's header must be exactly alg EdDSA, typ {typ}, and a kid")


def _parse_jwks(body: bytes) -> dict[str, Ed25519PublicKey]:
    """The keys we can use. Those of other kinds are not ours to judge; `Unavailable` if it is no JWKS at all."""
    try:
        published = _Jwks.model_validate_json(body).keys
    except ValidationError:
        raise Unavailable("what the issuer answered is not a JWKS") from None
    keys = {}
    for jwk in published:
        with suppress(ValidationError):
            usable = _Jwk.model_validate(jwk)
            keys[usable.kid] = Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(usable.x + "="))
    if not keys:
        log.error("the issuer publishes no key that can be used", published=len(published))
    return keys


def _instant(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)
