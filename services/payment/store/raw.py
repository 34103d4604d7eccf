"""Transfers and transactions as the bytes that the journal is about, and the few fields that verifying needs of them.

Decoding a document costs 2.7 µs; hashing it, 0.4. So the fields are cut out where the ledger's own layout has them
(0.7 µs). A document of another layout is decoded.
"""

import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from struct import Struct
from typing import Any

import bson
from bson.codec_options import CodecOptions
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

from libs.core.mongo import Database, Document

# Keys in one query: enough that its round trip does not matter, few enough for 16 MB.
KEYS_A_QUERY = 5_000
_BATCH = 10_000

# A document's size, and that of its `_id` with the zero that ends it: MongoDB keeps `_id` first.
_START = Struct("<i5xi")
_ID_AT = 13
_INT64 = Struct("<q")
_WIDER = bytes(4)  # from 32 bits to 64: none of these numbers is negative
_INT32 = Struct("<i")
_TEXT, _ARRAY, _BOOLEAN, _LONG = 0x02, 0x04, 0x08, 0x12  # BSON's types
_DECODED: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)
_UNREAD: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)

# wallet, bucket, direction, currency, transfer_id, sequence, position, amount, balance_after, lot; numbers as 8 bytes
Line = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes]
# index, wallet, bucket, direction, numbers, lot
Entry = tuple[bytes, bytes, bytes, bytes, bytes, bytes]
# wallet, bucket, lot, sequence, position
End = tuple[bytes, bytes, bytes, bytes, bytes]
# id, amount, currency, debit, credit
Movement = tuple[bytes, bytes, bytes, End, End]

# What a transfer says, and the keys of the two lines that it names.
Named = tuple[Movement, bytes, bytes]


def _text(name: str) -> bytes:
    return rb"\x02%b\x00....([^\x00]*)\x00" % name.encode()


def _skipped(name: str) -> bytes:
    return rb"\x02%b\x00....[^\x00]*\x00" % name.encode()


def _int64(name: str) -> bytes:
    return rb"\x12%b\x00(.{8})" % name.encode()


def _integer(name: str) -> bytes:
    """Of 32 bits or of 64: which, shows by what follows."""
    return rb"[\x10\x12]%b\x00(.{4}|.{8})" % name.encode()


_LOT = rb"(?:%b)?" % _text("lot")
_SALT = rb"\x05salt\x00\x08\x00\x00\x00\x00.{8}"
_SALT_SIZE = 20  # with the zero that ends the document


def _end(direction: str) -> bytes:
    return b"".join(
        (
            rb"\x03%b\x00...." % direction.encode(),
            _text("wallet"),
            _skipped("wallet_id"),
            _skipped("owner_id"),
            rb"\x08is_system\x00.",
            _text("bucket"),
            _integer("sequence"),
            _integer("position"),
            rb"(?:%b)?" % _integer("balance_after").replace(b"(", b"(?:"),
            _LOT,
            rb"\x00",
        )
    )


# From the first byte to the last: what a client wrote into the reference cannot pass for another field.
_LINE = re.compile(
    b"".join(
        (
            rb"....",
            _skipped("_id"),
            _skipped("tenant_id"),
            _text("wallet"),
            _skipped("wallet_id"),
            _skipped("owner_id"),
            _text("bucket"),
            _text("direction"),
            _text("currency"),
            _text("transfer_id"),
            _skipped("kind"),
            _skipped("reference"),
            rb"\x09at\x00.{8}",
            _int64("sequence"),
            _int64("position"),
            _int64("amount"),
            _int64("balance_after"),
            _LOT,
            rb"(?:%b)?" % _skipped("system_wallet"),
            _SALT,
            rb"\x00",
        )
    ),
    re.DOTALL,
)
# Of a line, what rebuilding a wallet needs, as an element of a batch: nothing in it is a client's to choose freely.
_ENTRY = re.compile(
    b"".join(
        (
            rb"\x03([0-9]+)\x00....",
            _text("wallet"),
            _text("bucket"),
            rb"\x02direction\x00....(credit|debit)\x00",
            rb"\x12sequence\x00(.{8}\x12position\x00.{8}\x12amount\x00.{8}\x12balance_after\x00.{8})",
            _LOT,
            rb"\x00",
        )
    ),
    re.DOTALL,
)
_ENTRY_NUMBERS = Struct("<q10xq8xq15xq")
_ENTRY_FIELDS = ("wallet", "bucket", "direction", "sequence", "position", "amount", "balance_after", "lot")
# All that is needed comes before what a client wrote.
_MOVEMENT = re.compile(
    b"".join(
        (
            rb"....",
            _skipped("_id"),
            _text("id"),
            _skipped("tenant_id"),
            _skipped("kind"),
            _integer("amount"),
            _text("currency"),
            _end("debit"),
            _end("credit"),
        )
    ),
    re.DOTALL,
)
# And this stands at the end, before the salt.
_PLACE = Struct("<9sI6si10si7si1s")


def documents_in(batch: bytes) -> list[tuple[bytes, bytes]]:
    """Each document of a batch, which is a BSON array, after its `_id`, which is a text."""
    documents: list[tuple[bytes, bytes]] = []
    at, end, start, found = 4, len(batch) - 1, _START.unpack_from, documents.append
    index_size, longer_at = 3, 10  # of an element's type and index, "0" at first
    while at < end:
        if len(documents) == longer_at:
            index_size, longer_at = index_size + 1, longer_at * 10
        at += index_size
        size, id_size = start(batch, at)
        found((batch[at + _ID_AT : at + _ID_AT - 1 + id_size], batch[at : at + size]))
        at += size
    return documents


def line_of(document: bytes) -> Line:
    found = _LINE.fullmatch(document)
    return found.groups(b"") if found else _decoded_line(decoded(document))  # type: ignore[return-value]


def movement_of(document: bytes) -> Movement:
    found = _MOVEMENT.match(document)
    if not found:
        return _decoded_movement(decoded(document))
    id_, amount, currency, w, b, sequence, position, lot, w_2, b_2, sequence_2, position_2, lot_2 = found.groups(b"")
    return (
        id_,
        amount if len(amount) == 8 else amount + _WIDER,
        currency,
        (
            w,
            b,
            lot,
            sequence if len(sequence) == 8 else sequence + _WIDER,
            position if len(position) == 8 else position + _WIDER,
        ),
        (
            w_2,
            b_2,
            lot_2,
            sequence_2 if len(sequence_2) == 8 else sequence_2 + _WIDER,
            position_2 if len(position_2) == 8 else position_2 + _WIDER,
        ),
    )


def named_by(transfer: bytes) -> Named:
    movement = movement_of(transfer)
    debit, credit = movement[3], movement[4]
    (at,), (at_2,) = _INT64.unpack(debit[4]), _INT64.unpack(credit[4])
    return movement, b"%b:%012d" % (debit[0], at), b"%b:%012d" % (credit[0], at_2)


def is_placed(transfer: bytes, lane: int, sequence: int, index: int) -> bool:
    """Whether the transfer itself says that it stands there in the journal."""
    if sequence < 2**31:
        said = _PLACE.pack(
            b"\x03journal\x00",
            40,
            b"\x10lane\x00",
            lane,
            b"\x10sequence\x00",
            sequence,
            b"\x10index\x00",
            index,
            b"\x00",
        )
        if transfer[-_PLACE.size - _SALT_SIZE : -_SALT_SIZE] == said:
            return True
    return bool(decoded(transfer).get("journal") == {"lane": lane, "sequence": sequence, "index": index})


def is_cut_out(transfer: bytes, *lines: bytes) -> bool:
    """Whether the fields can be cut out of these, or they have to be decoded, at several times the price."""
    return bool(_MOVEMENT.match(transfer)) and all(map(_LINE.fullmatch, lines))


def decoded(document: bytes) -> Document:
    return bson.decode(document, _DECODED)


def number(field: bytes) -> int:
    return int(_INT64.unpack(field)[0])


def line_key(wallet: bytes, position: int) -> bytes:
    return b"%b:%012d" % (wallet, position)


def _decoded_line(row: Mapping[str, Any]) -> Line:
    texts = [_bytes(row.get(name, "")) for name in ("wallet", "bucket", "lot", "direction", "currency", "transfer_id")]
    numbers = [_packed(row.get(name, 0)) for name in ("sequence", "position", "amount", "balance_after")]
    wallet, bucket, lot, direction, currency, transfer_id = texts
    sequence, position, amount, balance_after = numbers
    return wallet, bucket, direction, currency, transfer_id, sequence, position, amount, balance_after, lot


def _decoded_movement(row: Mapping[str, Any]) -> Movement:
    debit, credit = (_decoded_end(row.get(direction) or {}) for direction in ("debit", "credit"))
    return _bytes(row.get("id", "")), _packed(row.get("amount", 0)), _bytes(row.get("currency", "")), debit, credit


def _decoded_end(row: Mapping[str, Any]) -> End:
    wallet, bucket, lot = (_bytes(row.get(name, "")) for name in ("wallet", "bucket", "lot"))
    return wallet, bucket, lot, _packed(row.get("sequence", 0)), _packed(row.get("position", 0))


def _bytes(value: object) -> bytes:
    return str(value or "").encode()


def _packed(value: object) -> bytes:
    """What is no number, after somebody's hand was in it, is none that anything equals."""
    return _INT64.pack(value) if isinstance(value, int) and -(2**63) <= value < 2**63 else repr(value).encode()[:8]


async def by_key(database: Database, collection: str, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    """Those of the documents `keys` that exist."""
    found: dict[bytes, bytes] = {}
    for start in range(0, len(keys), KEYS_A_QUERY):
        wanted = [key.decode() for key in keys[start : start + KEYS_A_QUERY]]
        async for batch in _batches(database, collection, {"_id": {"$in": wanted}}):
            found.update(documents_in(batch))
    return found


async def entries_of_wallets(database: Database, after: str | None, until: str | None) -> AsyncIterator[bytes]:
    """Batches of what `entries_in` finds in them: the lines of all wallets whose keys follow `after`, up to and with

    `until`, by wallet, by bucket, the newest first.
    """
    keys: Document = ({"$gt": after} if after is not None else {"$gte": ""}) | ({"$lte": until} if until else {})
    order = {"wallet": 1, "bucket": 1, "sequence": -1}
    fields = {"_id": 0, **dict.fromkeys(_ENTRY_FIELDS, 1)}
    options = {"projection": fields, "sort": order, "hint": order}
    async for batch in _batches(database, "transactions", {"wallet": keys}, **options):
        yield batch


def entries_in(batch: bytes) -> list[Entry]:
    """Cut out all at once, which is the quickest; or decoded, if one of them is of another layout."""
    entries: list[Entry] = _ENTRY.findall(batch)
    if entries and _is_last(entries[-1], len(entries), batch):
        return entries
    return [_decoded_entry(decoded(document)) for _, document in documents_in(batch)]


def numbers_of(entry: Entry) -> tuple[int, int, int, int]:
    """Sequence, position, amount and balance."""
    return _ENTRY_NUMBERS.unpack(entry[4])


def _is_last(entry: Entry, count: int, batch: bytes) -> bool:
    """Whether this is the `count`th document of the batch, and the batch's end."""
    rest = b"\x02lot\x00%b%b\x00" % (_INT32.pack(len(entry[5]) + 1), entry[5]) if entry[5] else b""
    return int(entry[0]) == count - 1 and batch.endswith(entry[4] + rest + b"\x00\x00")


def _decoded_entry(row: Mapping[str, Any]) -> Entry:
    line = _decoded_line(row)
    return b"", line[0], line[1], line[2], _entry_numbers(line), line[9]


def _entry_numbers(line: Line) -> bytes:
    return b"%b\x12position\x00%b\x12amount\x00%b\x12balance_after\x00%b" % (line[5], line[6], line[7], line[8])


async def lines_at(database: Database, places: Iterable[tuple[str, str, int]]) -> list[bytes]:
    """The lines that have these sequences: (wallet, bucket, sequence). Slow: for what no key is known of."""
    wanted, found = [dict(zip(("wallet", "bucket", "sequence"), place, strict=True)) for place in places], []
    for start in range(0, len(wanted), 100):
        async for batch in _batches(database, "transactions", {"$or": wanted[start : start + 100]}):
            found += [document for _, document in documents_in(batch)]
    return found


async def all_of(database: Database, collection: str) -> AsyncIterator[bytes]:
    """Batches of a whole collection, by key."""
    async for batch in _batches(database, collection, {}, sort={"_id": 1}):
        yield batch


async def _batches(database: Database, collection: str, wanted: Document, **options: Any) -> AsyncIterator[bytes]:
    """A query's answer as BSON arrays. The driver's own raw batches make an object of each document all the same,

    which takes as long as to verify it.
    """
    majority = {"readConcern": {"level": "majority"}}
    query = {"find": collection, "filter": wanted, "batchSize": _BATCH, **options, **majority}
    async with database.client.start_session() as session:
        while True:
            answer = await database.command(query, session=session, codec_options=_UNREAD)
            batch, cursor_id = _cursor(bytes(answer["cursor"].raw))
            yield batch
            if not cursor_id:
                return
            query = {"getMore": Int64(cursor_id), "collection": collection, "batchSize": _BATCH}


def _cursor(document: bytes) -> tuple[bytes, int]:
    """The batch of an answer's `cursor` and the cursor's id, in whichever order."""
    batch, cursor_id, at = b"", 0, 4
    while document[at]:
        kind, name_end = document[at], document.index(b"\x00", at)
        name, at = document[at + 1 : name_end], name_end + 1
        size = {_ARRAY: 0, _TEXT: 4, _LONG: 8, _BOOLEAN: 1}[kind]
        if kind in (_ARRAY, _TEXT):
            size += int(_INT32.unpack_from(document, at)[0])
        if kind == _ARRAY:
            batch = document[at : at + size]
        if name == b"id":
            cursor_id = int(_INT64.unpack_from(document, at)[0])
        at += size
    return batch, cursor_id
