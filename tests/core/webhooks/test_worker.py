"""Many endpoints, several processes, and the way there over Redis."""

import asyncio
import os
import sys
import time

from libs.core.clock import SystemClock
from libs.core.events import Event, Relay
from libs.core.testing import eventually
from libs.core.webhooks import DeliveryStatus, NewEndpoint
from libs.core.webhooks.worker import SLOTS_PER_ENDPOINT
from tests.core.webhooks.conftest import SOURCE, Ping, World
from tests.core.webhooks.test_sending import settled
from tests.core.webhooks.worker import CLAIM_S


class TestTurns:
    async def test_a_slow_endpoint_does_not_hold_up_another(self, world: World) -> None:
        slow, quick = await world.listen(), await world.listen()
        slow.go_on.clear()
        await world.endpoint(slow)
        await world.endpoint(quick)
        await world.sending()
        events = [await world.publish(n) for n in range(50)]
        await eventually(lambda: len(quick.got) == 50)
        assert set(quick.ids) == {event.id for event in events}
        assert len(slow.got) < 50

    async def test_no_more_at_once_than_an_endpoints_share(self, world: World) -> None:
        to = await world.listen()
        await world.endpoint(to)
        await world.sending()
        for n in range(60):
            await world.publish(n)
        await eventually(lambda: settled(world, DeliveryStatus.DELIVERED, 60))
        assert to.most_at_once <= SLOTS_PER_ENDPOINT

    async def test_one_that_fails_is_probed_by_one_at_a_time_and_then_rests(self, world: World) -> None:
        to = await world.listen(status=500)
        await world.endpoint(to)
        for n in range(30):
            await world.publish(n)
        await world.sending()
        await eventually(lambda: len(to.got) == 3)
        await eventually(world.idle)
        assert to.most_at_once == 1
        to.status = 200
        world.clock.advance(seconds=2)
        await eventually(lambda: len(to.got) >= 30)

    async def test_processes_that_compete_send_each_once(self, world: World) -> None:
        to = await world.listen()
        await world.endpoint(to)
        for n in range(40):
            await world.publish(n)
        for _ in range(3):
            await world.open()
        await eventually(lambda: settled(world, DeliveryStatus.DELIVERED, 40))
        assert len(to.ids) == len(set(to.ids)) == 40


class TestCrash:
    async def test_what_a_killed_process_had_in_hand_is_sent_by_another(self, world: World) -> None:
        to = await world.listen()
        to.go_on.clear()
        await world.endpoint(to)
        event = await world.publish()
        namespace = world.mongo.db.name.removesuffix("_test_service")
        dying = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.core.webhooks.worker", namespace, env={**os.environ}
        )
        try:
            await eventually(lambda: to.got, within_s=30)
        finally:
            dying.kill()
            await dying.wait()
        assert (await world.only_delivery()).status is DeliveryStatus.PENDING
        started = time.monotonic()
        await world.open(clock=SystemClock())
        to.go_on.set()
        await eventually(lambda: settled(world, DeliveryStatus.DELIVERED))
        assert to.ids == [event.id] * 2
        assert time.monotonic() - started < CLAIM_S + 5

    async def test_a_result_that_comes_after_the_claim_ran_out_changes_nothing(self, world: World) -> None:
        to = await world.listen()
        to.go_on.clear()
        await world.endpoint(to)
        await world.sending()
        event = await world.publish()
        await eventually(lambda: len(to.got) == 1)
        world.clock.advance(minutes=2)
        await world.open()
        await eventually(lambda: len(to.got) == 2)
        to.go_on.set()
        await eventually(lambda: settled(world, DeliveryStatus.DELIVERED))
        assert (len((await world.only_delivery()).attempts), to.ids) == (1, [event.id] * 2)

    async def test_stopping_puts_back_what_takes_too_long(self, world: World) -> None:
        to = await world.listen()
        to.go_on.clear()
        await world.endpoint(to)
        webhooks = world.made()
        async with webhooks:
            event = await world.publish()
            await eventually(lambda: to.got)
        delivery = await world.only_delivery()
        assert (delivery.status, delivery.due_at, delivery.tries) == (DeliveryStatus.PENDING, world.clock.now(), 0)
        to.go_on.set()
        await world.sending()
        await eventually(lambda: settled(world, DeliveryStatus.DELIVERED))
        assert to.ids == [event.id] * 2


class TestSubscriber:
    async def test_from_the_outbox_to_the_receiver(self, world: World) -> None:
        to = await world.listen()
        made = await world.endpoint(to)
        webhooks = await world.sending()
        event = Event.new(Ping(n=1), source=SOURCE, subject="s", tenant_id="demo", partition_key="k", actor="ann")
        async with Relay(world.mongo, world.redis, world.outbox, source=SOURCE), webhooks.subscriber():
            await world.mongo.transaction(lambda session: world.outbox.append(session, [event]))
            world.outbox.kick()
            await eventually(lambda: to.got)
        assert to.got[0].signed_with(made.secret)
        stored = await world.mongo.db.outbox.find_one({})
        assert stored is not None
        assert to.got[0].body.decode() in stored["events"]
        assert await world.mongo.db.inbox.count_documents({}) == 0

    async def test_notice_of_a_disabled_endpoint_reaches_another_one(self, world: World) -> None:
        gone, watching = await world.listen(status=410), await world.listen()
        types = ("ping.sent", "webhook.disabled")
        webhooks = await world.open(event_types=types)
        made = await webhooks.endpoints.create("demo", NewEndpoint(gone.url, ["ping.sent"]), actor="ann")
        await webhooks.endpoints.create("demo", NewEndpoint(watching.url, ["webhook.disabled"]), actor="ann")
        async with Relay(world.mongo, world.redis, world.outbox, source=SOURCE), webhooks.subscriber():
            await world.publish()
            await eventually(lambda: watching.got)
        assert made.endpoint.id in watching.got[0].body.decode()
