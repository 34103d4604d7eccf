"""Dead letters, for people: what could not be handled and holds its key up, until it is replayed or skipped."""

import builtins
from dataclasses import dataclass
from datetime import datetime

from pymongo import ASCENDING

from libs.core.errors import NotFound
from libs.core.events.parking import AT_ONCE, COLLECTION
from libs.core.mongo import Database, Document


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """`event` is the envelope as it was received; `waiting` counts the later events of its key that wait behind it."""

    id: str
    subscription: str
    key: str
    event: str
    error: str
    tries: int
    parked_at: datetime
    waiting: int


class DeadLetters:
    """Of all subscriptions that keep their inbox in `database`. Decisions are carried out by the process that holds the
    event's partition, within about half a second."""

    def __init__(self, database: Database) -> None:
        self._rows = database[COLLECTION]

    async def list(self, *, subscription: str | None = None, limit: int = 100) -> builtins.list[DeadLetter]:
        """The oldest first. A subscription is named `<group>/<source>`."""
        which: Document = {"head": True, "due_at": None}
        if subscription is not None:
            which["subscription"] = subscription
        rows = await self._rows.find(which, sort=[("parked_at", ASCENDING)], limit=limit).to_list()
        return [await self._dead_letter(row) for row in rows]

    async def replay(self, dead_letter_id: str) -> None:
        """Tries it again, as often as at first, and then what waits behind it. `NotFound` if it is no dead letter."""
        await self._decide(dead_letter_id, {"tries": 0})

    async def skip(self, dead_letter_id: str) -> None:
        """Never handles it, and goes on with what waits behind it. `NotFound` if it is no dead letter."""
        await self._decide(dead_letter_id, {"skipped": True})

    async def _decide(self, dead_letter_id: str, decision: Document) -> None:
        dead = {"_id": dead_letter_id, "head": True, "due_at": None}
        result = await self._rows.update_one(dead, {"$set": {"due_at": AT_ONCE, **decision}})
        if not result.matched_count:
            raise NotFound(f"there is no dead letter {dead_letter_id}", id=dead_letter_id)

    async def _dead_letter(self, row: Document) -> DeadLetter:
        of_key = {"subscription": row["subscription"], "key": row["key"]}
        return DeadLetter(
            id=row["_id"],
            subscription=row["subscription"],
            key=row["key"],
            event=row["body"].decode(errors="replace"),
            error=row["error"],
            tries=row["tries"],
            parked_at=row["parked_at"],
            waiting=await self._rows.count_documents(of_key) - 1,
        )
