"""The audit log: what it holds, and what it says when somebody was at it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from libs.core.audit import COLLECTION, HEADS, INDEXES, AuditLog, AuditRow, Divergence, Head, row_hash
from libs.core.context import correlation_id
from libs.core.migrations import migrate
from libs.core.mongo import Mongo
from libs.core.testing import FROZEN_AT, FrozenClock

Append = Callable[..., Awaitable[AuditRow]]


@pytest.fixture
async def audit(mongo: Mongo, clock: FrozenClock) -> AuditLog:
    await migrate(mongo.core, INDEXES)
    return AuditLog(mongo.core, "test", clock=clock)


@pytest.fixture
def append(mongo: Mongo, audit: AuditLog) -> Append:
    async def append(actor: str = "ann", **entry: Any) -> AuditRow:
        entry = {"action": "limit.set", "resource": "limit:1", **entry}
        return await mongo.transaction(lambda session: audit.append(session, actor=actor, **entry))

    return append


class TestAppend:
    async def test_everything_is_kept(self, audit: AuditLog, append: Append) -> None:
        correlation_id.set("c-1")
        row = await append(
            on_behalf_of="bob",
            tenant_id="t1",
            before={"max": (1, 2.5, None)},
            after={"$max": {"a.b": True}},
            reason="INC-7",
            origin="10.0.0.1",
        )
        assert await audit.read() == [row]
        assert (row.on_behalf_of, row.tenant_id, row.reason, row.origin) == ("bob", "t1", "INC-7", "10.0.0.1")
        assert (row.before, row.after) == ({"max": [1, 2.5, None]}, {"$max": {"a.b": True}})
        assert (row.at, row.correlation_id, row.sequence) == (FROZEN_AT, "c-1", 1)

    async def test_each_row_carries_the_hash_before(self, append: Append) -> None:
        first, second = await append(), await append()
        assert (first.previous, second.previous) == ("", first.hash)

    async def test_concurrent_appends_make_one_chain(self, audit: AuditLog, append: Append) -> None:
        await asyncio.gather(*(append(f"actor-{n}") for n in range(20)))
        rows = await audit.read()
        assert [row.sequence for row in rows] == list(range(1, 21))
        assert len({row.actor for row in rows}) == 20
        assert await audit.verify() is None

    async def test_an_aborted_change_leaves_no_row(self, mongo: Mongo, audit: AuditLog, append: Append) -> None:
        async def fails(session: Any) -> None:
            await audit.append(session, actor="ann", action="a", resource="r")
            raise RuntimeError

        with pytest.raises(RuntimeError):
            await mongo.transaction(fails)
        assert (await append()).sequence == 1

    async def test_logs_are_chains_of_their_own(self, mongo: Mongo, append: Append) -> None:
        await append()
        other = AuditLog(mongo.core, "other")
        row = await mongo.transaction(lambda s: other.append(s, actor="ann", action="a", resource="r"))
        assert (row.sequence, row.previous) == (1, "")

    @pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}], ids=["object", "nan", "set"])
    async def test_what_json_has_no_shape_for_is_refused(self, append: Append, value: object) -> None:
        with pytest.raises((TypeError, ValueError)):
            await append(after=value)


class TestRead:
    async def test_pages_by_sequence(self, audit: AuditLog, append: Append) -> None:
        rows = [await append(f"actor-{n}") for n in range(5)]
        assert await audit.read(after=1, limit=2) == rows[1:3]

    async def test_of_one_resource(self, audit: AuditLog, append: Append) -> None:
        await append(resource="limit:1")
        wanted = await append(resource="limit:2")
        assert await audit.read(resource="limit:2") == [wanted]


class TestVerify:
    @pytest.fixture(autouse=True)
    async def five_rows(self, append: Append) -> list[AuditRow]:
        return [await append(f"actor-{n}", after={"max": n}) for n in range(1, 6)]

    async def test_untouched(self, audit: AuditLog) -> None:
        assert await audit.verify() is None

    @pytest.mark.parametrize(
        "edit",
        [
            {"$set": {"actor": "eve"}},
            {"$set": {"after.max": 99}},
            {"$set": {"after.max": 3.0}},
            {"$unset": {"reason": ""}},
            {"$set": {"note": "added"}},
            {"$set": {"at": "yesterday"}},
            {"$set": {"previous": "0" * 64}},
            {"$unset": {"hash": ""}},
        ],
        ids=str,
    )
    async def test_edited(self, mongo: Mongo, audit: AuditLog, edit: dict[str, Any]) -> None:
        await mongo.core[COLLECTION].update_one({"sequence": 3}, edit)
        assert await audit.verify() == Divergence(3, "edited")

    async def test_edited_with_a_hash_that_fits(self, mongo: Mongo, audit: AuditLog) -> None:
        await forge(mongo, 3)
        assert await audit.verify() == Divergence(4, "unlinked")

    async def test_last_row_edited_with_a_hash_that_fits(self, mongo: Mongo, audit: AuditLog) -> None:
        await forge(mongo, 5)
        assert await audit.verify() == Divergence(5, "rewritten")

    @pytest.mark.parametrize(
        ("removed", "divergence"),
        [
            ({"sequence": 1}, Divergence(1, "missing")),
            ({"sequence": 3}, Divergence(3, "missing")),
            ({"sequence": {"$gte": 4}}, Divergence(4, "cut")),
            ({}, Divergence(1, "cut")),
        ],
        ids=["first", "middle", "tail", "all"],
    )
    async def test_removed(
        self, mongo: Mongo, audit: AuditLog, removed: dict[str, Any], divergence: Divergence
    ) -> None:
        await mongo.core[COLLECTION].delete_many(removed)
        assert await audit.verify() == divergence

    async def test_added_by_hand(self, mongo: Mongo, audit: AuditLog) -> None:
        row = await mongo.core[COLLECTION].find_one({"sequence": 5}, {"_id": 0})
        assert row
        await mongo.core[COLLECTION].insert_one(row | {"sequence": 6})
        assert await audit.verify() == Divergence(6, "unrecorded")

    async def test_head_removed(self, mongo: Mongo, audit: AuditLog) -> None:
        await mongo.core[HEADS].delete_one({"_id": "test"})
        assert await audit.verify() == Divergence(1, "unrecorded")

    async def test_tail_and_head_cut_is_shown_by_a_head_that_was_kept(self, mongo: Mongo, audit: AuditLog) -> None:
        kept, third = await audit.head(), (await audit.read())[2]
        await mongo.core[COLLECTION].delete_many({"sequence": {"$gt": 3}})
        await mongo.core[HEADS].update_one({"_id": "test"}, {"$set": {"sequence": 3, "hash": third.hash}})
        assert await audit.verify() is None
        assert await audit.verify(since=kept) == Divergence(4, "cut")

    async def test_goes_on_from_a_head_that_was_kept(self, mongo: Mongo, audit: AuditLog, append: Append) -> None:
        kept = await audit.head()
        await append()
        assert await audit.verify(since=kept) is None
        assert await audit.verify(since=Head(5, "0" * 64)) == Divergence(6, "unlinked")

    async def test_in_parts(self, audit: AuditLog, append: Append) -> None:
        first = await audit.check(at_most=2)
        assert (first.head.sequence, first.divergence, first.complete) == (2, None, False)
        rest = await audit.check(first.head, at_most=100)
        assert (rest.head, rest.divergence, rest.complete) == (await audit.head(), None, True)

    async def test_a_part_ends_where_something_is_wrong(self, mongo: Mongo, audit: AuditLog) -> None:
        await forge(mongo, 2)
        checked = await audit.check(at_most=4)
        assert (checked.head.sequence, checked.divergence) == (2, Divergence(3, "unlinked"))


async def forge(mongo: Mongo, sequence: int) -> None:
    """Edits a row and, as somebody who knows the code would, gives it a hash that fits."""
    rows = mongo.core[COLLECTION]
    row = await rows.find_one({"sequence": sequence})
    assert row
    row["actor"] = "eve"
    await rows.replace_one({"sequence": sequence}, row | {"hash": row_hash(row)})
