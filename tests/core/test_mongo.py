"""What MongoDB gives back is what it was given."""

import asyncio

import pytest
from pymongo.lock import _async_cond_wait, _async_create_condition, _async_create_lock

from libs.core.mongo import Mongo
from libs.core.testing import eventually


@pytest.mark.parametrize("number", [0, 2**31 - 1, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63)])
async def test_an_integer_comes_back_as_an_int(mongo: Mongo, number: int) -> None:
    await mongo.db["numbers"].insert_one({"_id": 1, "n": number})
    [row] = await mongo.db["numbers"].find({}).to_list()
    assert (row["n"], type(row["n"])) == (number, int)


async def test_the_driver_never_gives_back_a_lock_that_another_holds() -> None:
    condition = _async_create_condition(_async_create_lock())

    async def wait() -> None:
        async with condition:
            await _async_cond_wait(condition, 60)

    waiting = asyncio.create_task(wait())
    await eventually(lambda: condition._waiters)
    async with condition:  # which it has to have back before it ends
        for _ in range(2):
            waiting.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
        assert not waiting.done()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not condition.locked()
