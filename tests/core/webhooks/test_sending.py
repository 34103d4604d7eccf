"""What a tenant's receiver gets, and when."""

import json
from datetime import timedelta

import pytest

from libs.core.testing import eventually
from libs.core.webhooks import DeliveryStatus
from libs.core.webhooks.worker import RETRY_AFTER_S
from tests.core.webhooks.conftest import PingLost, World


async def settled(world: World, status: DeliveryStatus, count: int = 1) -> bool:
    return len(await world.deliveries(status=status)) == count


class TestDeliver:
    async def test_the_event_as_it_was_published_signed_by_the_specification(self, world: World) -> None:
        to = await world.listen()
        made = await world.endpoint(to)
        await world.sending()
        event = await world.publish(7)
        await eventually(lambda: to.got)
        assert to.got[0].signed_with(made.secret)
        assert (to.ids, to.got[0].body) == ([event.id], event.to_json())
        assert json.loads(to.got[0].body)["data"] == {"n": 7}
        assert to.got[0].headers["content-type"] == "application/cloudevents+json"

    async def test_what_arrived_is_logged_with_the_beginning_of_the_answer(self, world: World) -> None:
        to = await world.listen(body="x" * 5000)
        await world.endpoint(to)
        await world.sending()
        await world.publish()
        await eventually(lambda: settled(world, DeliveryStatus.DELIVERED))
        (attempt,) = (await world.only_delivery()).attempts
        assert (attempt.status, attempt.answer, attempt.error) == (200, "x" * 1024, "")

    async def test_only_types_that_are_subscribed_to(self, world: World) -> None:
        to = await world.listen()
        await world.endpoint(to)
        await world.sending()
        await world.publish(1, data=PingLost)
        wanted = await world.publish(2)
        await eventually(lambda: settled(world, DeliveryStatus.DELIVERED))
        assert to.ids == [wanted.id]

    async def test_another_tenants_events_never(self, world: World) -> None:
        here, there = await world.listen(), await world.listen()
        await world.endpoint(here)
        await world.endpoint(there, "other")
        await world.sending()
        theirs, ours = await world.publish(1, "other"), await world.publish(2)
        await eventually(lambda: settled(world, DeliveryStatus.DELIVERED, 2))
        assert (here.ids, there.ids) == ([ours.id], [theirs.id])

    async def test_an_event_that_comes_twice_is_sent_once(self, world: World) -> None:
        to = await world.listen()
        await world.endpoint(to)
        webhooks = await world.sending()
        event = await world.publish()
        await webhooks.enqueue([event, event])
        await eventually(lambda: settled(world, DeliveryStatus.DELIVERED))
        assert to.ids == [event.id]

    async def test_what_happened_before_the_subscription_is_not_sent(self, world: World) -> None:
        to = await world.listen()
        world.clock.advance(hours=1)
        await world.endpoint(to)
        world.clock.advance(hours=-1)
        await world.publish()
        assert await world.deliveries() == []

    async def test_a_redirect_is_not_followed(self, world: World) -> None:
        elsewhere = await world.listen()
        to = await world.listen(status=302, headers=f"location: {elsewhere.url}\r\n")
        await world.endpoint(to)
        await world.sending()
        await world.publish()
        await eventually(lambda: to.got)
        await eventually(lambda: attempted(world))
        assert ((await world.only_delivery()).error, elsewhere.got) == ("HTTP 302", [])

    async def test_connections_are_kept(self, world: World) -> None:
        to = await world.listen()
        await world.endpoint(to)
        await world.sending()
        for n in range(5):
            await world.publish(n)
            await eventually(lambda n=n: settled(world, DeliveryStatus.DELIVERED, n + 1))  # type: ignore[misc]
        assert to.connections < 5


async def attempted(world: World, times: int = 1) -> bool:
    return (await world.only_delivery()).tries == times


class TestRetry:
    async def test_again_later_until_it_arrives(self, world: World) -> None:
        to = await world.listen(answers=[500, 503])
        await world.endpoint(to)
        await world.sending()
        await world.publish()
        await eventually(lambda: attempted(world))
        world.clock.advance(seconds=6)
        await eventually(lambda: attempted(world, 2))
        world.clock.advance(seconds=34)
        await eventually(lambda: settled(world, DeliveryStatus.DELIVERED))
        assert [a.status for a in (await world.only_delivery()).attempts] == [500, 503, 200]
        assert len(set(to.ids)) == 1

    async def test_not_before_its_time(self, world: World) -> None:
        await world.endpoint(await world.listen(status=500))
        await world.sending()
        await world.publish()
        await eventually(lambda: attempted(world))
        due_at = (await world.only_delivery()).due_at
        assert due_at is not None
        assert timedelta(seconds=4.5) <= due_at - world.clock.now() <= timedelta(seconds=5.5)

    @pytest.mark.parametrize(
        ("asked_for", "waits_s"),
        [
            ("120", (120, 120)),  # longer than the schedule's 5 s
            ("1", (4.5, 5.5)),  # shorter: it is not ours to be hurried
            ("999999999", (3600, 3600)),  # an hour is the most
            ("1" * 400, (3600, 3600)),
            ("-5", (4.5, 5.5)),
            ("soon", (4.5, 5.5)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", (4.5, 5.5)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", (3600, 3600)),
        ],
    )
    async def test_retry_after(self, world: World, asked_for: str, waits_s: tuple[float, float]) -> None:
        await world.endpoint(await world.listen(status=429, headers=f"Retry-After: {asked_for}\r\n"))
        await world.sending()
        await world.publish()
        await eventually(lambda: attempted(world))
        due_at = (await world.only_delivery()).due_at
        assert due_at is not None
        assert waits_s[0] <= (due_at - world.clock.now()).total_seconds() <= waits_s[1]

    async def test_nobody_there(self, world: World) -> None:
        to = await world.listen()
        made = await world.endpoint(to)
        webhooks = await world.sending()
        dead = to.url.replace("127.0.0.1", "127.0.0.9")
        await world.mongo.db.webhook_endpoints.update_one({"_id": made.endpoint.key}, {"$set": {"url": dead}})
        await world.publish()
        await eventually(lambda: attempted(world))
        assert (await world.only_delivery()).error.startswith("ConnectError")
        assert webhooks

    async def test_a_receiver_that_does_not_answer_is_not_waited_for(self, world: World) -> None:
        to = await world.listen()
        to.go_on.clear()
        await world.endpoint(to)
        await world.open(total_s=0.2)
        await world.publish()
        await eventually(lambda: attempted(world))
        assert (await world.only_delivery()).error == "no answer within 0.2 s"


async def fail_for_a_day(world: World) -> None:
    """The world's only delivery, through its whole schedule."""
    for tries in range(1, len(RETRY_AFTER_S) + 2):
        await eventually(lambda tries=tries: attempted(world, tries))  # type: ignore[misc]
        await eventually(world.idle)
        world.clock.advance(seconds=RETRY_AFTER_S[min(tries, len(RETRY_AFTER_S)) - 1] * 1.11)
