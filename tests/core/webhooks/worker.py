"""A process that sends webhooks of a namespace, for `kill`: python -m tests.core.webhooks.worker NAMESPACE"""

import asyncio
import os
import sys

from libs.core.clock import SystemClock
from libs.core.events import Outbox
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.webhooks import Webhooks

CLAIM_S = 1.5


async def main(namespace: str) -> None:
    mongo = Mongo.connect(os.environ["MONGO_URL"], service="test", namespace=namespace)
    redis = Redis.connect(os.environ["REDIS_URL"], namespace=namespace)
    clock = SystemClock()
    async with Webhooks(
        mongo,
        redis,
        Outbox(mongo.db),
        clock,
        keys="k" * 32,
        source="pings",
        event_types=["ping.sent"],
        development=True,
        claim_s=CLAIM_S,
        poll_s=0.05,
    ):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
