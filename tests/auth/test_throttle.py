"""Who is slowed down by whose tries, and how much is sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from libs.core.config import INDEXES, Config
from libs.core.errors import RateLimited, Unavailable
from libs.core.migrations import migrate
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from scripts.process import Server
from services.auth.domain.identifiers import parse_identifier
from services.auth.settings import AuthConfig
from services.auth.throttle import Throttle, network
from tests.core.test_ratelimit import pass_over

ANNA, HOME, AWAY = "anna@example.com", "192.0.2.1", "198.51.100.7"


@asynccontextmanager
async def configured(mongo: Mongo, redis: Redis, **changes: Any) -> AsyncIterator[Throttle]:
    await migrate(mongo.core, INDEXES)
    async with Config(mongo, redis, [AuthConfig]) as config:
        if changes:
            await config.set(AuthConfig, changes, actor="test", reason="test", expected_version=0)
        yield Throttle(redis, config)


@pytest.fixture
async def throttle(mongo: Mongo, redis: Redis) -> AsyncIterator[Throttle]:
    async with configured(mongo, redis) as throttle:
        yield throttle


async def test_who_was_right_is_not_refused_because_redis_went_away(mongo: Mongo, own_redis: Server) -> None:
    """What it was right for may be committed, and its factor used up."""
    redis = Redis.connect(own_redis.url)
    async with configured(mongo, redis) as throttle:
        attempt = await throttle.admit("demo", parse_identifier(ANNA, "login"), AWAY, None)
        own_redis.kill()
        await throttle.succeeded(attempt)
        with pytest.raises(Unavailable):
            await throttle.admit("demo", parse_identifier(ANNA, "login"), AWAY, None)
    await redis.close()


async def tries(
    throttle: Throttle,
    times: int,
    who: str = ANNA,
    address: str = AWAY,
    device: str | None = None,
    *,
    tenant: str = "demo",
    right: bool = False,
) -> int:
    """How many of so many at once were let begin."""

    async def one() -> bool:
        try:
            attempt = await throttle.admit(tenant, parse_identifier(who, "login"), address, device)
        except RateLimited:
            return False
        if right:
            await throttle.succeeded(attempt)
        return True

    return sum(await asyncio.gather(*(one() for _ in range(times))))


class TestAdmit:
    async def test_of_twenty_at_once_the_free_ones(self, throttle: Throttle) -> None:
        assert await tries(throttle, 20) == 5

    async def test_says_for_how_long_and_not_why(self, throttle: Throttle) -> None:
        await tries(throttle, 5)
        with pytest.raises(RateLimited) as refused:
            await throttle.admit("demo", parse_identifier(ANNA, "login"), AWAY, None)
        assert 0 < refused.value.retry_after_s <= 1
        assert refused.value.message == "too many tries: try again later"

    @pytest.mark.parametrize("name", ["ANNA@Example.com", "anna+casino@example.com", " anna@EXAMPLE.com "])
    async def test_other_spellings_are_no_other_account(self, throttle: Throttle, name: str) -> None:
        await tries(throttle, 5)
        assert await tries(throttle, 1, name) == 0

    async def test_another_address_is_no_other_account(self, throttle: Throttle) -> None:
        await tries(throttle, 5)
        assert await tries(throttle, 1, address=HOME) == 0

    async def test_tenants_are_apart(self, throttle: Throttle) -> None:
        await tries(throttle, 5)
        assert await tries(throttle, 1, tenant="other") == 1

    async def test_the_owner_at_a_device_of_theirs_is_not_locked_out(self, throttle: Throttle) -> None:
        await tries(throttle, 500)
        assert await tries(throttle, 1, device="annas-phone") == 1

    async def test_a_stolen_device_token_gets_no_further(self, throttle: Throttle) -> None:
        assert await tries(throttle, 20, device="annas-phone") == 5
        assert await tries(throttle, 1, device="annas-laptop") == 1

    async def test_success_begins_anew(self, throttle: Throttle, redis: Redis) -> None:
        await tries(throttle, 4)
        await tries(throttle, 1, right=True)
        assert await tries(throttle, 9) == 5

    async def test_delays_grow(self, throttle: Throttle, redis: Redis) -> None:
        await tries(throttle, 5)
        await pass_over(redis, 1)
        assert await tries(throttle, 9) == 1
        await pass_over(redis, 1)
        assert await tries(throttle, 9) == 0


class TestAddress:
    async def test_a_list_of_stolen_passwords_is_one_try_for_each_of_many(self, throttle: Throttle) -> None:
        assert sum([await tries(throttle, 1, f"user{n}") for n in range(70)]) == 50

    async def test_an_account_of_ones_own_does_not_help(self, mongo: Mongo, redis: Redis) -> None:
        """A success between any two guesses forgives that success alone."""
        async with configured(mongo, redis, address_free_tries=10) as throttle:
            let_in = 0
            for n in range(20):
                let_in += await tries(throttle, 1, f"user{n}")
                await tries(throttle, 1, "mallory", right=True)
            assert let_in == 10

    async def test_who_succeeds_is_not_counted(self, throttle: Throttle) -> None:
        """A whole town behind one address."""
        assert sum([await tries(throttle, 1, f"user{n}", right=True) for n in range(200)]) == 200

    async def test_known_devices_are_spared(self, throttle: Throttle) -> None:
        for n in range(60):
            await tries(throttle, 1, f"user{n}")
        assert await tries(throttle, 1) == 0
        assert await tries(throttle, 1, device="annas-phone") == 1

    async def test_failures_slow_an_address_down_for_any_account(self, mongo: Mongo, redis: Redis) -> None:
        async with configured(mongo, redis, address_free_tries=3) as throttle:
            assert sum([await tries(throttle, 1, f"user{n}") for n in range(5)]) == 3
            await pass_over(redis, 1.5)
            assert sum([await tries(throttle, 1, f"user{n}") for n in range(5)]) == 1
            assert await tries(throttle, 1, address=HOME) == 1

    @pytest.mark.parametrize(
        ("address", "counted_as"),
        [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:0db8:0001:0002::", "2001:db8:1:2::"),
            ("2001:db8:1:3::", "2001:db8:1:3::"),
            ("fe80::1%eth0", "fe80::"),
            ("unix", "unix"),
            ("", ""),
        ],
    )
    def test_network(self, address: str, counted_as: str) -> None:
        assert network(address) == counted_as


class TestAdmitKnown:
    async def test_a_stolen_session_does_not_guess_its_password(self, throttle: Throttle) -> None:
        for _ in range(5):
            await throttle.admit_known("demo", "u1")
        with pytest.raises(RateLimited):
            await throttle.admit_known("demo", "u1")
        await throttle.succeeded(await throttle.admit_known("demo", "u2"))


class TestMaySend:
    @staticmethod
    async def sent(throttle: Throttle, *recipients: str, address: str = AWAY) -> int:
        async def one(recipient: str) -> bool:
            try:
                await throttle.may_send("demo", parse_identifier(recipient, "to"), address)
            except RateLimited:
                return False
            return True

        return sum(await asyncio.gather(*map(one, recipients)))

    async def test_one_mailbox_under_many_names(self, throttle: Throttle) -> None:
        names = ["anna@gmail.com", "a.nna@gmail.com", "anna+1@gmail.com", "ANNA@googlemail.com"]
        assert await self.sent(throttle, *names) == 1

    async def test_five_an_hour_and_ten_a_day(self, throttle: Throttle, redis: Redis) -> None:
        sent = []
        for _ in range(4):
            for _ in range(8):
                sent.append(await self.sent(throttle, ANNA, ANNA))
                await pass_over(redis, 31)
            await pass_over(redis, 3600)
        assert sent == [1] * 5 + [0] * 3 + [1] * 5 + [0] * 19

    async def test_one_address_to_many(self, throttle: Throttle) -> None:
        many = [f"user{n}@example.com" for n in range(30)]
        assert await self.sent(throttle, *many) == 20
        assert await self.sent(throttle, "last@example.com", address=HOME) == 1

    async def test_what_is_refused_does_not_count_against_the_recipient(self, throttle: Throttle) -> None:
        """Nobody keeps another's codes from coming by asking for them from an address that is spent."""
        await self.sent(throttle, *(f"user{n}@example.com" for n in range(20)))
        assert await self.sent(throttle, ANNA) == 0
        assert await self.sent(throttle, ANNA, address=HOME) == 1
