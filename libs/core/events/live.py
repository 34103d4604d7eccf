"""Live listeners: what happens now, for screens and caches. It may miss events, and says when it may have.

    async with live.listen("wallet.changed", key=caller.user_id) as happenings:
        async for happening in happenings:          # RESYNC, or an Event
            ...

The first item is a RESYNC, once nothing can be missed any more: load the state then. Another follows whenever something
may have been missed: after Redis was away, and for a listener that was too slow for its queue.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from enum import Enum
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from libs.core.events.event import Event, Undecodable
from libs.core.events.stream import channel
from libs.core.redis import Redis

_RECONNECT_S = 0.5
# Not a type, and nothing is ever said there: always subscribed to, first on every connection, so that its confirmation
# tells of a new connection.
_HEARTH = ""

LISTENERS = Gauge("events_live_listeners", "Listeners to live events")
OVERFLOWED = Counter("events_live_overflowed_total", "Times that a live listener was too slow and has to resync")

log = structlog.get_logger(__name__)


class Resync(Enum):
    RESYNC = "resync"


RESYNC: Final = Resync.RESYNC
Happening = Event | Resync


class Listener:
    """An endless iterator over what one listener is to see."""

    def __init__(self, types: Iterable[str], limit: int) -> None:
        self.types = frozenset(types)
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
    """One Redis connection a process, however many listeners. `start()` it, and `await stop()` it."""

    def __init__(self, redis: Redis, *, queue_limit: int = 256) -> None:
        self._redis = redis
        self._queue_limit = queue_limit
        self._listeners: dict[str, dict[str | None, set[Listener]]] = {}  # by type and key
        self._asked_for: set[str] = set()  # the types that were subscribed to since the connection was made
        self._in_force: set[str] = set()  # those that Redis has confirmed
        self._pubsub: PubSub | None = None
        self._commanding = asyncio.Lock()  # redis-py's PubSub opens a second connection if two commands find none
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._running:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    @asynccontextmanager
    async def listen(self, *types: str, key: str | None = None) -> AsyncIterator[Listener]:
        """To the events of these types: all, or those whose partition key is `key`."""
        listener = Listener(types, self._queue_limit)
        LISTENERS.inc()
        for event_type in types:
            self._listeners.setdefault(event_type, {}).setdefault(key, set()).add(listener)
        try:
            await self._join(listener, types)
            yield listener
        finally:
            LISTENERS.dec()
            for event_type in types:
                self._forget(listener, event_type, key)
            await self._leave(types)

    async def _join(self, listener: Listener, types: Sequence[str]) -> None:
        missing = [event_type for event_type in types if event_type not in self._in_force]
        if not missing:
            listener.put(RESYNC)
        elif self._pubsub is not None:
            with suppress(RedisError, OSError):  # away: what is missing is subscribed to as soon as it is back
                await self._subscribe(missing)

    async def _leave(self, types: Sequence[str]) -> None:
        unheard = [event_type for event_type in types if event_type not in self._listeners]
        self._in_force.difference_update(unheard)
        self._asked_for.difference_update(unheard)
        if unheard and self._pubsub is not None:
            with suppress(RedisError, OSError):
                async with self._commanding:
                    await self._pubsub.unsubscribe(*(self._channel(event_type) for event_type in unheard))

    def _forget(self, listener: Listener, event_type: str, key: str | None) -> None:
        by_key = self._listeners[event_type]
        by_key[key].discard(listener)
        if not by_key[key]:
            del by_key[key]
        if not by_key:
            del self._listeners[event_type]

    async def _run(self) -> None:
        while True:
            try:
                async with self._redis.client.pubsub() as self._pubsub:
                    await self._subscribe([_HEARTH])
                    async for message in self._pubsub.listen():
                        await self._hear(message)
            except (RedisError, OSError) as error:
                log.warning("live events wait for redis", error=f"{type(error).__name__}: {error}")
            finally:
                self._pubsub = None
                self._asked_for.clear()
                self._in_force.clear()
            await asyncio.sleep(_RECONNECT_S)

    async def _subscribe(self, types: Iterable[str]) -> None:
        async with self._commanding:
            missing = set(types) - self._asked_for
            if missing and self._pubsub is not None:
                await self._pubsub.subscribe(*map(self._channel, missing))
                self._asked_for |= missing

    async def _hear(self, message: dict[str, Any]) -> None:
        event_type = message["channel"].decode().removeprefix(self._channel(""))
        if message["type"] == "message":
            self._deliver(event_type, message["data"])
        elif message["type"] == "subscribe":  # the first time, and again whenever the connection was lost
            await self._confirmed(event_type)

    async def _confirmed(self, event_type: str) -> None:
        if event_type == _HEARTH:
            self._in_force.clear()
            await self._subscribe(self._listeners)
            return
        self._in_force.add(event_type)
        for listeners in self._listeners.get(event_type, {}).values():
            for listener in listeners:
                if listener.types <= self._in_force:
                    listener.put(RESYNC)

    def _deliver(self, event_type: str, body: bytes) -> None:
        by_key = self._listeners.get(event_type)
        if by_key is None:
            return
        try:
            event = Event.from_json(body)
        except Undecodable as error:
            log.error("undecodable live event", type=event_type, error=str(error))
            return
        for key in (None, event.partition_key):
            for listener in by_key.get(key, ()):
                listener.put(event)

    def _channel(self, event_type: str) -> str:
        return channel(self._redis, event_type)
