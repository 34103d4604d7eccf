"""Live listeners: what happens now, for screens and caches. It may miss events, and says when it may have.

    async with live.listen("wallet.changed", key=caller.user_id) as happenings:
        async for happening in happenings:          # RESYNC, or an Event
            ...

The first item is a RESYNC, once nothing can be missed any more: load the state then. Another follows whenever something
may have been missed: after Redis was away, and for a listener that was too slow for its queue.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from enum import Enum
from typing import Final, Self

import structlog
from prometheus_client import Counter, Gauge
from redis.exceptions import RedisError

from libs.core.events.event import Event, Undecodable
from libs.core.events.stream import channel
from libs.core.pubsub import subscribed
from libs.core.redis import Redis
from libs.core.tasks import ended

_RECONNECT_S = 0.5

LISTENERS = Gauge("events_live_listeners", "Listeners to live events")
OVERFLOWED = Counter("events_live_overflowed_total", "Times that a live listener was too slow and has to resync")

log = structlog.get_logger(__name__)


class Resync(Enum):
    RESYNC = "resync"


RESYNC: Final = Resync.RESYNC
Happening = Event | Resync


class Listener:
    """An endless iterator over what one listener is to see."""

    def __init__(self, limit: int) -> None:
        self._queue: deque[Happening] = deque()
        self._limit = limit
        self._filled = asyncio.Event()

    def put(self, happening: Happening) -> None:
        if happening is RESYNC:
            self._queue.clear()  # what is loaded after this has seen it all
        elif len(self._queue) >= self._limit:
            OVERFLOWED.inc()
            self._queue.clear()
            happening = RESYNC
        self._queue.append(happening)
        self._filled.set()

    def __aiter__(self) -> "Listener":
        return self

    async def __anext__(self) -> Happening:
        while not self._queue:
            self._filled.clear()
            await self._filled.wait()
        return self._queue.popleft()


class LiveListener:
    """One Redis connection for each set of types that somebody listens to, however many do: `async with`."""

    def __init__(self, redis: Redis, *, queue_limit: int = 256) -> None:
        self._redis = redis
        self._queue_limit = queue_limit
        self._hearings: dict[frozenset[str], _Hearing] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(hearing.end() for hearing in self._hearings.values()))

    @asynccontextmanager
    async def listen(self, *types: str, key: str | None = None) -> AsyncIterator[Listener]:
        """To the events of these types: all, or those whose partition key is `key`."""
        names = frozenset(types)
        hearing = self._hearings.get(names) or self._hearings.setdefault(names, _Hearing(self._redis, names))
        listener = Listener(self._queue_limit)
        hearing.add(listener, key)
        LISTENERS.inc()
        try:
            yield listener
        finally:
            LISTENERS.dec()
            hearing.remove(listener, key)
            if not hearing.listeners:
                self._hearings.pop(names, None)
                await hearing.end()


class _Hearing:
    """Of one set of types, from its first listener to its last."""

    def __init__(self, redis: Redis, types: Iterable[str]) -> None:
        self.listeners: dict[str | None, set[Listener]] = {}  # by key
        self._redis = redis
        self._channels = [channel(redis, event_type) for event_type in types]
        self._in_force = False
        self._running = asyncio.create_task(self._run())

    async def end(self) -> None:
        await ended(self._running)

    def add(self, listener: Listener, key: str | None) -> None:
        self.listeners.setdefault(key, set()).add(listener)
        if self._in_force:
            listener.put(RESYNC)

    def remove(self, listener: Listener, key: str | None) -> None:
        self.listeners[key].discard(listener)
        if not self.listeners[key]:
            del self.listeners[key]

    async def _run(self) -> None:
        while True:
            try:
                async with subscribed(self._redis, *self._channels) as subscription:
                    self._in_force = True
                    self._resync()
                    while True:
                        if message := await subscription.receive():
                            self._deliver(*message)
            except (RedisError, OSError) as error:
                log.warning("live events wait for redis", error=f"{type(error).__name__}: {error}")
            self._in_force = False
            await asyncio.sleep(_RECONNECT_S * random.uniform(0.5, 1.5))

    def _resync(self) -> None:
        for listeners in self.listeners.values():
            for listener in listeners:
                listener.put(RESYNC)

    def _deliver(self, channel: str, body: bytes) -> None:
        try:
            event = Event.from_json(body)
        except Undecodable as error:
            log.error("undecodable live event", channel=channel, error=str(error))
            return
        for key in (None, event.partition_key):
            for listener in self.listeners.get(key, ()):
                listener.put(event)
