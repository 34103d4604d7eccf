import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from libs.core.context import correlation_id
from libs.core.errors import Unavailable
from libs.core.events import Event
from libs.core.events.event import PARTITIONS, partition_of
from libs.core.events.membership import Membership
from libs.core.events.subscriber import Subscriber, _by_handler
from libs.core.mongo import Session
from libs.core.testing import eventually
from scripts.process import Server
from tests.core.events.worker import LEASE_TTL_S
from tests.core.events.world import SOURCE, PingLost, World, complete, ping


async def one_per_partition(world: World, n: int) -> None:
    await world.publish(*(ping(n, key) for key in ALL_PARTITIONS))


# Keys whose events go to every partition there is.
ALL_PARTITIONS = [next(str(n) for n in range(1000) if partition_of(str(n)) == p) for p in range(PARTITIONS)]


@asynccontextmanager
async def worker(world: World, *arguments: str, **urls: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A subscriber in another process, for `kill`."""
    namespace = world.mongo.db.name.removesuffix("_test_service")
    command = (sys.executable, "-m", "tests.core.events.worker", namespace, *arguments)
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **urls})
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class TestHandle:
    async def test_each_once_and_in_order(self, pings: World) -> None:
        await pings.relay()
        await pings.subscriber()
        for n in range(20):
            await one_per_partition(pings, n)
        await eventually(lambda: complete(pings, "", 20))
        await eventually(lambda: count(pings, 20 * PARTITIONS))

    async def test_every_group_gets_everything(self, pings: World) -> None:
        await pings.relay()
        for group in ("here", "there"):
            await pings.subscriber(group)
        await pings.publish(ping(0), ping(1))
        for group in ("here", "there"):
            await eventually(lambda group=group: complete(pings, "k", 2, group))  # type: ignore[misc]

    async def test_twenty_duplicates_have_one_effect(self, pings: World) -> None:
        await pings.relay()
        await pings.subscriber()
        same = ping(0)
        await pings.publish(*[same] * 10)
        await eventually(lambda: complete(pings, "k", 1))
        await pings.publish(*[same] * 10, ping(1))
        await eventually(lambda: complete(pings, "k", 2))

    async def test_what_comes_again_is_remembered_for_as_long_again(self, pings: World) -> None:
        """The outbox does so too: it keeps what was sent again from then on."""
        await pings.relay()
        await pings.subscriber()
        same = ping(0)
        await pings.publish(same)
        await eventually(lambda: complete(pings, "k", 1))
        long_ago = datetime(2020, 1, 1, tzinfo=UTC)
        await pings.mongo.db.inbox.update_one({}, {"$set": {"at": long_ago}})
        await pings.publish(same)
        await eventually(lambda: pings.mongo.db.inbox.find_one({"at": {"$gt": long_ago}}))

    async def test_types_without_a_handler_pass(self, pings: World) -> None:
        await pings.relay()
        await pings.subscriber()
        await pings.publish(ping(7, data=PingLost), ping(0))
        await eventually(lambda: complete(pings, "k", 1))
        await eventually(lambda: nothing_pending(pings))

    async def test_continues_the_correlation_and_the_trace(self, pings: World) -> None:
        met: list[tuple[str, int]] = []

        async def look(events: Sequence[Event], session: Session) -> None:
            met.append((correlation_id.get(), trace.get_current_span().get_span_context().trace_id))

        with TracerProvider().get_tracer("t").start_as_current_span("publish") as span:
            event = ping(correlation_id="req-1")
        await pings.relay()
        await pings.subscriber(handlers={"ping.sent": look})
        await pings.publish(event)
        await eventually(lambda: met)
        assert met == [("req-1", span.get_span_context().trace_id)]

    async def test_idempotent_handler_is_acknowledged_after_it_returned(self, pings: World) -> None:
        met: list[str] = []
        go_on = asyncio.Event()

        async def apply(events: Sequence[Event]) -> None:
            met.extend(event.id for event in events)
            await go_on.wait()

        await pings.relay()
        await pings.subscriber(idempotent={"ping.sent": apply}, handlers=None)
        event = ping()
        await pings.publish(event)
        await eventually(lambda: met)
        assert not await nothing_pending(pings)
        go_on.set()
        await eventually(lambda: nothing_pending(pings))
        assert met == [event.id]
        assert await pings.mongo.db.inbox.count_documents({}) == 0

    def test_both_kinds_of_handlers(self, pings: World) -> None:
        with pytest.raises(ValueError, match="not both"):
            Subscriber(pings.mongo, pings.redis, group="g", source=SOURCE)


async def count(world: World, wanted: int) -> bool:
    return sum(len(numbers) for numbers in (await world.seen()).values()) == wanted


async def nothing_pending(world: World, key: str = "k") -> bool:
    groups = await world.redis.client.xinfo_groups(world.redis.key("events", SOURCE, str(partition_of(key))))
    return [group["pending"] for group in groups] == [0]


class TestBatches:
    async def test_events_of_different_keys_share_a_call(self) -> None:
        a, b = ping(key="a"), ping(key="b")
        assert _by_handler({"ping.sent": sent}, [a, b, a]) == [(sent, [a, b, a])]

    async def test_a_key_whose_types_alternate_is_never_out_of_order(self) -> None:
        events = [ping(key="a"), ping(key="a", data=PingLost), ping(key="b"), ping(key="a")]
        calls = _by_handler({"ping.sent": sent, "ping.lost": lost}, events)
        assert calls == [(sent, [events[0], events[2]]), (lost, [events[1]]), (sent, [events[3]])]

    async def test_one_handler_for_two_types_gets_both_in_order(self) -> None:
        events = [ping(key="a"), ping(key="a", data=PingLost)]
        assert _by_handler({"ping.sent": sent, "ping.lost": sent}, events) == [(sent, events)]

    async def test_what_fails_alone_spoils_nothing_of_its_batch(self, pings: World) -> None:
        await pings.relay()
        await pings.publish(*(ping(-1 if key == "bad" else 0, key) for key in ["a", "b", "bad", "c", "d"]))
        await pings.subscriber()
        await eventually(lambda: complete(pings, "abcd", 1))


async def sent(events: Sequence[Event], session: Session) -> None: ...


async def lost(events: Sequence[Event], session: Session) -> None: ...


class TestCrash:
    async def test_between_commit_and_acknowledgement(self, fragile: World, own_redis: Server) -> None:
        await fragile.relay()
        async with worker(fragile, "stop-before-ack", REDIS_URL=own_redis.url) as dying:
            await fragile.publish(ping(0))
            await eventually(lambda: complete(fragile, "k", 1), within_s=20)
            dying.kill()
            await dying.wait()
        assert not await nothing_pending(fragile)
        await fragile.subscriber(lease_ttl_s=LEASE_TTL_S)
        await eventually(lambda: nothing_pending(fragile), within_s=20)
        assert await fragile.seen() == {"k": [0]}

    async def test_of_a_process_under_load(self, forgetful: World, own_mongo: Server) -> None:
        await forgetful.relay()
        await forgetful.subscriber(lease_ttl_s=LEASE_TTL_S)
        async with worker(forgetful, MONGO_URL=own_mongo.url) as dying:
            await eventually(lambda: holders(forgetful, 2), within_s=20)
            for n in range(40):
                await one_per_partition(forgetful, n)
                if n == 20:
                    dying.kill()
            await eventually(lambda: count(forgetful, 40 * PARTITIONS), within_s=20)
        assert await complete(forgetful, "", 0)


async def holders(world: World, wanted: int) -> bool:
    """Whether so many processes share the partitions, none with more than its fair share."""
    members = await world.mongo.db.event_members.find({}).to_list()
    shares = sorted(len(member["partitions"]) for member in members)
    return shares == [PARTITIONS // wanted] * wanted


class TestShares:
    async def test_those_who_join_take_over_from_those_who_are_there(self, pings: World) -> None:
        here, there = (Membership(pings.mongo.db, "notes/pings", ttl_s=9) for _ in range(2))
        assert await here.balance() == set(range(PARTITIONS))
        assert await there.balance() == set()
        await here.balance()
        assert await there.balance() == set(range(PARTITIONS)) - set(here.partitions)
        assert len(here.partitions) == PARTITIONS // 2

    async def test_those_who_leave_hand_over_at_once(self, pings: World) -> None:
        here, there = (Membership(pings.mongo.db, "notes/pings", ttl_s=9) for _ in range(2))
        await here.balance()
        await here.leave()
        assert len(await there.balance()) == PARTITIONS

    async def test_those_who_die_are_missed(self, pings: World) -> None:
        dead, alive = (Membership(pings.mongo.db, "notes/pings", ttl_s=0.2) for _ in range(2))
        await dead.balance()

        async def all_taken() -> bool:
            await alive.balance()
            return len(alive.partitions) == PARTITIONS

        await eventually(all_taken)


class TestOutage:
    async def test_what_a_handler_needs_is_away_for_a_while(self, pings: World) -> None:
        refusals = iter([Unavailable("the ledger is full")] * 3)

        async def note(events: Sequence[Event], session: Session) -> None:
            for refusal in refusals:
                raise refusal
            await pings.note(events, session)

        await pings.relay()
        await pings.subscriber(handlers={"ping.sent": note})
        await pings.publish(ping(0), ping(1))
        await eventually(lambda: complete(pings, "k", 2))
        assert await pings.mongo.db.parked_events.count_documents({}) == 0

    async def test_lease_lost_in_the_middle_of_a_batch_commits_nothing(self, pings: World) -> None:
        """The new holder's effect counts, and only that."""

        async def be_robbed(events: Sequence[Event], session: Session) -> None:
            robbed = {"$set": {"holder": "another", "token": 99}}
            await pings.mongo.db.leases.update_many({"_id": {"$regex": "^events:"}}, robbed)
            await pings.note(events, session)

        await pings.relay()
        robbed = await pings.subscriber(handlers={"ping.sent": be_robbed}, transaction_timeout_s=1)
        await pings.publish(ping(0))
        await eventually(lambda: pings.mongo.db.leases.find_one({"holder": "another"}))
        await pings.stop(robbed)
        assert await pings.seen() == {}


class TestDrain:
    async def test_finishes_the_batch_in_hand_and_loses_nothing(self, pings: World) -> None:
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(events: Sequence[Event], session: Session) -> None:
            entered.set()
            await go_on.wait()
            await pings.note(events, session)

        await pings.relay()
        first = await pings.subscriber(handlers={"ping.sent": slowly})
        await pings.publish(ping(0))
        await entered.wait()
        await pings.publish(ping(1))
        draining = asyncio.create_task(pings.stop(first))
        go_on.set()
        await draining
        assert await pings.seen() == {"k": [0]}
        await pings.subscriber()
        await eventually(lambda: complete(pings, "k", 2))

    async def test_is_quick_when_idle(self, pings: World) -> None:
        subscriber = await pings.subscriber()
        await eventually(lambda: holders(pings, 1))
        async with asyncio.timeout(0.4):  # less than one blocking read
            await pings.stop(subscriber)
