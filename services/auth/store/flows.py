"""Flows, as they are stored."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument

from libs.core.mongo import Database, Session
from services.auth.domain.flows import Flow, FlowKind


async def insert(database: Database, session: Session | None, flow: Flow) -> None:
    row = {
        "_id": flow.key,
        "tenant_id": flow.tenant_id,
        "kind": flow.kind.value,
        "user_id": flow.user_id,
        "created_at": flow.created_at,
        "expires_at": flow.expires_at,
        "tries": flow.tries,
        "data": dict(flow.data),
        "finished_at": None,
    }
    await database["flows"].insert_one(row, session=session)


async def count_try(
    database: Database, tenant_id: str, kind: FlowKind, key: str, now: datetime, most: int
) -> Flow | None:
    """The flow, one try the poorer; None if there is none that could be tried. Of many at once, `most` are let in."""
    row = await database["flows"].find_one_and_update(
        {**_open(tenant_id, kind, key, now), "tries": {"$lt": most}},
        {"$inc": {"tries": 1}},
        return_document=ReturnDocument.AFTER,
    )
    return flow_from(row) if row else None


async def load(database: Database, tenant_id: str, kind: FlowKind, key: str, now: datetime) -> Flow | None:
    row = await database["flows"].find_one(_open(tenant_id, kind, key, now))
    return flow_from(row) if row else None


async def change(database: Database, session: Session | None, flow: Flow, data: Mapping[str, Any]) -> bool:
    """Sets some of its data, of one that is still open."""
    changed = await database["flows"].update_one(
        {"_id": flow.key, "finished_at": None},
        {"$set": {f"data.{name}": value for name, value in data.items()}},
        session=session,
    )
    return bool(changed.matched_count)


async def finish(database: Database, session: Session, flow: Flow, now: datetime) -> bool:
    """Of several at once, one. Its data is not needed any more, and may be secret."""
    finished = await database["flows"].update_one(
        {"_id": flow.key, "finished_at": None}, {"$set": {"finished_at": now, "data": {}}}, session=session
    )
    return bool(finished.matched_count)


def _open(tenant_id: str, kind: FlowKind, key: str, now: datetime) -> dict[str, Any]:
    return {"_id": key, "tenant_id": tenant_id, "kind": kind.value, "finished_at": None, "expires_at": {"$gt": now}}


def flow_from(row: Mapping[str, Any]) -> Flow:
    return Flow(
        key=row["_id"],
        tenant_id=row["tenant_id"],
        kind=FlowKind(row["kind"]),
        user_id=row["user_id"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        tries=row["tries"],
        data=row["data"],
    )
