"""What is not to be trusted any more, although a signature says that it may be: sessions, tokens, and keys.

Auth writes, in the transaction that ends the session; every process of every service reads, and refuses from then on:
its `Identity` the tokens, its GraphQL endpoint the streams that are open.

    revocations = Revocations(mongo.core, redis, clock, on_session=…, on_tokens=…, on_key=…)
    await revocations.add(session, [RevokedSession(sid, until=…)])     # in auth
    await revocations.tell()                                           # after the commit: heard in milliseconds
    async with revocations: ...                                        # everywhere

They live in `core_service.revocations` for as long as a token could, so a process that starts, or that heard nothing
because Redis was away or hangs, finds them by reading: twice a second.
"""

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from libs.core.clock import Clock
from libs.core.errors import Unavailable
from libs.core.ids import new_id
from libs.core.migrations import Index
from libs.core.mongo import Database, Document, Session
from libs.core.pubsub import follow, poll, tell
from libs.core.redis import Redis
from libs.core.tasks import ended

COLLECTION = "revocations"
INDEXES = (Index(COLLECTION, (("at", 1),)), Index(COLLECTION, (("until", 1),), ttl_s=0))

# Clocks differ by some seconds, and a transaction may commit some after it was begun: so much is read again each time.
_OVERLAP = timedelta(seconds=45)
_STALE_S = 30.0
_NEVER_S = math.inf


@dataclass(frozen=True, slots=True)
class RevokedSession:
    """Of no use to anyone after `until`, when the last of its tokens expires by itself."""

    session_id: str
    until: datetime


@dataclass(frozen=True, slots=True)
class RevokedTokens:
    """All that a subject was issued up to `issued_until`: what they say of it, its roles say, is not so any more.

    Its sessions go on, with tokens that were issued later.
    """

    tenant_id: str
    subject: str
    issued_until: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class RevokedKey:
    """A signing key that somebody else may have."""

    kid: str
    until: datetime


Revoked = RevokedSession | RevokedTokens | RevokedKey


class Revocations:
    """One a process. `on_session`, `on_tokens` and `on_key` are told of each at least once, in any order."""

    def __init__(
        self,
        database: Database,
        redis: Redis,
        clock: Clock,
        *,
        on_session: Callable[[str, datetime], None],
        on_tokens: Callable[[RevokedTokens], None],
        on_key: Callable[[str], None],
        poll_s: float = 0.5,
    ) -> None:
        """`database` is `core_service`. Untold, a revocation is found within `poll_s` and a fifth of it."""
        self._revocations = database[COLLECTION]
        self._redis = redis
        self._channel = redis.key("revocations")
        self._clock = clock
        self._on_session = on_session
        self._on_tokens = on_tokens
        self._on_key = on_key
        self._poll_s = poll_s
        self._seen: dict[str, datetime] = {}
        self._read_to = clock.now()
        self._read_at = -math.inf  # the same, on the loop's clock

    async def __aenter__(self) -> Self:
        """Fails if MongoDB does: a process that knows of none would let all of them in."""
        await self.reload()
        self._tasks = [
            asyncio.create_task(follow(self._redis, self._channel, self.reload, poll_s=_NEVER_S)),
            asyncio.create_task(poll(self._channel, self.reload, every_s=self._poll_s)),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        await ended(*self._tasks)

    async def add(self, session: Session, revoked: Iterable[Revoked]) -> None:
        """In the caller's transaction. `tell` afterwards."""
        rows = [_row(it, self._clock.now()) for it in revoked]
        if rows:
            await self._revocations.insert_many(rows, session=session)

    async def tell(self) -> None:
        await tell(self._redis, self._channel)

    async def check(self) -> dict[str, Any]:
        """For readiness: `Unavailable` once what others revoke is not noticed any more."""
        age_s = asyncio.get_running_loop().time() - self._read_at
        if age_s > _STALE_S:
            raise Unavailable(f"revocations were last read {age_s:.0f} s ago")
        return {"known": len(self._seen)}

    async def reload(self) -> None:
        """Reads what is new; the first time, all of it."""
        started, now = asyncio.get_running_loop().time(), self._clock.now()
        wanted: Document = {"until": {"$gt": now}}
        if self._seen:
            wanted["at"] = {"$gt": self._horizon()}
        async for row in self._revocations.find(wanted):
            if row["_id"] not in self._seen:
                self._take(row)
                self._seen[row["_id"]] = row["at"]
        self._read_to, self._read_at = now, started
        self._forget()

    def _take(self, row: Document) -> None:
        if row["kind"] == "key":
            self._on_key(row["of"])
        elif row["kind"] == "tokens":
            self._on_tokens(RevokedTokens(row["tenant_id"], row["of"], row["issued_until"], row["until"]))
        else:
            self._on_session(row["of"], row["until"])

    def _horizon(self) -> datetime:
        """What was written before is known. Of one whose clock is far ahead, nobody is to be hidden by that."""
        return min(max(self._seen.values()), self._read_to) - _OVERLAP

    def _forget(self) -> None:
        """What will not be read again need not be known as read."""
        if self._seen:
            horizon = self._horizon()
            self._seen = {id_: at for id_, at in self._seen.items() if at > horizon}


def _row(revoked: Revoked, now: datetime) -> Document:
    row: Document = {"_id": new_id(), "at": now, "until": revoked.until}
    match revoked:
        case RevokedKey(kid=kid):
            return row | {"kind": "key", "of": kid}
        case RevokedSession(session_id=session_id):
            return row | {"kind": "session", "of": session_id}
        case RevokedTokens(tenant_id=tenant_id, subject=subject, issued_until=issued_until):
            return row | {"kind": "tokens", "of": subject, "tenant_id": tenant_id, "issued_until": issued_until}
