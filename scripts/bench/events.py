"""How soon an event has its effect, and how many have it in a second. `python -m scripts.bench.events`

Every effect is a document of its own. An event is published when the transaction that appended it has committed, and
handled when the transaction with its effect has. One process does all of it: publisher, relay and subscriber.
"""

import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog
import uvloop
from prometheus_client import REGISTRY

from libs.core.events import OUTBOX_INDEXES, SUBSCRIBER_INDEXES, Event, EventData, Outbox, Relay, Subscriber
from libs.core.migrations import Index, migrate
from libs.core.mongo import Mongo, Session
from libs.core.redis import Redis
from libs.core.testing import eventually, scratch_mongo, scratch_namespace, scratch_redis

P50_MS, PER_SECOND = 10.0, 5_000
ALONE, ROUNDS, PER_ROUND, PER_APPEND, ONE_BY_ONE = 200, 3, 10_000, 50, 300

T = TypeVar("T")


class BenchHappened(EventData, type="bench.happened"):
    owner_id: str
    amount: str
    currency: str


class TimedMongo(Mongo):
    """Notes when its last transaction had committed."""

    committed_at = 0.0

    async def transaction(self, work: Callable[[Session], Awaitable[T]], *, timeout_s: float = 10.0) -> T:
        result = await super().transaction(work, timeout_s=timeout_s)
        self.committed_at = time.perf_counter()
        return result


async def main() -> bool:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    namespace = scratch_namespace()
    async with (
        scratch_mongo(os.environ["MONGO_URL"], namespace=namespace) as mongo,
        scratch_redis(os.environ["REDIS_URL"], namespace=namespace) as redis,
    ):
        await migrate(mongo.db, (*OUTBOX_INDEXES, *SUBSCRIBER_INDEXES, Index("effects")))
        timed = TimedMongo(mongo.client, service="test", namespace=namespace)
        return all([await latency(mongo, timed, redis), await throughput(mongo, redis)])


async def latency(mongo: Mongo, timed: TimedMongo, redis: Redis) -> bool:
    """One event at a time, as after a transfer in a quiet hour. The first waits for the start, and does not count."""
    outbox, waited_ms, append_ms = Outbox(mongo.db), [], []
    async with relaying(mongo, redis, outbox), subscribed(timed, redis, "alone"):
        for _ in range(ALONE + 1):
            started = time.perf_counter()
            await append(mongo, outbox, 1)
            published = time.perf_counter()
            outbox.kick()
            await until(lambda published=published: timed.committed_at > published)  # type: ignore[misc]
            waited_ms.append((timed.committed_at - published) * 1000)
            append_ms.append((published - started) * 1000)
    p50, p99 = statistics.median(waited_ms[1:]), statistics.quantiles(waited_ms[1:], n=100)[98]
    appended = statistics.median(append_ms[1:])
    print(f"published to handled: p50 {p50:.1f} ms, p99 {p99:.1f} ms; before, {appended:.1f} ms to append and commit")
    return said(p50 <= P50_MS, f"p50 within {P50_MS:.0f} ms")


async def throughput(mongo: Mongo, redis: Redis) -> bool:
    """What waits in the outbox is relayed; then one subscriber handles it. Each alone, so that each can be measured."""
    outbox = Outbox(mongo.db)
    relay, subscriber = Measured(), Measured()
    for n in range(1, ROUNDS + 1):
        for _ in range(PER_ROUND // PER_APPEND):
            await append(mongo, outbox, PER_APPEND)
        before = relayed()
        async with relay.round(), relaying(mongo, redis, outbox):
            await until(lambda before=before: relayed() == before + PER_ROUND)  # type: ignore[misc]
        async with subscriber.round(), subscribed(mongo, redis, "many"):
            await until(lambda n=n: handled("many") == n * PER_ROUND + ALONE + 1)  # type: ignore[misc]
    baseline = await one_transaction_each(mongo)
    rate = subscriber.per_second
    print(f"relay: {relay.per_second:,.0f} events/s, {relay.cpu_us:.0f} µs of CPU each")
    print(f"subscriber with inbox: {rate:,.0f} events/s, {subscriber.cpu_us:.0f} µs of CPU each")
    print(
        f"a transaction for each event: {baseline:,.0f} events/s; the subscriber does {rate / baseline:.1f} times that"
    )
    return said(rate >= PER_SECOND, f"{PER_SECOND:,} events a second")


async def one_transaction_each(mongo: Mongo) -> float:
    """The obvious subscriber: for each event a transaction with its inbox row and its effect."""
    apply = effect(mongo)

    async def handle(event: Event, session: Session) -> None:
        await mongo.db.inbox.insert_one({"_id": f"baseline/{event.id}"}, session=session)
        await apply([event], session)

    started = time.perf_counter()
    for _ in range(ONE_BY_ONE):
        event = happened()
        await mongo.transaction(lambda session, event=event: handle(event, session))  # type: ignore[misc]
    return ONE_BY_ONE / (time.perf_counter() - started)


class Measured:
    """The medians of its rounds of PER_ROUND events."""

    def __init__(self) -> None:
        self._wall_s: list[float] = []
        self._cpu_s: list[float] = []

    @asynccontextmanager
    async def round(self) -> AsyncIterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self._wall_s.append(time.perf_counter() - wall)
        self._cpu_s.append(time.process_time() - cpu)

    @property
    def per_second(self) -> float:
        return PER_ROUND / statistics.median(self._wall_s)

    @property
    def cpu_us(self) -> float:
        return statistics.median(self._cpu_s) / PER_ROUND * 1e6


@asynccontextmanager
async def relaying(mongo: Mongo, redis: Redis, outbox: Outbox) -> AsyncIterator[None]:
    async with Relay(mongo, redis, outbox, source="bench"):
        yield


@asynccontextmanager
async def subscribed(mongo: Mongo, redis: Redis, group: str) -> AsyncIterator[None]:
    handlers = {"bench.happened": effect(mongo)}
    async with Subscriber(mongo, redis, group=group, source="bench", handlers=handlers):
        yield


def effect(mongo: Mongo) -> Callable[[Sequence[Event], Session], Awaitable[None]]:
    async def apply(events: Sequence[Event], session: Session) -> None:
        effects = [
            {"owner": event.partition_key, "cause": event.id, "amount": event.data["amount"]} for event in events
        ]
        await mongo.db.effects.insert_many(effects, ordered=False, session=session)

    return apply


async def append(mongo: Mongo, outbox: Outbox, count: int) -> None:
    events = [happened(f"owner-{n}") for n in range(count)]
    await mongo.transaction(lambda session: outbox.append(session, events))


def happened(owner: str = "owner") -> Event:
    data = BenchHappened(owner_id=owner, amount="1250", currency="EUR")
    return Event.new(data, source="bench", subject=owner, tenant_id="bench", partition_key=owner, actor="bench")


def relayed() -> float:
    return REGISTRY.get_sample_value("events_published_total", {"source": "bench"}) or 0.0


def handled(group: str) -> float:
    return REGISTRY.get_sample_value("events_handled_total", {"subscription": f"{group}/bench"}) or 0.0


async def until(condition: Callable[[], bool]) -> None:
    await eventually(condition, within_s=60)


def said(held: bool, target: str) -> bool:
    print(f"    {'holds' if held else 'MISSED'}: {target}")
    return held


if __name__ == "__main__":
    sys.exit(0 if uvloop.run(main()) else 1)  # as the services do
