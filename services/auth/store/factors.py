"""Authenticator apps and recovery codes, as they are stored: one document of each for a user."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument

from libs.core.mongo import Database, Session
from services.auth.domain.recovery_codes import RecoveryCodes
from services.auth.domain.totp import Totp
from services.auth.domain.users import user_key


async def totp(database: Database, session: Session | None, tenant_id: str, user_id: str) -> Totp | None:
    row = await database["totp"].find_one({"_id": user_key(tenant_id, user_id)}, session=session)
    return _totp_from(row) if row else None


async def put_totp(database: Database, session: Session, totp: Totp) -> None:
    """In the place of the one before, if there was one."""
    row = {
        "tenant_id": totp.tenant_id,
        "user_id": totp.user_id,
        "sealed": totp.sealed,
        "sealed_with": totp.sealed_with,
        "last_step": totp.last_step,
        "confirmed_at": totp.confirmed_at,
    }
    await database["totp"].replace_one({"_id": totp.key}, row, upsert=True, session=session)


async def take_step(database: Database, session: Session, totp: Totp, step: int) -> bool:
    """Of several at once with the same step, one."""
    taken = await database["totp"].update_one(
        {"_id": totp.key, "sealed": totp.sealed, "last_step": {"$lt": step}},
        {"$set": {"last_step": step}},
        session=session,
    )
    return bool(taken.matched_count)


async def remove_totp(database: Database, session: Session, tenant_id: str, user_id: str) -> bool:
    removed = await database["totp"].delete_one({"_id": user_key(tenant_id, user_id)}, session=session)
    return bool(removed.deleted_count)


async def sealed_otherwise(database: Database, key_id: str, limit: int, *, but: Sequence[str]) -> list[Totp]:
    """Of all tenants: those that are sealed with another key, `but` these."""
    rows = database["totp"].find({"sealed_with": {"$ne": key_id}, "_id": {"$nin": but}}).limit(limit)
    return [_totp_from(row) async for row in rows]


async def seal_anew(database: Database, totp: Totp, sealed: bytes, key_id: str) -> None:
    """Unless it was replaced meanwhile."""
    await database["totp"].update_one(
        {"_id": totp.key, "sealed": totp.sealed}, {"$set": {"sealed": sealed, "sealed_with": key_id}}
    )


async def recovery_codes(
    database: Database, session: Session | None, tenant_id: str, user_id: str
) -> RecoveryCodes | None:
    row = await database["recovery_codes"].find_one({"_id": user_key(tenant_id, user_id)}, session=session)
    return _recovery_codes_from(row) if row else None


async def put_recovery_codes(
    database: Database, session: Session, tenant_id: str, user_id: str, hashes: Sequence[str], at: datetime
) -> None:
    row = {"tenant_id": tenant_id, "user_id": user_id, "hashes": [*hashes], "made_at": at}
    await database["recovery_codes"].replace_one(
        {"_id": user_key(tenant_id, user_id)}, row, upsert=True, session=session
    )


async def use_recovery_code(
    database: Database, session: Session, tenant_id: str, user_id: str, code_hash: str
) -> RecoveryCodes | None:
    """What is left after it; None if it is none, or was used. Of several at once, one finds it."""
    row = await database["recovery_codes"].find_one_and_update(
        {"_id": user_key(tenant_id, user_id), "hashes": code_hash},
        {"$pull": {"hashes": code_hash}},
        return_document=ReturnDocument.AFTER,
        session=session,
    )
    return _recovery_codes_from(row) if row else None


async def remove_recovery_codes(database: Database, session: Session, tenant_id: str, user_id: str) -> None:
    await database["recovery_codes"].delete_one({"_id": user_key(tenant_id, user_id)}, session=session)


def _totp_from(row: Mapping[str, Any]) -> Totp:
    return Totp(
        tenant_id=row["tenant_id"],
        user_id=row["user_id"],
        sealed=row["sealed"],
        sealed_with=row["sealed_with"],
        last_step=row["last_step"],
        confirmed_at=row["confirmed_at"],
    )


def _recovery_codes_from(row: Mapping[str, Any]) -> RecoveryCodes:
    return RecoveryCodes(len(row["hashes"]), row["made_at"])
