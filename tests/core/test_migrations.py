import asyncio

import pytest

from libs.core.errors import Misconfigured, Unavailable
from libs.core.lock import Lease
from libs.core.migrations import Index, Migration, migrate
from libs.core.mongo import Database, Mongo

BY_OWNER = Index("wallets", (("tenant_id", 1), ("owner_id", 1)))


def marks(version: int, name: str = "") -> Migration:
    """A migration that leaves a row behind each time it runs."""

    async def apply(database: Database) -> None:
        await database["marks"].insert_one({"version": version})

    return Migration(version, name or f"mark {version}", apply)


def fails(version: int) -> Migration:
    async def apply(_: Database) -> None:
        raise ValueError("no such field")

    return Migration(version, "give wallets a category", apply)


async def marked(database: Database) -> list[int]:
    return [row["version"] async for row in database["marks"].find({}, sort=[("_id", 1)])]


class TestIndexes:
    async def test_created_with_their_collections(self, mongo: Mongo) -> None:
        await migrate(mongo.db, [BY_OWNER, Index("outbox")])
        assert {"outbox", "wallets"} <= set(await mongo.db.list_collection_names())
        assert BY_OWNER.name in await mongo.db["wallets"].index_information()

    async def test_unique_where_partial_says_so(self, mongo: Mongo) -> None:
        await migrate(mongo.db, [Index("users", (("email", 1),), unique=True, partial={"email": {"$exists": True}})])
        await mongo.db["users"].insert_many([{}, {}, {"email": "a@b.c"}])
        with pytest.raises(Exception, match="E11000"):
            await mongo.db["users"].insert_one({"email": "a@b.c"})

    async def test_changed_time_to_live(self, mongo: Mongo) -> None:
        await migrate(mongo.db, [Index("sessions", (("expires_at", 1),), ttl_s=60)])
        await migrate(mongo.db, [Index("sessions", (("expires_at", 1),), ttl_s=0)])
        assert (await mongo.db["sessions"].index_information())["expires_at_1"]["expireAfterSeconds"] == 0

    async def test_changed_definition_is_another_index(self, mongo: Mongo) -> None:
        """So that the old one serves old processes until a later release drops it."""
        unique = Index(BY_OWNER.collection, BY_OWNER.keys, unique=True)
        await migrate(mongo.db, [BY_OWNER])
        await migrate(mongo.db, [unique])
        assert {BY_OWNER.name, unique.name} <= set(await mongo.db["wallets"].index_information())

    async def test_duplicates_under_a_unique_one(self, mongo: Mongo) -> None:
        await mongo.db["wallets"].insert_many([{"tenant_id": 1, "owner_id": 1}, {"tenant_id": 1, "owner_id": 1}])
        with pytest.raises(Misconfigured, match=r"tenant_id_1_owner_id_1_unique of .*wallets cannot be unique"):
            await migrate(mongo.db, [Index(BY_OWNER.collection, BY_OWNER.keys, unique=True)])

    async def test_nothing_to_do_takes_no_lease(self, mongo: Mongo) -> None:
        await migrate(mongo.db, [BY_OWNER], [marks(1)])
        await Lease(mongo.db, "migrations").acquire()
        assert await migrate(mongo.db, [BY_OWNER], [marks(1)], wait_s=0) == 1


class TestMigrations:
    async def test_applied_once_in_order(self, mongo: Mongo) -> None:
        assert await migrate(mongo.db, migrations=[marks(1)]) == 1
        assert await migrate(mongo.db, migrations=[marks(1), marks(2), marks(3)]) == 3
        assert await marked(mongo.db) == [1, 2, 3]

    async def test_two_of_one_number_at_once(self, mongo: Mongo) -> None:
        both = [migrate(mongo.db, migrations=[marks(1, name)]) for name in ("add tiers", "add limits")]
        outcomes = await asyncio.gather(*both, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {int, Misconfigured}

    async def test_many_processes_at_once(self, mongo: Mongo) -> None:
        await asyncio.gather(*(migrate(mongo.db, [BY_OWNER], [marks(1), marks(2)]) for _ in range(5)))
        assert await marked(mongo.db) == [1, 2]

    async def test_failed_one_keeps_the_version_before(self, mongo: Mongo) -> None:
        with pytest.raises(Misconfigured, match=r"migration 2 \(give wallets a category\) .* stays at version 1"):
            await migrate(mongo.db, migrations=[marks(1), fails(2), marks(3)])
        assert await migrate(mongo.db, migrations=[marks(1), marks(2, "give wallets a category"), marks(3)]) == 3
        assert await marked(mongo.db) == [1, 2, 3]

    async def test_indexes_come_after(self, mongo: Mongo) -> None:
        async def make_unique(database: Database) -> None:
            await database["wallets"].delete_one({})

        await mongo.db["wallets"].insert_many([{"owner_id": 1}, {"owner_id": 1}])
        unique = Index("wallets", (("owner_id", 1),), unique=True)
        await migrate(mongo.db, [unique], [Migration(1, "one wallet per owner", make_unique)])
        assert unique.name in await mongo.db["wallets"].index_information()

    async def test_older_process_starts_and_touches_nothing(self, mongo: Mongo) -> None:
        await migrate(mongo.db, migrations=[marks(1), marks(2)])
        assert await migrate(mongo.db, [BY_OWNER], [marks(1)]) == 2
        assert "wallets" not in await mongo.db.list_collection_names()

    async def test_two_of_one_number(self, mongo: Mongo) -> None:
        await migrate(mongo.db, migrations=[marks(1, "theirs")])
        with pytest.raises(Misconfigured, match="has had migration 1 as 'theirs'"):
            await migrate(mongo.db, migrations=[marks(1, "ours")])

    async def test_gap_in_the_numbers(self, mongo: Mongo) -> None:
        with pytest.raises(Misconfigured, match=r"these are \[1, 3\]"):
            await migrate(mongo.db, migrations=[marks(1), marks(3)])

    async def test_another_process_takes_too_long(self, mongo: Mongo) -> None:
        await Lease(mongo.db, "migrations").acquire()
        with pytest.raises(Unavailable, match="another process is still migrating"):
            await migrate(mongo.db, [BY_OWNER], wait_s=0.1)


class TestLeaseDuring:
    async def test_answers_and_stays_held(self, mongo: Mongo) -> None:
        lease = await held(mongo)
        assert await lease.during(asyncio.sleep(0.05, "done")) == "done"
        assert lease.held

    async def test_renewed_past_its_time(self, mongo: Mongo) -> None:
        lease = await held(mongo, ttl_s=0.3)
        await lease.during(asyncio.sleep(0.6))
        assert not await Lease(mongo.db, "work").acquire()

    async def test_lost_to_another_process(self, mongo: Mongo) -> None:
        lease = await held(mongo, ttl_s=0.3)
        await mongo.db["leases"].update_one({"_id": "work"}, {"$set": {"holder": "another"}})
        with pytest.raises(Exception, match="taken over"):
            await lease.during(asyncio.sleep(60))

    async def test_error_of_the_work(self, mongo: Mongo) -> None:
        async def work() -> None:
            raise ValueError("as it was raised")

        with pytest.raises(ValueError, match="as it was raised"):
            await (await held(mongo)).during(work())


async def held(mongo: Mongo, ttl_s: float = 10) -> Lease:
    lease = Lease(mongo.db, "work", ttl_s=ttl_s)
    assert await lease.acquire()
    return lease
