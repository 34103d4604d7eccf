import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from libs.core.events import LiveListener, Outbox, Relay
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.testing import eventually
from scripts.process import Server
from services.payment.balances import Balances, Watcher
from services.payment.ledger import Ledger
from tests.payment.conftest import soon, transfer


@pytest.fixture
async def balances(payment_db: Mongo, own_redis: Server) -> AsyncIterator[Balances]:
    redis = Redis.connect(own_redis.url)
    async with (
        Relay(payment_db, redis, Outbox(payment_db.db), source="payment"),
        LiveListener(redis) as live,
        Balances(payment_db, live) as balances,
    ):
        yield balances
    await redis.close()


async def next_of(watcher: Watcher) -> Any:
    return await asyncio.wait_for(anext(watcher), 10)


class TestWatch:
    async def test_tells_whoever_names_the_wallet_or_owns_it_and_nobody_else(
        self, balances: Balances, ledger: Ledger, player: Any
    ) -> None:
        ann, ben = await player("ann", 100), await player("ben")
        async with (
            balances.watch("demo", "op", [ben.id]) as by_name,
            balances.watch("demo", "ben", []) as by_owner,
            balances.watch("other", "ben", []) as elsewhere,
            balances.watch("demo", "eve", []) as stranger,
        ):
            await ledger.post(transfer("t1", ann, ben, 30), soon())
            for watcher in (by_name, by_owner):
                assert (await next_of(watcher)).buckets["real"] == 30
            assert not elsewhere.changed
            assert not stranger.changed

    async def test_a_slow_watcher_is_told_the_newest_state_once(
        self, balances: Balances, ledger: Ledger, player: Any
    ) -> None:
        ann, ben = await player("ann", 100), await player("ben")
        async with balances.watch("demo", "ben", []) as watcher:
            for n in range(20):
                await ledger.post(transfer(f"t{n}", ann, ben, 1), soon())

            def newest() -> bool:
                waiting = watcher.changed.get(ben.key)
                return waiting is not None and waiting.buckets["real"] == 20

            await eventually(newest)
            assert len(watcher.changed) == 1

    async def test_says_so_when_something_may_have_been_missed(self, balances: Balances, own_redis: Server) -> None:
        async with balances.watch("demo", "ben", []) as watcher:
            await asyncio.to_thread(own_redis.restart)
            assert await next_of(watcher) is None
