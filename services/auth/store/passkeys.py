"""Passkeys, as they are stored."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from pymongo.errors import DuplicateKeyError

from libs.core.errors import Refusal
from libs.core.mongo import Database, Session
from services.auth.domain.passkeys import MAX_PASSKEYS, Passkey


async def load(database: Database, session: Session | None, tenant_id: str, passkey_id: str) -> Passkey | None:
    row = await database["passkeys"].find_one({"_id": passkey_id, "tenant_id": tenant_id}, session=session)
    return _passkey_from(row) if row else None


async def of_user(database: Database, session: Session | None, tenant_id: str, user_id: str) -> list[Passkey]:
    """The oldest first."""
    wanted = {"tenant_id": tenant_id, "user_id": user_id}
    rows = database["passkeys"].find(wanted, session=session).sort("created_at", 1).limit(MAX_PASSKEYS)
    return [_passkey_from(row) async for row in rows]


async def insert(database: Database, session: Session, passkey: Passkey) -> None:
    """`Refusal` PASSKEY_TAKEN if it is somebody's already, in whatever tenant; nothing else can be done then."""
    row = asdict(passkey)
    try:
        await database["passkeys"].insert_one(
            {"_id": row.pop("id")} | row | {"transports": [*passkey.transports]}, session=session
        )
    except DuplicateKeyError:
        raise Refusal("PASSKEY_TAKEN", "this passkey is in use already", rule="passkey.unique") from None


async def record_use(
    database: Database, session: Session, passkey: Passkey, *, sign_count: int, backed_up: bool, at: datetime
) -> bool:
    """Of several at once that were checked against the same counter, one."""
    used = await database["passkeys"].update_one(
        {"_id": passkey.id, "tenant_id": passkey.tenant_id, "sign_count": passkey.sign_count},
        {"$set": {"sign_count": sign_count, "backed_up": backed_up, "last_used_at": at}},
        session=session,
    )
    return bool(used.matched_count)


async def rename(database: Database, session: Session, passkey: Passkey, name: str) -> None:
    await database["passkeys"].update_one(
        {"_id": passkey.id, "tenant_id": passkey.tenant_id}, {"$set": {"name": name}}, session=session
    )


async def remove(database: Database, session: Session, passkey: Passkey) -> None:
    await database["passkeys"].delete_one({"_id": passkey.id, "tenant_id": passkey.tenant_id}, session=session)


async def remove_all(database: Database, session: Session, tenant_id: str, user_id: str) -> None:
    await database["passkeys"].delete_many({"tenant_id": tenant_id, "user_id": user_id}, session=session)


def _passkey_from(row: Mapping[str, Any]) -> Passkey:
    values = {field.name: row[field.name] for field in fields(Passkey) if field.name != "id"}
    return Passkey(**(values | {"id": row["_id"], "transports": tuple(row["transports"])}))
