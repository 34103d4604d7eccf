"""Durable subscribers: every event of a source reaches each group, in order per key, with its effect applied once.

    Subscriber(mongo, redis, group="bonus", source="payment", handlers={"deposit.completed": on_deposits})

    async def on_deposits(events: Sequence[Event], session: Session) -> None: ...

A batch is one transaction: the inbox rows (which refuse what was handled before), what the handlers write with its
`session`, and the leases of the partitions (a process that lost one cannot commit). Acknowledged after the commit. A
batch that fails is halved until what fails stands alone; that is put aside and tried again later, and blocks its
key alone (`parking.py`).

A handler writes with `session`, or through something that applies its effect once by an id derived from the event's: a
ledger operation, for one. A subscriber of handlers of the second sort says `idempotent=` instead of `handlers=`: they
get no session, there are no inbox rows, and a batch is acknowledged after they return.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Self

import structlog
from opentelemetry import trace
from opentelemetry.trace import SpanKind
from prometheus_client import Counter, Histogram
from pydantic import ValidationError
from pymongo import ASCENDING
from pymongo.errors import BulkWriteError, ConnectionFailure, PyMongoError

from libs.core.errors import DeadlineExceeded, LeaseLost, OutcomeUnknown, Unavailable
from libs.core.events.event import Event, Undecodable, UnknownVersion
from libs.core.events.membership import MEMBER_INDEXES, Membership
from libs.core.events.outbox import RETENTION_S
from libs.core.events.parking import PARKED_INDEXES, Delivery, Parking
from libs.core.events.stream import Entry, Stream
from libs.core.migrations import Index
from libs.core.mongo import Mongo, Session
from libs.core.redis import Redis
from libs.core.tasks import ended

Handler = Callable[[Sequence[Event], Session], Awaitable[None]]
IdempotentHandler = Callable[[Sequence[Event]], Awaitable[None]]

INBOX = "inbox"
# Whatever a relay may send again was first handled at most RETENTION_S ago; the rest is for what it takes to arrive.
INBOX_S = 2 * RETENTION_S

# A service that subscribes adds these to its own.
SUBSCRIBER_INDEXES = (Index(INBOX, (("at", ASCENDING),), ttl_s=INBOX_S), *PARKED_INDEXES, *MEMBER_INDEXES)

_DUPLICATE_KEY = 11000
_BATCH_PER_PARTITION = 128
_TICK_S = 0.5  # how late a retry, a replay or a skip may be noticed
_LONGEST_BACK_OFF_S = 2.0
_LONGEST_RETRY_S = 60.0

# Something that the handlers need is away: everything waits for it, but not longer than this, since it might be one
# event alone that always meets it.
_AWAY = (Unavailable, DeadlineExceeded, OutcomeUnknown)
_PATIENCE_S = 60.0
# Trying again would change nothing: straight to the dead letters.
_LASTING = (Undecodable, UnknownVersion, ValidationError)

HANDLED = Counter("events_handled_total", "Events whose effect is committed", ["subscription"])
RETRIED = Counter("events_retried_total", "Events put aside to be tried again", ["subscription"])
DEAD_LETTERED = Counter("events_dead_lettered_total", "Events that became dead letters", ["subscription"])
DELAY = Histogram(
    "events_delay_seconds",
    "From the fact to its effect",
    ["subscription"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600),
)

log = structlog.get_logger(__name__)
tracer = trace.get_tracer(__name__)


class _HandledBefore(Exception):
    """Some of a batch are in the inbox already."""


class Subscriber:
    """One process's part in the group's reading of `source`: `async with Subscriber(...)`.

    At the end it reads no more, finishes the batch in hand, and lets the other processes of the group take over.
    `max_tries` and `first_retry_s` (doubled with each try, up to a minute, with jitter) say when an event that fails is
    given up as a dead letter: by default after 8 tries in about half a minute.
    """

    def __init__(
        self,
        mongo: Mongo,
        redis: Redis,
        *,
        group: str,
        source: str,
        handlers: Mapping[str, Handler] | None = None,
        idempotent: Mapping[str, IdempotentHandler] | None = None,
        max_tries: int = 8,
        first_retry_s: float = 0.25,
        lease_ttl_s: float = 12.0,
        transaction_timeout_s: float = 10.0,
    ) -> None:
        if bool(handlers) == bool(idempotent):
            raise ValueError("a subscriber has either `handlers` or `idempotent` ones: not both, and not none")
        self.name = f"{group}/{source}"
        self._mongo = mongo
        self._group = group
        self._handlers = handlers or {}
        self._idempotent = idempotent or {}
        self._stream = Stream(redis, source)
        self._inbox = mongo.db[INBOX]
        self._parking = Parking(mongo.db, self.name)
        self._membership = Membership(mongo.db, self.name, ttl_s=lease_ttl_s)
        self._balance_every_s = lease_ttl_s / 4
        self._max_tries = max_tries
        self._first_retry_s = first_retry_s
        self._timeout_s = transaction_timeout_s
        self._balance_at = self._look_again_at = 0.0
        self._well_at = time.monotonic()
        self._unread: set[int] = set()  # partitions that may hold entries given out and never acknowledged
        self._standing: set[str] = set()  # keys with an event put aside
        self._stopping = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        try:
            await self._running
        finally:
            await self._stream.close()

    async def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                await self._turn()
                failures = 0
            except Exception as error:  # whatever it is, the group must go on once it is over
                failures += 1
                log.warning(
                    "subscriber waits",
                    subscription=self.name,
                    error=f"{type(error).__name__}: {error}",
                    failures=failures,
                )
                self._balance_at = 0.0
                self._unread = set(self._membership.partitions)
                await self._pause(min(_LONGEST_BACK_OFF_S, 0.05 * 2**failures) * random.uniform(0.5, 1))
        with suppress(PyMongoError):
            await self._membership.leave()

    async def _turn(self) -> None:
        due = await self._due_again()
        await self._settle(due)
        # Right before the read: what is read of a partition that is another's by now, the other does not get in time.
        if time.monotonic() >= self._balance_at:
            await self._balance()
        if not self._membership.partitions:
            await self._pause(_TICK_S)
            return
        entries = await self._read(block_ms=None if due else int(_TICK_S * 1000))
        known = [Delivery.of(self.name, entry, entry.body) for entry in entries if entry.body is not None]
        await self._settle([delivery for delivery in known if self._concerns(delivery)])
        if entries:
            await self._stream.acknowledge(self._group, entries)
        self._well_at = time.monotonic()

    async def _due_again(self) -> list[Delivery]:
        if not self._standing or time.monotonic() < self._look_again_at:
            return []
        due = await self._parking.due(self._membership.partitions, _BATCH_PER_PARTITION)
        self._look_again_at = 0.0 if due else time.monotonic() + min(_TICK_S, self._first_retry_s)
        return due

    async def _balance(self) -> None:
        taken = await self._membership.balance()
        self._balance_at = time.monotonic() + self._balance_every_s
        # All, and not only what was taken: a holder that lost its lease unawares may have been given entries since.
        self._unread = set(self._membership.partitions)
        self._standing = await self._parking.standing(self._membership.partitions)
        if taken:
            log.info("partitions taken", subscription=self.name, held=self._membership.partitions)
            await self._stream.create_group(self._group)

    async def _read(self, block_ms: int | None) -> list[Entry]:
        if self._unread:
            entries = await self._stream.read_pending(self._group, self._unread, count=_BATCH_PER_PARTITION)
            self._unread = {entry.partition for entry in entries}
            return entries
        wait = self._stream.read(
            self._group, self._membership.partitions, count=_BATCH_PER_PARTITION, block_ms=block_ms
        )
        reading, stopping = asyncio.ensure_future(wait), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else []
        finally:
            await ended(reading, stopping)

    def _concerns(self, delivery: Delivery) -> bool:
        event = delivery.event
        return event is None or event.type in self._handlers or event.type in self._idempotent

    async def _settle(self, deliveries: Sequence[Delivery]) -> None:
        """Handles them or puts them aside, durably. Raises in an outage alone; what was settled by then stays so."""
        if not deliveries:
            return
        try:
            await self._commit(deliveries)
        except Exception as error:
            if await self._is_outage(error):
                raise
            if len(deliveries) == 1:
                await self._put_aside(deliveries[0], error)
                return
            middle = len(deliveries) // 2
            await self._settle(deliveries[:middle])
            await self._settle(deliveries[middle:])

    async def _commit(self, deliveries: Sequence[Delivery]) -> None:
        remaining = list({delivery.id: delivery for delivery in reversed(deliveries)}.values())[::-1]
        if self._idempotent:  # in their inbox is only what was put aside: it may have been skipped, and that is final
            remaining = await self._not_handled(remaining)
        while remaining:
            try:
                await self._try_to_commit(remaining)
                return
            except _HandledBefore:
                remaining = await self._not_handled(remaining)

    async def _not_handled(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        ids = [delivery.id for delivery in deliveries if not delivery.parked]
        handled = {row["_id"] async for row in self._inbox.find({"_id": {"$in": ids}})}
        if handled:  # what is delivered again is kept in the outbox for longer, too
            await self._inbox.update_many({"_id": {"$in": [*handled]}}, {"$set": {"at": datetime.now(UTC)}})
        parked = await self._parking.present([delivery.id for delivery in deliveries if delivery.parked])
        return [d for d in deliveries if (d.id in parked if d.parked else d.id not in handled)]

    async def _try_to_commit(self, deliveries: Sequence[Delivery]) -> None:
        """All in one transaction: handled, or parked if their key stands still. `_HandledBefore` if some were."""
        heads = [delivery for delivery in deliveries if delivery.parked]
        fresh = [delivery for delivery in deliveries if not delivery.parked]
        waiting = [delivery for delivery in fresh if delivery.key in self._standing]
        events = [
            _event(delivery)
            for delivery in deliveries
            if not delivery.skipped and (delivery.parked or delivery.key not in self._standing)
        ]
        if self._idempotent:
            await self._call(self._idempotent, events)
            fresh = waiting

        async def write(session: Session) -> set[str]:
            await self._enter(session, fresh)
            await self._parking.add(session, waiting)
            done = await self._remove(session, heads)
            if self._handlers:
                await self._call(self._handlers, events, session)
            # Last, so that a process killed in the middle of a batch does not leave its leases locked as well: MongoDB
            # keeps the transaction of a client that is gone for up to `transactionLifetimeLimitSeconds`.
            await self._membership.guard(session, {delivery.partition for delivery in deliveries})
            return done

        if fresh or heads:
            self._standing.difference_update(await self._mongo.transaction(write, timeout_s=self._timeout_s))
        self._count(events)

    async def _enter(self, session: Session, deliveries: Sequence[Delivery]) -> None:
        """Into the inbox, which has room for each once. To insert is to ask: duplicates are rare."""
        if not deliveries:
            return
        now = datetime.now(UTC)
        try:
            await self._inbox.insert_many(
                [{"_id": delivery.id, "at": now} for delivery in deliveries], ordered=False, session=session
            )
        except BulkWriteError as error:
            if any(failed["code"] != _DUPLICATE_KEY for failed in error.details["writeErrors"]):
                raise
            raise _HandledBefore from None

    async def _remove(self, session: Session, heads: Sequence[Delivery]) -> set[str]:
        """The keys that need not stand still any longer. `_HandledBefore` if a commit that seemed lost was not."""
        removed, keys = await self._parking.remove(session, heads)
        if removed < len(heads):
            raise _HandledBefore
        return keys

    async def _put_aside(self, delivery: Delivery, error: Exception) -> None:
        tries = delivery.tries + 1
        dead = tries >= self._max_tries or isinstance(error, _LASTING)
        due_at = None if dead else datetime.now(UTC) + timedelta(seconds=self._retry_in_s(tries))
        reason = f"{type(error).__name__}: {error}"[:2000]

        async def write(session: Session) -> None:
            await self._enter(session, [] if delivery.parked else [delivery])
            await self._parking.put_head(session, delivery, tries=tries, due_at=due_at, error=reason)
            await self._membership.guard(session, [delivery.partition])

        try:
            await self._mongo.transaction(write, timeout_s=self._timeout_s)
        except _HandledBefore:  # put aside, and skipped or replayed since: nothing is left to do
            return
        self._standing.add(delivery.key)
        (DEAD_LETTERED if dead else RETRIED).labels(self.name).inc()
        log.log(
            logging.ERROR if dead else logging.WARNING,
            "event is dead" if dead else "event is put aside",
            subscription=self.name,
            delivery=delivery.id,
            key=delivery.key,
            tries=tries,
            error=reason,
        )

    def _retry_in_s(self, tries: int) -> float:
        return min(_LONGEST_RETRY_S, self._first_retry_s * 2.0 ** (tries - 1)) * random.uniform(0.5, 1)

    async def _is_outage(self, error: Exception) -> bool:
        if isinstance(error, _AWAY):
            return time.monotonic() - self._well_at < _PATIENCE_S
        if not isinstance(error, ConnectionFailure):
            return isinstance(error, LeaseLost)
        try:
            await self._mongo.ping()
        except PyMongoError:
            return True
        return False  # it is there: this event is too much for it

    async def _call(
        self, handlers: Mapping[str, Callable[..., Awaitable[None]]], events: Sequence[Event], *session: Session
    ) -> None:
        for handler, together in _by_handler(handlers, events):
            with _continuing(together), _cancelled_only_by_us():
                await handler(together, *session)

    def _count(self, events: Sequence[Event]) -> None:
        HANDLED.labels(self.name).inc(len(events))
        delay = DELAY.labels(self.name)
        now = time.time()
        for event in events:
            delay.observe(now - event.time.timestamp())

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


def _event(delivery: Delivery) -> Event:
    return delivery.event or Event.from_json(delivery.body)  # says why it cannot be decoded


def _by_handler(
    handlers: Mapping[str, Callable[..., Awaitable[None]]], events: Sequence[Event]
) -> list[tuple[Callable[..., Awaitable[None]], list[Event]]]:
    """As few calls as the order within each key allows: a key's event goes into the same call as its last one if their
    handler is the same, and into a later one if it is not."""
    rounds: dict[str, tuple[int, Callable[..., Awaitable[None]]]] = {}
    calls: dict[tuple[int, Callable[..., Awaitable[None]]], list[Event]] = {}
    for event in events:
        handler = handlers[event.type]
        number, last = rounds.get(event.partition_key, (0, handler))
        call = rounds[event.partition_key] = (number if last == handler else number + 1, handler)
        calls.setdefault(call, []).append(event)
    return [(handler, calls[number, handler]) for number, handler in sorted(calls, key=lambda call: call[0])]


@contextmanager
def _cancelled_only_by_us() -> Iterator[None]:
    """A handler that awaits what another task has cancelled fails; it must not end the subscriber."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("what the handler waited for was cancelled") from error


@contextmanager
def _continuing(events: Sequence[Event]) -> Iterator[None]:
    """One event's handling belongs to its trace; a batch's has a trace of its own, linked to theirs."""
    if len(events) == 1:
        with events[0].continued(), tracer.start_as_current_span(f"handle {events[0].type}", kind=SpanKind.CONSUMER):
            yield
        return
    contexts = [trace.get_current_span(event.trace_context).get_span_context() for event in events if event.traceparent]
    with tracer.start_as_current_span(
        f"handle {events[0].type}", kind=SpanKind.CONSUMER, links=[trace.Link(context) for context in contexts]
    ):
        yield
