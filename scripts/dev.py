"""Runs one service of a running stack in this terminal, and runs it anew whenever its source changes.

`make up` stops its own as long as this one runs, and takes over again afterwards.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from scripts import stack
from scripts.process import STOPPED_WITHIN_S, Failure, Server, port_in_use, spawn
from scripts.stack import ROOT, say


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    name = os.environ.get("SERVICE", "")
    try:
        environment = stack.environment()
        if name not in stack.processes():
            known = ", ".join(stack.processes())
            raise Failure(f"say which service: make dev SERVICE=…; there are: {known}")
        with stack.held(stack.development_lock(name)) as ours:
            if not ours:
                raise Failure(f"{name} is run by another make dev")
            develop(stack.server(name, environment))
    except KeyboardInterrupt:
        say("make up runs it again")
    except Failure as failure:
        sys.exit(f"  {failure}")


def develop(service: Server) -> None:
    _wait_for_port(service)
    while True:
        seen = _sources(service.name)
        child = spawn(service.command, log=Path("/dev/stderr"), env=service.env)
        try:
            _until_changed(child, service.name, seen)
        finally:
            _stop(child)
        say("changed: starting again")


def _wait_for_port(service: Server) -> None:
    deadline = time.monotonic() + STOPPED_WITHIN_S
    while port_in_use(service.port):
        if time.monotonic() > deadline:
            raise Failure(f"make up did not let go of port {service.port} within {STOPPED_WITHIN_S:.0f} s")
        time.sleep(0.05)


def _until_changed(child: subprocess.Popen[bytes], name: str, seen: dict[Path, int]) -> None:
    told = False
    while _sources(name) == seen:
        if child.poll() is not None and not told:
            say("it ended, and begins again with the next change")
            told = True
        time.sleep(0.3)


def _sources(name: str) -> dict[Path, int]:
    files = [*(ROOT / "libs").rglob("*.py"), *ROOT.joinpath(*stack.package(name).split(".")).rglob("*.py")]
    return {file: file.stat().st_mtime_ns for file in files if file.exists()}


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    main()
