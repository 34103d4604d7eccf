import asyncio
from contextlib import suppress

import pytest

from libs.core.tasks import ended


async def deaf(times: int) -> None:
    """Goes on after that many cancellations, as what waits for a driver may."""
    for _ in range(times):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
    await asyncio.sleep(60)


async def broken() -> None:
    raise RuntimeError("broken")


class TestEnded:
    @pytest.mark.parametrize("times", [0, 1, 2])
    async def test_asks_until_it_is_heard(self, times: int) -> None:
        task = asyncio.create_task(deaf(times))
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await ended(task)
        assert task.cancelled()

    async def test_does_not_mind_how_they_end(self) -> None:
        tasks = [asyncio.create_task(broken()), asyncio.create_task(asyncio.sleep(60))]
        await asyncio.wait(tasks[:1])
        await ended(*tasks)
        assert all(task.done() for task in tasks)

    async def test_of_nothing(self) -> None:
        await ended()
