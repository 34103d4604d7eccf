"""The ledger as a whole: how it is read to leave a database, and how it comes into another.

What changes (`STATE`) is read in one snapshot, which MongoDB keeps for five minutes: enough for some ten million
documents. It says where each lane's journal ends: the cut. What is only ever inserted (`HISTORY`) is read after that,
block by block up to the cut, however long it takes.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import ReturnDocument

from libs.core.errors import InvalidInput, Unavailable
from libs.core.lock import COLLECTION as LEASES, process_name
from libs.core.mongo import Database, Document, Session
from services.payment.store import raw
from services.payment.store.journal import Tip, block_key

STATE = ("wallets", "accounts", "holds", "reversals", "quotes", "adjustment_requests", "journal_heads")
HISTORY = ("journal", "transfers", "transactions")
COLLECTIONS = (*STATE, LEASES, *HISTORY)
_MARKER = {"_id": "ledger"}
_LANES = {"_id": {"$gte": "lane-", "$lt": "lane."}}
_UNREAD: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
_DECODED: CodecOptions[Document] = CodecOptions(tz_aware=True)
_A_CHUNK, _BLOCKS_A_CHUNK, _TRANSFERS_A_CHUNK = 2_000, 100, 2_000


class Incomplete(Unavailable):
    """The journal names what is not there."""


async def state(database: Database, session: Session) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Chunks of documents, each with its collection's name. `session` is a snapshot."""
    for name in (*STATE, LEASES):
        wanted = _LANES if name == LEASES else {}
        unread: Any = database.get_collection(name, codec_options=_UNREAD)
        chunk: list[bytes] = []
        async for document in unread.find(wanted, sort=[("_id", 1)], batch_size=_A_CHUNK, session=session):
            chunk.append(document.raw)
            if len(chunk) == _A_CHUNK:
                yield name, chunk
                chunk = []
        yield name, chunk


async def history(database: Database, tips: Iterable[Tip]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Each lane's blocks up to where it ended, with their transfers and their transactions. `Incomplete` if one is not

    there.
    """
    for tip in tips:
        sequence, keys = 0, list[bytes]()
        while sequence < tip.sequence:
            blocks = await _blocks(database, tip.lane, sequence, tip.sequence)
            yield "journal", blocks
            for row in (bson.decode(block, _DECODED) for block in blocks):
                sequence += 1
                if row["sequence"] != sequence:
                    raise Incomplete(f"block {sequence} of lane {tip.lane} is not there")
                keys += [key.encode() for key in row["transfers"]]
                if len(keys) >= _TRANSFERS_A_CHUNK:
                    for chunk in await _moved(database, keys):
                        yield chunk
                    keys = []
        for chunk in await _moved(database, keys):
            yield chunk


async def _blocks(database: Database, lane: int, after: int, until: int) -> list[bytes]:
    keys = {"_id": {"$gt": block_key(lane, after), "$lte": block_key(lane, until)}}
    unread: Any = database.get_collection("journal", codec_options=_UNREAD)
    found = unread.find(keys, sort=[("_id", 1)], limit=_BLOCKS_A_CHUNK, batch_size=_BLOCKS_A_CHUNK)
    blocks = [document.raw async for document in found]
    if not blocks:
        raise Incomplete(f"block {after + 1} of lane {lane} is not there")
    return blocks


async def _moved(database: Database, keys: Sequence[bytes]) -> list[tuple[str, list[bytes]]]:
    """Transfers and their lines, in the journal's order."""
    transfers = await raw.by_key(database, "transfers", keys)
    there = [_there(transfers, key, "transfer") for key in keys]
    lines = [raw.line_key(end[0], raw.number(end[4])) for row in there for end in raw.movement_of(row)[3:]]
    found = await raw.by_key(database, "transactions", lines)
    return [("transfers", there), ("transactions", [_there(found, key, "transaction") for key in lines])]


def _there(found: Mapping[bytes, bytes], key: bytes, what: str) -> bytes:
    if key not in found:
        raise Incomplete(f"{what} {key.decode()} is not there, and the journal says that it was")
    return found[key]


async def take_in(database: Database, collection: str, documents: Sequence[bytes]) -> None:
    """As they are, byte by byte; a lane's lease as one that nobody holds. `InvalidInput` if one is there already."""
    rows: list[Any] = [RawBSONDocument(document) for document in documents]
    if collection == LEASES:
        rows = [_released(bson.decode(document, _DECODED)) for document in documents]
    # Acknowledged before it is on a majority's disks: the end of the import waits for that.
    command = {"insert": collection, "documents": rows, "ordered": False, "writeConcern": {"w": 1}}
    errors = (await database.command(command)).get("writeErrors")
    if errors:
        raise InvalidInput(f"some {collection} cannot be taken in: {errors[0]['errmsg'][:200]}")


def _released(lease: Document) -> Document:
    released: Document = {"_id": lease["_id"], "token": lease["token"], "expires_at": None}
    released |= {name: lease[name] for name in ("journal_sequence", "journal_hash") if name in lease}
    passed = [lease[name] for name in ("at", "closed_at") if lease.get(name)]
    if passed:
        released["closed_at"] = max(passed)
    return released


async def first_in_the_way(database: Database) -> str:
    """The name of a collection that is not empty; "" if there is no ledger here."""
    for name in COLLECTIONS:
        if await database[name].find_one(_LANES if name == LEASES else {}, {"_id": 1}):
            return name
    return ""


async def begin_import(database: Database) -> bool:
    """From here on no process takes a lane. True if an import was broken off here that had begun to write."""
    begun = {"at": datetime.now(UTC), "process": process_name()}
    row = await database["imports"].find_one_and_update(
        _MARKER, {"$set": begun}, upsert=True, return_document=ReturnDocument.AFTER
    )
    return bool(row and row.get("writing"))


async def begin_writing(database: Database) -> None:
    """Only where there is no ledger: whatever is there from now on may be wiped."""
    await database["imports"].update_one(_MARKER, {"$set": {"writing": True}})


async def settle_import(database: Database) -> None:
    """Returns once all that was taken in is on the disks of a majority, where verifying looks."""
    await database["imports"].update_one(_MARKER, {"$set": {"taken_in": True}})


async def end_import(database: Database) -> None:
    await database["imports"].delete_one(_MARKER)


async def wipe(database: Database) -> None:
    """Only ever after `begin_writing`: what is there then came with an import that failed."""
    for name in (*COLLECTIONS, "verify_checkpoints", "verify_status"):
        await database[name].delete_many(_LANES if name == LEASES else {})


async def lanes_in_use(database: Database) -> bool:
    in_use = {**_LANES, "$expr": {"$gt": ["$expires_at", "$$NOW"]}}
    return await database[LEASES].find_one(in_use) is not None


async def refuse_half_imported(database: Database) -> None:
    """`Unavailable` while an import is under way, or after one that was broken off."""
    if await database["imports"].find_one(_MARKER):
        raise Unavailable("a ledger is being imported here, or was and is not whole: let the import end, or repeat it")
