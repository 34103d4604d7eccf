"""`make bench`: every benchmark in this folder, one after the other, on a MongoDB and a Redis of their own.

    make bench                          # all
    make bench BENCH="cache ledger*"    # some, by name or pattern

Each is also a program: `python -m scripts.bench.cache`, with MONGO_URL and REDIS_URL set. One that misses a target ends
with 1, and so do we, after the others. MongoDB has the cache that one in production would have: 4 GB, or half of the
machine's memory where that is less.
"""

import os
import subprocess
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

from scripts import embedded
from scripts.process import Failure

FOLDER = Path(__file__).parent


def main() -> None:
    known = sorted(file.stem for file in FOLDER.glob("[a-z]*.py"))
    wanted = os.environ.get("BENCH", "").split() or ["*"]
    if unknown := [pattern for pattern in wanted if not any(fnmatch(name, pattern) for name in known)]:
        sys.exit(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(known)}")
    chosen = [name for name in known if any(fnmatch(name, pattern) for pattern in wanted)]
    with tempfile.TemporaryDirectory(prefix="payments-bench-") as scratch:
        mongo = embedded.mongo(Path(scratch, "mongo"), cache_gb=_cache_gb())
        redis = embedded.redis(Path(scratch, "redis"))
        os.environ.update(MONGO_URL=mongo.url, REDIS_URL=redis.url)
        missed = [name for name in chosen if not _holds(name)]
        for server in (redis, mongo):
            server.kill()
    if missed:
        sys.exit(f"not as it should be: {', '.join(missed)}")


def _cache_gb() -> float:
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return round(min(4.0, memory_gb / 2), 1)


def _holds(name: str) -> bool:
    print(f"\n== {name}", flush=True)
    return subprocess.run([sys.executable, "-m", f"scripts.bench.{name}"], check=False).returncode == 0


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(str(failure))
