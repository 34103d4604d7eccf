"""The outbox: an event is stored in the transaction of the change it tells of, so it is stored if and only if true."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pymongo import ASCENDING, UpdateOne
from pymongo.errors import BulkWriteError, OperationFailure

from libs.core.clock import Clock, SystemClock
from libs.core.events.event import Event, partition_of
from libs.core.ids import new_id
from libs.core.migrations import Index
from libs.core.mongo import Database, Session

COLLECTION = "outbox"
SEQUENCES = "event_sequences"

# How long sent events are kept: what a group that stops reading for longer has missed is gone.
RETENTION_S = 7 * 24 * 3600

# A service that publishes adds these to its own. What is unsent has no date in `sent_at`, so it never expires.
OUTBOX_INDEXES = (
    Index(COLLECTION, (("at", ASCENDING), ("_id", ASCENDING)), partial={"sent_at": None}),
    Index(COLLECTION, (("sent_at", ASCENDING),), ttl_s=RETENTION_S),
    Index(SEQUENCES),
    Index("relays"),
    Index("leases"),
)

_LAG_COUNTED_TO = 10_000


@dataclass(frozen=True, slots=True)
class Lag:
    """What waits to be relayed: how many transactions' events (counted to 10,000), and for how long the oldest has."""

    waiting: int
    oldest_s: float


class Outbox:
    """The events of one service's database."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._outbox = database[COLLECTION]
        self._sequences = database[SEQUENCES]
        self._clock = clock or SystemClock()
        self.kicked = asyncio.Event()

    async def append(self, session: Session, events: Sequence[Event], *, at: datetime | None = None) -> None:
        """Stores `events` in the caller's transaction; after its commit, `kick()` sends them without delay.

        All are one document, so a large batch costs one insert. The relay sends in the order of `at`, which must be
        later than that of any earlier append with one of these partition keys: a caller that passes `at` sees to that,
        and to the events' sequences. Without `at`, both are allotted here, at the price of two more round trips.
        """
        if not events:
            return
        if at is None:
            at, numbers = await self._allot(session, events)
        else:
            numbers = [_own_sequence(event) for event in events]
        # One text of two lines per event, as the relay hands it on: it costs the same for one event and for a thousand.
        lines = [
            f"{partition_of(event.partition_key)} {event.type}\n{event.to_json(number).decode()}\n"
            for event, number in zip(events, numbers, strict=True)
        ]
        await self._outbox.insert_one(
            {"_id": new_id(), "at": at, "count": len(lines), "events": "".join(lines), "sent_at": None}, session=session
        )

    def kick(self) -> None:
        """Wakes the relay: there is something new. Costs nothing, and does nothing if none runs in this process."""
        self.kicked.set()

    async def lag(self) -> Lag:
        fields = {"at": 1, "waits_since": 1}
        oldest = await self._outbox.find_one({"sent_at": None}, fields, sort=[("at", ASCENDING)])
        if oldest is None:
            return Lag(0, 0.0)
        waiting = await self._outbox.count_documents({"sent_at": None}, limit=_LAG_COUNTED_TO)
        # What is sent again may be a week old, and has not waited for a week: nobody is late because of it.
        since: datetime = oldest.get("waits_since") or oldest["at"]
        return Lag(waiting, max(0.0, (self._clock.now() - since).total_seconds()))

    async def _allot(self, session: Session, events: Sequence[Event]) -> tuple[datetime, list[int]]:
        """The next sequences of the events' keys. Their rows are written, so that transactions on one key conflict."""
        counts = Counter(event.partition_key for event in events)
        rows = {row["_id"]: row async for row in self._sequences.find({"_id": {"$in": [*counts]}}, session=session)}
        at = max([self._clock.now(), *(row["at"] + timedelta(milliseconds=1) for row in rows.values())])
        last = {key: rows[key]["sequence"] if key in rows else 0 for key in counts}
        writes = [
            UpdateOne({"_id": key}, {"$set": {"at": at}, "$inc": {"sequence": count}}, upsert=True)
            for key, count in counts.items()
        ]
        try:
            await self._sequences.bulk_write(writes, session=session)
        except BulkWriteError as error:
            raise _as_conflict(error) from error
        numbers = []
        for event in events:
            last[event.partition_key] += 1
            numbers.append(last[event.partition_key])
        return at, numbers


def _own_sequence(event: Event) -> int:
    if event.sequence is None:
        raise ValueError(f"{event.type} {event.id} has no sequence, and `at` promises that its caller allots them")
    return event.sequence


def _as_conflict(error: BulkWriteError) -> Exception:
    """Two transactions met at a key's first event. To MongoDB the loser's insert is a duplicate, for good; to us it is
    a conflict like any other, and the transaction runs again."""
    if any(failed["code"] != 11000 for failed in error.details["writeErrors"]):
        return error
    labels = {"errorLabels": ["TransientTransactionError"]}
    return OperationFailure("another transaction allotted this key's first sequence", 112, labels)
