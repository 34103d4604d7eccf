from collections.abc import AsyncIterator

import pytest

from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.testing import scratch_mongo, scratch_redis
from scripts.process import Server
from tests.core.events.world import World, world


@pytest.fixture
async def pings(mongo: Mongo, redis: Redis) -> AsyncIterator[World]:
    async with world(mongo, redis) as pings:
        yield pings


@pytest.fixture
async def fragile(mongo: Mongo, own_redis: Server, namespace: str) -> AsyncIterator[World]:
    """A world on a Redis of its own, `own_redis`, which may be broken."""
    async with scratch_redis(own_redis.url, namespace=namespace) as redis, world(mongo, redis) as fragile:
        yield fragile


@pytest.fixture
async def forgetful(own_mongo: Server, redis: Redis, namespace: str) -> AsyncIterator[World]:
    """A world on a MongoDB of its own, `own_mongo`, which soon aborts the transactions of those who died."""
    async with scratch_mongo(own_mongo.url, namespace=namespace) as mongo, world(mongo, redis) as forgetful:
        await mongo.client.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=2)
        yield forgetful
