"""A subscriber in a process of its own, for tests that kill it: `python -m tests.core.events.worker <namespace>`.

With `stop-before-ack`, its handler makes Redis hold back all writes for two seconds: the effect is committed in that
time, and the acknowledgement hangs, until the test kills the process.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from libs.core.events import Event
from libs.core.mongo import Mongo, Session
from libs.core.redis import Redis
from tests.core.events.world import World

LEASE_TTL_S = 1.5


async def work(namespace: str, *, stop_before_ack: bool) -> None:
    mongo = Mongo.connect(os.environ["MONGO_URL"], service="test", namespace=namespace)
    redis = Redis.connect(os.environ["REDIS_URL"], namespace=namespace)
    async with AsyncExitStack() as stack:
        world = World(mongo, redis, stack)

        async def note(events: Sequence[Event], session: Session) -> None:
            if stop_before_ack:
                await redis.client.client_pause(2000, all=False)
            await world.note(events, session)

        await world.subscriber(handlers={"ping.sent": note}, lease_ttl_s=LEASE_TTL_S)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], stop_before_ack="stop-before-ack" in sys.argv))
