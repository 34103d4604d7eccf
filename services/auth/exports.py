"""The security log as text, piece by piece: CSV (RFC 4180) and JSON Lines. Both say at the end that they are whole.

JSON Lines hold all of each row, so that who has the file can follow the chain of hashes through it.
"""

import csv
import io
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from typing import Any

import orjson

from libs.core.audit import AuditRow
from libs.core.downloads import harmless

COLUMNS = (
    "record",
    "sequence",
    "at",
    "actor",
    "onBehalfOf",
    "action",
    "resource",
    "before",
    "after",
    "reason",
    "origin",
    "correlationId",
    "previous",
    "hash",
    "rows",
)


async def as_csv(batches: AsyncIterator[list[AuditRow]]) -> AsyncIterator[bytes]:
    """A row for each of the log's, and one that says `end`."""
    count = 0
    yield _lines([dict(zip(COLUMNS, COLUMNS, strict=True))])
    async for rows in batches:
        count += len(rows)
        yield _lines([{"record": "row", **_cells(row)} for row in rows])
    yield _lines([{"record": "end", "rows": count}])


async def as_jsonl(batches: AsyncIterator[list[AuditRow]]) -> AsyncIterator[bytes]:
    """An object a line: each of the log's, as it is hashed, and one with `complete`."""
    count = 0
    async for rows in batches:
        count += len(rows)
        yield b"".join(orjson.dumps(_hashed(row)) + b"\n" for row in rows)
    yield orjson.dumps({"complete": True, "rows": count}) + b"\n"


def _hashed(row: AuditRow) -> dict[str, Any]:
    return asdict(row) | {"at": row.at.isoformat(timespec="milliseconds")}


def _cells(row: AuditRow) -> dict[str, str]:
    told = {
        "sequence": str(row.sequence),
        "at": row.at.isoformat(timespec="milliseconds"),
        "actor": row.actor,
        "onBehalfOf": row.on_behalf_of or "",
        "action": row.action,
        "resource": row.resource,
        "before": _json(row.before),
        "after": _json(row.after),
        "reason": row.reason,
        "origin": row.origin,
        "correlationId": row.correlation_id,
        "previous": row.previous,
        "hash": row.hash,
    }
    return {name: harmless(text) for name, text in told.items()}


def _json(value: Any) -> str:
    return "" if value is None else orjson.dumps(value).decode()


def _lines(rows: list[Mapping[str, Any]] | list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
