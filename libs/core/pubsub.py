"""Redis pub/sub, for what every process keeps in memory and must know when to read again.

    await tell(redis, redis.key("config"))                              # whoever changed it, after the commit
    await follow(redis, redis.key("config"), reload, poll_s=30)         # everyone, for as long as they live

What is published while nobody listens is lost. The client library reconnects and resubscribes without a word, so that
a listener cannot know that it missed something; here (`subscribed`) a doubtful connection is an error, and whoever
listens resyncs.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

import structlog
from prometheus_client import Counter
from redis.asyncio import ConnectionPool, Redis as Client
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError, TimeoutError as RedisTimeoutError

from libs.core.redis import AWAY, Redis

# A connection that died without a word is noticed after two of these: one without a message, one without a pong.
HEARTBEAT_S = 1.0
_SUBSCRIBE_WITHIN_S = 2.0
_TELL_WITHIN_S = 1.0
_RECONNECT_S = 1.0

_FAILURES = Counter("follow_failures", "Reloads that failed, and subscriptions that broke", ("channel",))

log = structlog.get_logger(__name__)


class Subscription:
    """Made by `subscribed`."""

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub
        self._pinged = False

    async def receive(self) -> tuple[str, bytes] | None:
        """The next (channel, message), or None after `HEARTBEAT_S` of silence.

        Raises one of `AWAY` as soon as a message may have been missed.
        """
        message = await self._pubsub.get_message(timeout=HEARTBEAT_S)
        if message is None:
            if self._pinged:
                raise RedisTimeoutError("a subscription did not answer a ping")
            await self._pubsub.ping()
            self._pinged = True
            return None
        self._pinged = False
        if message["type"] == "message":
            return message["channel"].decode(), message["data"]
        if message["type"] != "pong":
            raise RedisConnectionError("a subscription was reconnected, and may have missed messages")
        return None


@asynccontextmanager
async def subscribed(redis: Redis, *channels: str) -> AsyncIterator[Subscription]:
    """A connection of its own, on which every one of `channels` is confirmed; one of `AWAY` within 2 s if it fails."""
    shared = redis.client.connection_pool
    options = {**shared.connection_kwargs, "retry": Retry(NoBackoff(), 0), "health_check_interval": 0}
    pool = ConnectionPool(shared.connection_class, max_connections=1, **options)
    pubsub = Client(connection_pool=pool).pubsub()
    try:
        async with asyncio.timeout(_SUBSCRIBE_WITHIN_S):
            await pubsub.subscribe(*channels)
            for _ in channels:
                await pubsub.get_message(timeout=None)
        yield Subscription(pubsub)
    finally:
        with suppress(*AWAY):  # a connection that cannot be closed in order must not hide why it was closed
            await pubsub.aclose()  # type: ignore[no-untyped-call]
            await pool.disconnect()


async def tell(redis: Redis, channel: str) -> None:
    """Has everyone who follows `channel` reload. It does not fail, nor take long: without Redis they find out when they

    poll. Whoever tells has done what is told of, and somebody waits for their answer: a Redis that hangs would keep
    them for thirty seconds.
    """
    try:
        async with asyncio.timeout(_TELL_WITHIN_S):
            await redis.client.publish(channel, b"")
    except AWAY as error:
        log.warning("a change reaches other processes by their poll", channel=channel, error=repr(error))


async def follow(redis: Redis, channel: str, reload: Callable[[], Awaitable[object]], *, poll_s: float) -> NoReturn:
    """Awaits `reload` as soon as it listens to `channel`, whenever it is told to, and every `poll_s` in any case.

    About every second while Redis is away, and after a `reload` that raised: that is logged and counted, and what was
    loaded before stays.
    """
    while True:
        try:
            async with subscribed(redis, channel) as changes:
                await _reload_in_time(channel, changes, reload, poll_s)
        except AWAY as error:
            _FAILURES.labels(channel).inc()
            log.warning("changes cannot be heard", channel=channel, error=repr(error))
        # Jitter: the processes of a platform should not come back all at once.
        await asyncio.sleep(_RECONNECT_S * random.uniform(0.5, 1.5))
        await _reloaded(channel, reload)


async def poll(channel: str, reload: Callable[[], Awaitable[object]], *, every_s: float) -> NoReturn:
    """Beside `follow`, for what must not come late: `follow` has to find out first that a Redis hangs, which is some

    seconds without a `reload`. This asks nobody.
    """
    while True:
        await asyncio.sleep(every_s * random.uniform(0.8, 1.2))
        await _reloaded(channel, reload)


async def _reload_in_time(
    channel: str, changes: Subscription, reload: Callable[[], Awaitable[object]], poll_s: float
) -> NoReturn:
    due_at = 0.0
    while True:
        if time.monotonic() >= due_at:
            wait_s = poll_s if await _reloaded(channel, reload) else _RECONNECT_S
            due_at = time.monotonic() + wait_s
        if await changes.receive():
            due_at = 0.0


async def _reloaded(channel: str, reload: Callable[[], Awaitable[object]]) -> bool:
    try:
        await reload()
    except Exception as error:  # a document that somebody broke by hand must not end the following for good
        _FAILURES.labels(channel).inc()
        reason = repr(error)[:200]  # PyMongo goes on for half a page
        log.warning("a change cannot be loaded, what was loaded before stays", channel=channel, error=reason)
        return False
    return True
