"""A cache in two levels: this process's memory, then Redis, then the loader.

    async with Cache(redis) as cache:
        tenant = await cache.get_or_load(("tenant", tenant_id), load, 60, tags=(("tenants",),), decode=Tenant.of)
        ...
        await cache.invalidate(("tenant", tenant_id))      # after the commit of what changed

Keys and tags are tuples of strings, with the tenant's id among them where the value is a tenant's: two different
tuples never meet, whatever their parts hold. An entry goes by its key and its tags; `invalidate` takes either.

**Values** have the shapes of JSON: None, bool, int (64 bits), float, str, list, dict with str keys. What a caller gets
has always been through JSON (and `decode`), so that it does not depend on the level that answered. It is shared with
every other caller: do not change it, or let `decode` make something frozen of it.

**Invalidation cannot be undone** by a load that began before it. In Redis, stamps see to that (`shared.py`). In memory,
what is named is dropped, and loads under way are disowned: whoever already waited gets their value, it is not kept,
and whoever asks from now on starts a new load.

**Trust** in memory and in Redis is one thing: the pub/sub subscription that brings invalidations is whole. As soon as
that is in doubt, or any command fails, both are given up: loads go to the loader directly (still one per key in this
process) and are remembered for a second. Making the subscription anew is what probes for Redis, so a dead Redis costs
the calls under way at most a second and later calls nothing. Before trust returns, everything cached is abandoned if
this process has an invalidation that it could not pass on, or if the server is another one than before. What remains:
a process killed between its commit and `invalidate`, or cut off from a Redis that others still reach, leaves an old
value for at most the value's time to live.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self

import orjson
import structlog
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from libs.core.cache.memory import Entry, Key, Memory
from libs.core.cache.shared import EVERYTHING, FAILED, Found, Shared, Turn
from libs.core.errors import Unavailable
from libs.core.pubsub import subscribed
from libs.core.redis import Redis
from libs.core.tasks import ended

__all__ = ["MISSING", "Cache", "Key"]

# Shorter by up to a tenth, so that what was loaded together does not expire together.
_JITTER = 0.1
# How long memory is believed while no invalidation can be heard.
_UNTRUSTED_TTL_S = 1.0
_POLL_S, _POLL_MOST_S = 0.005, 0.05
_RETRY_REFRESH_S = 1.0
_RECONNECT_S, _RECONNECT_MOST_S = 0.05, 1.0
_OPEN_WITHIN_S = 1.0
# Measured: an entry without its value takes 540 bytes, a decoded document 5 to 7 times the length of its JSON.
_ENTRY_BYTES, _BYTES_PER_JSON_BYTE = 600, 6
_JSON_ONLY = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS

log = structlog.get_logger(__name__)

_LOADS = Counter("cache_loads", "Calls of loaders, by outcome: ok, error", ("outcome",))
_LOAD_SECONDS = Histogram("cache_load_seconds", "How long loaders took")
_REDIS_ERRORS = Counter("cache_redis_errors", "Lookups, stores and invalidations that Redis failed")
_INVALIDATIONS = Counter("cache_invalidations", "Names invalidated, by whom: this process, another", ("by",))
_TRUSTED = Gauge("cache_trusted", "1 while invalidations are heard, and Redis and memory are used in full")


class _MemoryLookups(Collector):
    """A counter that costs 40 ns to add to: a `Counter` takes 400, as much as all the rest of a hit."""

    def __init__(self) -> None:
        self.hits = self.stale = self.misses = 0

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily("cache_memory_lookups", "Lookups in memory, by what they found", labels=["found"])
        for found, times in ("hit", self.hits), ("stale", self.stale), ("miss", self.misses):
            family.add_metric([found], times)
        yield family


_lookups = _MemoryLookups()
REGISTRY.register(_lookups)


class Missing:
    """What `peek` answers where there is nothing: None is a value."""


MISSING: Final = Missing()


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class _Load:
    """What a call of `get_or_load` asked for."""

    key: Key
    tags: tuple[Key, ...]
    loader: Callable[[], Awaitable[Any]]
    decode: Callable[[Any], Any]
    ttl_s: float
    stale_s: float
    negative_ttl_s: float
    version: int

    def times(self, json: bytes) -> tuple[float, float]:
        """How long a value that was loaded just now is fresh, and then stale."""
        spread = 1 - _JITTER * random.random()
        return (self.negative_ttl_s * spread, 0.0) if json == b"null" else (self.ttl_s * spread, self.stale_s)


class _Flight:
    """A load under way, and those who wait for it. One that is disowned still answers them, and is not kept."""

    def __init__(self, load: _Load) -> None:
        self.load = load
        self.disowned = False
        self._answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @property
    def answered(self) -> bool:
        return self._answer.done()

    async def wait(self) -> Any:
        """Cancelling one who waits leaves the load, and the others, alone."""
        return await asyncio.shield(self._answer)

    def answer(self, value: Any) -> None:
        if not self.answered:
            self._answer.set_result(value)

    def fail(self, error: Exception) -> None:
        if not self.answered:
            self._answer.set_exception(error)
            self._answer.exception()  # retrieved: everyone who waited may have been cancelled


class Cache:
    """One a process, open (`async with`) while it is used. Redis may be away, at the start too.

    A load that takes longer than `load_within_s` fails; for as long, other processes wait for a loader that was killed.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        max_entries: int = 50_000,
        max_bytes: int = 64 * 1024 * 1024,
        load_within_s: float = 5.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._name = secrets.token_hex(8)
        self._memory = Memory(max_entries, max_bytes)
        self._shared = Shared(redis, lock_s=load_within_s)
        self._load_within_s = load_within_s
        self._now = monotonic
        self._flights: dict[Key, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._trusted = asyncio.Event()
        self._unsent = 0  # invalidations that Redis has not heard of

    async def __aenter__(self) -> Self:
        self._spawn(self._listen())
        with suppress(TimeoutError):
            await self.trusted(within_s=_OPEN_WITHIN_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        await ended(*self._tasks)

    async def trusted(self, *, within_s: float) -> None:
        """Returns once invalidations are heard and Redis is used; `TimeoutError` after `within_s`."""
        async with asyncio.timeout(within_s):
            await self._trusted.wait()

    def peek(self, key: Key) -> Any:
        """What memory holds and is fresh, without waiting for anything, or `MISSING`."""
        now = self._now()
        entry = self._memory.get(key, now)
        if entry is None or entry.fresh_until <= now:
            return MISSING
        _lookups.hits += 1
        return entry.value

    async def get_or_load(
        self,
        key: Key,
        loader: Callable[[], Awaitable[Any]],
        ttl_s: float,
        *,
        tags: tuple[Key, ...] = (),
        stale_s: float = 0.0,
        negative_ttl_s: float = 5.0,
        version: int = 1,
        decode: Callable[[Any], Any] = _as_it_is,
    ) -> Any:
        """The value of `key`: from memory, else from Redis, else from `loader`, called once however many wait.

        It is fresh for `ttl_s`. For `stale_s` after that it is still answered, at once, and loaded anew behind the
        caller's back. None is cached too, for `negative_ttl_s` at most. A key has the same `tags` in every call. Raise
        `version` when the value's shape changes: releases then keep apart, and an invalidation reaches both. What the
        loader raises reaches everyone who waits and is not cached; `Unavailable` if it took too long.
        """
        now = self._now()
        entry = self._memory.get(key, now)
        if entry is not None and now < entry.fresh_until:
            _lookups.hits += 1
            return entry.value
        flight = self._flights.get(key) or self._take_off(
            _Load(key, tags, loader, decode, ttl_s, stale_s, min(negative_ttl_s, ttl_s), version)
        )
        if entry is None:
            _lookups.misses += 1
            return await flight.wait()
        _lookups.stale += 1
        flight.answer(entry.value)
        return entry.value

    async def invalidate(self, *names: Key) -> None:
        """Drops every entry that has one of `names` as its key or among its tags, in all processes.

        Call it after the commit. When it returns, whoever asks this process, or Redis, gets the new value; other
        processes' memories hear of it within milliseconds. It does not fail: if Redis is away, the names are dropped
        here, and everything cached is abandoned before Redis is trusted again.
        """
        _INVALIDATIONS.labels("this process").inc(len(names))
        # A caller who is cancelled has committed all the same: the invalidation goes on.
        await asyncio.shield(self._spawn(self._invalidate(names)))

    async def _invalidate(self, names: tuple[Key, ...]) -> None:
        if not await self._pass_on(names):
            self._unsent += 1
        self._forget(names)

    async def _pass_on(self, names: tuple[Key, ...]) -> bool:
        if not self._trusted.is_set():
            return False
        try:
            await self._shared.invalidate(names, sender=self._name)
        except FAILED as error:
            self._doubt(error)
            return False
        return True

    def _forget(self, names: Iterable[Key]) -> None:
        for name in names:
            self._memory.invalidate(name)
            for flight in [f for f in self._flights.values() if name == f.load.key or name in f.load.tags]:
                self._disown(flight)

    def _forget_everything(self) -> None:
        self._memory.clear()
        for flight in list(self._flights.values()):
            self._disown(flight)

    def _disown(self, flight: _Flight) -> None:
        flight.disowned = True
        del self._flights[flight.load.key]

    # Loading

    def _take_off(self, load: _Load) -> _Flight:
        flight = self._flights[load.key] = _Flight(load)
        self._spawn(self._fly(flight))
        return flight

    async def _fly(self, flight: _Flight) -> None:
        try:
            await self._obtain(flight)
        except asyncio.CancelledError:
            flight.fail(Unavailable("the load was cancelled: the cache is closing"))
            raise
        except Exception as error:
            if flight.answered:
                self._keep_stale(flight.load, error)
            flight.fail(error)
        finally:
            if not flight.disowned:
                del self._flights[flight.load.key]

    async def _obtain(self, flight: _Flight) -> None:
        """Answers from Redis as soon as any process has loaded it, or loads it when that is up to us."""
        give_up, pause_s = self._now() + self._load_within_s, _POLL_S
        while self._trusted.is_set() and self._now() < give_up:
            found = await self._look_up(flight.load)
            if found is None:
                break
            if found.json is not None:
                self._accept(flight, found.json, found.fresh_s, found.stale_s)
            if found.turn is not None:
                await self._load_and_share(flight, found.turn)
                return
            if found.fresh_s > 0:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _POLL_MOST_S)
        json = await self._load(flight.load)
        self._accept(flight, json, *flight.load.times(json))

    async def _look_up(self, load: _Load) -> Found | None:
        """None if Redis failed."""
        try:
            return await self._shared.look_up(
                load.key, load.tags, version=load.version, longest_ttl_s=load.ttl_s + load.stale_s
            )
        except FAILED as error:
            self._doubt(error)
            return None

    async def _load_and_share(self, flight: _Flight, turn: Turn) -> None:
        """Those who wait here are answered first."""
        try:
            json = await self._load(flight.load)
            fresh_s, stale_s = flight.load.times(json)
            self._accept(flight, json, fresh_s, stale_s)
        except BaseException:
            with suppress(*FAILED):
                await self._shared.give_up(turn)
            raise
        try:
            await self._shared.store(turn, json, fresh_s, stale_s)
        except FAILED as error:
            self._doubt(error)

    async def _load(self, load: _Load) -> bytes:
        outcome, started = "error", time.perf_counter()
        deadline = asyncio.timeout(self._load_within_s)
        try:
            async with deadline:
                json = orjson.dumps(await load.loader(), option=_JSON_ONLY)
            outcome = "ok"
            return json
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise Unavailable(f"a load took longer than {self._load_within_s:g} s", key=list(load.key)) from error
        finally:
            _LOADS.labels(outcome).inc()
            _LOAD_SECONDS.observe(time.perf_counter() - started)

    def _accept(self, flight: _Flight, json: bytes, fresh_s: float, stale_s: float) -> None:
        """Answers those who wait, and remembers the value unless an invalidation came between."""
        value = flight.load.decode(orjson.loads(json))
        if not self._trusted.is_set():
            fresh_s, stale_s = min(fresh_s, _UNTRUSTED_TTL_S), 0.0
        if not flight.disowned:
            now, size_bytes = self._now(), _ENTRY_BYTES + _BYTES_PER_JSON_BYTE * len(json)
            entry = Entry(value, now + fresh_s, now + fresh_s + stale_s, size_bytes, flight.load.tags)
            self._memory.put(flight.load.key, entry)
        flight.answer(value)

    def _keep_stale(self, load: _Load, error: Exception) -> None:
        """A refresh that failed leaves the stale value to answer with, and is not tried again at once."""
        log.warning("a cached value could not be refreshed", key=load.key, error=repr(error))
        now = self._now()
        entry = self._memory.get(load.key, now)
        if entry is not None:
            entry.fresh_until = now + _RETRY_REFRESH_S

    # Trust

    async def _listen(self) -> None:
        pause_s = _RECONNECT_S
        while True:
            try:
                async with subscribed(self._redis, self._shared.channel) as subscription:
                    await self._recover()
                    pause_s = _RECONNECT_S
                    while self._trusted.is_set():
                        self._hear(await subscription.receive())
            except (*FAILED, ValueError, TypeError) as error:  # the last two: something else speaks on the channel
                if pause_s == _RECONNECT_S:  # once an outage
                    log.warning("cache invalidations cannot be heard", error=repr(error))
            finally:
                self._distrust()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _RECONNECT_MOST_S)

    async def _recover(self) -> None:
        unsent = -1
        while unsent != self._unsent:  # one more may come while the ones before are made good
            unsent = self._unsent
            await self._shared.recover(unsent=unsent > 0)
        self._unsent = 0
        self._forget_everything()
        self._trusted.set()
        _TRUSTED.set(1)

    def _hear(self, received: tuple[str, bytes] | None) -> None:
        if received is None:
            return
        _, message = received
        if message == EVERYTHING:
            self._forget_everything()
            return
        sender, *names = orjson.loads(message)
        if sender != self._name:
            _INVALIDATIONS.labels("another").inc(len(names))
            self._forget(tuple(name) for name in names)

    def _doubt(self, error: Exception) -> None:
        """A command failed. The subscription is given up within a heartbeat: making it anew shows what is there."""
        _REDIS_ERRORS.inc()
        if self._trusted.is_set():  # of all that were under way, the first
            log.warning("the cache's Redis failed", error=repr(error))
        self._distrust()

    def _distrust(self) -> None:
        if not self._trusted.is_set():
            return
        self._trusted.clear()
        _TRUSTED.set(0)
        self._forget_everything()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
