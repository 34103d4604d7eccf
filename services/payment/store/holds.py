"""Queries for what is held."""

from collections.abc import Mapping
from datetime import datetime

from libs.core.access import Scope
from libs.core.mongo import Database
from libs.core.pagination import Page, PageArgs, Paginator
from services.payment.domain import Hold, HoldStatus
from services.payment.store.documents import hold_from


async def hold(database: Database, tenant_id: str, hold_id: str) -> Hold | None:
    row = await database["holds"].find_one({"_id": f"{tenant_id}:{hold_id}", "tenant_id": tenant_id})
    return hold_from(row) if row else None


async def holds(
    database: Database, paginator: Paginator, scope: Scope, wanted: Mapping[str, str | None], args: PageArgs
) -> Page[Hold]:
    """`wanted` names fields and the values they must have; None does not narrow."""
    chosen = {name: value for name, value in wanted.items() if value is not None}
    where = {"$and": [chosen, scope.query(id="wallet_id")]}
    page = await paginator.page(database["holds"], where, args, order=[("placed_at", -1), ("_id", -1)])
    return page.map(hold_from)


async def overdue_holds(database: Database, now: datetime, limit: int) -> list[Hold]:
    """Of all tenants, the most overdue first."""
    where = {"status": HoldStatus.OPEN.value, "expires_at": {"$lte": now}}
    rows = database["holds"].find(where, sort=[("expires_at", 1)], limit=limit)
    return [hold_from(row) async for row in rows]
