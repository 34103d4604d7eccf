"""medici (npm) beside our ledger, in turns on one MongoDB. `python -m scripts.bench.ledger_medici`

    BENCH_SECONDS=0.5 BENCH_ROUNDS=1 …     # a quick look

medici keeps entries and sums them up where a balance is asked for: it has no wallet that could be in anybody's way.
*guarded* is its README's recipe for accounts that must not be overdrawn, which is what ours always does. No target:
the two promise different things.
"""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import structlog
import uvloop

from libs.core.testing import scratch_mongo, scratch_namespace
from scripts.bench.contenders import grouped
from scripts.bench.contenders.load import Load, Rounds, loaded
from scripts.bench.contenders.proof import proven

SECONDS, ROUNDS = float(os.environ.get("BENCH_SECONDS", "2")), int(os.environ.get("BENCH_ROUNDS", "3"))
PLAYERS = 10_000
CALLERS = (4, 16, 64)
MEDICI = Path(grouped.__file__).with_name("medici.mjs")


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    namespace, rounds = scratch_namespace(), Rounds()
    wallets = grouped.players(PLAYERS)
    async with scratch_mongo(os.environ["MONGO_URL"], service="payment", namespace=namespace) as mongo:
        await grouped.prepare(mongo, wallets)
        async with grouped.open_ledger(mongo) as ledger:
            asks = {"spread": grouped.spread(ledger, wallets), "hot": grouped.hot(ledger, wallets)}
            for _ in range(ROUNDS):
                for where, ask in asks.items():
                    await loaded(ask, 64, SECONDS / 4)
                    rounds.add(f"{where}: ours, 64 callers", await loaded(ask, 64, SECONDS))
                    for kind in ("medici", "medici guarded"):
                        for callers in CALLERS:
                            load = await _medici(namespace, callers, hot=where == "hot", guarded="guarded" in kind)
                            rounds.add(f"{where}: {kind}, {callers} callers", load)
        print(f"    proven  it verifies: {await proven(mongo):,} transfers")
    rounds.show(f"medici, {PLAYERS:,} players")
    for where in asks:
        ours = rounds.median(f"{where}: ours, 64 callers").per_second
        for kind in ("medici", "medici guarded"):
            best = rounds.best(f"{where}: {kind}, ").per_second
            print(f"           {where}: ours is {ours / best:.2f} times {kind} at its best")


async def _medici(namespace: str, callers: int, *, hot: bool, guarded: bool) -> Load:
    """Its collections are in a database of the same namespace, which is dropped with ours."""
    wanted = {
        "url": os.environ["MONGO_URL"],
        "database": f"{namespace}_medici{'_guarded' if guarded else ''}",
        "players": PLAYERS,
        "hot": hot,
        "guarded": guarded,
        "callers": callers,
        "seconds": SECONDS,
    }
    node = await asyncio.create_subprocess_exec("node", str(MEDICI), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    answer, _ = await node.communicate(json.dumps(wanted).encode())
    assert node.returncode == 0
    return Load(**json.loads(answer))


if __name__ == "__main__":
    uvloop.run(main())
