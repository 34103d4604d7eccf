"""A publisher and its subscribers, as small as they can be: the effect of `ping.sent` is that its number is noted under
its key, in the order of the effects and as often as they are applied."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from pymongo import UpdateOne

from libs.core.events import OUTBOX_INDEXES, SUBSCRIBER_INDEXES, Event, EventData, Outbox, Relay, Subscriber
from libs.core.events.relay import STREAM_LIMIT
from libs.core.migrations import migrate
from libs.core.mongo import Mongo, Session
from libs.core.redis import Redis

SOURCE = "pings"


class PingSent(EventData, type="ping.sent"):
    n: int


class PingLost(EventData, type="ping.lost"):
    n: int


def ping(n: int = 0, key: str = "k", data: type[PingSent | PingLost] = PingSent, **more: Any) -> Event:
    return Event.new(data(n=n), source=SOURCE, subject=key, tenant_id="t", partition_key=key, **more)


class World:
    """`group`s note what they handled in a collection of their name. What is started here is stopped at the end."""

    def __init__(self, mongo: Mongo, redis: Redis, stack: AsyncExitStack) -> None:
        self.mongo, self.redis = mongo, redis
        self.outbox = Outbox(mongo.db)
        self._stack = stack

    async def publish(self, *events: Event, outbox: Outbox | None = None) -> None:
        outbox = outbox or self.outbox
        await self.mongo.transaction(lambda session: outbox.append(session, events))
        outbox.kick()

    async def relay(self, outbox: Outbox | None = None, *, stream_limit: int = STREAM_LIMIT, **options: Any) -> Relay:
        relay = Relay(
            self.mongo, self.redis, outbox or self.outbox, source=SOURCE, stream_limit=stream_limit, **options
        )
        return await self._stack.enter_async_context(relay)

    async def subscriber(self, group: str = "notes", **options: Any) -> Subscriber:
        options.setdefault("handlers", {"ping.sent": self.noting(group)})
        subscriber = Subscriber(self.mongo, self.redis, group=group, source=SOURCE, first_retry_s=0.02, **options)
        return await self._stack.enter_async_context(subscriber)

    async def stop(self, part: Relay | Subscriber) -> None:
        """Before the end, where it is stopped once more and does not mind."""
        await part.__aexit__(None, None, None)

    def noting(self, group: str = "notes") -> Any:
        async def note(events: Sequence[Event], session: Session) -> None:
            if any(event.data["n"] < 0 for event in events):
                raise ValueError("negative")
            await self.note(events, session, group)

        return note

    async def note(self, events: Sequence[Event], session: Session, group: str = "notes") -> None:
        await self.mongo.db[group].bulk_write(
            [UpdateOne({"_id": e.partition_key}, {"$push": {"seen": e.data["n"]}}, upsert=True) for e in events],
            session=session,
        )

    async def seen(self, group: str = "notes") -> dict[str, list[int]]:
        return {row["_id"]: row["seen"] async for row in self.mongo.db[group].find({})}

    async def unsent(self) -> int:
        return await self.mongo.db.outbox.count_documents({"sent_at": None})


@asynccontextmanager
async def world(mongo: Mongo, redis: Redis) -> AsyncIterator[World]:
    await migrate(mongo.db, (*OUTBOX_INDEXES, *SUBSCRIBER_INDEXES))
    async with AsyncExitStack() as stack:
        yield World(mongo, redis, stack)


async def complete(world: World, keys: Sequence[str], count: int, group: str = "notes") -> bool:
    """Every key's numbers, each once and in order. Says at once if one is out of order or there twice."""
    seen = await world.seen(group)
    for key, numbers in seen.items():
        assert numbers == list(range(len(numbers))), (key, numbers)
    return [len(seen.get(key, [])) for key in keys] == [count] * len(keys)
