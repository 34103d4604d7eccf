import asyncio
from datetime import datetime

import pytest

from libs.core.errors import LeaseLost
from libs.core.lock import COLLECTION, Lease
from libs.core.mongo import Mongo, Session
from libs.core.testing import eventually


async def taken_over(mongo: Mongo) -> Lease:
    """A lease of a process that stalled, until another one took it."""
    lease = Lease(mongo.db, "lane", ttl_s=0.001)
    assert await lease.acquire()
    assert await eventually(Lease(mongo.db, "lane").acquire)
    return lease


class TestAcquire:
    async def test_of_many_at_once_one_holds_it(self, mongo: Mongo) -> None:
        leases = [Lease(mongo.db, "lane") for _ in range(10)]
        assert sum(await asyncio.gather(*(lease.acquire() for lease in leases))) == 1

    async def test_held_by_another(self, mongo: Mongo) -> None:
        await Lease(mongo.db, "lane").acquire()
        other = Lease(mongo.db, "lane")
        assert (await other.acquire(), other.held) == (False, False)

    async def test_token_grows_with_every_holder(self, mongo: Mongo) -> None:
        tokens = []
        for _ in range(3):
            lease = Lease(mongo.db, "lane")
            await lease.acquire()
            tokens.append(lease.token)
            await lease.release()
        assert tokens == [1, 2, 3]

    async def test_twice_by_its_holder(self, mongo: Mongo) -> None:
        lease = Lease(mongo.db, "lane")
        assert await lease.acquire()
        assert (await lease.acquire(), lease.token) == (True, 1)

    async def test_names_are_apart(self, mongo: Mongo) -> None:
        assert await Lease(mongo.db, "one").acquire()
        assert await Lease(mongo.db, "two").acquire()


class TestTakenOver:
    async def test_cannot_be_renewed(self, mongo: Mongo) -> None:
        lease = await taken_over(mongo)
        assert (await lease.renew(), lease.held) == (False, False)

    async def test_release_leaves_it_to_the_new_holder(self, mongo: Mongo) -> None:
        await (await taken_over(mongo)).release()
        assert not await Lease(mongo.db, "lane").acquire()

    async def test_transaction_cannot_commit(self, mongo: Mongo) -> None:
        lease = await taken_over(mongo)
        await mongo.db.create_collection("things")

        async def work(session: Session) -> None:
            await mongo.db["things"].insert_one({"_id": 1}, session=session)
            await lease.guard(session)

        with pytest.raises(LeaseLost):
            await mongo.transaction(work)
        assert await mongo.db["things"].find_one({}) is None


class TestGuard:
    async def test_renews_and_sets_fields(self, mongo: Mongo) -> None:
        lease = Lease(mongo.db, "lane")
        await lease.acquire()
        await mongo.transaction(lambda session: lease.guard(session, head="abc"))
        row = await mongo.db[COLLECTION].find_one({"_id": "lane"})
        assert row is not None
        assert (row["head"], row["token"]) == ("abc", 1)


class TestDuring:
    async def test_answers_what_the_work_does(self, mongo: Mongo) -> None:
        async def work() -> int:
            return 5

        lease = Lease(mongo.db, "lane")
        await lease.acquire()
        assert await lease.during(work()) == 5

    async def test_renewed_until_the_work_is_done(self, mongo: Mongo) -> None:
        lease, done = Lease(mongo.db, "lane", ttl_s=0.3), asyncio.Event()
        await lease.acquire()
        ends: set[datetime] = set()

        async def renewed_often() -> bool:
            ends.add((await mongo.db[COLLECTION].find_one({}) or {})["expires_at"])
            return len(ends) > 3

        working = asyncio.create_task(lease.during(done.wait()))
        await eventually(renewed_often)
        done.set()
        assert await working

    async def test_work_is_cancelled_when_it_is_lost(self, mongo: Mongo) -> None:
        lease = Lease(mongo.db, "lane", ttl_s=0.3)
        await lease.acquire()
        working = asyncio.create_task(lease.during(asyncio.Event().wait()))
        await mongo.db[COLLECTION].update_one({"_id": "lane"}, {"$set": {"holder": "another", "token": 2}})
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(working, 5)
