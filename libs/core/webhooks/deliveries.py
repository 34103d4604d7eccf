"""The delivery log, which is the queue too: one document for each event and endpoint.

webhook_deliveries   {_id: tenant:id, endpoint, event_id, event_type, body, status, due_at?, claim, attempts: [{…}], …}

`due_at` is there while a delivery is pending: when to send it, or, while somebody has it in hand (`claim`), when to
take it from them. A process that dies has its deliveries sent by another one that much later. The id follows from
endpoint and event, so that an event that comes twice is delivered once.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pymongo.errors import BulkWriteError

from libs.core.clock import Clock
from libs.core.errors import NotFound
from libs.core.events import Event
from libs.core.ids import derived_id, new_id
from libs.core.migrations import Index
from libs.core.mongo import Database, Document
from libs.core.pagination import Page, PageArgs, Paginator
from libs.core.webhooks.endpoints import Endpoint, endpoint_key

COLLECTION = "webhook_deliveries"
KEPT_S = 30 * 24 * 3600
INDEXES = (
    # Finds who has something due by looking at one key per endpoint, however much waits; empty when nothing waits.
    Index(COLLECTION, (("endpoint", 1), ("due_at", 1), ("event_at", 1)), partial={"due_at": {"$exists": True}}),
    Index(COLLECTION, (("endpoint", 1), ("created_at", -1), ("_id", -1))),
    Index(COLLECTION, (("endpoint", 1), ("created_at", -1), ("_id", -1)), partial={"status": "failed"}),
    Index(COLLECTION, (("started_at", 1),), ttl_s=KEPT_S),
)

# Twice and more what an attempt may take with the database slow: who claims it next must find the first one ended.
CLAIM_S = 60.0
ATTEMPTS_KEPT = 15
REPLAYED_AT_ONCE = 10_000

_DUPLICATE_KEY = 11000
_PENDING: Document = {"due_at": {"$exists": True}}
_NOT_LISTED = {"body": 0}


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Attempt:
    """`status` is HTTP's, None without an answer; `error` is empty for a success; `answer` is cut at 1 KB."""

    at: datetime
    took_ms: int
    status: int | None
    error: str
    answer: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """`tries` counts those since `started_at`, when it was made or replayed; `attempts` are the last 15 of all."""

    key: str
    id: str
    tenant_id: str
    endpoint_key: str
    endpoint_id: str
    event_id: str
    event_type: str
    status: DeliveryStatus
    created_at: datetime
    started_at: datetime
    due_at: datetime | None
    tries: int
    error: str
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery in hand. `claim` is what a result needs to be recorded."""

    delivery: Delivery
    body: bytes
    claim: str


class Deliveries:
    def __init__(self, database: Database, clock: Clock, *, claim_s: float = CLAIM_S) -> None:
        self._documents = database[COLLECTION]
        self._clock = clock
        self._claim = timedelta(seconds=claim_s)

    async def add(self, wanted: Sequence[tuple[Endpoint, Event]]) -> None:
        """Applied once, however often. For an endpoint that is disabled it is only noted, and may be replayed."""
        if not wanted:
            return
        now = self._clock.now()
        try:
            await self._documents.insert_many([_row(e, event, now) for e, event in wanted], ordered=False)
        except BulkWriteError as error:
            if any(failed["code"] != _DUPLICATE_KEY for failed in error.details["writeErrors"]):
                raise

    async def endpoints_due(self, *, but: Collection[str] = ()) -> list[str]:
        """The keys of the endpoints that have something due, apart from `but`."""
        due = {"endpoint": {"$gt": "", "$nin": [*but]}, "due_at": {"$lte": self._clock.now()}}
        keys: list[str] = await self._documents.distinct("endpoint", due)
        return keys

    async def claim(self, endpoint: str, count: int) -> list[Claimed]:
        """Those of this endpoint that are due the longest, `count` at most: the caller's for `claim_s` seconds.

        Several at once, since processes that each want the first one get in each other's way.
        """
        now, claim = self._clock.now(), new_id()
        due = {"endpoint": endpoint, "due_at": {"$lte": now}}
        rows = await self._documents.find(due).sort([("due_at", 1), ("event_at", 1)]).limit(count).to_list()
        wanted = {"_id": {"$in": [row["_id"] for row in rows]}}
        if not rows:
            return []
        taken = {"$set": {"due_at": now + self._claim, "claim": claim}}
        result = await self._documents.update_many({**wanted, **due}, taken)
        if result.modified_count < len(rows):  # somebody else was quicker with some
            ours = {row["_id"] async for row in self._documents.find({**wanted, "claim": claim}, {"_id": 1})}
            rows = [row for row in rows if row["_id"] in ours]
        return [Claimed(delivery_from(row), row["body"], claim) for row in rows]

    async def record(
        self, claimed: Claimed, attempt: Attempt, status: DeliveryStatus, due_at: datetime | None = None
    ) -> bool:
        """What became of an attempt; False, and nothing recorded, if the claim had run out and was taken over."""
        fields = {"status": status, "claim": None, "error": attempt.error}
        update: Document = {
            "$set": {**fields, "due_at": due_at} if due_at else fields,
            "$push": {"attempts": {"$each": [_attempt_row(attempt)], "$slice": -ATTEMPTS_KEPT}},
            "$inc": {"tries": 1},
        }
        if due_at is None:
            update["$unset"] = {"due_at": ""}
        result = await self._documents.update_one({"_id": claimed.delivery.key, "claim": claimed.claim}, update)
        return bool(result.matched_count)

    async def put_back(self, claimed: Claimed, *, after_s: float = 0.0) -> None:
        """Not an attempt: nothing was sent."""
        due_at = self._clock.now() + timedelta(seconds=after_s)
        await self._documents.update_one(
            {"_id": claimed.delivery.key, "claim": claimed.claim}, {"$set": {"claim": None, "due_at": due_at}}
        )

    async def abandon(self, endpoint: str, why: str) -> int:
        """Everything that waits for this endpoint fails now. What is in hand is decided by its attempt."""
        result = await self._documents.update_many(
            {"endpoint": endpoint, "claim": None, **_PENDING},
            {"$set": {"status": DeliveryStatus.FAILED, "error": why}, "$unset": {"due_at": ""}},
        )
        return result.modified_count

    async def give_up(self, claimed: Claimed, why: str) -> None:
        """Fails without an attempt."""
        await self._documents.update_one(
            {"_id": claimed.delivery.key, "claim": claimed.claim},
            {"$set": {"status": DeliveryStatus.FAILED, "claim": None, "error": why}, "$unset": {"due_at": ""}},
        )

    async def waiting(self, endpoint: str, *, limit: int) -> int:
        """How many are pending, counted to `limit`."""
        return await self._documents.count_documents({"endpoint": endpoint, **_PENDING}, limit=limit)

    async def find(self, tenant_id: str, delivery_id: str) -> tuple[Delivery, bytes]:
        """With its body. `NotFound` for another tenant's as for one that does not exist."""
        row = await self._documents.find_one(_where(tenant_id, delivery_id))
        if row is None:
            raise NotFound("there is no such webhook delivery", id=delivery_id)
        return delivery_from(row), row["body"]

    async def page(
        self, paginator: Paginator, tenant_id: str, endpoint_id: str, status: DeliveryStatus | None, args: PageArgs
    ) -> Page[Delivery]:
        """Newest first."""
        where: Document = {"endpoint": endpoint_key(tenant_id, endpoint_id)}
        if status is not None:
            where["status"] = status
        order = [("created_at", -1), ("_id", -1)]
        page = await paginator.page(self._documents, where, args, order=order, projection=_NOT_LISTED)
        return page.map(delivery_from)

    async def replay(self, tenant_id: str, delivery_id: str) -> Delivery:
        """Due now, and with a whole day again; as it is if it is in hand this moment."""
        await self._documents.update_one({**_where(tenant_id, delivery_id), "claim": None}, {"$set": self._afresh()})
        return (await self.find(tenant_id, delivery_id))[0]

    async def replay_failed(self, endpoint: Endpoint, since: datetime) -> int:
        """How many are due now: the oldest 10,000 of those that failed and were made at or after `since`."""
        failed = {"endpoint": endpoint.key, "status": DeliveryStatus.FAILED.value, "created_at": {"$gte": since}}
        oldest = self._documents.find(failed, {"_id": 1}).sort([("created_at", 1), ("_id", 1)]).limit(REPLAYED_AT_ONCE)
        keys = [row["_id"] async for row in oldest]
        result = await self._documents.update_many(
            {"_id": {"$in": keys}, "status": DeliveryStatus.FAILED}, {"$set": self._afresh()}
        )
        return result.modified_count

    def _afresh(self) -> Document:
        now = self._clock.now()
        return {"status": DeliveryStatus.PENDING, "due_at": now, "started_at": now, "tries": 0, "claim": None}


def delivery_id(endpoint: Endpoint, event: Event) -> str:
    return derived_id("webhook", endpoint.key, event.id)


def delivery_from(row: Document) -> Delivery:
    return Delivery(
        key=row["_id"],
        id=row["id"],
        tenant_id=row["tenant_id"],
        endpoint_key=row["endpoint"],
        endpoint_id=row["endpoint_id"],
        event_id=row["event_id"],
        event_type=row["event_type"],
        status=DeliveryStatus(row["status"]),
        created_at=row["created_at"],
        started_at=row["started_at"],
        due_at=row.get("due_at"),
        tries=row["tries"],
        error=row["error"],
        attempts=tuple(Attempt(**attempt) for attempt in row["attempts"]),
    )


def _row(endpoint: Endpoint, event: Event, now: datetime) -> Document:
    key = delivery_id(endpoint, event)
    row: Document = {
        "_id": endpoint_key(endpoint.tenant_id, key),
        "id": key,
        "tenant_id": endpoint.tenant_id,
        "endpoint": endpoint.key,
        "endpoint_id": endpoint.id,
        "event_id": event.id,
        "event_type": event.type,
        "event_at": event.time,
        "body": event.to_json(),
        "status": DeliveryStatus.PENDING,
        "created_at": now,
        "started_at": now,
        "due_at": now,
        "claim": None,
        "tries": 0,
        "error": "",
        "attempts": [],
    }
    if not endpoint.enabled:
        row.update(status=DeliveryStatus.FAILED, error=DISABLED)
        del row["due_at"]
    return row


DISABLED = "the endpoint is disabled"


def _attempt_row(attempt: Attempt) -> dict[str, Any]:
    return {name: getattr(attempt, name) for name in Attempt.__slots__}


def _where(tenant_id: str, delivery_id: str) -> Document:
    return {"_id": endpoint_key(tenant_id, delivery_id), "tenant_id": tenant_id}
