"""Transfers over HTTP into one payment process, by autocannon. `python -m scripts.bench.ledger_http`

    BENCH_SECONDS=2 BENCH_ROUNDS=1 …     # a quick look

The process is one of `make up`: GraphQL, tokens, permissions, ledger, outbox, relay to Redis. autocannon, MongoDB and
Redis share the machine with it. All bulk sizes must reach the target.
"""

import os
import sys
import tempfile
from pathlib import Path

import structlog
import uvloop

from libs.core.testing import scratch_mongo, scratch_namespace, scratch_redis
from scripts.bench.contenders.load import Rounds, Targets
from scripts.bench.contenders.proof import proven
from scripts.bench.contenders.served import KEYS, payment

SECONDS, ROUNDS = float(os.environ.get("BENCH_SECONDS", "5")), int(os.environ.get("BENCH_ROUNDS", "3"))
PER_SECOND, BULK_PER_SECOND = 1_000, 4_000
PLAYERS = 1_000
# Transfers in a request, and how many connections ask.
SINGLE = {"transfer, 64 connections": (1, 64), "transfer, 16 connections": (1, 16)}
BULK = {f"transfers of {size:,}, {n} connections": (size, n) for size, n in ((100, 8), (500, 4), (1_000, 4))}


async def main() -> bool:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    targets, rounds, namespace = Targets(), Rounds(), scratch_namespace()
    mongo_url, redis_url = os.environ["MONGO_URL"], os.environ["REDIS_URL"]
    with tempfile.TemporaryDirectory(prefix="payments-http-") as scratch:
        async with (
            scratch_mongo(mongo_url, service="payment", namespace=namespace) as mongo,
            scratch_redis(redis_url, namespace=namespace),
        ):
            async with payment(mongo_url, redis_url, namespace, Path(scratch), players=PLAYERS) as process:
                await process.loaded(bulk=1, connections=64, requests=1_000)  # warms up
                for _ in range(ROUNDS):
                    for name, (bulk, connections) in SINGLE.items():
                        rounds.add(name, await process.loaded(bulk=bulk, connections=connections, seconds=SECONDS))
                    for name, (bulk, connections) in BULK.items():
                        # A number of them, not a time, after which those under way would not count.
                        requests = max(2 * connections, int(SECONDS * BULK_PER_SECOND / bulk))
                        rounds.add(name, await process.loaded(bulk=bulk, connections=connections, requests=requests))
            rounds.show("transfers over HTTP into one process")
            print(f"    proven  it verifies: {await proven(mongo, KEYS):,} transfers")
    targets.at_least("transfer, a second", max(rounds.median(name).per_second for name in SINGLE), PER_SECOND)
    for name in BULK:
        targets.at_least(f"{name}, a second", rounds.median(name).per_second, BULK_PER_SECOND)
    return not targets.missed


if __name__ == "__main__":
    sys.exit(0 if uvloop.run(main()) else 1)
