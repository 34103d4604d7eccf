"""The relay: carries events from the outbox to Redis, in order, one relay at work per service database.

It remembers in MongoDB what Redis must still hold (an epoch, and the time of each stream's last entry) and, per group
of subscribers, the time before which it has settled everything. When Redis proves to have lost anything, the relay
empties the streams, begins a new epoch, and sends again, in the outbox's order, what any group may still need. The
groups' inboxes see to it that nothing has its effect twice.

What bounds Redis' memory: an entry goes once every known group has settled it and it is a minute old; a stream holds
about `stream_limit` entries at most, and a relay that finds one full waits for its readers. A group without headway for
half a minute while all others wait for it is *left behind*: its place is noted, and given up in Redis. When it comes
back, the streams are emptied and sent again from there. Who is away for longer than the outbox keeps events loses some.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

import structlog
from prometheus_client import Counter, Gauge
from pymongo import ASCENDING
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from redis.exceptions import RedisError

from libs.core.errors import LeaseLost
from libs.core.events.event import PARTITIONS
from libs.core.events.outbox import COLLECTION, RETENTION_S, Outbox
from libs.core.events.stream import NOTHING, EntryId, Place, Published, Stream
from libs.core.ids import new_id
from libs.core.lock import Lease
from libs.core.mongo import Document, Mongo, Session
from libs.core.pubsub import subscribed
from libs.core.redis import Redis
from libs.core.tasks import ended

STATE = "relays"

# Both spare the process that also does the publisher's work. A kick that finds the relay rested is obeyed at once.
_REST_TURNS, _LONGEST_REST_S = 3, 0.025  # a relay that is kicked all the time works for a quarter of it
_MARK_AFTER_S = 0.2

_SWEEP_S = 2.0
_READ_LIMIT = 256
_SCRIPT_EVENTS = 512  # Redis does nothing else while a script runs: about 3 ms for these
_KEEP_MS = 60_000  # longer than it takes to notice a new group
_FULL_WAIT_S = 0.05
PATIENCE_S = 30.0
_LONGEST_BACK_OFF_S = 2.0
STREAM_LIMIT = 50_000

PUBLISHED = Counter("events_published_total", "Events that Redis accepted", ["source"])
RESETS = Counter("events_resets_total", "Times that the streams were emptied and sent again", ["source"])
LAG_SECONDS = Gauge("events_relay_lag_seconds", "Age of the oldest event that was not relayed", ["source"])
WAITING = Gauge("events_relay_waiting", "Transactions whose events were not relayed (counted to 10,000)", ["source"])

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _State:
    """What MongoDB remembers. Instants are milliseconds on the scale of the stream ids."""

    epoch: str = ""
    last_ms: int = 0
    tails: list[EntryId] = field(default_factory=lambda: [NOTHING] * PARTITIONS)
    settled_before: dict[str, int] = field(default_factory=dict)
    left_behind: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, row: Document) -> "_State":
        groups = row["groups"]
        return cls(
            epoch=row["epoch"],
            last_ms=row["last_ms"],
            tails=[(ms, n) for ms, n in row["tails"]],
            settled_before={group["name"]: group["settled_before"] for group in groups},
            left_behind={group["name"] for group in groups if group["left_behind"]},
        )

    def document(self) -> Document:
        groups = [
            {"name": name, "settled_before": ms, "left_behind": name in self.left_behind}
            for name, ms in self.settled_before.items()
        ]
        return {"epoch": self.epoch, "last_ms": self.last_ms, "tails": self.tails, "groups": groups}


class Relay:
    """Of one service database, to the streams of `source`: `async with Relay(...)`.

    At the end it sends what is committed by then, notes what was sent, and lets another process take over.
    """

    def __init__(
        self,
        mongo: Mongo,
        redis: Redis,
        outbox: Outbox,
        *,
        source: str,
        stream_limit: int = STREAM_LIMIT,
        lease_ttl_s: float = 10.0,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._mongo = mongo
        self._outbox = outbox
        self._documents = mongo.db[COLLECTION]
        # A snapshot, so that no event is seen without the ones of its key that were committed before it.
        self._unsent = self._documents.with_options(read_concern=ReadConcern("snapshot"))
        self._states = mongo.db[STATE]
        self._redis = redis
        self._stream = Stream(redis, source)
        self._lease = Lease(mongo.db, f"relay:{source}", ttl_s=lease_ttl_s)
        self._limit = stream_limit
        self._patience_s = patience_s
        self._state = _State()
        self._saved: Document = {}
        self._state_of: int | None = None  # the lease's token when the state was read
        self._unmarked: list[str] = []
        self._stuck: dict[str, tuple[int, float]] = {}
        self._rested_at = self._mark_at = self._sweep_at = 0.0
        self._stopping = False

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run())
        self._hearing = asyncio.create_task(self._hear_kicks())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        self._outbox.kick()
        await asyncio.gather(self._running, ended(self._hearing), return_exceptions=True)

    async def _run(self) -> None:
        failures = 0
        while not self._stopping:
            try:
                await self._turn()
                failures = 0
            except Exception as error:  # whatever it is, events must flow again once it is over
                failures += 1
                log.warning(
                    "relay waits",
                    source=self._stream.source,
                    error=f"{type(error).__name__}: {error}",
                    failures=failures,
                )
                self._sweep_at = 0.0
                await asyncio.sleep(min(_LONGEST_BACK_OFF_S, 0.05 * 2**failures) * random.uniform(0.5, 1))
        if self._lease.held:
            with suppress(RedisError, PyMongoError, OSError, LeaseLost):
                await self._resume()
                await self._send_unsent()
                await self._save()
                await self._lease.release()

    async def _turn(self) -> None:
        kicked = await self._wait()
        due = time.monotonic() >= self._sweep_at
        if due:
            self._sweep_at = time.monotonic() + _SWEEP_S
            await self._measure()
        if not self._lease.held:
            await self._stand_by(kicked=kicked, due=due)
            return
        await self._resume()
        if due:
            await self._sweep()
        if kicked or due:
            started = time.monotonic()
            await self._send_unsent()
            ended = time.monotonic()
            self._rested_at = ended + min(_LONGEST_REST_S, _REST_TURNS * (ended - started))
        if self._unmarked and time.monotonic() >= self._mark_at:
            await self._save()

    async def _wait(self) -> bool:
        """Until there is something to do; true if that is because of a kick."""
        until = min(self._sweep_at, self._mark_at) if self._unmarked and self._lease.held else self._sweep_at
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await self._outbox.kicked.wait()
        if not self._outbox.kicked.is_set():
            return False
        if (tired := self._rested_at - time.monotonic()) > 0:
            await asyncio.sleep(tired)
        self._outbox.kicked.clear()
        return True

    async def _stand_by(self, *, kicked: bool, due: bool) -> None:
        if due and await self._lease.acquire():
            self._sweep_at = 0.0
        elif kicked:
            await self._stream.kick()

    async def _resume(self) -> None:
        """What another relay may have done since is read once per taking of the lease, before anything else is done."""
        if self._state_of == self._lease.token:
            return
        row = await self._states.find_one({"_id": self._stream.source})
        self._state, self._saved = (_State.of(row), row) if row else (_State(), {})
        self._unmarked.clear()
        self._stuck.clear()
        self._state_of = self._lease.token

    async def _hear_kicks(self) -> None:
        """Of other processes, whose relays stand by. One that is missed costs a sweep's time."""
        while True:
            with suppress(RedisError, OSError):
                async with subscribed(self._redis, self._stream.kick_channel) as kicks:
                    while True:
                        if await kicks.receive() and self._lease.held:
                            self._outbox.kick()
            await asyncio.sleep(_SWEEP_S * random.uniform(0.5, 1))

    async def _send_unsent(self) -> None:
        documents = await self._unsent.find(
            {"sent_at": None, "_id": {"$nin": self._unmarked}},
            {"events": 1, "count": 1},
            sort=[("at", ASCENDING), ("_id", ASCENDING)],
            limit=_READ_LIMIT,
        ).to_list()
        for chunk in _chunks(documents):
            if not await self._send(chunk):
                return
        if len(documents) == _READ_LIMIT:
            self._outbox.kick()

    async def _send(self, documents: Sequence[Document]) -> bool:
        """True once Redis has accepted the events of all; without any, true if it is as this relay left it."""
        lines = "".join(document["events"] for document in documents)
        assert self._lease.token is not None
        answer = await self._stream.publish(
            self._state.epoch, self._lease.token, self._now_ms(), self._state.tails, lines, limit=self._limit
        )
        if answer.outcome == "lost" or (answer.outcome == "fenced" and await self._lease.renew()):
            await self._reset()
        elif answer.outcome == "full" and documents:
            await self._make_room()
        elif answer.outcome == "sent" and documents:
            self._note_sent(documents, answer)
        return answer.outcome == "sent" or (answer.outcome == "full" and not documents)

    def _note_sent(self, documents: Sequence[Document], answer: Published) -> None:
        if not self._unmarked:
            self._mark_at = time.monotonic() + _MARK_AFTER_S
        self._unmarked += [document["_id"] for document in documents]
        self._state.last_ms = answer.ms
        for partition, tail in answer.tails.items():
            self._state.tails[partition] = tail
        PUBLISHED.labels(self._stream.source).inc(sum(document["count"] for document in documents))

    async def _save(self) -> None:
        """Notes what was sent and how far everyone is, if this relay still holds the lease; else `LeaseLost`."""
        document = self._state.document()
        unmarked = list(self._unmarked)
        if not unmarked and document == self._saved:
            await self._lease.renew()
            return

        async def write(session: Session) -> None:
            await self._states.replace_one({"_id": self._stream.source}, document, upsert=True, session=session)
            if unmarked:
                sent = {"$set": {"sent_at": _instant(self._state.last_ms)}}
                await self._documents.update_many({"_id": {"$in": unmarked}}, sent, session=session)
            await self._lease.guard(session)  # last: if we are killed in between, the lease is not locked

        await self._mongo.transaction(write)
        self._saved = document
        self._unmarked.clear()

    async def _sweep(self) -> None:
        """Is Redis as we left it? How far are the groups, what can go, who came back? And are we still the one?"""
        if await self._send(()):
            places = await self._stream.places()
            self._note_places(places)
            if back := await self._back(places):
                log.info("groups are back", source=self._stream.source, groups=back)
                self._state.left_behind -= back
                await self._reset()
            else:
                await self._stream.trim(self._removable_before(places, keep_since_ms=self._now_ms() - _KEEP_MS))
        await self._save()

    async def _measure(self) -> None:
        """In every process, and while Redis is away, when it matters."""
        lag = await self._outbox.lag()
        LAG_SECONDS.labels(self._stream.source).set(lag.oldest_s)
        WAITING.labels(self._stream.source).set(lag.waiting)

    async def _back(self, places: Sequence[Place]) -> set[str]:
        """The groups to fetch up. One that still has a place was left by a relay that died in the middle of it."""
        if not self._state.left_behind:
            return set()
        return self._state.left_behind & (await self._stream.back() | {place.group for place in places})

    def _note_places(self, places: Sequence[Place]) -> None:
        """How far each group is. One that is not (yet) in every partition is as far as it was."""
        used = sum(tail != NOTHING for tail in self._state.tails)
        by_group: dict[str, list[int]] = {}
        for place in places:
            before = place.unsettled[0] if place.unsettled else self._state.last_ms + 1
            by_group.setdefault(place.group, []).append(before)
        for group, instants in by_group.items():
            if len(instants) >= used and group not in self._state.left_behind:
                self._state.settled_before[group] = min(instants)
        self._forget_the_lost()

    def _forget_the_lost(self) -> None:
        """Groups that need what the outbox has no more. (One that has settled everything needs nothing.)"""
        kept_since = min(self._now_ms() - RETENTION_S * 1000, self._state.last_ms)
        for group in [group for group, before in self._state.settled_before.items() if before < kept_since]:
            log.error("group was away for too long and has lost events", source=self._stream.source, group=group)
            del self._state.settled_before[group]
            self._state.left_behind.discard(group)

    def _removable_before(self, places: Sequence[Place], *, keep_since_ms: int) -> dict[int, EntryId]:
        """By partition, the first entry that must stay. The last one always does: it proves the stream whole."""
        waited_for = self._state.settled_before.keys() - self._state.left_behind
        first_needed: dict[int, EntryId] = {}
        for partition, tail in enumerate(self._state.tails):
            here = {place.group: place for place in places if place.partition == partition}
            if tail != NOTHING and waited_for <= here.keys():
                needed = [place.unsettled for place in here.values() if place.unsettled]
                first_needed[partition] = min([*needed, tail, (keep_since_ms, 0)])
        return first_needed

    async def _make_room(self) -> None:
        places = await self._stream.places()
        self._note_places(places)
        await self._stream.trim(self._removable_before(places, keep_since_ms=self._now_ms()))
        for group in self._without_headway():
            log.error("group is left behind", source=self._stream.source, group=group)
            self._state.left_behind.add(group)
            await self._save()
            await self._stream.leave_behind(group)
        await asyncio.sleep(_FULL_WAIT_S)
        self._outbox.kick()

    def _without_headway(self) -> list[str]:
        """The groups that hold the others up and have not moved for as long as we are patient."""
        now = time.monotonic()
        behind = {
            group: before
            for group, before in self._state.settled_before.items()
            if before <= self._state.last_ms and group not in self._state.left_behind
        }
        self._stuck = {
            group: self._stuck[group] if self._stuck.get(group, (None,))[0] == before else (before, now)
            for group, before in behind.items()
        }
        return [group for group, (_, since) in self._stuck.items() if now - since > self._patience_s]

    async def _reset(self) -> None:
        """Begins a new epoch, in which everything that a group may still need is sent again, in order."""
        waited_for = [ms for name, ms in self._state.settled_before.items() if name not in self._state.left_behind]
        since = min([*waited_for, self._now_ms() - _KEEP_MS])
        if self._state.epoch:  # not the very first
            RESETS.labels(self._stream.source).inc()
            log.warning("sending again", source=self._stream.source, since=_instant(since).isoformat())
        # Safe to be interrupted: until the new epoch is in Redis, whoever comes next finds the same loss.
        again = {"$set": {"sent_at": None, "waits_since": datetime.now(UTC)}}
        await self._lease.during(self._documents.update_many({"sent_at": {"$gte": _instant(since)}}, again))
        self._unmarked.clear()
        self._state.epoch = new_id()
        self._state.tails = [NOTHING] * PARTITIONS
        await self._save()
        assert self._lease.token is not None
        await self._stream.reset(self._state.epoch, self._lease.token, self._state.left_behind)
        self._outbox.kick()

    def _now_ms(self) -> int:
        return max(int(time.time() * 1000), self._state.last_ms + 1)


def _chunks(documents: Sequence[Document]) -> list[list[Document]]:
    """In order, each with no more events than one script should send, or one document."""
    chunks: list[list[Document]] = []
    events = _SCRIPT_EVENTS
    for document in documents:
        if events + document["count"] > _SCRIPT_EVENTS:
            chunks.append([])
            events = 0
        chunks[-1].append(document)
        events += document["count"]
    return chunks


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
