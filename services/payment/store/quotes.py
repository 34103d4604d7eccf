"""Queries for what was quoted. A quote is written once, and forgotten long after nobody can ask for it again."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pymongo.errors import DuplicateKeyError

from libs.core.money import Money
from libs.core.mongo import Database
from services.payment.domain.exchange import Quote


async def open_quote(database: Database, fresh: Quote) -> Quote:
    """`fresh`, or what was quoted under its id before."""
    with suppress(DuplicateKeyError):
        await database["quotes"].insert_one(
            {
                "_id": fresh.key,
                "id": fresh.id,
                "tenant_id": fresh.tenant_id,
                "owner_id": fresh.owner_id,
                "source": {"amount": fresh.source.amount_minor, "currency": fresh.source.currency},
                "target": {"amount": fresh.target.amount_minor, "currency": fresh.target.currency},
                "rate": fresh.rate,
                "at": fresh.at,
                "expires_at": fresh.expires_at,
            }
        )
        return fresh
    stored = await quote(database, fresh.tenant_id, fresh.id)
    return stored or fresh


async def quote(database: Database, tenant_id: str, quote_id: str) -> Quote | None:
    row = await database["quotes"].find_one({"_id": f"{tenant_id}:{quote_id}", "tenant_id": tenant_id})
    return _quote_from(row) if row else None


def _quote_from(row: Mapping[str, Any]) -> Quote:
    return Quote(
        id=row["id"],
        tenant_id=row["tenant_id"],
        owner_id=row["owner_id"],
        source=Money(row["source"]["amount"], row["source"]["currency"]),
        target=Money(row["target"]["amount"], row["target"]["currency"]),
        rate=row["rate"],
        at=row["at"],
        expires_at=row["expires_at"],
    )
