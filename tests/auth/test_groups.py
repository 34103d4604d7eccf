"""What waits in a tenant commits together, and one that fails fails alone."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from pymongo.errors import DuplicateKeyError

from libs.core.errors import Refusal, Unavailable
from libs.core.mongo import Mongo, Session
from libs.core.testing import eventually
from services.auth.groups import GROUP_MAX, WAITING_MAX, Groups

whose: ContextVar[str] = ContextVar("whose", default="nobody")


@pytest.fixture
async def groups(mongo: Mongo) -> Groups:
    await mongo.db.create_collection("rows")
    return Groups(mongo)


async def insert(mongo: Mongo, number: int, session: Session) -> int:
    await mongo.db.rows.insert_one({"_id": number, "whose": whose.get()}, session=session)
    return number


async def rows(mongo: Mongo) -> list[int]:
    return [row["_id"] async for row in mongo.db.rows.find().sort("_id", 1)]


async def test_everybody_gets_their_own_answer(mongo: Mongo, groups: Groups) -> None:
    numbers = list(range(3 * GROUP_MAX))
    done = await asyncio.gather(*(groups.transaction("demo", partial(insert, mongo, number)) for number in numbers))
    assert done == numbers == await rows(mongo)


async def test_one_that_fails_fails_alone(mongo: Mongo, groups: Groups) -> None:
    async def refuse(session: Session) -> None:
        await mongo.db.rows.insert_one({"_id": 99}, session=session)
        raise Refusal("NO", "no", rule="no")

    works: list[Callable[[Session], Awaitable[Any]]] = [
        partial(insert, mongo, 1),
        refuse,
        partial(insert, mongo, 2),
        partial(insert, mongo, 1),
    ]
    done = await asyncio.gather(*(groups.transaction("demo", work) for work in works), return_exceptions=True)
    assert [type(outcome) for outcome in done] == [int, Refusal, int, DuplicateKeyError]
    assert await rows(mongo) == [1, 2]


async def test_what_nobody_waits_for_any_more_is_not_done(mongo: Mongo, groups: Groups) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(session: Session) -> int:
        begun.set()
        await go_on.wait()
        return await insert(mongo, 1, session)

    asking = [asyncio.create_task(groups.transaction("demo", slow))]
    asking += [asyncio.create_task(groups.transaction("demo", partial(insert, mongo, number))) for number in (2, 3)]
    await begun.wait()
    asking[0].cancel()
    asking[1].cancel()
    go_on.set()
    assert await asking[2] == 3
    assert await rows(mongo) == [3]


async def test_whoever_goes_away_does_not_break_the_group_up(mongo: Mongo, groups: Groups) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    transactions: dict[int, Session] = {}

    async def slow(_: Session) -> None:
        begun.set()
        await go_on.wait()

    async def seen(number: int, session: Session) -> None:
        transactions[number] = session

    asking = [asyncio.create_task(groups.transaction("demo", slow))]
    asking += [asyncio.create_task(groups.transaction("demo", partial(seen, number))) for number in range(3)]
    await begun.wait()
    asking[0].cancel()
    go_on.set()
    await asyncio.gather(*asking[1:])
    assert transactions[0] is transactions[1] is transactions[2]


async def test_when_too_many_wait_the_next_is_refused_at_once(mongo: Mongo, groups: Groups) -> None:
    go_on = asyncio.Event()

    async def slow(_: Session) -> None:
        await go_on.wait()

    asking = [asyncio.create_task(groups.transaction("demo", slow)) for _ in range(WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await groups.transaction("demo", slow)
    assert await groups.transaction("other", partial(insert, mongo, 1)) == 1
    go_on.set()
    await asyncio.gather(*asking)
    assert await groups.transaction("demo", partial(insert, mongo, 2)) == 2


async def test_one_that_is_cancelled_from_within_leaves_nobody_waiting(mongo: Mongo, groups: Groups) -> None:
    async def cancelled(_: Session) -> None:
        raise asyncio.CancelledError

    works: list[Callable[[Session], Awaitable[Any]]] = [cancelled]
    works += [partial(insert, mongo, number) for number in range(1, 2 * GROUP_MAX)]
    asking = [asyncio.create_task(groups.transaction("demo", work)) for work in works]
    done, waiting = await asyncio.wait(asking, timeout=10)
    assert (len(done), len(waiting)) == (2 * GROUP_MAX, 0)


async def test_each_in_the_context_of_its_caller(mongo: Mongo, groups: Groups) -> None:
    async def of(name: str, number: int) -> None:
        whose.set(name)
        await groups.transaction("demo", partial(insert, mongo, number))

    await asyncio.gather(*(of(f"user{number}", number) for number in range(5)))
    assert [row["whose"] async for row in mongo.db.rows.find().sort("_id", 1)] == [f"user{n}" for n in range(5)]


async def test_tenants_do_not_wait_for_each_other(mongo: Mongo, groups: Groups) -> None:
    async def stuck(_: Session) -> None:
        await asyncio.Event().wait()

    asking = asyncio.create_task(groups.transaction("other", stuck))
    assert await groups.transaction("demo", partial(insert, mongo, 1)) == 1
    asking.cancel()


async def test_two_processes_on_one_row(mongo: Mongo, groups: Groups) -> None:
    await mongo.db.rows.insert_one({"_id": 0, "count": 0})

    async def count(session: Session) -> None:
        row = await mongo.db.rows.find_one({"_id": 0}, session=session)
        assert row
        await mongo.db.rows.update_one({"_id": 0}, {"$set": {"count": row["count"] + 1}}, session=session)

    other = Groups(mongo)
    await asyncio.gather(*(each.transaction("demo", count) for each in (groups, other) * 20))
    row = await mongo.db.rows.find_one({"_id": 0})
    assert row
    assert row["count"] == 40


async def test_nothing_is_kept_of_a_tenant_that_waits_for_nothing(mongo: Mongo, groups: Groups) -> None:
    await groups.transaction("demo", partial(insert, mongo, 1))
    await eventually(lambda: not groups._waiting and not groups._committing)
