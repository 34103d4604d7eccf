"""Processes that share wallets: turns give each its share, and are only ever a matter of speed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from libs.core.clock import SystemClock
from libs.core.events import Outbox
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.testing import eventually
from services.payment.domain import Transfer
from services.payment.ledger import Ledger
from services.payment.turns import Turns
from tests.payment.conftest import soon, transfer


@asynccontextmanager
async def taking_turns(redis: Redis) -> AsyncIterator[tuple[Turns, Turns]]:
    """Two processes', which know that they share wallets."""
    async with Turns(redis) as one, Turns(redis) as other:
        await eventually(lambda: _listening(redis, one, 2))
        await one.conflicted()
        await eventually(lambda: other._until)
        yield one, other


async def _listening(redis: Redis, turns: Turns, number: int) -> bool:
    return (await redis.client.pubsub_numsub(turns._channel))[0][1] == number


class TestTurn:
    async def test_costs_nothing_before_the_first_conflict(self, redis: Redis) -> None:
        async with Turns(redis) as turns, turns.turn():
            assert not await redis.client.exists(*turns._keys)

    async def test_one_at_a_time_and_fairly(self, redis: Redis) -> None:
        taken: list[int] = []
        holders = 0

        async def take(number: int, turns: Turns) -> None:
            nonlocal holders
            for _ in range(20):
                async with turns.turn():
                    holders += 1
                    assert holders == 1
                    await asyncio.sleep(0)
                    taken.append(number)
                    holders -= 1

        async with taking_turns(redis) as pair:
            await asyncio.gather(*(take(n, turns) for n, turns in enumerate(pair)))
        assert taken[5:35].count(0) in range(12, 19)

    async def test_one_that_is_never_handed_on_is_made_anew(
        self, redis: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("services.payment.turns.HANDED_ON_WITHIN_S", 0.1)
        async with taking_turns(redis) as (one, other):
            lost = await one._take()
            async with other.turn():
                assert lost
                await one._hand_on(lost)  # the process that hung comes back: its turn is over
                assert not await redis.client.exists(other._keys[1])
            async with one.turn():
                pass

    async def test_goes_on_without_redis(self, redis: Redis, own_redis: Any) -> None:
        dead = Redis.connect(own_redis.url)
        async with Turns(dead) as turns:
            await turns.conflicted()
            await asyncio.to_thread(own_redis.kill)
            async with turns.turn():
                pass
        await dead.close()


class TestTwoProcesses:
    async def test_each_gets_its_share_of_the_same_wallets(self, payment_db: Mongo, redis: Redis, player: Any) -> None:
        wallets = [await player(f"p{n}", 10**6) for n in range(8)]
        done = [0, 0]

        async def pay(number: int, ledger: Ledger, caller: int) -> None:
            while sum(done) < 600:
                payer, payee = wallets[caller % 8], wallets[(caller + 1 + done[number]) % 8]
                if payer is not payee:
                    name = f"t{number}-{caller}-{done[number]}-{sum(done)}"
                    assert isinstance(await ledger.post(transfer(name, payer, payee, 1), soon()), Transfer)
                done[number] += 1

        async with (
            Turns(redis) as one,
            Turns(redis) as other,
            Ledger(payment_db, Outbox(payment_db.db), SystemClock(), turns=one) as first,
            Ledger(payment_db, Outbox(payment_db.db), SystemClock(), turns=other) as second,
        ):
            callers = ((n, ledger, c) for n, ledger in enumerate((first, second)) for c in range(8))
            await asyncio.gather(*(pay(*caller) for caller in callers))
        assert min(done) >= 0.3 * sum(done)
