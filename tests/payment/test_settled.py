"""Lists over many wallets: complete up to where they end, whoever commits beside."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from time import monotonic

import pytest

from libs.core.access import Scope
from libs.core.clock import SystemClock
from libs.core.events import Outbox
from libs.core.mongo import Mongo
from libs.core.pagination import PageArgs, Paginator
from libs.core.testing import FrozenClock, eventually
from services.payment import store
from services.payment.domain import Transfer, Wallet
from services.payment.ledger import PROMISE_EVERY_S, Ledger
from tests.payment.conftest import SIGHT, open_ledger, soon, transfer

Player = Callable[..., Awaitable[Wallet]]
SCOPE: Scope = SIGHT


async def listed(mongo: Mongo) -> list[str]:
    page = await store.transfer_history(mongo.db, Paginator("secret"), SCOPE, None, (None, None), PageArgs(first=100))
    return [transfer.id for transfer in page.items]


async def post(ledger: Ledger, id: str, payer: Wallet, payee: Wallet) -> Transfer:  # noqa: A002
    outcome = await ledger.post(transfer(id, payer, payee, 1), soon())
    assert isinstance(outcome, Transfer)
    return outcome


@pytest.fixture
async def pair(player: Player) -> tuple[Wallet, Wallet]:
    return await player("ann", 1_000), await player("ben", 1_000)


@pytest.fixture
async def other(payment_db: Mongo, ledger: Ledger) -> AsyncIterator[Ledger]:
    async with open_ledger(payment_db) as other:
        yield other


class TestOneProcess:
    async def test_lists_what_it_has_just_committed(
        self, payment_db: Mongo, ledger: Ledger, pair: tuple[Wallet, Wallet]
    ) -> None:
        for n in range(30):
            await post(ledger, f"t{n}", *pair)
            assert (await listed(payment_db))[0] == f"t{n}"

    async def test_lists_all_after_it_has_stopped(self, payment_db: Mongo, pair: tuple[Wallet, Wallet]) -> None:
        async with open_ledger(payment_db) as ledger:
            await post(ledger, "t1", *pair)
        assert await listed(payment_db) == ["t1"]

    async def test_an_instant_of_just_now_settles_at_once(self, payment_db: Mongo, ledger: Ledger) -> None:
        began = monotonic()
        assert await ledger.settled(SystemClock().now(), soon())
        assert monotonic() - began < PROMISE_EVERY_S / 2


class TestSeveralProcesses:
    async def test_lag_by_an_idle_ones_promise_at_most(
        self, payment_db: Mongo, ledger: Ledger, other: Ledger, pair: tuple[Wallet, Wallet]
    ) -> None:
        began = monotonic()
        await post(ledger, "t1", *pair)
        await eventually(lambda: listed(payment_db))
        assert monotonic() - began < PROMISE_EVERY_S + 0.5

    async def test_one_that_answers_retries_alone_holds_nobody_back(
        self, payment_db: Mongo, ledger: Ledger, other: Ledger, pair: tuple[Wallet, Wallet]
    ) -> None:
        await post(other, "t1", *pair)
        last = await post(ledger, "t2", *pair)

        async def repeat() -> bool:
            await post(other, "t1", *pair)
            return last.id in await listed(payment_db)

        await eventually(repeat, within_s=5)

    async def test_what_follows_a_group_that_is_under_way_is_held_back(
        self, payment_db: Mongo, ledger: Ledger, other: Ledger, player: Player, pair: tuple[Wallet, Wallet]
    ) -> None:
        held, ben = await player("held", 10), pair[1]
        async with payment_db.client.start_session() as session, await session.start_transaction():
            await payment_db.db["wallets"].update_one({"_id": held.key}, {"$inc": {"credit_limit": 1}}, session=session)
            under_way = asyncio.create_task(post(other, "slow", held, ben))
            await asyncio.sleep(2 * PROMISE_EVERY_S)  # the time in which an idle process would have promised again
            await post(ledger, "quick", *pair)
            assert "quick" not in await listed(payment_db)
            await session.abort_transaction()
        slow = await under_way
        await eventually(lambda: _all_listed(payment_db, {"quick", slow.id}))

    async def test_no_order_ever_changes_under_load(
        self, payment_db: Mongo, ledger: Ledger, other: Ledger, player: Player
    ) -> None:
        wallets = [(await player(f"a{n}", 1_000), await player(f"b{n}")) for n in range(10)]
        posts = [
            asyncio.create_task(post(each, f"{name}{n}-{m}", *pair))
            for m in range(10)
            for n, pair in enumerate(wallets)
            for name, each in (("x", ledger), ("y", other))
        ]
        seen: list[list[str]] = []
        while not all(task.done() for task in posts):
            seen.append(await listed(payment_db))
        await asyncio.gather(*posts)
        await eventually(lambda: _count_is(payment_db, len(posts)))
        rows = payment_db.db["transfers"].find({}, {"id": 1}, sort=[("at", -1), ("_id", -1)])
        final = [row["id"] async for row in rows]
        for page in seen:
            start = final.index(page[0]) if page else 0
            assert page == final[start : start + len(page)]


async def _all_listed(mongo: Mongo, ids: set[str]) -> bool:
    return ids <= set(await listed(mongo))


async def _count_is(mongo: Mongo, count: int) -> bool:
    newest = await mongo.db["transfers"].find_one({}, sort=[("at", -1)])
    settled = await store.settled_until(mongo.db)
    return await mongo.db["transfers"].count_documents({}) == count and newest is not None and newest["at"] <= settled


class TestAProcessThatDied:
    async def test_is_waited_for_until_its_lease_expires_and_never_commits_again(
        self, payment_db: Mongo, ledger: Ledger, other: Ledger, pair: tuple[Wallet, Wallet]
    ) -> None:
        past = SystemClock().now() - timedelta(hours=1)
        leases = payment_db.db["leases"]
        await post(ledger, "t1", *pair)
        await eventually(lambda: listed(payment_db))
        asleep = await leases.find_one_and_update({"_id": "lane-1"}, {"$set": {"expires_at": past, "at": past}})
        assert asleep
        assert await listed(payment_db) == ["t1"]
        retired = await leases.find_one({"_id": "lane-1"})
        assert retired
        assert (retired["retired"], retired["token"]) == (True, asleep["token"] + 1)
        await post(other, "t2", *pair)  # in a lane that it takes anew
        await eventually(lambda: _all_listed(payment_db, {"t2"}))


class TestClocksThatDisagree:
    @pytest.mark.parametrize("hours", [-1, 1])
    async def test_who_joins_does_not_go_behind_what_was_settled(
        self, payment_db: Mongo, ledger: Ledger, pair: tuple[Wallet, Wallet], hours: int
    ) -> None:
        await post(ledger, "t1", *pair)
        settled = await store.settled_until(payment_db.db)
        clock = FrozenClock(SystemClock().now() + timedelta(hours=hours))
        async with Ledger(payment_db, Outbox(payment_db.db), clock) as skewed:
            assert (await post(skewed, "t2", *pair)).at > settled

    async def test_one_that_was_far_ahead_does_not_take_the_next_with_it(
        self, payment_db: Mongo, player: Player, pair: tuple[Wallet, Wallet]
    ) -> None:
        clock = FrozenClock(SystemClock().now() + timedelta(days=1))
        async with Ledger(payment_db, Outbox(payment_db.db), clock) as ahead:
            await post(ahead, "t1", *pair)
        async with open_ledger(payment_db) as ledger:
            late = await post(ledger, "t2", await player("cleo", 10), await player("dan"))
        assert late.at < SystemClock().now() + timedelta(seconds=10)

    async def test_a_slow_one_holds_nobody_back(
        self, payment_db: Mongo, ledger: Ledger, player: Player, pair: tuple[Wallet, Wallet]
    ) -> None:
        clock = FrozenClock(SystemClock().now() - timedelta(hours=1))
        cleo, dan = await player("cleo", 1_000), await player("dan")
        async with Ledger(payment_db, Outbox(payment_db.db), clock) as slow:
            await asyncio.sleep(PROMISE_EVERY_S)  # the time in which the others get ahead of it
            last = await post(ledger, "t1", *pair)
            await eventually(lambda: _all_listed(payment_db, {last.id}), within_s=3)
            last, count = await post(ledger, "t2", *pair), 0

            async def listed_while_it_is_at_work() -> bool:
                nonlocal count
                count += 1
                await post(slow, f"s{count}", cleo, dan)
                return last.id in await listed(payment_db)

            await eventually(listed_while_it_is_at_work, within_s=3)
