"""Leases: who may do a thing, until when by the database server's clock, with a token that fences off the one before.

    lease = Lease(mongo.db, "relay", ttl_s=10)
    if await lease.acquire():
        await lease.guard(session)      # in the transaction that writes: a lost lease cannot commit
        await lease.during(work())      # renewed in the background while `work` runs

Leases live in MongoDB and not in Redis, because Redis may forget one that is held.
"""

import asyncio
import os
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from libs.core.errors import LeaseLost
from libs.core.ids import new_id
from libs.core.mongo import Database, Document, Session
from libs.core.tasks import ended

T = TypeVar("T")

COLLECTION = "leases"


def process_name() -> str:
    """Names this process in a lease, for people: `host:pid`. It is not what tells two holders apart."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Lease:
    """One holder's view of the lease `name`. `token` grows by one with every change of holder; None while not held."""

    def __init__(self, database: Database, name: str, *, ttl_s: float = 10.0) -> None:
        self.name = name
        self.token: int | None = None
        self._leases = database[COLLECTION]
        self._holder = new_id()
        self._ttl_ms = int(ttl_s * 1000)

    @property
    def held(self) -> bool:
        """As far as this process knows; only `guard` knows for sure."""
        return self.token is not None

    async def acquire(self, **fields: Any) -> bool:
        """Takes the lease if it is free or expired, and sets `fields`; true if it is now held. Also renews one that is

        held. Here and in the other methods fields may be expressions of an update by pipeline.
        """
        if self.held:
            return await self.renew()
        row = await self._take(fields)
        if row is None:
            with suppress(DuplicateKeyError):  # there, and held
                await self._leases.insert_one({"_id": self.name, "token": 0, "expires_at": None})
                row = await self._take(fields)
        if row is None:
            return False
        self.token = row["token"]
        return True

    async def _take(self, fields: Document) -> Document | None:
        take = {
            **fields,
            "holder": self._holder,
            "process": process_name(),
            "token": {"$add": ["$token", 1]},
            "expires_at": self._expiry(),
        }
        return await self._leases.find_one_and_update(
            {"_id": self.name, "$expr": {"$lte": ["$expires_at", "$$NOW"]}},  # None sorts before every date
            [{"$set": take}],
            return_document=ReturnDocument.AFTER,
        )

    async def renew(self, **fields: Any) -> bool:
        """Extends a held lease, and sets `fields`; false, and no longer held, if another holder took it meanwhile."""
        result = await self._leases.update_one(self._mine(), [{"$set": {"expires_at": self._expiry(), **fields}}])
        if not result.matched_count:
            self.token = None
        return self.held

    async def guard(self, session: Session, **fields: Any) -> None:
        """Renews inside the caller's transaction, and sets `fields` beside it. `LeaseLost` if it is another's by now:

        the transaction then conflicts with, or comes after, the new holder's taking, and cannot commit.
        """
        result = await self._leases.update_one(
            self._mine(), [{"$set": {"expires_at": self._expiry(), **fields}}], session=session
        )
        if not result.matched_count:
            self.token = None
            raise LeaseLost(f"the lease {self.name} was taken over by another process", lease=self.name)

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """Awaits `work`, renewing a lease that is held.

        Cancels it with `LeaseLost` once another process took the lease, or with the driver's error if that cannot be
        renewed.
        """
        working, renewing = asyncio.ensure_future(work), asyncio.ensure_future(self._keep())
        try:
            await asyncio.wait((working, renewing), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                renewing.result()  # ends only by raising
            return working.result()
        finally:
            await ended(working, renewing)

    async def _keep(self) -> None:
        while True:
            if not await self.renew():
                raise LeaseLost(f"the lease {self.name} was taken over by another process", lease=self.name)
            await asyncio.sleep(self._ttl_ms / 3000)

    async def release(self) -> None:
        """Lets go at once, so that the next holder need not wait for the expiry. Does nothing if it is not held."""
        if self.held:
            await self._leases.update_one(self._mine(), {"$set": {"expires_at": None}})
            self.token = None

    def _mine(self) -> dict[str, Any]:
        return {"_id": self.name, "holder": self._holder, "token": self.token}

    def _expiry(self) -> dict[str, Any]:
        return {"$dateAdd": {"startDate": "$$NOW", "unit": "millisecond", "amount": self._ttl_ms}}
