"""What is in payment's database at the end, as the checker's plain values."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pymongo import MongoClient

from tests.soak import counter
from tests.soak.checker import Ledger, Line, Moved

Row = Mapping[str, Any]


def read_ledger(mongo_url: str) -> Ledger:
    client: MongoClient[dict[str, Any]] = MongoClient(mongo_url, tz_aware=True)
    with client:
        database = client["payment_service"]
        wallets = list(database["wallets"].find())
        return Ledger(
            transfers=[_moved(row) for row in database["transfers"].find()],
            lines=[_line(row) for row in database["transactions"].find()],
            balances={row["_id"]: row["buckets"] for row in wallets},
            guarded=frozenset(row["_id"] for row in wallets if row["kind"] == "user"),
            told=effects(client),
        )


def effects(client: MongoClient[dict[str, Any]]) -> Counter[str]:
    """How often the listening service counted each transfer."""
    rows = client[f"{counter.SERVICE}_service"][counter.EFFECTS].find({}, {"transfer_id": 1})
    return Counter(row["transfer_id"] for row in rows)


def untold(mongo_url: str) -> int:
    """How many transfers the listening service has not heard of yet."""
    client: MongoClient[dict[str, Any]] = MongoClient(mongo_url)
    with client:
        there = {row["id"] for row in client["payment_service"]["transfers"].find({}, {"id": 1})}
        return len(there - effects(client).keys())


def _moved(row: Row) -> Moved:
    return Moved(
        id=row["id"],
        operation_id=row.get("operation_id") or row["id"],
        kind=row["kind"],
        amount=row["amount"],
        currency=row["currency"],
        owners=frozenset(row["parties"]),
        at_ms=_ms(row["at"]),
    )


def _line(row: Row) -> Line:
    return Line(
        id=row["_id"],
        wallet=row["wallet"],
        wallet_id=row["wallet_id"],
        bucket=row["bucket"],
        direction=row["direction"],
        amount=row["amount"],
        currency=row["currency"],
        balance_after=row["balance_after"],
        sequence=row["sequence"],
        position=row["position"],
        transfer_id=row["transfer_id"],
        at_ms=_ms(row["at"]),
    )


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
