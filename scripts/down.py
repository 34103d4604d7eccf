"""Stops the stack that `make up` started in this checkout, wherever that runs."""

import os
import signal
import sys
import time

from scripts import stack

WITHIN_S = 90.0  # a service may take its grace of 20 s, and MongoDB its own


def main() -> None:
    pid = stack.holder(stack.LOCK)
    if not pid:
        print("nothing is running here")
        return
    # The lock's holder wrote this id and still lives: no other process can have it.
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + WITHIN_S
    while stack.holder(stack.LOCK) == pid:
        if time.monotonic() > deadline:
            sys.exit(f"it was asked to stop, and after {WITHIN_S:.0f} s still runs: process {pid}")
        time.sleep(0.05)
    print("stopped")


if __name__ == "__main__":
    main()
