"""Another service, as a process: `python -m tests.soak.counter`. In its own database it counts what it is told of."""

import asyncio
import os
import signal
from collections.abc import Sequence

from libs.core.events import SUBSCRIBER_INDEXES, Event, Subscriber
from libs.core.ids import new_id
from libs.core.migrations import Index, migrate
from libs.core.mongo import Mongo, Session
from libs.core.redis import Redis

SERVICE, EFFECTS = "counter", "effects"


async def run(mongo_url: str, redis_url: str) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    mongo, redis = Mongo.connect(mongo_url, service=SERVICE), Redis.connect(redis_url)
    await migrate(mongo.db, (*SUBSCRIBER_INDEXES, Index("leases"), Index(EFFECTS)))

    async def count(events: Sequence[Event], session: Session) -> None:
        rows = [{"_id": new_id(), "transfer_id": event.data["transfer_id"]} for event in events]
        await mongo.db[EFFECTS].insert_many(rows, session=session)

    async with Subscriber(mongo, redis, group=SERVICE, source="payment", handlers={"transfer.completed": count}):
        await stopping.wait()
    await redis.close()
    await mongo.close()


if __name__ == "__main__":
    asyncio.run(run(os.environ["MONGO_URL"], os.environ["REDIS_URL"]))
