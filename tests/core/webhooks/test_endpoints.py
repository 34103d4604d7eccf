"""What a tenant can do with its endpoints, and what becomes of one that fails."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from libs.core.audit import AuditLog
from libs.core.errors import InvalidInput, Misconfigured, NotFound, Refusal
from libs.core.ids import new_id
from libs.core.pagination import PageArgs, Paginator
from libs.core.testing import eventually
from libs.core.webhooks import DeliveryStatus, EndpointChange, NewEndpoint
from libs.core.webhooks.endpoints import ENDPOINTS_PER_TENANT
from tests.core.webhooks.conftest import World
from tests.core.webhooks.test_sending import attempted, fail_for_a_day, settled

URL = "http://127.0.0.1:9/hooks"


async def notices(world: World) -> list[str]:
    texts = [row["events"] async for row in world.mongo.db.outbox.find({})]
    return [text for text in texts if "webhook.disabled" in text]


async def attempts(world: World, made: int) -> bool:
    return len((await world.only_delivery()).attempts) == made


class TestCreate:
    async def test_the_secret_is_nowhere_in_the_database(self, world: World) -> None:
        made = await world.endpoint(await world.listen())
        for name in await world.mongo.db.list_collection_names():
            rows = await world.mongo.db[name].find({}).to_list()
            assert made.secret.removeprefix("whsec_") not in str(rows)

    async def test_a_url_once_per_tenant(self, world: World) -> None:
        to = await world.listen()
        await world.endpoint(to)
        await world.endpoint(to, "other")
        with pytest.raises(Refusal, match="there is an endpoint with this URL"):
            await world.endpoint(to)

    async def test_so_many_per_tenant_also_at_once(self, world: World) -> None:
        endpoints = world.made().endpoints
        news = [NewEndpoint(f"{URL}/{n}", ["ping.sent"]) for n in range(ENDPOINTS_PER_TENANT + 5)]
        made = await asyncio.gather(*(endpoints.create("demo", n, actor="a") for n in news), return_exceptions=True)
        assert [m.code for m in made if isinstance(m, Refusal)] == ["WEBHOOK_LIMIT"] * 5

    @pytest.mark.parametrize("types", [[], ["ping.forged"], ["ping.sent", "*"], ["webhook.tested"]])
    async def test_types_that_nobody_publishes(self, world: World, types: list[str]) -> None:
        with pytest.raises(InvalidInput, match=r"ping\.lost, ping\.sent"):
            await world.made().endpoints.create("demo", NewEndpoint(URL, types), actor="ann")

    async def test_the_audit_log_knows_who_but_no_secrets(self, world: World) -> None:
        made = await world.endpoint(await world.listen())
        endpoints = world.made().endpoints
        await endpoints.rotate("demo", made.endpoint.id, overlap_hours=1, actor="bob")
        await endpoints.delete("demo", made.endpoint.id, actor="eve")
        audit = AuditLog(world.mongo.db, "webhooks.demo")
        rows = await audit.read()
        assert [(r.action, r.actor) for r in rows] == [
            ("webhook.create", "ann"),
            ("webhook.rotate_secret", "bob"),
            ("webhook.delete", "eve"),
        ]
        assert "whsec_" not in str(rows)
        assert "from=us" not in str(rows)
        assert await audit.verify() is None


class TestIsolation:
    @pytest.mark.parametrize("action", ["find", "update", "rotate", "enable", "disable", "delete", "test", "replay"])
    async def test_another_tenants_endpoint_is_not_found(self, world: World, action: str) -> None:
        made = await world.endpoint(await world.listen())
        webhooks, theirs = await world.sending(), made.endpoint.id
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "find": lambda: webhooks.endpoints.find("other", theirs),
            "update": lambda: webhooks.endpoints.update("other", theirs, EndpointChange(url=URL), actor="eve"),
            "rotate": lambda: webhooks.endpoints.rotate("other", theirs, overlap_hours=0, actor="eve"),
            "enable": lambda: webhooks.endpoints.enable("other", theirs, actor="eve"),
            "disable": lambda: webhooks.disable("other", theirs, actor="eve"),
            "delete": lambda: webhooks.delete("other", theirs, actor="eve"),
            "test": lambda: webhooks.test("other", theirs),
            "replay": lambda: webhooks.replay_failed("other", theirs, world.clock.now()),
        }
        with pytest.raises(NotFound):
            await calls[action]()
        assert (await webhooks.endpoints.find("demo", theirs)).enabled

    async def test_another_tenants_delivery_is_not_found(self, world: World) -> None:
        made = await world.endpoint(await world.listen())
        webhooks = await world.sending()
        await world.publish()
        delivery = await world.only_delivery()
        with pytest.raises(NotFound):
            await webhooks.replay("other", delivery.id)
        page = await webhooks.deliveries.page(Paginator("s"), "other", made.endpoint.id, None, PageArgs())
        assert page.items == []

    async def test_a_sealed_secret_is_good_for_its_endpoint_alone(self, world: World) -> None:
        """Whoever writes to the database cannot have another's events signed with a secret that they know."""
        ours, theirs = await world.endpoint(await world.listen()), await world.endpoint(await world.listen(), "other")
        stolen = await world.mongo.db.webhook_endpoints.find_one({"_id": theirs.endpoint.key})
        assert stolen is not None
        await world.mongo.db.webhook_endpoints.update_one(
            {"_id": ours.endpoint.key}, {"$set": {"secrets": stolen["secrets"]}}
        )
        endpoints = world.made().endpoints
        with pytest.raises(Misconfigured, match="another owner"):
            endpoints.keys_of(await endpoints.find("demo", ours.endpoint.id))


class TestRotate:
    async def test_both_secrets_sign_until_the_overlap_is_over(self, world: World) -> None:
        to = await world.listen()
        made = await world.endpoint(to)
        webhooks = await world.sending()
        new = await webhooks.endpoints.rotate("demo", made.endpoint.id, overlap_hours=24, actor="ann")
        await world.publish(1)
        await eventually(lambda: len(to.got) == 1)
        world.clock.advance(hours=25)
        await world.publish(2)
        await eventually(lambda: len(to.got) == 2)
        assert [(r.signed_with(made.secret), r.signed_with(new.secret)) for r in to.got] == [
            (True, True),
            (False, True),
        ]

    async def test_without_overlap_no_old_secret_signs_any_more(self, world: World) -> None:
        """Not even one that had been given longer: somebody may have it."""
        to = await world.listen()
        made = await world.endpoint(to)
        webhooks = await world.sending()
        second = await webhooks.endpoints.rotate("demo", made.endpoint.id, overlap_hours=24, actor="ann")
        third = await webhooks.endpoints.rotate("demo", made.endpoint.id, overlap_hours=0, actor="ann")
        await world.publish()
        await eventually(lambda: to.got)
        assert [to.got[0].signed_with(s.secret) for s in (made, second, third)] == [False, False, True]

    async def test_never_more_than_a_few_secrets(self, world: World) -> None:
        made = await world.endpoint(await world.listen())
        endpoints = world.made().endpoints
        for _ in range(6):
            rotated = await endpoints.rotate("demo", made.endpoint.id, overlap_hours=24, actor="ann")
        assert len(rotated.endpoint.secrets) == 4

    @pytest.mark.parametrize("hours", [-1, 169])
    async def test_overlap_in_bounds(self, world: World, hours: int) -> None:
        made = await world.endpoint(await world.listen())
        with pytest.raises(InvalidInput, match="overlapHours"):
            await world.made().endpoints.rotate("demo", made.endpoint.id, overlap_hours=hours, actor="ann")


class TestKeys:
    async def test_a_start_seals_with_the_newest_key(self, world: World) -> None:
        made = await world.endpoint(await world.listen())
        await world.open(keys=f"{'n' * 32},{'k' * 32}")
        newest = world.made(keys="n" * 32).endpoints
        assert newest.keys_of(await newest.find("demo", made.endpoint.id)) == [made.secret]

    async def test_a_lost_key_costs_no_attempts_and_stops_nothing_else(self, world: World) -> None:
        lost, well = await world.listen(), await world.listen()
        await world.endpoint(lost)
        webhooks = await world.open(keys="n" * 32)
        await webhooks.endpoints.create("demo", NewEndpoint(well.url, ["ping.sent"]), actor="ann")
        await world.publish()
        await eventually(lambda: settled(world, DeliveryStatus.DELIVERED))
        (waiting,) = await world.deliveries(status="pending")
        assert (waiting.tries, lost.got, len(well.got)) == (0, [], 1)


class TestDisable:
    async def test_after_a_day_of_nothing_but_failures(self, world: World) -> None:
        made = await world.endpoint(await world.listen(status=500))
        webhooks = await world.sending()
        await world.publish()
        await fail_for_a_day(world)
        await eventually(lambda: notices(world))
        endpoint = await webhooks.endpoints.find("demo", made.endpoint.id)
        assert (endpoint.enabled, endpoint.disabled_reason) == (False, "failing")
        assert len(await notices(world)) == 1

    async def test_not_if_something_else_arrived_that_day(self, world: World) -> None:
        to = await world.listen(status=500)
        made = await world.endpoint(to)
        webhooks = await world.sending()
        bad = await world.publish(1)
        await eventually(lambda: attempted(world))
        world.clock.advance(minutes=2)
        to.answers = [200]
        await world.mongo.db.webhook_deliveries.update_many({}, {"$set": {"due_at": world.clock.now() + timedelta(1)}})
        await world.publish(2)
        await eventually(lambda: settled(world, DeliveryStatus.DELIVERED))
        world.clock.advance(days=1)
        await eventually(lambda: settled(world, DeliveryStatus.FAILED))
        assert (await world.deliveries(status="failed"))[0].event_id == bad.id
        assert (await webhooks.endpoints.find("demo", made.endpoint.id)).enabled

    async def test_at_once_if_the_receiver_says_gone(self, world: World) -> None:
        made = await world.endpoint(await world.listen(status=410))
        webhooks = await world.sending()
        await world.publish()
        await eventually(lambda: settled(world, DeliveryStatus.FAILED))
        await eventually(lambda: notices(world))
        assert (await webhooks.endpoints.find("demo", made.endpoint.id)).disabled_reason == "gone"
        assert '"reason":"gone"' in (await notices(world))[0]

    async def test_by_hand_fails_what_waits_and_tells_nobody(self, world: World) -> None:
        made = await world.endpoint(await world.listen(status=500))
        webhooks = await world.sending()
        await world.publish()
        await eventually(lambda: attempted(world))
        await webhooks.disable("demo", made.endpoint.id, actor="ann")
        assert (await world.only_delivery()).status is DeliveryStatus.FAILED
        assert await notices(world) == []

    async def test_what_happens_meanwhile_is_noted_for_a_week(self, world: World) -> None:
        made = await world.endpoint(await world.listen())
        webhooks = await world.sending()
        await webhooks.disable("demo", made.endpoint.id, actor="ann")
        await world.publish(1)
        world.clock.advance(days=8)
        await world.publish(2)
        assert [d.error for d in await world.deliveries()] == ["the endpoint is disabled"]

    async def test_in_the_middle_of_sending(self, world: World) -> None:
        to = await world.listen()
        made = await world.endpoint(to)
        await world.publish()
        await world.mongo.db.webhook_endpoints.update_one(
            {"_id": made.endpoint.key}, {"$set": {"disabled_at": world.clock.now(), "disabled_reason": "by_hand"}}
        )
        await world.sending()
        await eventually(lambda: settled(world, DeliveryStatus.FAILED))
        assert to.got == []


class TestReplay:
    async def test_one_that_arrived_comes_again_under_its_id(self, world: World) -> None:
        to = await world.listen()
        await world.endpoint(to)
        webhooks = await world.sending()
        event = await world.publish()
        await eventually(lambda: settled(world, DeliveryStatus.DELIVERED))
        await webhooks.replay("demo", (await world.only_delivery()).id)
        await eventually(lambda: to.ids == [event.id] * 2)

    async def test_all_that_failed_since_then_and_what_was_missed(self, world: World) -> None:
        to = await world.listen(answers=[410])
        made = await world.endpoint(to)
        webhooks = await world.sending()
        old = await world.publish(1)
        await eventually(lambda: settled(world, DeliveryStatus.FAILED))
        await eventually(lambda: notices(world))
        since = world.clock.advance(hours=1)
        missed = [await world.publish(n) for n in (2, 3)]
        await webhooks.endpoints.enable("demo", made.endpoint.id, actor="ann")
        assert await webhooks.replay_failed("demo", made.endpoint.id, since) == 2
        await eventually(lambda: settled(world, DeliveryStatus.DELIVERED, 2))
        assert sorted(to.ids[1:]) == sorted(event.id for event in missed)
        assert old.id not in to.ids[1:]

    async def test_a_disabled_endpoint_refuses(self, world: World) -> None:
        made = await world.endpoint(await world.listen())
        webhooks = await world.sending()
        await webhooks.disable("demo", made.endpoint.id, actor="ann")
        with pytest.raises(Refusal, match="enable it first"):
            await webhooks.replay_failed("demo", made.endpoint.id, world.clock.now())

    async def test_has_a_whole_day_again(self, world: World) -> None:
        await world.endpoint(await world.listen(status=500))
        webhooks = await world.sending()
        await world.publish()
        await eventually(lambda: attempted(world))
        await webhooks.replay("demo", (await world.only_delivery()).id)
        await eventually(lambda: attempts(world, 2))
        assert (await world.only_delivery()).tries == 1


class TestUpdate:
    async def test_a_type_that_is_kept_keeps_its_since(self, world: World) -> None:
        made = await world.endpoint(await world.listen())
        since = made.endpoint.subscriptions["ping.sent"]
        now = world.clock.advance(hours=1)
        change = EndpointChange(event_types=["ping.sent", "ping.lost"])
        changed = await world.made().endpoints.update("demo", made.endpoint.id, change, actor="ann")
        assert changed.subscriptions == {"ping.sent": since, "ping.lost": now}

    async def test_what_waits_goes_to_the_new_url(self, world: World) -> None:
        here, there = await world.listen(status=500), await world.listen()
        made = await world.endpoint(here)
        webhooks = await world.sending()
        event = await world.publish()
        await eventually(lambda: attempted(world))
        await webhooks.endpoints.update("demo", made.endpoint.id, EndpointChange(url=there.url), actor="ann")
        world.clock.advance(seconds=6)
        await eventually(lambda: there.ids == [event.id])

    async def test_nobody_elses_url(self, world: World) -> None:
        taken, made = await world.endpoint(await world.listen()), await world.endpoint(await world.listen())
        change = EndpointChange(url=taken.endpoint.url)
        with pytest.raises(Refusal, match="this URL"):
            await world.made().endpoints.update("demo", made.endpoint.id, change, actor="ann")


class TestDelete:
    async def test_nothing_is_sent_any_more_and_the_log_stays(self, world: World) -> None:
        made = await world.endpoint(await world.listen(status=500))
        webhooks = await world.sending()
        await world.publish()
        await eventually(lambda: attempted(world))
        await webhooks.delete("demo", made.endpoint.id, actor="ann")
        assert (await world.only_delivery()).error == "the endpoint was deleted"

    async def test_one_that_does_not_exist(self, world: World) -> None:
        with pytest.raises(NotFound):
            await world.made().delete("demo", new_id(), actor="ann")


class TestTest:
    async def test_reaches_this_endpoint_alone_whatever_it_subscribed_to(self, world: World) -> None:
        to, other = await world.listen(), await world.listen()
        made = await world.endpoint(to)
        await world.endpoint(other)
        webhooks = await world.sending()
        delivery = await webhooks.test("demo", made.endpoint.id)
        await eventually(lambda: to.ids == [delivery.event_id])
        assert (delivery.event_type, other.got) == ("webhook.tested", [])
