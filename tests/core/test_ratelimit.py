import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from libs.core.errors import RateLimited, Unavailable
from libs.core.ratelimit import Backoff, Distinct, Limiter, Rates, Take
from libs.core.redis import Redis
from libs.core.testing import eventually
from scripts.process import Server

DAY_S = 86_400
BACKOFF = Backoff(free=3, first_s=10, longest_s=60, forgiven_s=3600)


@pytest.fixture
def limiter(redis: Redis) -> Limiter:
    return Limiter(redis, "test")


async def taken(limiter: Limiter, *takes: Take, times: int) -> int:
    """How many of so many at once were let through."""
    refusals = await asyncio.gather(*(limiter.refused(*takes) for _ in range(times)))
    return refusals.count(None)


async def wait_of(limiter: Limiter, *takes: Take) -> float:
    refused = await limiter.refused(*takes)
    return refused.retry_after_s if refused else 0.0


async def keys_of(redis: Redis) -> list[bytes]:
    return [key async for key in redis.client.scan_iter(match=redis.key("*"))]


async def pass_over(redis: Redis, seconds: float) -> None:
    """Sets every instant and expiry that was noted so far back."""
    for key in await keys_of(redis):
        kind = await redis.client.type(key)
        if kind == b"list":
            instants = await redis.client.lrange(key, 0, -1)
            for index, at in enumerate(instants):
                await redis.client.lset(key, index, str(int(at) - int(seconds * 1000)))
        elif kind == b"hash":
            for name in ("at", "next"):
                if noted := await redis.client.hget(key, name):
                    await redis.client.hset(key, name, str(int(noted) - int(seconds * 1000)))
        else:
            members: list[Any] = await redis.client.zrange(key, 0, -1)
            for member in members:
                await redis.client.zincrby(key, -seconds * 1000, member)
        left_ms = await redis.client.pttl(key) - int(seconds * 1000)
        await redis.client.pexpire(key, max(left_ms, 1))


class TestRates:
    async def test_of_many_at_once_as_many_as_the_limit(self, limiter: Limiter) -> None:
        assert await taken(limiter, Take("k", Rates.of((5, 60))), times=20) == 5

    async def test_says_when_to_come_back(self, limiter: Limiter, redis: Redis) -> None:
        take = Take("k", Rates.of((2, 60)))
        await limiter.take(take)
        await pass_over(redis, 20)
        await limiter.take(take)
        with pytest.raises(RateLimited) as refused:
            await limiter.take(take)
        assert refused.value.retry_after_s == pytest.approx(40, abs=1)

    async def test_no_stretch_of_time_has_more(self, limiter: Limiter, redis: Redis) -> None:
        """Windows of the calendar would give the limit twice, at the turn from one to the next."""
        take = Take("k", Rates.of((4, 60)))
        await taken(limiter, take, times=2)
        await pass_over(redis, 50)
        assert await taken(limiter, take, times=9) == 2
        await pass_over(redis, 20)
        assert await taken(limiter, take, times=9) == 2
        assert await wait_of(limiter, take) == pytest.approx(40, abs=1)

    async def test_the_strictest_of_several_decides(self, limiter: Limiter, redis: Redis) -> None:
        take = Take("k", Rates.of((1, 30), (3, 3600)))
        waits = []
        for _ in range(4):
            waits.append(await wait_of(limiter, take))
            waits.append(await wait_of(limiter, take))
            await pass_over(redis, 31)
        assert [round(wait / 30) for wait in waits] == [0, 1, 0, 1, 0, 118, 117, 117]

    async def test_what_is_refused_is_not_counted(self, limiter: Limiter, redis: Redis) -> None:
        take = Take("k", Rates.of((1, 30)))
        await taken(limiter, take, times=10)
        await pass_over(redis, 31)
        assert await wait_of(limiter, take) == 0

    async def test_all_or_none(self, limiter: Limiter) -> None:
        free, full = Take("free", Rates.of((1, 60))), Take("full", Rates.of((1, 60)))
        await limiter.take(full)
        refused = await limiter.refused(free, full)
        assert refused
        assert refused.by == full
        await limiter.take(free)

    async def test_given_back(self, limiter: Limiter) -> None:
        take = Take("k", Rates.of((1, 60)))
        await limiter.take(take)
        await limiter.give_back(take)
        assert await taken(limiter, take, times=5) == 1

    async def test_a_clock_that_is_set_back(self, limiter: Limiter, redis: Redis) -> None:
        take = Take("k", Rates.of((1, 60)))
        await limiter.take(take)
        await pass_over(redis, -DAY_S)
        assert await wait_of(limiter, take) == 60


class TestBackoff:
    async def test_of_many_at_once_only_the_free_ones(self, limiter: Limiter) -> None:
        assert await taken(limiter, Take("k", BACKOFF), times=20) == 3

    async def test_delays_double_up_to_the_longest(self, limiter: Limiter, redis: Redis) -> None:
        take, waits = Take("k", BACKOFF), []
        await taken(limiter, take, times=2)
        for _ in range(6):
            assert await limiter.refused(take) is None
            waits.append(await wait_of(limiter, take))
            await pass_over(redis, waits[-1])
        assert waits == [pytest.approx(s, abs=1) for s in (10, 20, 40, 60, 60, 60)]

    async def test_one_after_another_is_forgiven(self, limiter: Limiter, redis: Redis) -> None:
        take = Take("k", BACKOFF)
        await taken(limiter, take, times=3)
        await pass_over(redis, 3600)
        assert await taken(limiter, take, times=9) == 1
        await pass_over(redis, 2 * 3600)
        assert await taken(limiter, take, times=9) == 2

    async def test_after_many_tries_as_after_a_few(self, limiter: Limiter, redis: Redis) -> None:
        take = Take("k", BACKOFF)
        for _ in range(50):
            await limiter.refused(take)
            await pass_over(redis, 60)
        assert await limiter.refused(take) is None
        assert await wait_of(limiter, take) == pytest.approx(60, abs=1)
        await pass_over(redis, 6 * 3600)
        await eventually(lambda: _is_empty(redis))

    async def test_hammering_does_not_prolong_it(self, limiter: Limiter, redis: Redis) -> None:
        take = Take("k", BACKOFF)
        await taken(limiter, take, times=100)
        await pass_over(redis, 10)
        assert await limiter.refused(take) is None
        assert await wait_of(limiter, take) == pytest.approx(20, abs=1)

    async def test_cleared(self, limiter: Limiter) -> None:
        take = Take("k", BACKOFF)
        await taken(limiter, take, times=20)
        await limiter.clear(take)
        assert await taken(limiter, take, times=20) == 3

    async def test_given_back_is_one_try_alone(self, limiter: Limiter) -> None:
        """Whoever has a right password of their own does not get the wrong ones forgotten."""
        take = Take("k", BACKOFF)
        await taken(limiter, take, times=20)
        await limiter.give_back(take)
        assert await taken(limiter, take, times=20) == 1
        assert await wait_of(limiter, take) == pytest.approx(10, abs=1)

    async def test_given_back_without_having_been_taken(self, limiter: Limiter, redis: Redis) -> None:
        await limiter.give_back(Take("k", BACKOFF))
        assert await keys_of(redis) == []

    async def test_forgotten_by_itself(self, limiter: Limiter, redis: Redis) -> None:
        take = Take("k", BACKOFF)
        await taken(limiter, take, times=3)
        await pass_over(redis, 3 * 3600)
        await eventually(lambda: _is_empty(redis))


class TestDistinct:
    async def test_so_many_members_each_as_often_as_it_likes(self, limiter: Limiter) -> None:
        takes = [Take("k", Distinct(member, 3, 60)) for member in "abcde"]
        assert [await taken(limiter, take, times=4) for take in takes] == [4, 4, 4, 0, 0]

    async def test_room_again_when_the_oldest_is_forgotten(self, limiter: Limiter, redis: Redis) -> None:
        await limiter.take(Take("k", Distinct("a", 2, 60)))
        await pass_over(redis, 40)
        await limiter.take(Take("k", Distinct("b", 2, 60)))
        assert await wait_of(limiter, Take("k", Distinct("c", 2, 60))) == pytest.approx(20, abs=1)
        await pass_over(redis, 21)
        await limiter.take(Take("k", Distinct("c", 2, 60)))

    async def test_given_back(self, limiter: Limiter) -> None:
        await limiter.take(Take("k", Distinct("a", 1, 60)))
        await limiter.give_back(Take("k", Distinct("a", 1, 60)))
        await limiter.take(Take("k", Distinct("b", 1, 60)))


class TestLimiter:
    async def test_of_every_sort_all_or_none(self, limiter: Limiter) -> None:
        full = Take("full", Rates.of((1, 60)))
        others = Take("tries", Backoff(1, 60, 60, 60)), Take("members", Distinct("a", 1, 60))
        await limiter.take(full)
        assert await taken(limiter, *others, full, times=5) == 0
        await limiter.take(*others)

    async def test_names_and_keys_are_apart(self, limiter: Limiter, redis: Redis) -> None:
        rule = Rates.of((1, 60))
        await limiter.take(Take("k", rule))
        await limiter.take(Take("l", rule))
        await Limiter(redis, "other").take(Take("k", rule))

    async def test_nothing_is_in_the_clear_and_nothing_stays_for_ever(self, limiter: Limiter, redis: Redis) -> None:
        who = "anna@example.com" * 1000
        await limiter.take(
            Take(f"{who}1", Rates.of((1, 60))), Take(f"{who}2", BACKOFF), Take(f"{who}3", Distinct(who, 1, 60))
        )
        keys = await keys_of(redis)
        assert len(keys) == 3
        for key in keys:
            assert len(key) < 100
            assert b"example.com" not in key + (await redis.client.dump(key) or b"")
            assert 0 < await redis.client.pttl(key) <= DAY_S * 1000

    async def test_a_log_is_no_longer_than_its_highest_limit(self, limiter: Limiter, redis: Redis) -> None:
        take = Take("k", Rates.of((100, 0.001), (3, 0.001)))
        for _ in range(150):
            await limiter.refused(take)
        for key in await keys_of(redis):
            assert await redis.client.llen(key) <= 100


class TestWithoutRedis:
    @pytest.fixture
    async def dead(self, own_redis: Server) -> AsyncIterator[Limiter]:
        redis = Redis.connect(own_redis.url)
        limiter = Limiter(redis, "test")
        await limiter.take(Take("k", BACKOFF))
        own_redis.kill()
        yield limiter
        await redis.close()

    async def test_nothing_is_let_through(self, dead: Limiter) -> None:
        take, began = Take("k", BACKOFF), time.monotonic()
        for asked in (dead.take(take), dead.clear(take), dead.give_back(take)):
            with pytest.raises(Unavailable):
                await asked
        assert time.monotonic() - began < 10


async def _is_empty(redis: Redis) -> bool:
    return await keys_of(redis) == []
