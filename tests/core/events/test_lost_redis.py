"""Redis loses everything, its tail, or a stream, while events flow: each has its effect once, and in order."""

import asyncio
import shutil

from libs.core.events.event import partition_of
from libs.core.testing import eventually
from scripts.process import Server
from tests.core.events.test_relay import all_sent
from tests.core.events.world import SOURCE, World, complete, ping

KEYS, EACH = "abcdef", 40


async def talk(world: World) -> None:
    for n in range(EACH):
        await world.publish(*(ping(n, key) for key in KEYS))


async def everything_arrives(world: World, group: str = "notes") -> None:
    await eventually(lambda: complete(world, KEYS, EACH, group), within_s=30)


async def half_way(world: World) -> None:
    await eventually(lambda: seen_at_least(world, EACH // 2), within_s=20)


async def seen_at_least(world: World, n: int) -> bool:
    return any(len(numbers) >= n for numbers in (await world.seen()).values())


class TestFlushAll:
    async def test_in_the_middle_of_load(self, fragile: World) -> None:
        fragile.relay()
        fragile.subscriber()
        talking = asyncio.create_task(talk(fragile))
        await half_way(fragile)
        await fragile.redis.client.flushall()
        await talking
        await everything_arrives(fragile)

    async def test_before_anything_was_read(self, fragile: World) -> None:
        fragile.relay()
        await talk(fragile)
        await all_sent(fragile)
        await fragile.redis.client.flushall()
        fragile.subscriber()
        await everything_arrives(fragile)

    async def test_while_nobody_publishes_and_a_group_is_away(self, fragile: World) -> None:
        fragile.relay()
        away = fragile.subscriber("away")
        fragile.subscriber()
        await fragile.publish(ping(0, "a"))
        await eventually(lambda: complete(fragile, "a", 1, "away"))
        await away.drain()
        for n in range(1, 5):
            await fragile.publish(ping(n, "a"))
        await eventually(lambda: complete(fragile, "a", 5))
        await fragile.redis.client.flushall()
        fragile.subscriber("away")
        await eventually(lambda: complete(fragile, "a", 5, "away"), within_s=10)


class TestRestart:
    async def test_empty_in_the_middle_of_load(self, fragile: World, own_redis: Server) -> None:
        fragile.relay()
        fragile.subscriber()
        talking = asyncio.create_task(talk(fragile))
        await half_way(fragile)
        await asyncio.to_thread(own_redis.restart, empty=True)
        await talking
        await everything_arrives(fragile)

    async def test_killed_and_back_with_what_was_on_its_disk(self, fragile: World, own_redis: Server) -> None:
        fragile.relay()
        fragile.subscriber()
        talking = asyncio.create_task(talk(fragile))
        await half_way(fragile)
        await asyncio.to_thread(own_redis.kill)
        await talking
        await asyncio.to_thread(own_redis.start)
        await everything_arrives(fragile)


class TestLostTail:
    async def test_back_with_an_older_copy(self, fragile: World, own_redis: Server) -> None:
        """What a failover to a replica that lagged looks like: same epoch, and the end is missing."""
        fragile.relay()
        reader = fragile.subscriber()
        await fragile.publish(ping(0))
        await eventually(lambda: complete(fragile, "k", 1))
        await reader.drain()
        await asyncio.to_thread(own_redis.stop)
        assert own_redis.data is not None
        copy = own_redis.data.with_name("copy")
        shutil.copytree(own_redis.data, copy)
        await asyncio.to_thread(own_redis.start)
        for n in range(1, 5):
            await fragile.publish(ping(n))
        await all_sent(fragile)
        await asyncio.to_thread(own_redis.kill)
        shutil.rmtree(own_redis.data)
        copy.rename(own_redis.data)
        await asyncio.to_thread(own_redis.start)
        fragile.subscriber()
        await eventually(lambda: complete(fragile, "k", 5), within_s=15)

    async def test_one_stream_evicted(self, fragile: World) -> None:
        fragile.relay()
        await fragile.publish(ping(0), ping(0, "a"))
        await all_sent(fragile)
        await fragile.redis.client.delete(fragile.redis.key("events", SOURCE, str(partition_of("k"))))
        fragile.subscriber()
        await eventually(lambda: complete(fragile, "ka", 1), within_s=10)


class TestRedisAway:
    async def test_nothing_is_lost_and_the_lag_shows(self, fragile: World, own_redis: Server) -> None:
        fragile.relay()
        fragile.subscriber()
        await fragile.publish(ping(0))
        await eventually(lambda: complete(fragile, "k", 1))
        await all_sent(fragile)
        await asyncio.to_thread(own_redis.kill)
        await fragile.publish(ping(1))
        assert (await fragile.outbox.lag()).waiting == 1
        await asyncio.to_thread(own_redis.start)
        await eventually(lambda: complete(fragile, "k", 2), within_s=15)
