"""How fast verifying goes over a ledger. `python -m scripts.bench.ledger_verify`

    BENCH_TRANSFERS=20000 BENCH_ROUNDS=1 …     # a quick look

All of it: chain of blocks, every stored byte hashed, every wallet rebuilt from its transactions, counts and sums. The
target is on the CPU time of its process, all that the process did; what MongoDB spends beside it is told too.
"""

import os
import statistics
import sys
import time
from dataclasses import dataclass

import structlog
import uvloop

from libs.core.mongo import Mongo
from libs.core.testing import scratch_mongo
from scripts.bench.contenders import grouped
from scripts.bench.contenders.load import Targets
from services.payment.verify import verify_all

TRANSFERS, ROUNDS = int(os.environ.get("BENCH_TRANSFERS", "300_000")), int(os.environ.get("BENCH_ROUNDS", "3"))
WALLETS = grouped.players(10_000)


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds for one verification of everything."""

    elapsed: float
    process: float
    checking: float
    mongod: float


async def main() -> bool:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    targets = Targets()
    async with scratch_mongo(os.environ["MONGO_URL"], service="payment") as mongo:
        await grouped.prepare(mongo, WALLETS)
        async with grouped.open_ledger(mongo) as ledger:
            count = await grouped.fill(mongo, ledger, WALLETS, TRANSFERS, within_s=600)
        rounds = [await _verify(mongo, count) for _ in range(ROUNDS)]
    print(f"verifying {count:,} transfers: transfers a second, medians of {ROUNDS}")
    rates = {}
    for name, seconds in {
        "as time goes by": [it.elapsed for it in rounds],
        "of its process' CPU": [it.process for it in rounds],
        "of its CPU without the driver": [it.checking for it in rounds],
        "of its CPU and MongoDB's": [it.process + it.mongod for it in rounds],
    }.items():
        rates[name] = count / statistics.median(seconds)
        print(f"  {name:32} {rates[name]:9,.0f}")
    targets.at_least("transfers a second of its process' CPU", rates["of its process' CPU"], 100_000)
    return not targets.missed


async def _verify(mongo: Mongo, count: int) -> Spent:
    mongod, process, began = await _mongod_s(mongo), time.process_time(), time.perf_counter()
    verified = await verify_all(mongo, {})
    spent = Spent(
        elapsed=time.perf_counter() - began,
        process=time.process_time() - process,
        checking=verified.spent.cpu_s,
        mongod=await _mongod_s(mongo) - mongod,
    )
    assert verified.ok, verified.divergence
    assert verified.spent.transfers == count, f"{verified.spent.transfers} transfers verified, of {count}"
    return spent


async def _mongod_s(mongo: Mongo) -> float:
    info = (await mongo.client.admin.command("serverStatus"))["extra_info"]
    return float(info["user_time_us"] + info["system_time_us"]) / 1e6


if __name__ == "__main__":
    sys.exit(0 if uvloop.run(main()) else 1)
