"""A pub/sub subscription that never mends itself in silence.

What is published while nobody listens is lost. The client library reconnects and resubscribes without a word, so that
a listener cannot know that it missed something; here a doubtful connection is an error, and whoever listens resyncs.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.asyncio import ConnectionPool, Redis as Client
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError, TimeoutError as RedisTimeoutError

from libs.core.redis import AWAY, Redis

# A connection that died without a word is noticed after two of these: one without a message, one without a pong.
HEARTBEAT_S = 1.0
_SUBSCRIBE_WITHIN_S = 2.0


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
