"""Makes the environment that everything else runs in: a virtual environment and, for tests, npm packages.

    python3 -I scripts/environment.py [--npm]

Runs with the machine's own Python, before any package is there. Costs 50 ms when all is in place; what is there is
known by a stamp, the hash of what it was made from. Packages come from lock files, by hash.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  the machine's own may be any
    sys.exit(f"Python 3.11 or newer is needed, and this is {sys.version.split()[0]}: try make PYTHON=python3.13 …")

import fcntl
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
NPM = ROOT / "tests"


def ensure_python() -> None:
    made_from = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()
    stamp = VENV / "made-from"
    if not stale(stamp, made_from):
        return
    python = VENV / "bin" / "python"
    if not (python.exists() and (VENV / "bin" / "pip").exists()):  # none, or half of one
        say("creating .venv")
        run(
            [sys.executable, "-m", "venv", "--clear", str(VENV)],
            "the virtual environment could not be made (Debian: apt install python3-venv)",
        )
    say(f"installing {LOCK.read_text().count('==')} locked packages into .venv")
    install = ["-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", "--require-hashes"]
    run([str(python), *install, "--requirement", str(LOCK)], "the locked packages could not be installed")
    stamp.write_text(made_from)


def ensure_npm() -> None:
    made_from = hashlib.sha256((NPM / "package-lock.json").read_bytes()).hexdigest()
    stamp = NPM / "node_modules" / "made-from"
    if not stale(stamp, made_from):
        return
    require_node()
    say("installing npm packages for the tests")
    run(["npm", "ci", "--prefix", str(NPM)], "the npm packages could not be installed")
    stamp.write_text(made_from)


def require_node() -> None:
    if not (shutil.which("node") and shutil.which("npm")):
        sys.exit("Node 20 or newer with npm is needed for the tests, and is not on the PATH")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    major = re.match(r"v(\d+)", version)
    if not major or int(major[1]) < 20:
        sys.exit("Node 20 or newer is needed for the tests, and node is %s" % (version or "broken"))


def stale(stamp: Path, made_from: str) -> bool:
    return not stamp.exists() or stamp.read_text() != made_from


def run(command: list[str], failure: str) -> None:
    """Its output is shown only if it fails, and then only the reason."""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        said = [line for line in (result.stderr or result.stdout).splitlines() if line.strip()]
        sys.exit(f"{failure}: {reason(said)}")


def reason(lines: list[str]) -> str:
    """Why pip or npm failed, in one line: they say much around it, and pip names the cause only in a warning."""
    for pattern in (
        r"WARNING: .* connection broken by '\w+\(.*?([^:>]+: [^:]+)'\)'",
        r"(?:ERROR:|npm error(?! code)) *(.+)",
    ):
        for line in lines:
            if found := re.match(pattern, line):
                return found[1].strip()
    return lines[-1] if lines else "it gave no reason"


def say(message: str) -> None:
    print(f"  {message}", file=sys.stderr, flush=True)


def main() -> None:
    (ROOT / ".run").mkdir(exist_ok=True)
    with (ROOT / ".run" / "environment.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two makes at once: the second waits, and finds all done
        ensure_python()
        if "--npm" in sys.argv[1:]:
            ensure_npm()


if __name__ == "__main__":
    main()
