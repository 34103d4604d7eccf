"""What MongoDB gives back is what it was given."""

import pytest

from libs.core.mongo import Mongo


@pytest.mark.parametrize("number", [0, 2**31 - 1, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63)])
async def test_an_integer_comes_back_as_an_int(mongo: Mongo, number: int) -> None:
    await mongo.db["numbers"].insert_one({"_id": 1, "n": number})
    [row] = await mongo.db["numbers"].find({}).to_list()
    assert (row["n"], type(row["n"])) == (number, int)
