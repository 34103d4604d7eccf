"""How long a bare checkout takes to come up, and the same one the second time. `python -m scripts.bench.start`

Clones this checkout into a scratch folder with an empty home and cache, so that everything is downloaded and unpacked
again, and runs `make up` there as a stranger would.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts.stack import ROOT

FIRST_S, SECOND_S = 180.0, 10.0
PORT_SHIFT = 20_000


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="payments-start-") as scratch:
        home, clone = Path(scratch, "home"), Path(scratch, "clone")
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        first, second = (_up(clone, home) for _ in range(2))
    print(f"first make up, everything downloaded   {first:6.1f} s   (target: at most {FIRST_S:.0f} s)")
    print(f"second make up                         {second:6.1f} s   (target: at most {SECOND_S:.0f} s)")
    sys.exit(first > FIRST_S or second > SECOND_S)


def _up(clone: Path, home: Path) -> float:
    """Seconds from the command to its last line."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("MONGO_", "REDIS_", "XDG_", "MAKE"))
    }
    environment = {**kept, "HOME": str(home), "PORT_SHIFT": str(PORT_SHIFT), "PIP_NO_CACHE_DIR": "1"}
    began = time.perf_counter()
    up = subprocess.Popen(["make", "up"], cwd=clone, env=environment, stderr=subprocess.PIPE, text=True)
    with up:
        assert up.stderr is not None
        for line in up.stderr:
            print(line, end="", flush=True)
            if line.startswith("  up."):
                break
        else:
            sys.exit("it did not come up")
        seconds = time.perf_counter() - began
        up.send_signal(signal.SIGTERM)
        up.stderr.read()
    return seconds


if __name__ == "__main__":
    main()
