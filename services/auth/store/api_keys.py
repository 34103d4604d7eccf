"""API keys, as they are stored."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from libs.core.mongo import Database, Document, Session
from libs.core.pagination import Page, PageArgs, Paginator
from services.auth.domain.api_keys import ApiKey


async def insert(database: Database, session: Session, key: ApiKey) -> None:
    row = asdict(key) | {"scopes": [*key.scopes], "networks": [*key.networks]}
    await database["api_keys"].insert_one({"_id": row.pop("id")} | row, session=session)


async def load(database: Database, session: Session | None, tenant_id: str, key_id: str) -> ApiKey | None:
    row = await database["api_keys"].find_one({"_id": key_id, "tenant_id": tenant_id}, session=session)
    return key_from(row) if row else None


async def count(database: Database, session: Session, tenant_id: str, account_id: str) -> int:
    """Of those that were not revoked."""
    wanted = {"tenant_id": tenant_id, "account_id": account_id, "revoked_at": None}
    return await database["api_keys"].count_documents(wanted, session=session)


async def revoke(database: Database, session: Session, key: ApiKey, *, at: datetime, by: str) -> bool:
    """False if it was revoked before."""
    changed = await database["api_keys"].update_one(
        {"_id": key.id, "tenant_id": key.tenant_id, "revoked_at": None},
        {"$set": {"revoked_at": at, "revoked_by": by}},
        session=session,
    )
    return bool(changed.matched_count)


async def revoke_all(
    database: Database, session: Session, tenant_id: str, account_id: str, *, at: datetime, by: str
) -> None:
    await database["api_keys"].update_many(
        {"tenant_id": tenant_id, "account_id": account_id, "revoked_at": None},
        {"$set": {"revoked_at": at, "revoked_by": by}},
        session=session,
    )


async def used(database: Database, session: Session, key: ApiKey, *, at: datetime, address: str) -> None:
    await database["api_keys"].update_one(
        {"_id": key.id, "tenant_id": key.tenant_id},
        {"$set": {"last_used_at": at, "last_address": address}},
        session=session,
    )


async def page_of(
    database: Database, paginator: Paginator, tenant_id: str, args: PageArgs, *, account_id: str = ""
) -> Page[ApiKey]:
    """A tenant's, or one account's, the newest first; those that are over, too."""
    where: Document = {"tenant_id": tenant_id, **({"account_id": account_id} if account_id else {})}
    return (await paginator.page(database["api_keys"], where, args, order=[("_id", -1)])).map(key_from)


def key_from(row: Mapping[str, Any]) -> ApiKey:
    fields = {name: row[name] for name in ApiKey.__dataclass_fields__ if name != "id"}
    return ApiKey(**(fields | {"id": row["_id"], "scopes": tuple(row["scopes"]), "networks": tuple(row["networks"])}))
