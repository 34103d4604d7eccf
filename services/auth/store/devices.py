"""Devices that users signed in on, as they are stored."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from libs.core.mongo import Database, Document, Session
from libs.core.pagination import Page, PageArgs, Paginator
from services.auth.domain.devices import KnownDevice


async def load(
    database: Database, session: Session | None, tenant_id: str, user_id: str, device_id: str, now: datetime
) -> KnownDevice | None:
    row = await database["devices"].find_one(
        {"_id": device_id, "tenant_id": tenant_id, "user_id": user_id, "expires_at": {"$gt": now}}, session=session
    )
    return device_from(row) if row else None


async def put(database: Database, session: Session, device: KnownDevice) -> None:
    row = asdict(device)
    await database["devices"].replace_one({"_id": row.pop("id")}, row, upsert=True, session=session)


async def remove(database: Database, session: Session, tenant_id: str, user_id: str, device_id: str) -> bool:
    removed = await database["devices"].delete_one(
        {"_id": device_id, "tenant_id": tenant_id, "user_id": user_id}, session=session
    )
    return bool(removed.deleted_count)


async def remove_all(database: Database, session: Session, tenant_id: str, user_id: str) -> None:
    await database["devices"].delete_many({"tenant_id": tenant_id, "user_id": user_id}, session=session)


async def keep_latest(database: Database, session: Session, tenant_id: str, user_id: str, most: int) -> None:
    """Forgets all but those that were seen last."""
    rows = database["devices"].find({"tenant_id": tenant_id, "user_id": user_id}, {"_id": 1}, session=session)
    beyond = [row["_id"] async for row in rows.sort([("last_seen_at", -1), ("_id", -1)]).skip(most)]
    if beyond:
        await database["devices"].delete_many({"_id": {"$in": beyond}, "tenant_id": tenant_id}, session=session)


async def distrust_all(database: Database, session: Session, tenant_id: str, user_id: str) -> int:
    """They stay known: who signs in on one is slowed down less. How many were trusted."""
    changed = await database["devices"].update_many(
        {"tenant_id": tenant_id, "user_id": user_id, "trusted_until": {"$ne": None}},
        {"$set": {"trusted_until": None}},
        session=session,
    )
    return changed.modified_count


async def trusted(
    database: Database, paginator: Paginator, tenant_id: str, user_id: str, now: datetime, args: PageArgs
) -> Page[KnownDevice]:
    """Those that are trusted now, the one used last first."""
    where: Document = {"tenant_id": tenant_id, "user_id": user_id}
    order = [("last_seen_at", -1), ("_id", -1)]
    page = await paginator.page(database["devices"], where, args, order=order, also={"trusted_until": {"$gt": now}})
    return page.map(device_from)


def device_from(row: Mapping[str, Any]) -> KnownDevice:
    return KnownDevice(id=row["_id"], **{f.name: row[f.name] for f in fields(KnownDevice) if f.name != "id"})
