"""Statements as text, piece by piece: CSV (RFC 4180) and JSON. Both say at the end that they are whole.

An amount is written twice: in minor units, and as a decimal number with the digits that the currency has.
"""

import csv
import io
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any

import orjson

from libs.core.downloads import harmless
from libs.core.mongo import Document
from services.payment.commands.history import Statement
from services.payment.domain import Bucket

COLUMNS = (
    "record",
    "at",
    "transferId",
    "kind",
    "bucket",
    "direction",
    "amount",
    "amountMinor",
    "currency",
    "balanceAfter",
    "balanceAfterMinor",
    "reference",
    "sequence",
    "lines",
)


async def as_csv(statement: Statement, pages: AsyncIterator[list[Document]]) -> AsyncIterator[bytes]:
    """A row for each bucket's opening balance, each line, each closing balance, and one that says `end`."""
    currency, scale, count = statement.wallet.currency, statement.scale, 0

    def balances(record: str, at: datetime, held: Mapping[str, int]) -> list[Document]:
        row = {"record": record, "at": _instant(at), "currency": currency}
        return [row | _balance(bucket, held, scale) for bucket in Bucket]

    yield _rows([dict(zip(COLUMNS, COLUMNS, strict=True)), *balances("opening", statement.since, statement.opening)])
    async for page in pages:
        count += len(page)
        yield _rows([{"record": "line", **_line(line, scale)} for line in page])
    end = {"record": "end", "at": _instant(statement.until), "lines": count}
    yield _rows([*balances("closing", statement.until, statement.closing), end])


async def as_json(statement: Statement, pages: AsyncIterator[list[Document]]) -> AsyncIterator[bytes]:
    """One object. It is not closed before it is whole, so that what broke off is no JSON."""
    wallet, count = statement.wallet, 0
    head = {
        "walletId": wallet.id,
        "ownerId": wallet.owner_id,
        "currency": wallet.currency,
        "scale": statement.scale,
        "from": _instant(statement.since),
        "until": _instant(statement.until),
        "opening": [_balance(bucket, statement.opening, statement.scale) for bucket in Bucket],
    }
    yield orjson.dumps(head)[:-1] + b',"lines":['
    async for page in pages:
        comma = b",\n" if count else b"\n"
        count += len(page)
        yield comma + b",\n".join(orjson.dumps(_line(line, statement.scale)) for line in page)
    tail = {
        "closing": [_balance(bucket, statement.closing, statement.scale) for bucket in Bucket],
        "count": count,
        "complete": True,
    }
    yield b"\n]," + orjson.dumps(tail)[1:]


def decimal(amount_minor: int, scale: int) -> str:
    """-1234 with two digits is -12.34."""
    digits = str(abs(amount_minor)).rjust(scale + 1, "0")
    whole, rest = digits[: len(digits) - scale], digits[len(digits) - scale :]
    return f"{'-' if amount_minor < 0 else ''}{whole}{'.' + rest if rest else ''}"


def _balance(bucket: str, held: Mapping[str, int], scale: int) -> Document:
    amount = held[bucket]
    return {"bucket": str(bucket), "balanceAfter": decimal(amount, scale), "balanceAfterMinor": str(amount)}


def _line(line: Mapping[str, Any], scale: int) -> Document:
    amount, balance = line["amount"], line["balance_after"]
    return {
        "at": _instant(line["at"]),
        "transferId": line["transfer_id"],
        "kind": line["kind"],
        "bucket": line["bucket"],
        "direction": line["direction"],
        "amount": decimal(amount, scale),
        "amountMinor": str(amount),
        "currency": line["currency"],
        "balanceAfter": decimal(balance, scale),
        "balanceAfterMinor": str(balance),
        "reference": line["reference"],
        "sequence": str(line["sequence"]),
    }


def _instant(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")


def _rows(rows: list[Document]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    writer.writerows(row | {"reference": harmless(row["reference"])} if row.get("reference") else row for row in rows)
    return text.getvalue().encode()
