"""What a party of a transfer can take away, and show to anybody: that a signed journal holds exactly this line.

`scripts/receipt.py` checks one without us. Of what its holder may not see it has hashes alone; these documents are
salted, so that nobody can find out by trying what is in them.
"""

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from libs.core.access import Scope
from libs.core.mongo import Database
from services.payment.domain.journal import Block, Head, inclusion_path, split
from services.payment.keys import JournalKeys
from services.payment.store import journal, raw

FORMAT = "payment-receipt/1"

Receipt = dict[str, Any]


async def receipt_of(database: Database, keys: JournalKeys, scope: Scope, transfer_key: str) -> Receipt | None:
    """None until the transfer's block is signed, or if neither of its lines is one that `scope` permits."""
    transfer = (await raw.by_key(database, "transfers", [transfer_key.encode()])).get(transfer_key.encode())
    if transfer is None:
        return None
    place = raw.decoded(transfer).get("journal", {})
    stored = await journal.block(database, place.get("lane", -1), place.get("sequence", 0))
    signed = stored and await journal.head_over(database, stored.block.lane, stored.block.sequence)
    lines = await _lines(database, scope, transfer)
    if not stored or not signed or signed.key_id not in keys.all:
        return None
    if len(lines) < 2 or not any("document" in line for line in lines.values()):
        return None
    index, sequence = place["index"], stored.block.sequence
    return {
        "format": FORMAT,
        "transfer": sha256(transfer).hexdigest(),
        **lines,
        "index": index,
        "path": _hex(inclusion_path(split(stored.leaves), index)),
        "block": _block(stored.block),
        "headPath": _hex(inclusion_path(split(signed.hashes), sequence - signed.head.first)),
        "head": _head(signed.head),
        "signature": signed.signature.hex(),
        "publicKey": keys.all[signed.key_id].hex(),
    }


async def _lines(database: Database, scope: Scope, transfer: bytes) -> dict[str, dict[str, str]]:
    """The debit and the credit: whole, where the holder may see it, else the hash."""
    ends = dict(zip(("debit", "credit"), raw.movement_of(transfer)[3:], strict=True))
    keys = {direction: raw.line_key(end[0], raw.number(end[4])) for direction, end in ends.items()}
    documents = await raw.by_key(database, "transactions", list(keys.values()))
    return {direction: _line(scope, documents[key]) for direction, key in keys.items() if key in documents}


def _line(scope: Scope, document: bytes) -> dict[str, str]:
    row: Mapping[str, Any] = raw.decoded(document)
    if scope.permits(owner_id=row["owner_id"], tenant_id=row["tenant_id"], id=row["wallet_id"]):
        return {"document": b64encode(document).decode()}
    return {"hash": sha256(document).hexdigest()}


def _block(block: Block) -> dict[str, Any]:
    return {
        "lane": block.lane,
        "sequence": block.sequence,
        "previous": block.previous.hex(),
        "root": block.root.hex(),
        "count": block.count,
        "atMs": block.at_ms,
    }


def _head(head: Head) -> dict[str, Any]:
    return {
        "lane": head.lane,
        "number": head.number,
        "first": head.first,
        "last": head.last,
        "previous": head.previous.hex(),
        "root": head.root.hex(),
        "atMs": head.at_ms,
    }


def _hex(hashes: list[bytes]) -> list[str]:
    return [each.hex() for each in hashes]
