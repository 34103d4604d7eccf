import asyncio
from datetime import timedelta

import pytest

from libs.core.events.event import Event
from libs.core.events.outbox import Outbox
from libs.core.mongo import Session
from libs.core.testing import FrozenClock
from tests.core.events.world import World, ping


async def stored(world: World) -> list[Event]:
    rows = world.mongo.db.outbox.find({}, sort=[("at", 1), ("_id", 1)])
    return [Event.from_json(line) async for row in rows for line in row["events"].split("\n")[1::2]]


class TestAppend:
    async def test_is_part_of_the_transaction(self, pings: World) -> None:
        async def fail(session: Session) -> None:
            await pings.outbox.append(session, [ping()])
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await pings.mongo.transaction(fail)
        assert await stored(pings) == []

    async def test_a_batch_is_one_document(self, pings: World) -> None:
        await pings.publish(*(ping(n) for n in range(100)))
        assert await pings.mongo.db.outbox.count_documents({}) == 1
        assert [event.data["n"] for event in await stored(pings)] == list(range(100))

    async def test_allots_sequences_without_a_gap_to_concurrent_transactions(self, pings: World) -> None:
        await asyncio.gather(*(pings.publish(ping(key="a"), ping(key="b"), ping(key="a")) for _ in range(20)))
        for key, count in (("a", 40), ("b", 20)):
            numbers = [event.sequence for event in await stored(pings) if event.partition_key == key]
            assert numbers == list(range(1, count + 1))

    async def test_later_on_one_key_even_if_the_clock_stands_still(self, pings: World, clock: FrozenClock) -> None:
        outbox = Outbox(pings.mongo.db, clock)
        for _ in range(3):
            await pings.publish(ping(), outbox=outbox)
        instants = [row["at"] async for row in pings.mongo.db.outbox.find({}, sort=[("_id", 1)])]
        assert instants == [clock.now() + timedelta(milliseconds=n) for n in range(3)]

    async def test_takes_the_order_and_sequences_of_a_caller_that_has_them(
        self, pings: World, clock: FrozenClock
    ) -> None:
        await pings.mongo.transaction(lambda s: pings.outbox.append(s, [ping(sequence=9)], at=clock.now()))
        assert [event.sequence for event in await stored(pings)] == [9]
        assert await pings.mongo.db.event_sequences.count_documents({}) == 0

    async def test_an_order_without_sequences(self, pings: World, clock: FrozenClock) -> None:
        with pytest.raises(ValueError, match="no sequence"):
            await pings.mongo.transaction(lambda s: pings.outbox.append(s, [ping()], at=clock.now()))


class TestLag:
    async def test_nothing_waits(self, pings: World) -> None:
        assert (await pings.outbox.lag()).waiting == 0

    async def test_counts_and_ages(self, pings: World, clock: FrozenClock) -> None:
        outbox = Outbox(pings.mongo.db, clock)
        await pings.publish(ping(), outbox=outbox)
        await pings.publish(ping(), outbox=outbox)
        clock.advance(seconds=30)
        lag = await outbox.lag()
        assert (lag.waiting, lag.oldest_s) == (2, 30.0)


class TestIndexes:
    async def test_what_is_unsent_is_found_in_order_by_an_index(self, pings: World) -> None:
        plan = await pings.mongo.db.outbox.find({"sent_at": None}, sort=[("at", 1), ("_id", 1)], limit=9).explain()
        stages = str(plan["queryPlanner"]["winningPlan"])
        assert "IXSCAN" in stages
        assert "SORT" not in stages
