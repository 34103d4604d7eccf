import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from libs.core import pubsub
from libs.core.pubsub import follow, tell
from libs.core.redis import Redis
from libs.core.testing import eventually
from scripts.process import Server


class Reloads:
    """Counts, and fails while it is told to."""

    def __init__(self) -> None:
        self.times = 0
        self.failing = False

    async def __call__(self) -> None:
        self.times += 1
        if self.failing:
            raise ValueError("a broken document")


@asynccontextmanager
async def following(redis: Redis, reloads: Reloads) -> AsyncIterator[None]:
    """`changes`, and listening by now."""
    task = asyncio.create_task(follow(redis, redis.key("changes"), reloads, poll_s=3600))
    await eventually(lambda: reloads.times == 1)
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def reloads(redis: Redis) -> AsyncIterator[Reloads]:
    reloads = Reloads()
    async with following(redis, reloads):
        yield reloads


class TestFollow:
    async def test_told(self, redis: Redis, reloads: Reloads) -> None:
        await tell(redis, redis.key("changes"))
        await eventually(lambda: reloads.times == 2)

    async def test_telling_takes_no_time_while_redis_hangs(self, own_redis: Server) -> None:
        redis = Redis.connect(own_redis.url)
        await redis.ping()
        os.kill(own_redis.pid, signal.SIGSTOP)
        async with asyncio.timeout(2):
            await tell(redis, "changes")
        os.kill(own_redis.pid, signal.SIGCONT)
        await redis.close()

    async def test_silence_costs_no_reload(self, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pubsub, "HEARTBEAT_S", 0.01)
        reloads, heartbeats = Reloads(), []
        receive = pubsub.Subscription.receive

        async def counted(self: pubsub.Subscription) -> tuple[str, bytes] | None:
            heartbeats.append(await receive(self))
            return heartbeats[-1]

        monkeypatch.setattr(pubsub.Subscription, "receive", counted)
        async with following(redis, reloads):
            await eventually(lambda: len(heartbeats) > 10)
        assert (reloads.times, set(heartbeats)) == (1, {None})

    async def test_goes_on_trying_after_a_failure(self, redis: Redis, reloads: Reloads) -> None:
        reloads.failing = True
        await tell(redis, redis.key("changes"))
        await eventually(lambda: reloads.times >= 3)
        reloads.failing = False
        seen = reloads.times
        await eventually(lambda: reloads.times > seen)
