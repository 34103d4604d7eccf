"""Up to which instant the ledger is settled: nothing that is yet to be committed bears it, or an earlier one.

Processes commit side by side, and a group is seen some milliseconds after the instant that it bears: a list by time
could show one, and a moment later another before it. So the lease of each lane tells `at`: the instant of its last
group, or, while it is idle, one that it has promised to stay behind of. What all lanes in use have passed is settled.

    at          no later group of this lane bears this instant, or an earlier one; null while the lane is being taken
    closed_at   what `at` was before that
    retired     true once it was seen to that the process which had it cannot commit any more

A lane is in use until it was released, taken over, or retired here, which all three fence off the process that had it:
that its lease has expired does not keep a process, woken from a long sleep, from committing what it had begun.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from time import monotonic

import pymongo
from pymongo.errors import PyMongoError

from libs.core.errors import Unavailable
from libs.core.lock import COLLECTION as LEASES
from libs.core.mongo import Database, Document
from services.payment.domain.book import TICK

# What a lease is given when a lane is taken.
TAKING: Document = {"at": None, "closed_at": {"$max": ["$closed_at", "$at"]}, "retired": False}
_LANES = {"_id": {"$gte": "lane-", "$lt": "lane."}}
# A process whose clock is further ahead of MongoDB's is not followed: what it commits is listed when its time has come.
TOLERATED_SKEW = timedelta(seconds=5)
# Before anything ever happened.
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_TAKEN_WITHIN_S = 1.0
_RETIRED_WITHIN_S = 0.5


async def settled_until(database: Database) -> datetime:
    """Whoever asks for what happened up to that instant, now or ever after, is answered the same. `Unavailable` if a

    process that is taking a lane does not finish.
    """
    give_up_at = monotonic() + _TAKEN_WITHIN_S
    while True:
        lanes = await _lanes(database)
        in_use = [lane for lane in lanes if not await _out_of_use(database, lane)]
        if all(lane.get("at") for lane in in_use):
            passed: list[datetime] = [lane["at"] for lane in in_use]
            return min([_latest(lanes), *passed])
        if monotonic() > give_up_at:
            raise Unavailable("a process is taking a lane, and does not finish: try again in a moment")
        await asyncio.sleep(0.01)


async def first_promise(database: Database, now: datetime) -> datetime:
    """What a process that has just taken a lane has to promise at once: not to go behind what was ever settled.

    Asked after the lane was taken, since when nothing can be settled without it. That instant is what is promised of
    some lane, whichever is the furthest; `now` is by the process' own clock.
    """
    return max(now - TICK, _latest(await _lanes(database)))


async def passed_by_others(database: Database) -> datetime:
    """What the furthest lane has passed, if that is not in the future. A process whose clock is slow follows: else all

    lists would be as late as its clock is.
    """
    lanes = await _lanes(database)
    instants: list[datetime] = [_latest(lanes), *(lane["now"] for lane in lanes)]
    return min(instants)


async def _lanes(database: Database) -> list[Document]:
    fields = {"at": 1, "closed_at": 1, "token": 1, "expires_at": 1, "retired": 1, "now": "$$NOW"}
    return await (await database[LEASES].aggregate([{"$match": _LANES}, {"$project": fields}])).to_list()


def _latest(lanes: Sequence[Document]) -> datetime:
    """What the furthest lane has passed, tolerably."""
    passed: list[datetime] = [at for lane in lanes for at in (lane.get("at"), lane.get("closed_at")) if at]
    if not passed:
        return _NEVER
    now: datetime = lanes[0]["now"]
    return min(max(passed), now + TOLERATED_SKEW)


async def _out_of_use(database: Database, lane: Document) -> bool:
    """Sees to it that the process of an expired lease, should it wake up, cannot commit any more."""
    if lane.get("expires_at") is None or lane.get("retired"):
        return True
    if lane["expires_at"] > lane["now"]:
        return False
    expired = {"_id": lane["_id"], "token": lane["token"], "$expr": {"$lte": ["$expires_at", "$$NOW"]}}
    try:
        with pymongo.timeout(_RETIRED_WITHIN_S):
            retire = {"$set": {"retired": True}, "$inc": {"token": 1}}
            return bool((await database[LEASES].update_one(expired, retire)).matched_count)
    except PyMongoError as error:
        if error.timeout:  # a transaction that was left open has it
            return False
        raise
