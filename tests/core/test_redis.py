"""What we expect of the client library."""

import asyncio

from libs.core.redis import Redis


async def test_a_task_that_is_told_to_stop_stops(redis: Redis) -> None:
    async def ping_for_ever() -> None:
        while True:
            await redis.client.ping()

    for turns in range(100):  # of the event loop, so that it is told at every point of a command
        task = asyncio.create_task(ping_for_ever())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=1)
        assert task in done
