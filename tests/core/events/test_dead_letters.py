import asyncio
from collections.abc import Sequence

import pytest

from libs.core.errors import NotFound
from libs.core.events import Event, EventView, Subscriber
from libs.core.events.dead_letters import DeadLetter, DeadLetters
from libs.core.events.event import partition_of
from libs.core.mongo import Session
from libs.core.testing import eventually
from tests.core.events.test_subscriber import nothing_pending
from tests.core.events.world import SOURCE, World, complete, ping


class Allergy:
    """A handler that fails for `key`'s number `n`, as long as `lasts`."""

    def __init__(self, world: World, *, key: str, n: int, lasts: bool = True) -> None:
        self.world, self.key, self.n, self.lasts = world, key, n, lasts

    async def note(self, events: Sequence[Event], session: Session) -> None:
        if self.lasts and any((e.partition_key, e.data["n"]) == (self.key, self.n) for e in events):
            raise RuntimeError("allergic")
        await self.world.note(events, session)


async def one_ill(world: World) -> tuple[Allergy, Subscriber]:
    """Keys `ill` and `well` have said 0 to 4; 1 of `ill` is dead, and 2 to 4 wait behind it."""
    allergy = Allergy(world, key="ill", n=1)
    await world.relay()
    subscriber = await world.subscriber(handlers={"ping.sent": allergy.note}, max_tries=2)
    for n in range(5):
        await world.publish(ping(n, "ill"), ping(n, "well"))
    await eventually(lambda: dead(world))
    await eventually(lambda: complete(world, ["well"], 5))
    await eventually(lambda: waits(world, 3))
    return allergy, subscriber


async def dead(world: World) -> list[DeadLetter]:
    return await DeadLetters(world.mongo.db).list()


async def waits(world: World, count: int) -> bool:
    return [letter.waiting for letter in await dead(world)] == [count]


async def ill(world: World) -> list[int]:
    return (await world.seen())["ill"]


async def gone_well(world: World, numbers: list[int]) -> bool:
    return await ill(world) == numbers and await nothing_parked(world)


class TestBlock:
    async def test_only_its_key(self, pings: World) -> None:
        await one_ill(pings)
        assert await ill(pings) == [0]
        [letter] = await DeadLetters(pings.mongo.db).list(subscription="notes/pings")
        assert (letter.key, letter.tries, letter.waiting) == ("ill", 2, 3)
        assert letter.error == "RuntimeError: allergic"

    async def test_is_known_to_the_next_holder(self, pings: World) -> None:
        _, holder = await one_ill(pings)
        await pings.stop(holder)
        await pings.subscriber()
        await pings.publish(ping(5, "ill"), ping(5, "well"))
        await eventually(lambda: complete(pings, ["well"], 6))
        await eventually(lambda: waits(pings, 4))

    async def test_what_recovers_while_it_is_tried_again_goes_on_in_order(self, pings: World) -> None:
        allergy = Allergy(pings, key="ill", n=1)
        await pings.relay()
        await pings.subscriber(handlers={"ping.sent": allergy.note}, max_tries=1000)
        for n in range(5):
            await pings.publish(ping(n, "ill"))
        await eventually(lambda: pings.mongo.db.parked_events.find_one({"tries": {"$gte": 2}}))
        allergy.lasts = False
        await eventually(lambda: gone_well(pings, [0, 1, 2, 3, 4]))

    async def test_key_without_a_head_gets_one(self, pings: World) -> None:
        """As when a head was removed by a commit whose answer was lost, while more was put behind it."""
        allergy, _ = await one_ill(pings)
        allergy.lasts = False
        await pings.mongo.db.parked_events.delete_one({"head": True})
        await eventually(lambda: gone_well(pings, [0, 2, 3, 4]))


class TestReplay:
    async def test_resumes_in_order(self, pings: World) -> None:
        allergy, _ = await one_ill(pings)
        allergy.lasts = False
        await DeadLetters(pings.mongo.db).replay((await dead(pings))[0].id)
        await eventually(lambda: gone_well(pings, [0, 1, 2, 3, 4]))
        await pings.publish(ping(5, "ill"))
        await eventually(lambda: gone_well(pings, [0, 1, 2, 3, 4, 5]))

    async def test_that_fails_again_is_dead_again(self, pings: World) -> None:
        await one_ill(pings)
        await DeadLetters(pings.mongo.db).replay((await dead(pings))[0].id)
        await eventually(lambda: dead(pings))
        assert await ill(pings) == [0]

    async def test_of_what_is_no_dead_letter(self, pings: World) -> None:
        with pytest.raises(NotFound):
            await DeadLetters(pings.mongo.db).replay("notes/pings/unknown")


class TestSkip:
    async def test_resumes_behind_it(self, pings: World) -> None:
        await one_ill(pings)
        await DeadLetters(pings.mongo.db).skip((await dead(pings))[0].id)
        await eventually(lambda: gone_well(pings, [0, 2, 3, 4]))

    async def test_is_final_even_if_it_is_delivered_again(self, pings: World) -> None:
        await one_ill(pings)
        [letter] = await dead(pings)
        await DeadLetters(pings.mongo.db).skip(letter.id)
        await eventually(lambda: gone_well(pings, [0, 2, 3, 4]))
        key = pings.redis.key("events", SOURCE, str(partition_of("ill")))
        await pings.redis.client.xadd(key, {"e": letter.event})
        await eventually(lambda: nothing_pending(pings, "ill"))
        assert await dead(pings) == []


class PingView(EventView, type="ping.sent", versions=(1,)):
    n: str  # which pings do not have


class TestPoison:
    """What can never be handled is dead at once, and nothing else notices."""

    async def test_undecodable(self, pings: World) -> None:
        await pings.relay()
        await pings.subscriber()
        await pings.publish(ping(0))
        await eventually(lambda: complete(pings, "k", 1))
        await pings.redis.client.xadd(pings.redis.key("events", SOURCE, str(partition_of("k"))), {"e": b"\xff{"})
        await pings.publish(ping(1))
        await eventually(lambda: complete(pings, "k", 2))
        [letter] = await eventually(lambda: dead(pings))
        assert letter.error.startswith("Undecodable")

    async def test_data_that_the_view_cannot_read(self, pings: World) -> None:
        async def look(events: Sequence[Event], session: Session) -> None:
            for event in events:
                PingView.of(event)

        await pings.relay()
        await pings.subscriber(handlers={"ping.sent": look})
        await pings.publish(ping(0))
        [letter] = await eventually(lambda: dead(pings))
        assert (letter.tries, letter.error[:15]) == (1, "ValidationError")

    async def test_idempotent_handlers_too(self, pings: World) -> None:
        met: list[int] = []

        async def apply(events: Sequence[Event]) -> None:
            numbers = [event.data["n"] for event in events]
            if 1 in numbers:
                raise RuntimeError("allergic")
            met.extend(numbers)

        await pings.relay()
        await pings.subscriber(handlers=None, idempotent={"ping.sent": apply}, max_tries=2)
        await pings.publish(*(ping(n) for n in range(3)))
        await eventually(lambda: waits(pings, 1))
        [letter] = await dead(pings)
        await DeadLetters(pings.mongo.db).skip(letter.id)
        await eventually(lambda: met[-1:] == [2])
        await pings.redis.client.xadd(pings.redis.key("events", SOURCE, str(partition_of("k"))), {"e": letter.event})
        await pings.publish(ping(3))  # what was skipped comes again, fails again, and holds nothing up
        await eventually(lambda: met[-1:] == [3])
        assert set(met) == {0, 2, 3}

    async def test_idempotent_handler_never_sees_what_was_skipped(self, pings: World) -> None:
        ill = True
        met: list[int] = []

        async def apply(events: Sequence[Event]) -> None:
            if ill and 0 in [event.data["n"] for event in events]:
                raise RuntimeError("allergic")
            met.extend(event.data["n"] for event in events)

        await pings.relay()
        await pings.subscriber(handlers=None, idempotent={"ping.sent": apply}, max_tries=1)
        await pings.publish(ping(0))
        [letter] = await eventually(lambda: dead(pings))
        await DeadLetters(pings.mongo.db).skip(letter.id)
        await eventually(lambda: nothing_parked(pings))
        ill = False
        await pings.redis.client.xadd(pings.redis.key("events", SOURCE, str(partition_of("k"))), {"e": letter.event})
        await pings.publish(ping(1))
        await eventually(lambda: 1 in met)
        assert met == [1]

    async def test_handler_that_waited_for_what_was_cancelled(self, pings: World) -> None:
        async def apply(events: Sequence[Event], session: Session) -> None:
            if any(event.data["n"] < 0 for event in events):
                raise asyncio.CancelledError
            await pings.note(events, session)

        await pings.relay()
        await pings.subscriber(handlers={"ping.sent": apply}, max_tries=1)
        await pings.publish(ping(-1, "ill"), ping(0))
        await eventually(lambda: complete(pings, "k", 1))
        [letter] = await dead(pings)
        assert letter.key == "ill"


async def nothing_parked(world: World) -> bool:
    return await world.mongo.db.parked_events.count_documents({}) == 0
