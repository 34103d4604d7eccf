"""Page 1 and page 10,000 of a million transactions. `python -m scripts.bench.pagination`, with MONGO_URL set.

By the two kinds of order that lists have: one unique number, and an instant with a tie-breaker (three share each
millisecond). A page is 20 documents.
"""

import asyncio
import os
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta

from libs.core.mongo import Collection
from libs.core.pagination import Order, PageArgs, Paginator
from libs.core.testing import scratch_mongo

DOCUMENTS, BATCH, SIZE, DEEP_PAGE = 1_000_000, 10_000, 20, 10_000
ROUNDS = 400
ALLOWED = 1.2
WHERE = {"tenant_id": "acme", "wallet": "w1"}
ORDERS: dict[str, Order] = {"by number": [("sequence", 1)], "by time": [("at", -1), ("_id", -1)]}

paginator = Paginator("a secret of at least 32 characters")


async def main() -> None:
    missed = False
    async with scratch_mongo(os.environ["MONGO_URL"]) as mongo:
        rows = mongo.db["transactions"]
        await _fill(rows)
        for name, order in ORDERS.items():
            deep = PageArgs(first=SIZE, after=await _cursor_before(rows, order))
            first_ms, deep_ms = await _compare(rows, order, PageArgs(first=SIZE), deep)
            missed |= deep_ms > ALLOWED * first_ms
            print(
                f"{name:10} page 1 {first_ms:6.3f} ms   page {DEEP_PAGE:,} {deep_ms:6.3f} ms   {deep_ms / first_ms:.2f}"
            )
    print(f"medians of {ROUNDS}; target: at most {ALLOWED} times")
    sys.exit(missed)


async def _fill(rows: Collection) -> None:
    for order in ORDERS.values():
        await rows.create_index([("tenant_id", 1), ("wallet", 1), *order])
    began = datetime(2026, 1, 1, tzinfo=UTC)
    for start in range(0, DOCUMENTS, BATCH):
        await rows.insert_many(
            [
                {"_id": f"t{n:08}", "sequence": n, "at": began + timedelta(milliseconds=n // 3), "amount": n, **WHERE}
                for n in range(start, start + BATCH)
            ],
            ordered=False,
        )


async def _cursor_before(rows: Collection, order: Order) -> str:
    """Where page 10,000 begins, without walking there."""
    before = (DEEP_PAGE - 1) * SIZE - 1
    newest_first = order[0][1] < 0
    number = DOCUMENTS - 1 - before if newest_first else before
    row = await rows.find_one({"sequence": number, **WHERE})
    assert row is not None
    # The cursor of a document is made by the page that holds it: one that begins there, by a condition of its own.
    also = {order[0][0]: {"$lte" if newest_first else "$gte": row[order[0][0]]}}
    page = await paginator.page(rows, WHERE, PageArgs(first=SIZE), order=order, also=also)
    return page.cursors[[item["_id"] for item in page.items].index(row["_id"])]


async def _compare(rows: Collection, order: Order, *pages: PageArgs) -> list[float]:
    """Medians in ms, the pages taking turns so that what else the machine does hits them alike."""
    took: list[list[float]] = [[] for _ in pages]
    for _ in range(ROUNDS):
        for args, times in zip(pages, took, strict=True):
            began = time.perf_counter()
            page = await paginator.page(rows, WHERE, args, order=order)
            times.append((time.perf_counter() - began) * 1000)
            assert len(page.items) == SIZE
    return [statistics.median(times) for times in took]


if __name__ == "__main__":
    asyncio.run(main())
