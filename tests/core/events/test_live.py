import asyncio
from collections.abc import AsyncIterator

import pytest

from libs.core.events import RESYNC, LiveListener
from libs.core.events.live import Listener
from libs.core.testing import eventually
from scripts.process import Server
from tests.core.events.world import PingLost, World, ping


async def next_of(listener: Listener) -> object:
    """The next thing heard: its number if it is a ping."""
    async with asyncio.timeout(10):
        happening = await anext(listener)
    return happening if happening is RESYNC else happening.data["n"]


@pytest.fixture
async def live(pings: World) -> AsyncIterator[LiveListener]:
    await pings.relay()
    async with LiveListener(pings.redis, queue_limit=5) as live:
        yield live


class TestListen:
    async def test_begins_with_a_resync_and_misses_nothing_after_it(self, pings: World, live: LiveListener) -> None:
        async with live.listen("ping.sent") as listener:
            assert await next_of(listener) is RESYNC
            await pings.publish(ping(1), ping(2))
            assert [await next_of(listener) for _ in range(2)] == [1, 2]

    async def test_to_one_key(self, pings: World, live: LiveListener) -> None:
        async with live.listen("ping.sent", key="mine") as listener:
            assert await next_of(listener) is RESYNC
            await pings.publish(ping(1, "yours"), ping(2, "mine"))
            assert await next_of(listener) == 2

    async def test_to_several_types(self, pings: World, live: LiveListener) -> None:
        async with live.listen("ping.sent", "ping.lost") as listener:
            assert await next_of(listener) is RESYNC  # one, when both are in force
            await pings.publish(ping(1), ping(2, data=PingLost))
            assert [await next_of(listener) for _ in range(2)] == [1, 2]

    async def test_second_listener_is_in_force_at_once(self, pings: World, live: LiveListener) -> None:
        async with live.listen("ping.sent") as first:
            assert await next_of(first) is RESYNC
            async with live.listen("ping.sent") as second:
                assert await next_of(second) is RESYNC
            await pings.publish(ping(1))
            assert await next_of(first) == 1

    async def test_last_who_leaves_ends_the_subscription(self, pings: World, live: LiveListener) -> None:
        async with live.listen("ping.sent") as listener:
            assert await next_of(listener) is RESYNC
        channel = pings.redis.key("events", "live", "ping.sent")

        async def nobody_subscribes() -> bool:
            return (await pings.redis.client.pubsub_numsub(channel))[0][1] == 0

        await eventually(nobody_subscribes)

    async def test_again_after_everybody_left(self, pings: World, live: LiveListener) -> None:
        for n in range(3):
            async with live.listen("ping.sent") as listener:
                assert await next_of(listener) is RESYNC
                await pings.publish(ping(n))
                assert await next_of(listener) == n


class TestSlowListener:
    async def test_is_told_to_resync_and_costs_nobody_anything(self, pings: World, live: LiveListener) -> None:
        async with live.listen("ping.sent") as slow, live.listen("ping.sent") as quick:
            assert [await next_of(slow), await next_of(quick)] == [RESYNC, RESYNC]
            for n in range(12):
                await pings.publish(ping(n))
                assert await next_of(quick) == n
            assert await next_of(slow) is RESYNC
            assert await next_of(slow) > 0  # type: ignore[operator]


class TestLostConnection:
    async def test_tells_everybody_to_resync(self, fragile: World, own_redis: Server) -> None:
        await fragile.relay()
        async with LiveListener(fragile.redis) as live, live.listen("ping.sent") as listener:
            assert await next_of(listener) is RESYNC
            await asyncio.to_thread(own_redis.restart)
            assert await next_of(listener) is RESYNC
            await fragile.publish(ping(1))
            assert await next_of(listener) == 1

    async def test_listens_before_redis_is_there(self, fragile: World, own_redis: Server) -> None:
        own_redis.kill()
        async with LiveListener(fragile.redis) as live, live.listen("ping.sent") as listener:
            await asyncio.to_thread(own_redis.start)
            assert await next_of(listener) is RESYNC
