"""Redis loses everything, its tail, or a stream, while events flow: each has its effect once, and in order."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest
from prometheus_client import REGISTRY
from redis.exceptions import ResponseError

from libs.core.events import Subscriber
from libs.core.events.event import partition_of
from libs.core.events.stream import Stream
from libs.core.testing import eventually, scratch_redis
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
        await fragile.relay()
        await fragile.subscriber()
        talking = asyncio.create_task(talk(fragile))
        await half_way(fragile)
        await fragile.redis.client.flushall()
        await talking
        await everything_arrives(fragile)

    async def test_before_anything_was_read(self, fragile: World) -> None:
        await fragile.relay()
        await talk(fragile)
        await all_sent(fragile)
        await fragile.redis.client.flushall()
        await fragile.subscriber()
        await everything_arrives(fragile)

    async def test_while_nobody_publishes_and_a_group_is_away(self, fragile: World) -> None:
        await fragile.relay()
        away = await fragile.subscriber("away")
        await fragile.subscriber()
        await fragile.publish(ping(0, "a"))
        await eventually(lambda: complete(fragile, "a", 1, "away"))
        await fragile.stop(away)
        for n in range(1, 5):
            await fragile.publish(ping(n, "a"))
        await eventually(lambda: complete(fragile, "a", 5))
        await fragile.redis.client.flushall()
        await fragile.subscriber("away")
        await eventually(lambda: complete(fragile, "a", 5, "away"), within_s=10)


class TestRestart:
    async def test_empty_in_the_middle_of_load(self, fragile: World, own_redis: Server) -> None:
        await fragile.relay()
        await fragile.subscriber()
        talking = asyncio.create_task(talk(fragile))
        await half_way(fragile)
        await asyncio.to_thread(own_redis.restart, empty=True)
        await talking
        await everything_arrives(fragile)

    async def test_killed_and_back_with_what_was_on_its_disk(self, fragile: World, own_redis: Server) -> None:
        await fragile.relay()
        await fragile.subscriber()
        talking = asyncio.create_task(talk(fragile))
        await half_way(fragile)
        await asyncio.to_thread(own_redis.kill)
        await talking
        await asyncio.to_thread(own_redis.start)
        await everything_arrives(fragile)


class TestLostTail:
    async def test_back_with_an_older_copy(self, fragile: World, own_redis: Server) -> None:
        """What a failover to a replica that lagged looks like: same epoch, and the end is missing."""
        await fragile.relay()
        reader = await fragile.subscriber()
        await fragile.publish(ping(0))
        await eventually(lambda: complete(fragile, "k", 1))
        await fragile.stop(reader)
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
        await fragile.subscriber()
        await eventually(lambda: complete(fragile, "k", 5), within_s=15)

    async def test_one_stream_evicted(self, fragile: World) -> None:
        await fragile.relay()
        await fragile.publish(ping(0), ping(0, "a"))
        await all_sent(fragile)
        await fragile.redis.client.delete(fragile.redis.key("events", SOURCE, str(partition_of("k"))))
        await fragile.subscriber()
        await eventually(lambda: complete(fragile, "ka", 1), within_s=10)


class TestRedisAway:
    async def test_nothing_is_lost_and_the_lag_shows(self, fragile: World, own_redis: Server) -> None:
        await fragile.relay()
        await fragile.subscriber()
        await fragile.publish(ping(0))
        await eventually(lambda: complete(fragile, "k", 1))
        await all_sent(fragile)
        await asyncio.to_thread(own_redis.kill)
        await fragile.publish(ping(1))
        assert (await fragile.outbox.lag()).waiting == 1
        await eventually(lambda: REGISTRY.get_sample_value("events_relay_waiting", {"source": SOURCE}) == 1)
        await asyncio.to_thread(own_redis.start)
        await eventually(lambda: complete(fragile, "k", 2), within_s=15)


class TestLostAnswer:
    async def test_what_was_given_to_us_is_not_passed_over(
        self, fragile: World, own_redis: Server, namespace: str
    ) -> None:
        """A read that is silently sent again would be given the next events, before those that nobody has handled."""
        await fragile.relay()
        async with flaky(own_redis) as url, scratch_redis(url, namespace=namespace) as redis:
            subscriber = Subscriber(
                fragile.mongo, redis, group="notes", source=SOURCE, handlers={"ping.sent": fragile.noting()}
            )
            async with subscriber:
                for n in range(EACH):
                    await fragile.publish(ping(n))
                await eventually(lambda: complete(fragile, "k", EACH), within_s=20)


@asynccontextmanager
async def flaky(server: Server) -> AsyncIterator[str]:
    """The way to `server`, where every third answer that brings an event is lost, and the connection with it."""
    target = urlsplit(server.url)
    answers = itertools.count(1)

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if b"specversion" in data and next(answers) % 3 == 0:
                    break
                writer.write(data)
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(pipe(reader, back), pipe(there, writer))

    proxy = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with proxy:
        yield f"redis://127.0.0.1:{proxy.sockets[0].getsockname()[1]}/0"


class TestFull:
    async def test_group_that_cannot_be_made_is_an_error(self, fragile: World) -> None:
        """And not something to try again at once, for as long as Redis has no memory left."""
        await fragile.redis.client.config_set("maxmemory", 1)
        with pytest.raises(ResponseError, match="OOM"):
            await Stream(fragile.redis, SOURCE).create_group("notes")
