"""Which partitions of a subscription this process works on: a fair share, each under a lease."""

import asyncio
import random
from collections.abc import Iterable
from math import ceil

from pymongo import ASCENDING

from libs.core.events.event import PARTITIONS
from libs.core.ids import new_id
from libs.core.lock import Lease, process_name
from libs.core.migrations import Index
from libs.core.mongo import Database, Session

COLLECTION = "event_members"

MEMBER_INDEXES = (
    Index(COLLECTION, (("subscription", ASCENDING),)),
    Index(COLLECTION, (("seen_at", ASCENDING),), ttl_s=3600),
    Index("leases"),
)


class Membership:
    """One process's part in a subscription. A process that dies is missed after `ttl_s`."""

    def __init__(self, database: Database, subscription: str, *, ttl_s: float) -> None:
        self._members = database[COLLECTION]
        self._subscription = subscription
        self._id = new_id()
        self._ttl_ms = int(ttl_s * 1000)
        self._leases = {
            partition: Lease(database, f"events:{subscription}:{partition}", ttl_s=ttl_s)
            for partition in range(PARTITIONS)
        }

    @property
    def partitions(self) -> list[int]:
        """Those held, as far as this process knows."""
        return [partition for partition, lease in self._leases.items() if lease.held]

    async def balance(self) -> set[int]:
        """Renews what is held, gives up what exceeds the fair share, takes what is free. Answers what is newly held.

        Call it about four times in `ttl_s`, and never with events of a partition in hand.
        """
        await asyncio.gather(*(self._leases[partition].renew() for partition in self.partitions))
        kept = set(self.partitions)
        others = await self._claims_of_others()
        share = ceil(PARTITIONS / (len(others) + 1))
        await asyncio.gather(*(self._leases[partition].release() for partition in self.partitions[share:]))
        free = list(set(range(PARTITIONS)) - set(self.partitions) - {p for claimed in others for p in claimed})
        wanted = random.sample(free, min(len(free), max(0, share - len(self.partitions))))
        await asyncio.gather(*(self._leases[partition].acquire() for partition in wanted))
        if kept != set(self.partitions):
            await self._claim()
        return set(self.partitions) - kept

    async def guard(self, session: Session, partitions: Iterable[int]) -> None:
        """In the transaction that writes: `LeaseLost` if one of them is another process's by now."""
        for partition in partitions:
            await self._leases[partition].guard(session)

    async def leave(self) -> None:
        """Lets the others take over at once."""
        await asyncio.gather(*(lease.release() for lease in self._leases.values()))
        await self._members.delete_one({"_id": self._id})

    async def _claims_of_others(self) -> list[list[int]]:
        """What each of the other living processes holds. Says on the way that this one lives."""
        await self._claim()
        alive = {"$gt": ["$seen_at", {"$subtract": ["$$NOW", self._ttl_ms]}]}
        rows = self._members.find({"subscription": self._subscription, "_id": {"$ne": self._id}, "$expr": alive})
        return [row["partitions"] async for row in rows]

    async def _claim(self) -> None:
        member = {
            "subscription": self._subscription,
            "process": process_name(),
            "partitions": self.partitions,
            "seen_at": "$$NOW",
        }
        await self._members.update_one({"_id": self._id}, [{"$set": member}], upsert=True)
