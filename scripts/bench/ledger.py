"""Our ledger against one transaction per transfer, in turns on one MongoDB. `python -m scripts.bench.ledger`

    BENCH_SECONDS=0.5 BENCH_ROUNDS=1 …     # a quick look, whose numbers mean little

Both write durably (`w: majority`, journaled). The baseline is counted at its best number of callers. Ours has all on
that a payment process has on; its events wait in the outbox, for no relay runs here (`ledger_http` has one). Every part
ends with a proof: ours verifies, journal and all, and both add up.
"""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from statistics import median

import structlog
import uvloop

from libs.core.mongo import Mongo
from libs.core.testing import scratch_mongo, scratch_namespace
from scripts.bench.contenders import grouped, one_by_one
from scripts.bench.contenders.load import Ask, Load, Rounds, Targets, loaded
from scripts.bench.contenders.proof import adds_up, proven

SECONDS, ROUNDS = float(os.environ.get("BENCH_SECONDS", "2")), int(os.environ.get("BENCH_ROUNDS", "5"))
PLAYERS, SHARED_PLAYERS = 10_000, 1_000
CALLERS = (1, 4, 8, 16, 64)


async def main() -> bool:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    targets = Targets()
    for part in (spread, hot, two_processes):
        namespace = scratch_namespace()
        async with scratch_mongo(os.environ["MONGO_URL"], service="payment", namespace=namespace) as mongo:
            await part(mongo, namespace, targets)
    return not targets.missed


async def spread(mongo: Mongo, namespace: str, targets: Targets) -> None:
    wallets = grouped.players(PLAYERS)
    baseline = Mongo(mongo.client, service="baseline", namespace=namespace)
    minimal = Mongo(mongo.client, service="minimal", namespace=namespace)
    await grouped.prepare(mongo, wallets)
    await one_by_one.prepare(baseline, wallets)
    await one_by_one.prepare_minimal(minimal, wallets)
    async with grouped.open_ledger(mongo) as ledger:
        post = grouped.spread(ledger, wallets)
        rounds = await in_turns(
            one_by_one.spread(baseline, wallets),
            {f"ours, {_callers(n)}": (post, n) for n in (1, 64, 512)},
            {f"minimal, {_callers(n)}": (one_by_one.minimal(minimal, wallets), n) for n in (4, 16)},
        )
    rounds.show(f"spread over {PLAYERS:,} wallets")
    await _documents(mongo, baseline)
    await _prove(mongo, baseline)
    best, alone = rounds.best("A, ").per_second, rounds.median("A, 1 caller").per_second
    ours = {n: rounds.median(f"ours, {_callers(n)}") for n in (1, 64, 512)}
    targets.at_least("64 callers, times A at its best", ours[64].per_second / best, 5)
    targets.at_most("64 callers, p99 in ms", ours[64].p99_ms, 60)
    targets.at_least("512 callers, times A at its best", ours[512].per_second / best, 12)
    targets.at_most("512 callers, p99 in ms", ours[512].p99_ms, 250)
    targets.at_least("one caller alone, times A with one caller", ours[1].per_second / alone, 0.55)
    print(f"           one caller alone, times A at its best: {ours[1].per_second / best:.2f}")


async def hot(mongo: Mongo, namespace: str, targets: Targets) -> None:
    wallets = grouped.players(PLAYERS)
    baseline = Mongo(mongo.client, service="baseline", namespace=namespace)
    await grouped.prepare(mongo, wallets)
    await one_by_one.prepare(baseline, [*wallets, grouped.HOUSE])
    async with grouped.open_ledger(mongo) as ledger:
        post = grouped.hot(ledger, wallets)
        rounds = await in_turns(one_by_one.hot(baseline, wallets, grouped.HOUSE), {"ours, 64 callers": (post, 64)})
    rounds.show("all into one house wallet")
    await _prove(mongo, baseline)
    ours = rounds.median("ours, 64 callers").per_second
    targets.at_least("64 callers, times A at its best", ours / rounds.best("A, ").per_second, 18)
    print(f"           times A with 64 callers: {ours / rounds.median('A, 64 callers').per_second:.2f}")


async def in_turns(baseline: Ask, *others: Mapping[str, tuple[Ask, int]]) -> Rounds:
    """Each a moment in each round. The first round only warms up."""
    contenders = {f"A, {_callers(n)}": (baseline, n) for n in CALLERS}
    for other in others:
        contenders.update(other)
    rounds = Rounds()
    for number in range(ROUNDS + 1):
        for name, (ask, callers) in contenders.items():
            load = await loaded(ask, callers, SECONDS if number else SECONDS / 4)
            if number:
                rounds.add(name, load)
    return rounds


async def two_processes(mongo: Mongo, namespace: str, targets: Targets) -> None:
    """One process and two of them, in turns, each with 64 callers on the same wallets."""
    await grouped.prepare(mongo, grouped.players(SHARED_PLAYERS))
    rounds, shares = Rounds(), []
    for _ in range(ROUNDS):
        (alone,) = await _posting(namespace, 1)
        pair = sorted(await _posting(namespace, 2), key=lambda load: load.per_second)
        total = sum(load.per_second for load in pair)
        shares.append(pair[0].per_second / total)
        rounds.add("one process", alone)
        rounds.add("two processes, slower", pair[0])
        rounds.add("two processes, faster", pair[1])
        slowest_p99_ms = max(load.p99_ms for load in pair)
        rounds.add("two processes, together", Load(total, max(load.p50_ms for load in pair), slowest_p99_ms))
    rounds.show(f"processes of 64 callers on the same {SHARED_PLAYERS:,} wallets")
    await _prove(mongo)
    alone, together = rounds.median("one process"), rounds.median("two processes, together")
    targets.at_least("two processes, times one", together.per_second / alone.per_second, 1)
    targets.at_least("the slower's share", median(shares), 0.4)
    targets.at_most("p99, times one process's", together.p99_ms / alone.p99_ms, 3)


async def _posting(namespace: str, processes: int) -> list[Load]:
    """What that many processes measured, begun together."""
    command = (sys.executable, "-m", grouped.__spec__.name, namespace, str(SHARED_PLAYERS), "64", str(SECONDS * 2))
    children = [await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE) for _ in range(processes)]
    for child in children:
        assert await _line(child) == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"\n")
    loads = [Load(**json.loads(await _line(child))) for child in children]
    for child in children:
        assert await child.wait() == 0
    return loads


async def _line(child: Process) -> str:
    assert child.stdout is not None
    async with asyncio.timeout(60 + SECONDS * 2):
        return (await child.stdout.readline()).decode()


async def _documents(mongo: Mongo, baseline: Mongo) -> None:
    for collection in ("transfers", "transactions", "wallets"):
        sizes = [(await m.db.command("collStats", collection))["avgObjSize"] for m in (mongo, baseline)]
        print(f"  bytes in a document of {collection:13} ours {sizes[0]:4}, A {sizes[1]:4}")


async def _prove(mongo: Mongo, baseline: Mongo | None = None) -> None:
    print(f"    proven  ours verifies: {await proven(mongo):,} transfers")
    if baseline:
        count = await adds_up(baseline.db, opening=one_by_one.OPENING)
        print(f"    proven  A adds up: {count:,} transfers")


def _callers(number: int) -> str:
    return "1 caller" if number == 1 else f"{number} callers"


if __name__ == "__main__":
    sys.exit(0 if uvloop.run(main()) else 1)  # as the services do
