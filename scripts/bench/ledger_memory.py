"""Whether a payment process grows with what it has posted. `python -m scripts.bench.ledger_memory`

    BENCH_TRANSFERS=50000 …     # a quick look

A real process takes transfers over HTTP, 500 to a request; its resident memory is read when nothing is asked of it, at
a fifth of all transfers (200,000 of a million) and on. Takes five minutes.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import structlog
import uvloop

from libs.core.testing import scratch_mongo, scratch_namespace, scratch_redis
from scripts.bench.contenders.load import Targets
from scripts.bench.contenders.proof import proven
from scripts.bench.contenders.served import KEYS, payment

TRANSFERS = int(os.environ.get("BENCH_TRANSFERS", "1_000_000"))
PLAYERS, BULK, CONNECTIONS, STEPS = 1_000, 500, 8, 5
REST_S = 2.0


async def main() -> bool:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    targets, resident_mb, namespace = Targets(), [], scratch_namespace()
    mongo_url, redis_url = os.environ["MONGO_URL"], os.environ["REDIS_URL"]
    with tempfile.TemporaryDirectory(prefix="payments-memory-") as scratch:
        async with (
            scratch_mongo(mongo_url, service="payment", namespace=namespace) as mongo,
            scratch_redis(redis_url, namespace=namespace),
        ):
            async with payment(mongo_url, redis_url, namespace, Path(scratch), players=PLAYERS) as process:
                for step in range(1, STEPS + 1):
                    requests = TRANSFERS // STEPS // BULK
                    load = await process.loaded(bulk=BULK, connections=CONNECTIONS, requests=requests)
                    await asyncio.sleep(REST_S)
                    resident_mb.append(process.resident_mb)
                    posted = requests * BULK * step
                    print(f"  {posted:11,} transfers: {resident_mb[-1]:6.1f} MB, {load.per_second:,.0f}/s", flush=True)
            print(f"    proven  it verifies: {await proven(mongo, KEYS):,} transfers")
    targets.at_most("growth in % from the first line to the last", (resident_mb[-1] / resident_mb[0] - 1) * 100, 5)
    return not targets.missed


if __name__ == "__main__":
    sys.exit(0 if uvloop.run(main()) else 1)
