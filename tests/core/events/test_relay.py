import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from libs.core.events.event import PARTITIONS, partition_of
from libs.core.events.outbox import Outbox
from libs.core.events.relay import Relay
from libs.core.testing import FrozenClock, eventually
from tests.core.events.world import SOURCE, World, complete, ping


async def entries(world: World, key: str = "k") -> list[bytes]:
    found: Any = await world.redis.client.xrange(world.redis.key("events", SOURCE, str(partition_of(key))))
    return [fields[b"e"] for _, fields in found]


async def all_sent(world: World) -> None:
    await eventually(lambda: nothing_unsent(world))


async def nothing_unsent(world: World) -> bool:
    return await world.unsent() == 0


async def hears_kicks(world: World) -> bool:
    [(_, listeners)] = await world.redis.client.pubsub_numsub(world.redis.key("events", SOURCE, "kick"))
    return bool(listeners)


class TestSend:
    async def test_reaches_the_stream_of_its_key_and_is_marked(self, pings: World) -> None:
        await pings.relay()
        await pings.publish(ping(1), ping(2))
        await all_sent(pings)
        assert [b'"n":1' in body for body in await entries(pings)] == [True, False]

    async def test_what_nobody_kicked_for_is_swept(self, pings: World) -> None:
        await pings.mongo.transaction(lambda s: pings.outbox.append(s, [ping()]))
        await pings.relay()
        await all_sent(pings)

    async def test_kick_from_a_process_whose_relay_stands_by(
        self, pings: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("libs.core.events.relay._SWEEP_S", 3600)  # only a kick can bring it in time
        await pings.relay()
        await eventually(lambda: pings.mongo.db.leases.find_one({"_id": f"relay:{SOURCE}", "token": 1}))
        await eventually(lambda: hears_kicks(pings))
        other = Outbox(pings.mongo.db)
        await pings.relay(other)
        await pings.publish(ping(), outbox=other)
        await eventually(lambda: entries(pings))

    async def test_order_within_each_key_with_two_relays_that_take_turns(self, pings: World) -> None:
        outboxes = [Outbox(pings.mongo.db) for _ in range(2)]
        relays = [await pings.relay(outbox) for outbox in outboxes]
        await pings.subscriber()

        async def say(key: str) -> None:
            for n in range(30):
                await pings.publish(ping(n, key), outbox=outboxes[n % 2])

        talking = asyncio.gather(*(say(key) for key in "abcd"))
        for _ in range(2):
            await asyncio.sleep(0)
            await eventually(lambda: pings.seen())
            await pings.stop(relays[0])
            relays[0] = await pings.relay(outboxes[0])
        await talking
        await eventually(lambda: complete(pings, "abcd", 30), within_s=20)

    async def test_many_more_than_fit_one_script(self, pings: World) -> None:
        for _ in range(3):
            await pings.publish(*(ping(n, key=str(n)) for n in range(700)))
        await pings.relay()
        await all_sent(pings)
        counts = [await pings.redis.client.xlen(pings.redis.key("events", SOURCE, str(p))) for p in range(PARTITIONS)]
        assert sum(counts) == 2100

    async def test_stop_sends_what_is_committed(self, pings: World) -> None:
        relay = await pings.relay()
        await pings.publish(ping())
        await all_sent(pings)
        await pings.publish(ping())
        await pings.stop(relay)
        assert await pings.unsent() == 0
        assert len(await entries(pings)) == 2


class TestBoundedStreams:
    async def test_what_every_group_has_settled_goes(self, pings: World) -> None:
        """All but the last, which shows that the stream is whole. The younger ones stay for groups yet unknown."""
        await pings.relay(stream_limit=5)
        await pings.subscriber()
        for n in range(50):
            await pings.publish(ping(n))
        await eventually(lambda: complete(pings, "k", 50))
        assert len(await entries(pings)) < 50

    async def test_group_that_has_settled_everything_is_not_lost_however_long_ago(self, pings: World) -> None:
        relay = await pings.relay()
        subscriber = await pings.subscriber()
        await pings.publish(ping(0))
        await eventually(lambda: known_groups(pings, 1))
        await pings.stop(relay)
        await pings.stop(subscriber)
        long_ago = {"last_ms": 1_000, "tails": [(1_000, 0)] * PARTITIONS, "groups.0.settled_before": 1_001}
        await pings.mongo.db.relays.update_one({}, {"$set": long_ago})
        await pings.relay()
        await pings.publish(ping(1))
        await all_sent(pings)
        assert await known_groups(pings, 1)

    async def test_events_that_nobody_reads_do_not_fill_it_up(self, pings: World) -> None:
        await pings.relay(stream_limit=5)
        for n in range(6):
            await pings.publish(*(ping(n) for _ in range(50)))
            await all_sent(pings)  # one after the other: what is sent at once, stays at least once
        assert len(await entries(pings)) < 300

    async def test_full_stream_waits_for_a_slow_group(self, pings: World) -> None:
        held = asyncio.Event()

        async def wait(events: object, session: object) -> None:
            await held.wait()

        await pings.relay(stream_limit=10)
        await pings.subscriber("slow", handlers={"ping.sent": wait})
        await eventually(lambda: groups(pings))
        for n in range(30):
            await pings.publish(ping(n))
        await eventually(lambda: unsent_is_steady(pings))
        assert len(await entries(pings)) < 30
        held.set()
        await all_sent(pings)

    async def test_group_left_behind_does_not_hold_up_the_others_and_misses_nothing(self, pings: World) -> None:
        await pings.relay(stream_limit=10, patience_s=0.2)
        away = await pings.subscriber("away")
        await pings.subscriber("here")
        await pings.publish(ping(0))
        await eventually(lambda: complete(pings, "k", 1, "away"))
        await eventually(lambda: known_groups(pings, 2))
        await pings.stop(away)
        for n in range(1, 60):
            await pings.publish(ping(n))
        await eventually(lambda: complete(pings, "k", 60, "here"), within_s=10)
        await pings.subscriber("away")
        await eventually(lambda: complete(pings, "k", 60, "away"), within_s=10)
        assert await complete(pings, "k", 60, "here")


async def groups(world: World) -> list[object]:
    key = world.redis.key("events", SOURCE, str(partition_of("k")))
    return [*await world.redis.client.xinfo_groups(key)] if await world.redis.client.exists(key) else []


async def known_groups(world: World, count: int) -> bool:
    state = await world.mongo.db.relays.find_one({})
    return state is not None and len(state["groups"]) == count


async def unsent_is_steady(world: World) -> bool:
    before = await world.unsent()
    await asyncio.sleep(0.1)
    return 0 < before == await world.unsent()


class TestReset:
    async def test_what_is_sent_again_has_not_waited_since_it_was_said(self, pings: World, clock: FrozenClock) -> None:
        """Months ago, by its clock. Readiness looks at this: no process should leave because Redis was flushed."""
        await pings.publish(ping(), outbox=Outbox(pings.mongo.db, clock))
        first = await pings.relay()
        await all_sent(pings)
        await pings.stop(first)
        again = Relay(pings.mongo, pings.redis, pings.outbox, source=SOURCE)
        assert await again._lease.acquire()
        await again._resume()
        await again._reset()
        lag = await pings.outbox.lag()
        assert lag.waiting == 1
        assert lag.oldest_s < 60


class TestTwoRelays:
    async def test_one_that_was_overtaken_cannot_publish(self, pings: World) -> None:
        """As after a long pause: it still believes to hold the lease, and Redis knows of a later holder."""
        await pings.relay()
        await pings.publish(ping(0))
        await all_sent(pings)
        robbed = {"holder": "another", "token": 99, "expires_at": datetime(2999, 1, 1, tzinfo=UTC)}
        await pings.mongo.db.leases.update_one({"_id": f"relay:{SOURCE}"}, {"$set": robbed})
        state_key = pings.redis.key("events", SOURCE, "relay")
        await pings.redis.client.hset(state_key, "token", "99")
        await pings.publish(ping(1))
        await asyncio.sleep(0.2)
        assert await pings.unsent() == 1

    async def test_one_that_lost_its_lease_waits_without_burning_cpu(self, pings: World) -> None:
        relay = await pings.relay()
        await pings.publish(ping(0))
        await all_sent(pings)
        robbed = {"holder": "another", "token": 99, "expires_at": datetime(2999, 1, 1, tzinfo=UTC)}
        await pings.mongo.db.leases.update_one({"_id": f"relay:{SOURCE}"}, {"$set": robbed})
        await pings.publish(ping(1))
        await eventually(lambda: not relay._lease.held)
        before = time.process_time()
        await asyncio.sleep(0.4)
        assert time.process_time() - before < 0.2

    async def test_one_that_cannot_read_what_it_must_know_begins_nothing(self, pings: World) -> None:
        """It would think that Redis has lost everything, and forget how far the groups are."""
        first = await pings.relay()
        await pings.subscriber()
        await pings.publish(ping(0))
        await eventually(lambda: known_groups(pings, 1))
        await pings.stop(first)
        await pings.mongo.db.relays.update_one({}, {"$rename": {"groups": "away"}})
        second = await pings.relay()
        await eventually(lambda: second._lease.held)
        await pings.publish(ping(1))
        await asyncio.sleep(0.3)
        await pings.mongo.db.relays.update_one({}, {"$rename": {"away": "groups"}})
        await all_sent(pings)
        assert await known_groups(pings, 1)
        await eventually(lambda: complete(pings, "k", 2))
