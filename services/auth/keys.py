"""The keys that tokens are signed with: made, shown, used, retired, and withdrawn at once if one was stolen.

    number   1      2          3
    shown    ██████████████░
    signs    █████████
    shown           ░██████████████░      a key is shown for a while before it signs, so that every service knows it
    signs             ████████████        by then; and after, until the last token that it signed has expired
    shown                        ░████ …

Keys live in `signing_keys`, private parts sealed with AUTH_KEY. Every process reads them; the next number is made by
whichever process is first.
"""

import asyncio
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from json import dumps
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from libs.core.clock import Clock
from libs.core.crypto import SecretBox
from libs.core.errors import NotFound, Unavailable
from libs.core.mongo import Database, Document, Session
from libs.core.pubsub import follow, tell
from libs.core.redis import Redis
from libs.core.tasks import ended

# Services ask for the keys once a minute, or are told of a change.
SHOWN_BEFORE = timedelta(minutes=5)
# The longest that a token lives, and that clocks differ.
SHOWN_AFTER = timedelta(minutes=15)
_POLL_S = 10.0


@dataclass(frozen=True, slots=True)
class SigningKey:
    """It signs from `signs_from` until the next one does; `withdrawn_at`, if ever, was its end in any case."""

    kid: str
    number: int
    public: bytes
    sealed: bytes
    created_at: datetime
    signs_from: datetime
    withdrawn_at: datetime | None = None

    def jwk(self) -> dict[str, str]:
        return {"kty": "OKP", "crv": "Ed25519", "x": _base64url(self.public), "kid": self.kid, "use": "sig",
                "alg": "EdDSA"}  # fmt: skip


class SigningKeys:
    """Open (`async with`) while it is used; one a process."""

    def __init__(
        self,
        database: Database,
        redis: Redis,
        clock: Clock,
        box: SecretBox,
        *,
        learnt: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        """`learnt` is told what is shown, whenever it was read: this process verifies tokens as well."""
        self._keys = database["signing_keys"]
        self._redis = redis
        self._channel = redis.key("signing-keys")
        self._clock = clock
        self._box = box
        self._learnt = learnt
        self._known: list[SigningKey] = []  # by number
        self._private: dict[str, Ed25519PrivateKey] = {}

    async def __aenter__(self) -> Self:
        await self.reload()
        if not self._signing():
            await self._make(self._clock.now())
        self._following = asyncio.create_task(follow(self._redis, self._channel, self.reload, poll_s=_POLL_S))
        return self

    async def __aexit__(self, *_: object) -> None:
        await ended(self._following)

    @property
    def all(self) -> list[SigningKey]:
        """Those that any token may still be signed with, and those that were withdrawn lately; by number."""
        return list(self._known)

    def jwks(self) -> dict[str, Any]:
        """What services verify with."""
        now = self._clock.now()
        followers = [*self._known[1:], None]
        shown = [
            key.jwk()
            for key, follower in zip(self._known, followers, strict=False)
            if not key.withdrawn_at and (follower is None or now < follower.signs_from + SHOWN_AFTER)
        ]
        return {"keys": shown}

    def sign(self, claims: Mapping[str, Any], *, typ: str) -> str:
        """A JWT. `Unavailable` if there is no key: another process is making one."""
        key = self._signing()
        if key is None:
            raise Unavailable("there is no key to sign a token with yet")
        headers = {"typ": typ, "kid": key.kid}
        return jwt.encode(dict(claims), self._private_of(key), algorithm="EdDSA", headers=headers)

    async def rotate(self, every: timedelta) -> None:
        """Makes the next key, if it is time. A job calls it now and then."""
        await self.reload()
        newest = self._known[-1] if self._known else None
        now = self._clock.now()
        if newest is None or newest.withdrawn_at:
            await self._make(now)
        elif now >= newest.signs_from + every - SHOWN_BEFORE:
            await self._make(max(now + SHOWN_BEFORE, newest.signs_from + every))
        await self._forget(now)

    async def withdraw(self, session: Session, kid: str) -> SigningKey:
        """Never signs again, and is not shown any more. `NotFound` if there is none, or it was withdrawn before.

        In the caller's transaction, which also has to revoke it everywhere; call `replace` after its commit.
        """
        row = await self._keys.find_one_and_update(
            {"_id": kid, "withdrawn_at": None},
            {"$set": {"withdrawn_at": self._clock.now()}},
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        if row is None:
            raise NotFound("there is no such key, or it was withdrawn before", kid=kid)
        return _key(row)

    async def replace(self) -> None:
        """A key that signs at once, if none does; everybody is told."""
        await self.reload()
        if self._signing() is None:
            await self._make(self._clock.now())
        await tell(self._redis, self._channel)

    async def reload(self) -> None:
        self._known = [_key(row) async for row in self._keys.find().sort("number", 1)]
        if self._known:
            self._learnt(dumps(self.jwks()).encode())

    def _signing(self) -> SigningKey | None:
        """The last whose time has come. Withdrawn, it leaves none: the one before is not shown for long enough."""
        now = self._clock.now()
        last = next((key for key in reversed(self._known) if key.signs_from <= now), None)
        return last if last and not last.withdrawn_at else None

    def _private_of(self, key: SigningKey) -> Ed25519PrivateKey:
        if key.kid not in self._private:
            opened = b64decode(self._box.open(key.sealed, owner=key.kid))
            self._private = {**self._private, key.kid: Ed25519PrivateKey.from_private_bytes(opened)}
        return self._private[key.kid]

    async def _make(self, signs_from: datetime) -> None:
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
        kid = thumbprint(public)
        row: Document = {
            "_id": kid,
            "number": self._known[-1].number + 1 if self._known else 1,
            "public": public,
            "sealed": self._box.seal(b64encode(private.private_bytes_raw()).decode(), owner=kid),
            "created_at": self._clock.now(),
            "signs_from": signs_from,
            "withdrawn_at": None,
        }
        try:
            await self._keys.insert_one(row)
        except DuplicateKeyError:
            pass  # another process was first: its key it is
        else:
            await tell(self._redis, self._channel)
        await self.reload()

    async def _forget(self, now: datetime) -> None:
        """Those that no token can be signed with any more."""
        for key, follower in zip(self._known, self._known[1:], strict=False):
            if now > follower.signs_from + 2 * SHOWN_AFTER:
                await self._keys.delete_one({"_id": key.kid})
                self._private = {kid: private for kid, private in self._private.items() if kid != key.kid}
        await self.reload()


def thumbprint(public: bytes) -> str:
    """A key's id: its thumbprint as in RFC 7638 and RFC 8037."""
    jwk = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(public)}
    return _base64url(sha256(dumps(jwk, separators=(",", ":"), sort_keys=True).encode()).digest())


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _key(row: Mapping[str, Any]) -> SigningKey:
    return SigningKey(
        kid=row["_id"],
        number=row["number"],
        public=row["public"],
        sealed=row["sealed"],
        created_at=row["created_at"],
        signs_from=row["signs_from"],
        withdrawn_at=row["withdrawn_at"],
    )
