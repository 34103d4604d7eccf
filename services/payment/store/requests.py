"""Queries for adjustments that wait for a second operator, or did."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from libs.core.access import Scope
from libs.core.money import Money
from libs.core.mongo import Database
from libs.core.pagination import Page, PageArgs, Paginator
from services.payment.domain import Direction
from services.payment.domain.requests import AdjustmentRequest, RequestStatus


async def open_request(database: Database, fresh: AdjustmentRequest, owner_id: str) -> AdjustmentRequest:
    """`fresh`, or what was asked for under its id before. `owner_id` is the wallet's, so that lists obey scopes."""
    with suppress(DuplicateKeyError):
        await database["adjustment_requests"].insert_one(
            {
                "_id": fresh.key,
                "id": fresh.id,
                "tenant_id": fresh.tenant_id,
                "wallet_id": fresh.wallet_id,
                "owner_id": owner_id,
                "direction": str(fresh.direction),
                "amount": fresh.money.amount_minor,
                "currency": fresh.money.currency,
                "reason": fresh.reason,
                "requested_by": fresh.requested_by,
                "requested_at": fresh.requested_at,
                "status": str(fresh.status),
                "decided_by": "",
                "decided_at": None,
            }
        )
        return fresh
    return await request(database, fresh.tenant_id, fresh.id) or fresh


async def request(database: Database, tenant_id: str, request_id: str) -> AdjustmentRequest | None:
    row = await database["adjustment_requests"].find_one({"_id": f"{tenant_id}:{request_id}", "tenant_id": tenant_id})
    return _request_from(row) if row else None


async def decide_request(
    database: Database, asked: AdjustmentRequest, status: RequestStatus, by: str, at: datetime
) -> AdjustmentRequest | None:
    """With its new status; None if somebody else was faster. To decide once more what was decided so is no change."""
    if asked.status is status:
        return asked
    row = await database["adjustment_requests"].find_one_and_update(
        {"_id": asked.key, "status": str(asked.status)},
        {"$set": {"status": str(status), "decided_by": by, "decided_at": at}},
        return_document=ReturnDocument.AFTER,
    )
    return _request_from(row) if row else None


async def requests(
    database: Database, paginator: Paginator, scope: Scope, status: RequestStatus | None, args: PageArgs
) -> Page[AdjustmentRequest]:
    where = {"$and": [{"status": str(status)} if status else {}, scope.query(id="wallet_id")]}
    page = await paginator.page(database["adjustment_requests"], where, args, order=[("requested_at", -1), ("_id", -1)])
    return page.map(_request_from)


def _request_from(row: Mapping[str, Any]) -> AdjustmentRequest:
    return AdjustmentRequest(
        id=row["id"],
        tenant_id=row["tenant_id"],
        wallet_id=row["wallet_id"],
        direction=Direction(row["direction"]),
        money=Money(row["amount"], row["currency"]),
        reason=row["reason"],
        requested_by=row["requested_by"],
        requested_at=row["requested_at"],
        status=RequestStatus(row["status"]),
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
    )
