"""What a test of this library, or of a service on it, needs: scratch databases, a clock that stands still, patience.

Nothing here pretends to be MongoDB or Redis: a test talks to real ones, in a namespace of its own.
"""

import asyncio
import inspect
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from libs.core.mongo import Mongo
from libs.core.redis import Redis

FROZEN_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class FrozenClock:
    """A `Clock` that moves only when told to. Begins at noon UTC on 1 March 2026 unless told otherwise."""

    def __init__(self, at: datetime = FROZEN_AT) -> None:
        self._now = at

    def now(self) -> datetime:
        return self._now

    def advance(self, **duration: float) -> datetime:
        """Moves it on, by the keywords of `timedelta`: `clock.advance(minutes=5)`. Answers the new instant."""
        self._now += timedelta(**duration)
        return self._now


async def eventually(condition: Callable[[], Any], within_s: float = 15.0) -> Any:
    """The first truthy result of `condition`, a plain or async callable that is asked every 10 ms.

    `AssertionError` with the last result once `within_s` is over.
    """
    deadline = time.monotonic() + within_s
    while True:
        result = condition()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"still {result!r} after {within_s} s")
        await asyncio.sleep(0.01)


def scratch_namespace() -> str:
    """A namespace that nobody else uses, for `Settings.namespace`, `Mongo` and `Redis`."""
    return f"t{secrets.token_hex(6)}"


@asynccontextmanager
async def scratch_mongo(url: str, *, service: str = "test", namespace: str = "") -> AsyncIterator[Mongo]:
    """A `Mongo` in `namespace`, or one of its own. Every database in the namespace is dropped afterwards."""
    namespace = namespace or scratch_namespace()
    mongo = Mongo.connect(url, service=service, namespace=namespace)
    try:
        yield mongo
        for name in await mongo.client.list_database_names():
            if name.startswith(f"{namespace}_"):
                await mongo.client.drop_database(name)
    finally:
        await mongo.close()


@asynccontextmanager
async def scratch_redis(url: str, *, namespace: str = "") -> AsyncIterator[Redis]:
    """A `Redis` in `namespace`, or one of its own. Every key in the namespace is deleted afterwards."""
    redis = Redis.connect(url, namespace=namespace or scratch_namespace())
    try:
        yield redis
        keys = [key async for key in redis.client.scan_iter(match=redis.key("*"), count=1000)]
        if keys:
            await redis.client.unlink(*keys)
    finally:
        await redis.close()
