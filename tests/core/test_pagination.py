import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from libs.core.errors import InvalidInput
from libs.core.mongo import Collection, Mongo
from libs.core.pagination import PageArgs, Paginator

AT = datetime(2026, 3, 1, tzinfo=UTC)
NEWEST_FIRST = [("at", -1), ("_id", -1)]
BY_NUMBER = [("number", 1)]
OF_ANNA = {"tenant_id": "acme", "owner": "anna"}

paginator = Paginator("a secret of at least 32 characters")


async def filled(mongo: Mongo, instants: list[int]) -> Collection:
    """A list of Anna's, with ties where `instants` (in ms) repeat, among those of others."""
    collection = mongo.db["rows"]
    await collection.delete_many({})
    for key in (("at", -1), ("_id", -1)), (("number", 1),):
        await collection.create_index([("tenant_id", 1), ("owner", 1), *key])
    rows = [
        {
            "_id": f"{owner}-{n:04}",
            "tenant_id": "acme",
            "owner": owner,
            "number": n,
            "at": AT + timedelta(milliseconds=ms),
        }
        for owner in ("anna", "ben")
        for n, ms in enumerate(instants)
    ]
    if rows:
        await collection.insert_many(rows)
    return collection


@pytest.fixture
async def rows(mongo: Mongo) -> Collection:
    return await filled(mongo, [n // 3 for n in range(30)])


class TestWalk:
    @pytest.mark.parametrize("order", [NEWEST_FIRST, BY_NUMBER])
    async def test_forwards_to_the_end(self, rows: Collection, order: Any) -> None:
        expected = [row["_id"] async for row in rows.find(OF_ANNA).sort(order)]
        seen: list[str] = []
        after = None
        while True:
            page = await paginator.page(rows, OF_ANNA, PageArgs(first=7, after=after), order=order)
            seen += [row["_id"] for row in page.items]
            assert page.has_previous == (after is not None)
            if not page.has_next:
                break
            after = page.cursors[-1]
        assert seen == expected

    @pytest.mark.parametrize("order", [NEWEST_FIRST, BY_NUMBER])
    async def test_backwards_to_the_beginning(self, rows: Collection, order: Any) -> None:
        expected = [row["_id"] async for row in rows.find(OF_ANNA).sort(order)]
        seen: list[str] = []
        before = None
        while True:
            page = await paginator.page(rows, OF_ANNA, PageArgs(last=7, before=before), order=order)
            seen = [row["_id"] for row in page.items] + seen
            assert page.has_next == (before is not None)
            if not page.has_previous:
                break
            before = page.cursors[0]
        assert seen == expected

    async def test_inserts_neither_repeat_nor_hide_what_was_there(self, rows: Collection) -> None:
        expected = [row["_id"] async for row in rows.find(OF_ANNA).sort(NEWEST_FIRST)]
        seen: list[str] = []
        after = None
        for turn in range(5):
            page = await paginator.page(rows, OF_ANNA, PageArgs(first=6, after=after), order=NEWEST_FIRST)
            seen += [row["_id"] for row in page.items]
            after = page.cursors[-1]
            newer = AT + timedelta(hours=1 + turn)
            await rows.insert_one(OF_ANNA | {"_id": f"new-{turn}", "at": newer, "number": 100 + turn})
        assert seen == expected

    async def test_the_cursors_document_may_be_gone(self, rows: Collection) -> None:
        page = await paginator.page(rows, OF_ANNA, PageArgs(first=5), order=BY_NUMBER)
        await rows.delete_one({"_id": page.items[-1]["_id"]})
        page = await paginator.page(rows, OF_ANNA, PageArgs(first=1, after=page.cursors[-1]), order=BY_NUMBER)
        assert [row["number"] for row in page.items] == [5]

    async def test_a_list_that_is_empty(self, mongo: Mongo) -> None:
        page = await paginator.page(await filled(mongo, []), OF_ANNA, PageArgs(), order=BY_NUMBER)
        assert (page.items, page.cursors, page.has_next, page.has_previous) == ([], [], False, False)

    async def test_conditions_that_change_leave_the_cursor_good(self, rows: Collection) -> None:
        also: Any = {"number": {"$lt": 10}}
        page = await paginator.page(rows, OF_ANNA, PageArgs(first=8), order=BY_NUMBER, also=also)
        after = page.cursors[-1]
        also = {"number": {"$lt": 20}}
        page = await paginator.page(rows, OF_ANNA, PageArgs(first=50, after=after), order=BY_NUMBER, also=also)
        assert [row["number"] for row in page.items] == list(range(8, 20))


class TestAgainstAListInMemory:
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        instants=st.lists(st.integers(0, 4), max_size=15),
        size=st.integers(1, 6),
        forwards=st.booleans(),
        ends=st.tuples(st.none() | st.integers(0, 14), st.none() | st.integers(0, 14)),
        order=st.tuples(st.sampled_from([1, -1]), st.sampled_from([1, -1])),
    )
    async def test_every_page_is_the_lists_slice(
        self,
        mongo: Mongo,
        instants: list[int],
        size: int,
        forwards: bool,
        ends: tuple[int | None, int | None],
        order: tuple[int, int],
    ) -> None:
        rows, by = await filled(mongo, instants), [("at", order[0]), ("_id", order[1])]
        model = await rows.find(OF_ANNA).sort(by).to_list()
        cursors = (await paginator.page(rows, OF_ANNA, PageArgs(first=100), order=by)).cursors
        after, before = (None if end is None or end >= len(model) else end for end in ends)
        args = PageArgs(
            first=size if forwards else None,
            last=None if forwards else size,
            after=None if after is None else cursors[after],
            before=None if before is None else cursors[before],
        )
        page = await paginator.page(rows, OF_ANNA, args, order=by)
        window = model[0 if after is None else after + 1 : before]
        expected = window[:size] if forwards else window[-size:]
        assert page.items == expected
        if expected:
            place = model.index(expected[0])
            assert page.has_previous == (place > 0)
            assert page.has_next == (place + len(expected) < len(model))


class TestArguments:
    @pytest.mark.parametrize(
        ("args", "field"),
        [
            ({"first": 0}, "first"),
            ({"first": -1}, "first"),
            ({"first": 101}, "first"),
            ({"last": 0}, "last"),
            ({"last": 2**31 - 1}, "last"),
            ({"first": 1, "last": 1}, "last"),
        ],
    )
    def test_sizes_that_are_refused(self, args: dict[str, Any], field: str) -> None:
        with pytest.raises(InvalidInput) as refused:
            PageArgs(**args)
        assert refused.value.field == field

    async def test_the_defaults(self, rows: Collection) -> None:
        page = await paginator.page(rows, OF_ANNA, PageArgs(), order=BY_NUMBER)
        assert [row["number"] for row in page.items] == list(range(20))

    async def test_before_alone_is_what_is_just_before(self, rows: Collection) -> None:
        cursors = (await paginator.page(rows, OF_ANNA, PageArgs(first=100), order=BY_NUMBER)).cursors
        page = await paginator.page(rows, OF_ANNA, PageArgs(before=cursors[25]), order=BY_NUMBER)
        assert [row["number"] for row in page.items] == list(range(5, 25))


class TestCursors:
    async def cursor(self, rows: Collection, where: Any = OF_ANNA, order: Any = BY_NUMBER) -> str:
        return (await paginator.page(rows, where, PageArgs(first=1), order=order)).cursors[0]

    async def refused(self, rows: Collection, cursor: str, by: Paginator = paginator) -> str | None:
        for name, args in (("after", PageArgs(after=cursor)), ("before", PageArgs(before=cursor))):
            with pytest.raises(InvalidInput) as refused:
                await by.page(rows, OF_ANNA, args, order=BY_NUMBER)
            assert refused.value.field == name
        return refused.value.field

    @pytest.mark.parametrize("cursor", ["", "x", "=", "a b", "ü", "A" * 22, "A" * 10_000, "\0", '{"$gt": ""}'])
    async def test_garbage(self, rows: Collection, cursor: str) -> None:
        assert await self.refused(rows, cursor)

    async def test_any_bit_changed(self, rows: Collection) -> None:
        raw = base64.urlsafe_b64decode(await self.cursor(rows) + "==")
        for place in range(len(raw)):
            changed = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
            assert await self.refused(rows, base64.urlsafe_b64encode(changed).rstrip(b"=").decode())

    @pytest.mark.parametrize("other", [{"owner": "ben"}, {"tenant_id": "other"}, {"kind": "user"}])
    async def test_of_another_list(self, rows: Collection, other: dict[str, str]) -> None:
        where = OF_ANNA | other
        await rows.insert_one({"_id": "other", "number": 1, **where})
        assert await self.refused(rows, await self.cursor(rows, where))

    async def test_of_another_order(self, rows: Collection) -> None:
        assert await self.refused(rows, await self.cursor(rows, order=[("number", -1)]))

    async def test_of_another_installation(self, rows: Collection) -> None:
        assert await self.refused(rows, await self.cursor(rows), by=Paginator("another secret of 32 characters!"))


class TestCost:
    """As MongoDB explains it: one range of one index, read in order, with nothing sorted in memory."""

    @pytest.mark.parametrize("order", [NEWEST_FIRST, BY_NUMBER])
    @pytest.mark.parametrize("backwards", [False, True])
    async def test_one_range_from_the_middle(self, rows: Collection, order: Any, backwards: bool) -> None:
        cursor = (await paginator.page(rows, OF_ANNA, PageArgs(first=15), order=order)).cursors[-1]
        args = PageArgs(last=5, before=cursor) if backwards else PageArgs(first=5, after=cursor)
        await rows.database.command("profile", 2)
        await paginator.page(rows, OF_ANNA, args, order=order)
        await rows.database.command("profile", 0)
        (profiled,) = await rows.database["system.profile"].find({"op": "query", "ns": rows.full_name}).to_list()
        assert profiled["planSummary"].count("IXSCAN") == 1
        assert not profiled.get("hasSortStage")
        # One more than the page, to know whether there is a next one, and at most the two ties of the cursor's instant.
        assert profiled["keysExamined"] <= 6 + 3
