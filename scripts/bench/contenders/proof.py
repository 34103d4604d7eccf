"""That a run of a benchmark moved money, and nothing else."""

from collections.abc import Mapping

from libs.core.mongo import Database, Document, Mongo
from services.payment.verify import verify_all

_SIGNED: Document = {"$cond": [{"$eq": ["$direction", "debit"]}, {"$multiply": ["$amount", -1]}, "$amount"]}
_BY_WALLET: list[Document] = [
    {
        "$group": {
            "_id": "$wallet",
            "moved": {"$sum": _SIGNED},
            "count": {"$sum": 1},
            "last": {"$max": "$position"},
        }
    }
]


async def proven(mongo: Mongo, keys: Mapping[str, bytes] | None = None) -> int:
    """How many transfers our ledger has; `AssertionError` if it does not verify, journal and all, or not add up.

    `keys` are those that the heads of its journal are signed with.
    """
    transfers = await adds_up(mongo.db)
    verified = await verify_all(mongo, keys or {})
    assert verified.ok, verified.divergence
    assert verified.spent.transfers == transfers, f"{verified.spent.transfers} of {transfers} transfers are verified"
    return transfers


async def adds_up(database: Database, *, opening: int = 0) -> int:
    """How many transfers there are; `AssertionError` if they and the wallets do not tell the same.

    Each transfer has two transactions, which sum to zero; each wallet has what it had at its `opening` and what its
    transactions moved, and they are numbered without gaps.
    """
    transfers = await database["transfers"].count_documents({})
    lines = await database["transactions"].aggregate(_BY_WALLET, allowDiskUse=True)
    told = {line["_id"]: line async for line in lines}
    assert sum(line["count"] for line in told.values()) == 2 * transfers, "a transfer without its two transactions"
    assert sum(line["moved"] for line in told.values()) == 0, "money came or went"
    async for wallet in database["wallets"].find():
        line = told.pop(wallet["_id"], {"moved": 0, "count": 0, "last": 0})
        assert sum(wallet["buckets"].values()) == opening + line["moved"], f"{wallet['_id']} holds what nobody paid"
        assert wallet["position"] == line["count"] == line["last"], f"{wallet['_id']} has a gap"
    assert not told, f"transactions of wallets that are not there: {list(told)[:3]}"
    return transfers
