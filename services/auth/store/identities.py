"""Identities, as they are stored: at most one user for an issuer's subject, in a tenant."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pymongo.errors import DuplicateKeyError

from libs.core.mongo import Database, Session
from services.auth.domain.identities import Identity

MOST = 100


class Raced(Exception):
    """Somebody else has what was to be unique, since a moment ago: look again."""


async def find(
    database: Database, session: Session | None, tenant_id: str, issuer: str, subject: str
) -> Identity | None:
    wanted = {"tenant_id": tenant_id, "issuer": issuer, "subject": subject}
    row = await database["identities"].find_one(wanted, session=session)
    return _identity(row) if row else None


async def of_user(database: Database, session: Session | None, tenant_id: str, user_id: str) -> list[Identity]:
    """Oldest first."""
    rows = database["identities"].find({"tenant_id": tenant_id, "user_id": user_id}, session=session)
    return [_identity(row) async for row in rows.sort("linked_at", 1).limit(MOST)]


@contextmanager
def unique() -> Iterator[None]:
    """`Raced` if what is inserted in here is another's."""
    try:
        yield
    except DuplicateKeyError:
        raise Raced from None


async def insert(database: Database, session: Session, identity: Identity) -> None:
    row = asdict(identity)
    with unique():
        await database["identities"].insert_one({"_id": row.pop("id")} | row, session=session)


async def used(database: Database, identity: Identity, at: datetime) -> None:
    await database["identities"].update_one(
        {"_id": identity.id, "tenant_id": identity.tenant_id}, {"$set": {"last_used_at": at}}
    )


async def delete(database: Database, session: Session, identity: Identity) -> None:
    await database["identities"].delete_one({"_id": identity.id, "tenant_id": identity.tenant_id}, session=session)


async def delete_of(database: Database, session: Session, tenant_id: str, user_id: str) -> None:
    """Whoever comes back afterwards is somebody new."""
    await database["identities"].delete_many({"tenant_id": tenant_id, "user_id": user_id}, session=session)


def _identity(row: Mapping[str, Any]) -> Identity:
    fields = {name: value for name, value in row.items() if name in Identity.__dataclass_fields__}
    return Identity(id=row["_id"], **fields)
