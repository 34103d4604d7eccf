"""Checks a receipt of a transfer, without asking anybody: python receipt.py receipt.json --key <public key, hex>

Needs Python 3.11 and `cryptography`, and nothing of the platform. Have the public key from a place that you trust.
"""

import argparse
import json
import struct
import sys
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

BLOCK = struct.Struct(">cIQ32s32sIq")
HEAD = struct.Struct(">cIQQQ32s32sq")
unhex = bytes.fromhex
TEXT, BYTES = 0x02, 0x05  # of BSON's types, those with a length


def main() -> None:
    parser = argparse.ArgumentParser(description="Checks a receipt of a transfer.")
    parser.add_argument("receipt")
    parser.add_argument("--key", required=True)
    given = parser.parse_args()
    try:
        print(*check(json.loads(Path(given.receipt).read_text()), given.key), sep="\n")
    except Exception as error:  # whatever may be wrong in a file that anybody may have written
        sys.exit(f"this receipt proves nothing: {type(error).__name__}: {error}")


def check(receipt: dict[str, Any], key: str) -> list[str]:
    """What the receipt proves, in words. An exception if one link of the chain from its lines to the key is wrong."""
    require(receipt["format"] == "payment-receipt/1", "its format is unknown")
    require(receipt["publicKey"] == key, "it names another key than the one given")
    block, head = receipt["block"], receipt["head"]
    require(any("document" in receipt[side] for side in ("debit", "credit")), "it shows no line")
    sides = {side: line_of(receipt[side], side) for side in ("debit", "credit")}
    leaf = digest(b"\x00", unhex(receipt["transfer"]), *(hashed for hashed, _ in sides.values()))
    root = climb(leaf, receipt["index"], block["count"], receipt["path"])
    require(root == unhex(block["root"]), "its lines are not in the block")
    require(block["lane"] == head["lane"], "block and head are of different lanes")
    here = (block["lane"], block["sequence"], unhex(block["previous"]), root, block["count"], block["atMs"])
    place, count = block["sequence"] - head["first"], head["last"] - head["first"] + 1
    top = climb(digest(BLOCK.pack(b"\x02", *here)), place, count, receipt["headPath"])
    require(top == unhex(head["root"]), "the block is not in the head")
    span = [head[name] for name in ("lane", "number", "first", "last")]
    signed = HEAD.pack(b"\x03", *span, unhex(head["previous"]), top, head["atMs"])
    Ed25519PublicKey.from_public_bytes(unhex(key)).verify(unhex(receipt["signature"]), digest(signed))
    lines = [said(line) for _, line in sides.values() if line]
    by = f"signed in head {head['number']}, at {at(head['atMs'])}, with the key {key}"
    return [*lines, f"in block {block['sequence']} of lane {block['lane']}, of {at(block['atMs'])}", by]


def line_of(side: dict[str, str], direction: str) -> tuple[bytes, dict[str, Any] | None]:
    require(len(side) == 1, f"its {direction} is not one thing")
    if "hash" in side:
        return unhex(side["hash"]), None
    line = read(document := b64decode(side["document"], validate=True))
    require(line["direction"] == direction, f"its {direction} is none")
    return digest(document), line


def climb(node: bytes, index: int, count: int, path: list[str]) -> bytes:
    require(0 <= index < count, "its place is not in the tree")
    rest = [unhex(sibling) for sibling in path]
    while count > 1:
        if index ^ 1 < count:
            require(bool(rest), "its path is too short")
            sibling = rest.pop(0)
            node = digest(b"\x01", sibling, node) if index & 1 else digest(b"\x01", node, sibling)
        index, count = index // 2, (count + 1) // 2
    require(not rest, "its path is too long")
    return node


def read(document: bytes) -> dict[str, Any]:
    """The fields of a BSON document of texts, bytes, dates and whole numbers."""
    fields: dict[str, Any] = {}
    place = 4
    while document[place]:
        kind, end = document[place], document.index(0, place + 1)
        name, place = document[place + 1 : end].decode(), end + 1
        size = {TEXT: 4, BYTES: 5, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x12: 8}[kind]
        length = int.from_bytes(document[place : place + 4], "little") if kind in (TEXT, BYTES) else 0
        value, place = document[place : place + size + length], place + size + length
        require(name not in fields, f"a line has two fields {name}")
        fields[name] = value[4:-1].decode() if kind == TEXT else int.from_bytes(value, "little", signed=True)
    require(place + 1 == len(document) == int.from_bytes(document[:4], "little"), "a line is cut off, or goes on")
    return fields


def said(line: dict[str, Any]) -> str:
    return (
        f"{line['direction']} of {line['amount']} minor units of {line['currency']}: bucket {line['bucket']} of wallet "
        f"{line['wallet_id']} of {line['owner_id']} at {line['tenant_id']}, its line {line['sequence']}, balance after "
        f"it {line['balance_after']}; {line['kind']} {line['transfer_id']} {line['reference']!r}, {at(line['at'])}"
    )


def at(milliseconds: int) -> str:
    return str(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds))


def digest(*parts: bytes) -> bytes:
    return sha256(b"".join(parts)).digest()


def require(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)


if __name__ == "__main__":
    main()
