"""Whether a ledger of ten million transactions posts as fast as one of 100,000. `python -m scripts.bench.ledger_growth`

    BENCH_TRANSACTIONS=300000 BENCH_SECONDS=1 BENCH_ROUNDS=1 …     # a quick look

Takes half an hour: every one of them is posted by the ledger, two to a transfer, over 10,000 wallets. Then a small
ledger, made anew for each round, and the large one post in turns, so that what the machine does meanwhile hits both.
BENCH_WITHIN_S bounds the filling; what is not reached by then is a target missed.
"""

import os
import sys
import time

import structlog
import uvloop

from libs.core.mongo import Mongo
from libs.core.testing import scratch_mongo
from scripts.bench.contenders import grouped
from scripts.bench.contenders.load import Load, Rounds, Targets, loaded
from scripts.bench.contenders.proof import proven

SECONDS, ROUNDS = float(os.environ.get("BENCH_SECONDS", "5")), int(os.environ.get("BENCH_ROUNDS", "3"))
LARGE, SMALL = int(os.environ.get("BENCH_TRANSACTIONS", "10_000_000")), 100_000
WITHIN_S = float(os.environ.get("BENCH_WITHIN_S", "2700"))
WALLETS = grouped.players(10_000)
CALLERS = (64, 512)


async def main() -> bool:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    targets, rounds = Targets(), Rounds()
    async with scratch_mongo(os.environ["MONGO_URL"], service="payment") as large:
        await grouped.prepare(large, WALLETS)
        reached = await _fill(large)
        for _ in range(ROUNDS):
            async with scratch_mongo(os.environ["MONGO_URL"], service="payment") as small:
                await grouped.prepare(small, WALLETS)
                async with grouped.open_ledger(small) as ledger:
                    await grouped.fill(small, ledger, WALLETS, SMALL // 2, WITHIN_S)
                for callers in CALLERS:
                    rounds.add(f"small, {callers} callers", await _posting(small, callers))
                    rounds.add(f"large, {callers} callers", await _posting(large, callers))
        rounds.show(f"ledgers of {SMALL:,} and of {reached:,} transactions")
        await _sizes(large)
        print(f"    proven  it verifies: {await proven(large):,} transfers")
    targets.at_least("transactions reached in time", reached, LARGE)
    for callers in CALLERS:
        large_rate, small_rate = (rounds.median(f"{it}, {callers} callers").per_second for it in ("large", "small"))
        targets.at_least(f"{callers} callers, large times small", large_rate / small_rate, 0.8)
    return not targets.missed


async def _fill(mongo: Mongo) -> int:
    """In tenths, telling how it goes. How many transactions there are in the end."""
    began, before, posted = time.perf_counter(), 0, 0
    for tenth in range(1, 11):
        begun = time.perf_counter()
        async with grouped.open_ledger(mongo) as ledger:
            rest_s = began + WITHIN_S - begun
            posted = await grouped.fill(mongo, ledger, WALLETS, LARGE // 2 * tenth // 10, rest_s)
        rate = (posted - before) / (time.perf_counter() - begun)
        print(f"  {posted * 2:12,} transactions, the last of them at {rate:7,.0f} transfers/s", flush=True)
        before = posted
    return posted * 2


async def _posting(mongo: Mongo, callers: int) -> Load:
    async with grouped.open_ledger(mongo) as ledger:
        ask = grouped.spread(ledger, WALLETS)
        await loaded(ask, callers, SECONDS / 4)
        return await loaded(ask, callers, SECONDS)


async def _sizes(mongo: Mongo) -> None:
    stats = await mongo.db.command("dbStats", scale=2**20)
    print(f"  on the disk: {stats['storageSize']:,.0f} MB of documents, {stats['indexSize']:,.0f} MB of indexes")


if __name__ == "__main__":
    sys.exit(0 if uvloop.run(main()) else 1)
