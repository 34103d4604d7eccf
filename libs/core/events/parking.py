"""Where a group of subscribers puts aside what it could not handle, with every later event of the same key, in order.

The first of a key is its *head*: tried again when its time comes, and a dead letter (no time) once it was tried too
often. The others wait behind it. Only the holder of the partition adds and removes, so the keys that stand still can
be known from memory; all others just leave a note on a head (`dead_letters.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b

from pymongo import ASCENDING

from libs.core.events.event import Event, Undecodable
from libs.core.events.stream import Entry
from libs.core.migrations import Index
from libs.core.mongo import Database, Document, Session

COLLECTION = "parked_events"
AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
_MOVE_UP = {"$set": {"head": True, "due_at": AT_ONCE}}

PARKED_INDEXES = (
    Index(COLLECTION, (("subscription", ASCENDING), ("key", ASCENDING), ("place", ASCENDING))),
    Index(COLLECTION, (("subscription", ASCENDING), ("due_at", ASCENDING)), partial={"head": True}),
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event as a subscriber has it in hand. `event` is None if it cannot be decoded: its key is then its own."""

    id: str
    partition: int
    key: str
    body: bytes
    event: Event | None
    entry_id: bytes = b""
    parked: bool = False
    tries: int = 0
    skipped: bool = False

    @classmethod
    def of(cls, subscription: str, entry: Entry, body: bytes) -> "Delivery":
        """New from the stream. The id is the event's within the subscription, however often it is delivered."""
        event = _decoded(body)
        name = event.id if event else f"undecodable-{blake2b(body, digest_size=16).hexdigest()}"
        return cls(
            id=f"{subscription}/{name}",
            partition=entry.partition,
            key=event.partition_key if event else name,
            entry_id=entry.id,
            body=body,
            event=event,
        )

    @classmethod
    def parked_as(cls, row: Document) -> "Delivery":
        body = row["body"]
        known = {name: row[name] for name in ("partition", "key", "tries", "skipped")}
        return cls(id=row["_id"], body=body, event=_decoded(body), parked=True, **known)


def _sortable(entry_id: bytes) -> str:
    ms, n = entry_id.split(b"-")
    return f"{int(ms):015}-{int(n):07}"


def _decoded(body: bytes) -> Event | None:
    try:
        return Event.from_json(body)
    except Undecodable:
        return None


class Parking:
    """What one subscription has put aside."""

    def __init__(self, database: Database, subscription: str) -> None:
        self._rows = database[COLLECTION]
        self._subscription = subscription

    async def standing(self, partitions: Sequence[int]) -> set[str]:
        """The keys that stand still. Gives each a head that has none, as after a commit that seemed to have failed."""
        # Partitions last: without them the index leads from key to key, past however many wait behind each head.
        first = [row for row in await self._first_of_each({}) if row["partition"] in partitions]
        headless = [row["_id"] for row in first if not row["head"]]
        if headless:
            await self._rows.update_many({"_id": {"$in": headless}}, _MOVE_UP)
        return {row["key"] for row in first}

    async def due(self, partitions: Sequence[int], limit: int) -> list[Delivery]:
        """The heads whose time has come, one of each key."""
        which = {
            "subscription": self._subscription,
            "head": True,
            "due_at": {"$ne": None, "$lte": datetime.now(UTC)},
            "partition": {"$in": [*partitions]},
        }
        rows = self._rows.find(which, sort=[("due_at", ASCENDING)], limit=limit)
        return [Delivery.parked_as(row) async for row in rows]

    async def put_head(
        self, session: Session, delivery: Delivery, *, tries: int, due_at: datetime | None, error: str
    ) -> None:
        """The first of its key to be put aside, or the head after another try."""
        news = {"tries": tries, "due_at": due_at, "error": error}
        if delivery.parked:
            await self._rows.update_one({"_id": delivery.id}, {"$set": news}, session=session)
        else:
            await self._rows.insert_one(self._row(delivery) | {"head": True} | news, session=session)

    async def add(self, session: Session, deliveries: Sequence[Delivery]) -> None:
        """Behind the heads of their keys."""
        if deliveries:
            await self._rows.insert_many([self._row(delivery) for delivery in deliveries], session=session)

    async def present(self, ids: Sequence[str]) -> set[str]:
        return {row["_id"] async for row in self._rows.find({"_id": {"$in": [*ids]}}, {"_id": 1})} if ids else set()

    async def remove(self, session: Session, heads: Sequence[Delivery]) -> tuple[int, set[str]]:
        """Heads that are done with; the next of each key moves up, due at once.

        Answers how many there were, and the keys that have no more.
        """
        if not heads:
            return 0, set()
        gone = await self._rows.delete_many({"_id": {"$in": [head.id for head in heads]}}, session=session)
        keys = {head.key for head in heads}
        following = await self._first_of_each({"key": {"$in": [*keys]}}, session)
        await self._rows.update_many({"_id": {"$in": [row["_id"] for row in following]}}, _MOVE_UP, session=session)
        return gone.deleted_count, keys - {row["key"] for row in following}

    async def _first_of_each(self, which: Document, session: Session | None = None) -> list[Document]:
        """Of every key the row that is first in order."""
        stages: list[Document] = [
            {"$match": {"subscription": self._subscription, **which}},
            {"$sort": {"subscription": 1, "key": 1, "place": 1}},
            {"$group": {"_id": "$key", "row": {"$first": "$$ROOT"}}},
            {"$replaceWith": {"_id": "$row._id", "key": "$_id", "partition": "$row.partition", "head": "$row.head"}},
        ]
        return await (await self._rows.aggregate(stages, session=session)).to_list()

    def _row(self, delivery: Delivery) -> Document:
        return {
            "_id": delivery.id,
            "subscription": self._subscription,
            "partition": delivery.partition,
            "key": delivery.key,
            "place": _sortable(delivery.entry_id),
            "body": delivery.body,
            "head": False,
            "due_at": None,
            "tries": 0,
            "skipped": False,
            "error": "",
            "parked_at": datetime.now(UTC),
        }
