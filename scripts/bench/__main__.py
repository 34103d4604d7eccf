"""`make bench`: every benchmark in this folder, one after the other, on a MongoDB and a Redis of their own.

    make bench                          # all
    make bench BENCH="cache events"     # some

Each is also a program: `python -m scripts.bench.cache`, with MONGO_URL and REDIS_URL set. One that misses a target ends
with 1, and so do we, after the others.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts import embedded
from scripts.process import Failure

FOLDER = Path(__file__).parent


def main() -> None:
    known = sorted(file.stem for file in FOLDER.glob("[a-z]*.py"))
    chosen = os.environ.get("BENCH", "").split() or known
    if unknown := set(chosen) - set(known):
        sys.exit(f"no benchmark is called {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    with tempfile.TemporaryDirectory(prefix="payments-bench-") as scratch:
        mongo, redis = embedded.mongo(Path(scratch, "mongo")), embedded.redis(Path(scratch, "redis"))
        os.environ.update(MONGO_URL=mongo.url, REDIS_URL=redis.url)
        missed = [name for name in chosen if not _holds(name)]
        for server in (redis, mongo):
            server.kill()
    if missed:
        sys.exit(f"not as it should be: {', '.join(missed)}")


def _holds(name: str) -> bool:
    print(f"\n== {name}", flush=True)
    return subprocess.run([sys.executable, "-m", f"scripts.bench.{name}"], check=False).returncode == 0


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(str(failure))
