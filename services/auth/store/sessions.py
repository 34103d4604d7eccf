"""Sessions and their refresh tokens, as they are stored."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from libs.core.mongo import Database, Document, Session as Transaction
from libs.core.pagination import Page, PageArgs, Paginator
from services.auth.domain.sessions import Session

ALIVE_MOST = 1_000


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """`key` is the token's hash. Once `spent_at` is set, `seed` and the token itself make the one that followed."""

    key: str
    session_id: str
    expires_at: datetime
    spent_at: datetime | None = None
    seed: bytes = b""


async def insert(database: Database, transaction: Transaction, session: Session) -> None:
    row = asdict(session)
    await database["sessions"].insert_one({"_id": row.pop("id")} | row, session=transaction)


async def load(database: Database, transaction: Transaction | None, tenant_id: str, session_id: str) -> Session | None:
    row = await database["sessions"].find_one({"_id": session_id, "tenant_id": tenant_id}, session=transaction)
    return session_from(row) if row else None


async def alive(
    database: Database, transaction: Transaction | None, tenant_id: str, user_id: str, now: datetime
) -> list[Session]:
    rows = database["sessions"].find(alive_of(tenant_id, user_id, now), session=transaction).limit(ALIVE_MOST)
    return [session_from(row) async for row in rows]


def alive_of(tenant_id: str, user_id: str, now: datetime) -> Document:
    after = {"$gt": now}
    return {"tenant_id": tenant_id, "user_id": user_id, "ended_at": None, "expires_at": after, "idle_until": after}


async def change(database: Database, transaction: Transaction, session_id: str, fields: Mapping[str, Any]) -> bool:
    """Of one that has not ended."""
    changed = await database["sessions"].update_one(
        {"_id": session_id, "ended_at": None}, {"$set": dict(fields)}, session=transaction
    )
    return bool(changed.matched_count)


async def insert_token(database: Database, transaction: Transaction, token: RefreshToken) -> None:
    row = {"_id": token.key, "session_id": token.session_id, "expires_at": token.expires_at, "spent_at": None}
    await database["refresh_tokens"].insert_one(row, session=transaction)


async def load_token(database: Database, transaction: Transaction | None, key: str) -> RefreshToken | None:
    row = await database["refresh_tokens"].find_one({"_id": key}, session=transaction)
    if row is None:
        return None
    return RefreshToken(row["_id"], row["session_id"], row["expires_at"], row["spent_at"], row.get("seed", b""))


async def spend_token(database: Database, transaction: Transaction, key: str, at: datetime, seed: bytes) -> None:
    """Of several at once, one; the others' transactions conflict, and look again."""
    spent = await database["refresh_tokens"].update_one(
        {"_id": key, "spent_at": None}, {"$set": {"spent_at": at, "seed": seed}}, session=transaction
    )
    assert spent.matched_count, "it was read in this transaction"


def session_from(row: Mapping[str, Any]) -> Session:
    fields = {name: row[name] for name in Session.__dataclass_fields__ if name != "id"}
    return Session(**(fields | {"id": row["_id"], "methods": tuple(row["methods"])}))


async def page_of(
    database: Database, paginator: Paginator, tenant_id: str, user_id: str, now: datetime, args: PageArgs
) -> Page[Session]:
    """Those that are alive, the newest first."""
    where: Document = {"tenant_id": tenant_id, "user_id": user_id}
    order = [("created_at", -1), ("_id", -1)]
    alive = {name: value for name, value in alive_of(tenant_id, user_id, now).items() if name not in where}
    page = await paginator.page(database["sessions"], where, args, order=order, also=alive)
    return page.map(session_from)
