from datetime import timedelta

import pytest
from redis.asyncio import Redis as Client

from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.testing import FROZEN_AT, FrozenClock, eventually, scratch_mongo, scratch_namespace, scratch_redis


class TestFrozenClock:
    def test_stands_still(self) -> None:
        clock = FrozenClock()
        assert clock.now() == clock.now() == FROZEN_AT

    def test_moves_when_told_to(self) -> None:
        clock = FrozenClock()
        assert clock.advance(minutes=5) == clock.now() == FROZEN_AT + timedelta(minutes=5)


class TestEventually:
    async def test_asks_until_it_is_so(self) -> None:
        answers = iter([0, 0, 3])
        assert await eventually(lambda: next(answers)) == 3

    async def test_asks_coroutines_too(self) -> None:
        async def ready() -> str:
            return "yes"

        assert await eventually(ready) == "yes"

    async def test_gives_up(self) -> None:
        with pytest.raises(AssertionError, match="still False after"):
            await eventually(lambda: False, within_s=0.02)


class TestScratch:
    async def test_databases_are_dropped_afterwards(self, mongo: Mongo, mongo_url: str) -> None:
        namespace = scratch_namespace()
        async with scratch_mongo(mongo_url, service="wallets", namespace=namespace) as scratch:
            await scratch.db["things"].insert_one({"_id": 1})
            assert f"{namespace}_wallets_service" in await mongo.client.list_database_names()
        assert not [name for name in await mongo.client.list_database_names() if name.startswith(namespace)]

    async def test_keys_are_deleted_afterwards_and_no_others(self, redis: Redis, redis_url: str) -> None:
        await redis.client.set(redis.key("mine"), 1)
        async with scratch_redis(redis_url) as scratch:
            key = scratch.key("theirs")
            await scratch.client.set(key, 1)
        async with Client.from_url(redis_url) as client:
            assert await client.exists(key) == 0
            assert await client.exists(redis.key("mine")) == 1
