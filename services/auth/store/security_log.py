"""The security log, as it is read. Each tenant's is a chain of its own: see `libs/core/audit.py`."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from libs.core.audit import COLLECTION, AuditRow, Head, row_of
from libs.core.mongo import Database, Document, Session
from libs.core.pagination import Page, PageArgs, Paginator

_ORDER = [("at", -1), ("sequence", -1)]


@dataclass(frozen=True, slots=True)
class LogFilter:
    """What is empty does not matter. `user_id`: who did it, or whom it was about. `since` <= at < `until`."""

    user_id: str = ""
    action: str = ""
    since: datetime | None = None
    until: datetime | None = None


def log_of(tenant_id: str) -> str:
    return f"auth.{tenant_id}"


async def page_of(
    database: Database, paginator: Paginator, tenant_id: str, wanted: LogFilter, args: PageArgs
) -> Page[AuditRow]:
    """The newest first. Of a user it is two ranges of two indexes, merged."""
    where: Document = {"log": log_of(tenant_id), **_during(wanted.since, wanted.until)}
    if wanted.action:
        where["action"] = wanted.action
    if wanted.user_id:
        where["$or"] = [{"actor": wanted.user_id}, {"on_behalf_of": wanted.user_id}]
    return (await paginator.page(database[COLLECTION], where, args, order=_ORDER)).map(row_of)


async def rows_between(
    database: Database, tenant_id: str, since: datetime | None, until: datetime, batch: int
) -> AsyncIterator[list[AuditRow]]:
    """The oldest first, so many at a time. A reader who takes their time holds no cursor."""
    rows = database[COLLECTION]
    beyond: Document = {}
    order = [("at", 1), ("sequence", 1)]
    while True:
        where: Document = {"log": log_of(tenant_id), **_during(since, until), **beyond}
        found = await rows.find(where).sort(order).limit(batch).to_list()
        if found:
            yield [row_of(row) for row in found]
        if len(found) < batch:
            return
        since = found[-1]["at"]
        beyond = {"$nor": [{"at": since, "sequence": {"$lte": found[-1]["sequence"]}}]}


async def published_head(database: Database, tenant_id: str) -> Head | None:
    row = await database["log_heads"].find_one({"_id": log_of(tenant_id)})
    return Head(row["sequence"], row["hash"]) if row else None


async def publish_head(database: Database, session: Session, tenant_id: str, head: Head, at: datetime) -> None:
    row = {"sequence": head.sequence, "hash": head.hash, "at": at}
    await database["log_heads"].replace_one({"_id": log_of(tenant_id)}, row, upsert=True, session=session)


def _during(since: datetime | None, until: datetime | None) -> Document:
    during = {op: at for op, at in (("$gte", since), ("$lt", until)) if at is not None}
    return {"at": during} if during else {}
