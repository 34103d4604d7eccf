"""The journal's documents, and what is known about their having been verified.

journal             {_id: lane:sequence, …}   a block: what one group committed; insert-only
journal_heads       {_id: lane:number, …}     a signed head, with the hashes of the blocks it covers; insert-only
leases              {_id: lane-N, …}          where a lane's chain ends, written by every group: see `libs/core/lock.py`
verify_checkpoints  {_id: name, …}            up to where verifying has come
verify_status       {_id: "ledger", …}        whether money adds up: what readiness asks
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from libs.core.migrations import Index
from libs.core.mongo import Database, Document, Mongo, Session
from services.payment.domain.journal import Block, Head, instant, milliseconds

INDEXES = (
    Index("journal"),
    Index("journal_heads", (("lane", 1), ("last", 1)), unique=True),
    Index("verify_checkpoints"),
    Index("verify_status"),
)

STATUS = "ledger"
_LANE = "lane-"


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block as it is stored: its hash and root are claims that are still to be checked."""

    block: Block
    hash: bytes
    transfers: list[str]
    leaves: bytes


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A head as it is stored, with the hashes of the blocks that it covers."""

    head: Head
    hash: bytes
    hashes: bytes
    key_id: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class Tip:
    """Where a lane's chain ends: by its lease, which every group writes, by its last block, by its last head."""

    lane: int
    sequence: int
    hash: bytes
    last_block: int
    last_signed: int

    @property
    def last(self) -> int:
        return max(self.sequence, self.last_block, self.last_signed)


def block_key(lane: int, sequence: int) -> str:
    return f"{lane:04d}:{sequence:012d}"


def block_from(row: Mapping[str, Any]) -> StoredBlock:
    block = Block(
        row["lane"], row["sequence"], row["previous"], row["root"], row["count"], at_ms=milliseconds(row["at"])
    )
    return StoredBlock(block, row["hash"], row["transfers"], row["leaves"])


def head_row(signed: SignedHead) -> Document:
    head = signed.head
    return {
        "_id": f"{head.lane}:{head.number}",
        "lane": head.lane,
        "number": head.number,
        "first": head.first,
        "last": head.last,
        "root": head.root,
        "previous": head.previous,
        "hash": signed.hash,
        "at": instant(head.at_ms),
        "hashes": signed.hashes,
        "key_id": signed.key_id,
        "signature": signed.signature,
    }


def head_from(row: Mapping[str, Any]) -> SignedHead:
    head = Head(
        lane=row["lane"],
        number=row["number"],
        first=row["first"],
        last=row["last"],
        previous=row["previous"],
        root=row["root"],
        at_ms=milliseconds(row["at"]),
    )
    return SignedHead(head, row["hash"], row["hashes"], row["key_id"], row["signature"])


@asynccontextmanager
async def snapshot(mongo: Mongo) -> AsyncIterator[Session]:
    """Reads in here see the database at one instant. It lasts as long as MongoDB keeps history: 5 minutes."""
    async with mongo.client.start_session(snapshot=True) as session:
        yield session


async def tips(database: Database, session: Session) -> list[Tip]:
    """Every lane that anything is known of."""
    leases = database["leases"].find({"_id": {"$gte": _LANE, "$lt": "lane."}}, session=session)
    by_lease = {int(row["_id"].removeprefix(_LANE)): row async for row in leases}
    signed = await database["journal_heads"].aggregate(
        [{"$group": {"_id": "$lane", "last": {"$max": "$last"}}}], session=session
    )
    by_head = {row["_id"]: row["last"] async for row in signed}
    newest = await database["journal"].find_one({}, {"lane": 1}, sort=[("_id", -1)], session=session)
    lanes = {*by_lease, *by_head, *range(newest["lane"] + 1 if newest else 0)}
    return [
        Tip(
            lane=lane,
            sequence=by_lease.get(lane, {}).get("journal_sequence", 0),
            hash=by_lease.get(lane, {}).get("journal_hash", b""),
            last_block=await _last_block(database, session, lane),
            last_signed=by_head.get(lane, 0),
        )
        for lane in sorted(lanes)
    ]


async def _last_block(database: Database, session: Session, lane: int) -> int:
    keys = {"_id": {"$gte": block_key(lane, 0), "$lt": block_key(lane + 1, 0)}}
    row = await database["journal"].find_one(keys, {"sequence": 1}, sort=[("_id", -1)], session=session)
    return row["sequence"] if row else 0


async def blocks(database: Database, lane: int, after: int, until: int) -> AsyncIterator[StoredBlock]:
    """Of one lane, in their order: those that follow `after`, up to and with `until`."""
    keys = {"_id": {"$gt": block_key(lane, after), "$lte": block_key(lane, until)}}
    async for row in database["journal"].find(keys, sort=[("_id", 1)], batch_size=200):
        yield block_from(row)


async def block(database: Database, lane: int, sequence: int) -> StoredBlock | None:
    row = await database["journal"].find_one({"_id": block_key(lane, sequence)})
    return block_from(row) if row else None


async def transfers_in_blocks(database: Database, session: Session, after: Mapping[int, int]) -> int:
    """How many transfers the blocks tell of that come after these, of each lane; of other lanes, all."""
    beyond = max(after, default=-1) + 1
    later = [
        {"_id": {"$gt": block_key(lane, after.get(lane, 0)), "$lt": block_key(lane + 1, 0)}} for lane in range(beyond)
    ]
    counted = await database["journal"].aggregate(
        [
            {"$match": {"$or": [*later, {"_id": {"$gt": block_key(beyond, 0)}}]}},
            {"$group": {"_id": None, "count": {"$sum": "$count"}}},
        ],
        session=session,
    )
    return sum([row["count"] async for row in counted])


async def estimated_transfers(database: Database) -> int:
    """Costs nothing, and is wrong after a crash: good for a progress line."""
    return await database["transfers"].estimated_document_count()


async def count(database: Database, session: Session, collection: str) -> int:
    return await database[collection].count_documents({}, session=session, hint="_id_")


async def heads(database: Database, lane: int, after: int = 0) -> AsyncIterator[SignedHead]:
    """Of one lane, in their order: those that cover a block that follows `after`."""
    cursor = database["journal_heads"].find({"lane": lane, "last": {"$gt": after}}, sort=[("last", 1)], batch_size=50)
    async for row in cursor:
        yield head_from(row)


async def head_over(database: Database, lane: int, sequence: int) -> SignedHead | None:
    """The signed head that covers this block, if it is signed."""
    row = await database["journal_heads"].find_one(
        {"lane": lane, "last": {"$gte": sequence}, "first": {"$lte": sequence}}, sort=[("last", 1)]
    )
    return head_from(row) if row else None


async def head(database: Database, lane: int, number: int) -> SignedHead | None:
    row = await database["journal_heads"].find_one({"_id": f"{lane}:{number}"})
    return head_from(row) if row else None


async def last_head(database: Database, lane: int) -> SignedHead | None:
    row = await database["journal_heads"].find_one({"lane": lane}, sort=[("last", -1)])
    return head_from(row) if row else None


async def insert_head(database: Database, session: Session, signed: SignedHead) -> None:
    await database["journal_heads"].insert_one(head_row(signed), session=session)


async def checkpoint(database: Database, name: str) -> Document:
    return await database["verify_checkpoints"].find_one({"_id": name}) or {}


async def save_checkpoint(database: Database, name: str, **fields: Any) -> None:
    await database["verify_checkpoints"].replace_one({"_id": name}, {"_id": name, **fields}, upsert=True)


async def status(database: Database, session: Session | None = None) -> Document:
    return await database["verify_status"].find_one({"_id": STATUS}, session=session) or {}


async def set_status(database: Database, fields: Document, session: Session | None = None) -> None:
    await database["verify_status"].update_one({"_id": STATUS}, {"$set": fields}, upsert=True, session=session)


async def wallet_rows(
    database: Database, session: Session, *, after: str | None = None, limit: int = 0, keys: Iterable[str] | None = None
) -> list[Document]:
    """Wallets by key: the next `limit` after `after`, or those that are named. All stripes are wallets here."""
    wanted: Document = {"_id": {"$in": list(keys)}} if keys is not None else {"_id": {"$gt": after}} if after else {}
    cursor = database["wallets"].find(wanted, sort=[("_id", 1)], limit=limit, session=session, batch_size=10_000)
    return await cursor.to_list()


async def held(database: Database, session: Session, wallets: Sequence[str]) -> dict[str, int]:
    """What is left of each of these wallets' open holds."""
    rest = {"$subtract": ["$amount", {"$add": ["$captured", "$released"]}]}
    sums = await database["holds"].aggregate(
        [
            {"$match": {"wallet": {"$in": list(wallets)}, "status": "open"}},
            {"$group": {"_id": "$wallet", "held": {"$sum": rest}}},
        ],
        session=session,
    )
    return {row["_id"]: row["held"] async for row in sums}


async def unbalanced(database: Database, session: Session) -> Document | None:
    """The first tenant and currency whose wallets do not sum to zero: {_id: {tenant, currency}, sum}."""
    everything = {"$add": ["$buckets.real", "$buckets.bonus", "$buckets.locked"]}
    sums = await database["wallets"].aggregate(
        [
            {"$group": {"_id": {"tenant": "$tenant_id", "currency": "$currency"}, "sum": {"$sum": everything}}},
            {"$match": {"sum": {"$ne": 0}}},
            {"$sort": {"_id": 1}},
            {"$limit": 1},
        ],
        session=session,
    )
    return next(iter(await sums.to_list()), None)
