"""A service that publishes pings and tells its tenants of them, without the way over Redis."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from libs.core.audit import INDEXES as AUDIT_INDEXES
from libs.core.clock import SystemClock
from libs.core.events import OUTBOX_INDEXES, SUBSCRIBER_INDEXES, Event, EventData, Outbox
from libs.core.migrations import migrate
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.testing import FrozenClock
from libs.core.webhooks import INDEXES, Delivery, NewEndpoint, Revealed, Webhooks
from libs.core.webhooks.deliveries import delivery_from
from tests.core.webhooks.receiver import Receiver, receiver

SOURCE = "pings"
TYPES = ("ping.sent", "ping.lost")


class Ping(EventData, type="ping.sent"):
    n: int


class PingLost(EventData, type="ping.lost"):
    n: int


class World:
    def __init__(self, mongo: Mongo, redis: Redis, clock: FrozenClock, stack: AsyncExitStack) -> None:
        self.mongo, self.redis, self.clock, self._stack = mongo, redis, clock, stack
        self.outbox = Outbox(mongo.db, clock)
        self._here: Webhooks | None = None

    def made(self, **options: Any) -> Webhooks:
        """Not open: it sends nothing."""
        options = (
            dict[str, Any]({"keys": "k" * 32, "source": SOURCE, "event_types": TYPES, "development": True}) | options
        )
        clock = options.pop("clock", self.clock)
        return Webhooks(self.mongo, self.redis, self.outbox, clock, poll_s=0.02, **options)

    async def open(self, **options: Any) -> Webhooks:
        return await self._stack.enter_async_context(self.made(**options))

    async def sending(self) -> Webhooks:
        self._here = self._here or await self.open()
        return self._here

    async def listen(self, **options: Any) -> Receiver:
        return await self._stack.enter_async_context(receiver(**options))

    async def endpoint(self, to: Receiver, tenant: str = "demo", *types: str) -> Revealed:
        new = NewEndpoint(to.url, types or ("ping.sent",))
        return await self.made().endpoints.create(tenant, new, actor="ann")

    async def publish(self, n: int = 0, tenant: str = "demo", data: type[Ping | PingLost] = Ping) -> Event:
        made = Event.new(
            data(n=n),
            source=SOURCE,
            subject="s",
            tenant_id=tenant,
            partition_key="k",
            sequence=n,
            time=self.clock.now(),
        )
        await (self._here or self.made()).enqueue([made])
        return made

    def idle(self) -> bool:
        """Whether what was sent is noted too, so that the clock may go on."""
        return self._here is None or not any(line.busy for line in self._here._worker._lines.values())

    async def deliveries(self, **where: Any) -> list[Delivery]:
        rows = self.mongo.db.webhook_deliveries.find(where).sort("created_at", 1)
        return [delivery_from(row) async for row in rows]

    async def only_delivery(self) -> Delivery:
        (delivery,) = await self.deliveries()
        return delivery


@pytest.fixture
async def world(mongo: Mongo, redis: Redis) -> AsyncIterator[World]:
    await migrate(mongo.db, (*OUTBOX_INDEXES, *SUBSCRIBER_INDEXES, *AUDIT_INDEXES, *INDEXES))
    async with AsyncExitStack() as stack:
        # From today on, since MongoDB deletes by its own clock what is a month old.
        yield World(mongo, redis, FrozenClock(SystemClock().now()), stack)
