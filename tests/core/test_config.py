"""Configuration: what is in force, who may change it to what, and what happens to documents that make no sense."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Self

import pytest
import structlog
from prometheus_client import REGISTRY
from pydantic import Field, model_validator

from libs.core.config import COLLECTION, INDEXES, Config, ConfigModel
from libs.core.errors import InvalidInput, Misconfigured, Refusal
from libs.core.migrations import migrate
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.testing import FrozenClock, eventually
from scripts.process import Server


class Limits(ConfigModel, name="test.limits"):
    smallest: Annotated[int, Field(ge=1)] = 1
    largest: Annotated[int, Field(ge=1)] = 100
    categories: tuple[str, ...] = ("main",)
    fee: Decimal = Decimal("0.5")
    after: timedelta = timedelta(minutes=5)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.smallest > self.largest:
            raise ValueError("smallest is above largest")
        return self


class Texts(ConfigModel, name="test.texts"):
    greeting: str = "hello"


@pytest.fixture
async def config(mongo: Mongo, redis: Redis, clock: FrozenClock) -> AsyncIterator[Config]:
    await migrate(mongo.core, INDEXES)
    async with Config(mongo, redis, [Limits, Texts], clock=clock) as config:
        yield config


async def change(config: Config, version: int = 0, tenant_id: str | None = None, **values: Any) -> Limits:
    return await config.set(Limits, values, tenant_id=tenant_id, actor="ann", reason="INC-7", expected_version=version)


async def by_hand(mongo: Mongo, values: Any, scope: str = "*") -> None:
    override = {f"overrides.{scope}": {"version": 1, "values": values}}
    await mongo.core[COLLECTION].update_one({"_id": "test.limits"}, {"$set": override}, upsert=True)


def refused(field: str) -> float:
    return REGISTRY.get_sample_value("config_refused_total", {"name": "test.limits", "field": field}) or 0.0


class TestRegister:
    def test_two_of_a_name(self, mongo: Mongo, redis: Redis) -> None:
        with pytest.raises(Misconfigured, match=r"named test\.limits"):
            Config(mongo, redis, [Limits, Limits])

    def test_no_default(self, mongo: Mongo, redis: Redis) -> None:
        class Bare(ConfigModel, name="bare"):
            rate: int

        with pytest.raises(Misconfigured, match=r"bare\.rate"):
            Config(mongo, redis, [Bare])

    def test_invalid_default(self, mongo: Mongo, redis: Redis) -> None:
        class Wrong(ConfigModel, name="wrong"):
            rate: Annotated[int, Field(lt=5)] = 9

        with pytest.raises(Misconfigured, match=r"wrong\.rate"):
            Config(mongo, redis, [Wrong])

    @pytest.mark.parametrize("name", ["", "Payment", "a b", "a.", "*", "$a"])
    def test_malformed_name(self, name: str) -> None:
        with pytest.raises(Misconfigured):
            type("Wrong", (ConfigModel,), {}, name=name)


class TestGet:
    def test_default(self, config: Config) -> None:
        assert config.get(Limits) == Limits()

    async def test_override_of_one_field_leaves_the_others(self, config: Config) -> None:
        await change(config, largest=50)
        assert config.get(Limits) == Limits(largest=50)

    async def test_tenant_builds_on_the_platform(self, config: Config) -> None:
        await change(config, largest=50)
        await change(config, tenant_id="t1", smallest=10)
        assert config.get(Limits, "t1") == Limits(smallest=10, largest=50)
        assert config.get(Limits, "t2") == Limits(largest=50)

    async def test_platform_changes_under_a_tenant(self, config: Config) -> None:
        await change(config, tenant_id="t1", smallest=10)
        await change(config, largest=50)
        assert config.get(Limits, "t1") == Limits(smallest=10, largest=50)

    async def test_is_read_at_a_start(self, mongo: Mongo, redis: Redis, config: Config) -> None:
        await change(config, largest=50)
        async with Config(mongo, redis, [Limits]) as another:
            assert another.get(Limits).largest == 50
            assert another.version(Limits) == 1


class TestSet:
    async def test_every_type_comes_back(self, config: Config) -> None:
        wanted = Limits(categories=("a", "b"), fee=Decimal("0.1"), after=timedelta(hours=1))
        assert await change(config, categories=("a", "b"), fee=Decimal("0.1"), after=timedelta(hours=1)) == wanted
        assert config.get(Limits) == wanted

    @pytest.mark.parametrize(
        ("values", "field"),
        [
            ({"largest": 0}, "largest"),
            ({"largest": "5"}, "largest"),
            ({"largest": True}, "largest"),
            ({"largest": None}, "largest"),
            ({"largest": 2**63}, "largest"),
            ({"categories": ["a", 1]}, "categories.1"),
            ({"largets": 5}, "largets"),
            ({"$where": "1"}, "$where"),
            ({"smallest": 101}, "test.limits"),
            ({"largest": 1j}, "largest"),
        ],
        ids=str,
    )
    async def test_invalid_value_names_its_field(
        self, mongo: Mongo, config: Config, values: dict[str, Any], field: str
    ) -> None:
        with pytest.raises(InvalidInput) as caught:
            await change(config, **values)
        assert caught.value.field == field
        assert config.get(Limits) == Limits()
        assert await mongo.core[COLLECTION].find_one({}) is None
        assert await config.history(Limits) == []

    async def test_platform_value_that_a_tenant_cannot_live_with(self, config: Config) -> None:
        await change(config, tenant_id="t1", smallest=10)
        with pytest.raises(InvalidInput, match="tenant t1: smallest is above largest"):
            await change(config, largest=5)

    async def test_unset_returns_to_the_default(self, config: Config) -> None:
        await change(config, smallest=2, largest=50)
        await config.set(Limits, {}, unset=["largest"], actor="ann", reason="r", expected_version=1)
        assert config.get(Limits) == Limits(smallest=2)

    @pytest.mark.parametrize("reason", ["", "  "])
    async def test_no_reason(self, config: Config, reason: str) -> None:
        with pytest.raises(InvalidInput, match="needs a reason"):
            await config.set(Limits, {"largest": 5}, actor="ann", reason=reason, expected_version=0)

    @pytest.mark.parametrize("tenant_id", ["*", "a.b", "", "$t"])
    async def test_malformed_tenant(self, config: Config, tenant_id: str) -> None:
        with pytest.raises(InvalidInput):
            await change(config, tenant_id=tenant_id, largest=5)

    async def test_somebody_was_quicker(self, config: Config) -> None:
        await change(config, largest=50)
        with pytest.raises(Refusal) as caught:
            await change(config, largest=60)
        assert (caught.value.code, caught.value.details) == ("CONFIG_CONFLICT", {"expected": 0, "actual": 1})

    async def test_two_at_once(self, config: Config) -> None:
        outcomes = await asyncio.gather(*(change(config, largest=n) for n in (50, 60)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {Limits, Refusal}
        assert config.version(Limits) == len(await config.history(Limits)) == 1

    async def test_ten_tenants_at_once(self, config: Config) -> None:
        await asyncio.gather(*(change(config, tenant_id=f"t{n}", largest=10 + n) for n in range(10)))
        assert [config.get(Limits, f"t{n}").largest for n in range(10)] == list(range(10, 20))

    async def test_audit_row(self, config: Config, clock: FrozenClock) -> None:
        await change(config, largest=50)
        await change(config, version=1, largest=60)
        row = (await config.history(Limits, after=1))[0]
        assert (row.actor, row.action, row.reason, row.at) == ("ann", "config.set", "INC-7", clock.now())
        assert (row.before, row.after) == ({"largest": 50}, {"largest": 60})


class TestReload:
    async def test_reaches_another_process(self, mongo: Mongo, redis: Redis, config: Config) -> None:
        async with Config(mongo, redis, [Limits], poll_s=3600) as another:
            await change(config, largest=50)
            await eventually(lambda: another.get(Limits).largest == 50)

    async def test_missed_notice_is_found_by_the_poll(self, mongo: Mongo, redis: Redis) -> None:
        async with Config(mongo, redis, [Limits], poll_s=0.05) as config:
            await by_hand(mongo, {"largest": 50})
            await eventually(lambda: config.get(Limits).largest == 50)

    async def test_change_while_redis_is_away(self, mongo: Mongo, own_redis: Server) -> None:
        await migrate(mongo.core, INDEXES)
        redis = Redis.connect(own_redis.url)
        async with Config(mongo, redis, [Limits]) as config, Config(mongo, redis, [Limits]) as another:
            own_redis.kill()
            assert (await change(config, largest=50)).largest == 50
            await eventually(lambda: another.get(Limits).largest == 50)
        await redis.close()

    async def test_tenant_override_removed_by_hand(self, mongo: Mongo, redis: Redis, config: Config) -> None:
        await change(config, tenant_id="t1", largest=50)
        await mongo.core[COLLECTION].delete_many({})
        await redis.client.publish(redis.key("config"), b"")
        await eventually(lambda: config.get(Limits, "t1") == Limits())

    async def test_listeners_hear_what_changed(self, config: Config) -> None:
        heard: list[tuple[str | None, int]] = []
        config.on_change(Limits, lambda tenant_id: heard.append((tenant_id, config.get(Limits, tenant_id).largest)))
        await change(config, largest=50)
        await change(config, tenant_id="t1", largest=60)
        await change(config, version=1, largest=50)
        assert heard == [(None, 50), ("t1", 60)]

    async def test_broken_listener_harms_nobody(self, config: Config) -> None:
        def broken(_: str | None) -> None:
            raise RuntimeError

        config.on_change(Limits, broken)
        with structlog.testing.capture_logs() as logs:
            await change(config, largest=50)
        assert config.get(Limits).largest == 50
        assert [entry["log_level"] for entry in logs] == ["error"]


class TestDocumentEditedByHand:
    @pytest.fixture(autouse=True)
    async def fifty(self, config: Config) -> None:
        await change(config, largest=50)

    async def edit(self, redis: Redis, mongo: Mongo, values: Any, scope: str = "*") -> None:
        await by_hand(mongo, values, scope)
        await redis.client.publish(redis.key("config"), b"")

    @pytest.mark.parametrize(
        ("values", "field"),
        [({"largest": 0}, "largest"), ({"largets": 5}, "largets"), ("5", "overrides")],
        ids=["invalid", "unknown", "malformed"],
    )
    async def test_what_was_in_force_stays(
        self, mongo: Mongo, redis: Redis, config: Config, values: Any, field: str
    ) -> None:
        before = refused(field)
        await self.edit(redis, mongo, values)
        await eventually(lambda: refused(field) == before + 1)
        assert config.get(Limits).largest == 50

    async def test_mended(self, mongo: Mongo, redis: Redis, config: Config) -> None:
        await self.edit(redis, mongo, {"largest": 0})
        await self.edit(redis, mongo, {"largest": 70})
        await eventually(lambda: config.get(Limits).largest == 70)

    async def test_one_tenants_mistake_is_its_own(self, mongo: Mongo, redis: Redis, config: Config) -> None:
        await self.edit(redis, mongo, {"largest": 0}, scope="t1")
        await self.edit(redis, mongo, {"largest": 70}, scope="t2")
        await eventually(lambda: config.get(Limits, "t2").largest == 70)
        assert config.get(Limits, "t1").largest == 50

    async def test_platforms_mistake_is_not_its_tenants(self, mongo: Mongo, redis: Redis, config: Config) -> None:
        await by_hand(mongo, {"largest": 0})
        await self.edit(redis, mongo, {"smallest": 10}, scope="t1")
        await eventually(lambda: config.get(Limits, "t1") == Limits(smallest=10, largest=50))

    async def test_refuses_to_start(self, mongo: Mongo, redis: Redis) -> None:
        await by_hand(mongo, {"largest": 0})
        with pytest.raises(Misconfigured, match=r"test\.limits.*largest"):
            await Config(mongo, redis, [Limits]).__aenter__()
