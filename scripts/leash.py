"""Runs a command that dies when whoever started it dies, even by `kill -9`.

    python -I -S leash.py PARENT_PID COMMAND…

The command keeps this process' id. It is a file of its own, and not a `preexec_fn`, because code between fork and exec
may deadlock in a process that has threads.
"""

import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1


def tie(parent: int) -> None:
    """Asks the kernel for our end with our parent's where it can do that, and else has a child watch the parent."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        watch(parent)
    if os.getppid() != parent:  # it died before we were tied
        sys.exit("the process that started this one is gone")


def watch(parent: int) -> None:
    """Forks a watcher that ends this process within a second of `parent`'s end, and itself with either."""
    tied = os.getpid()
    if os.fork():
        return
    while os.getppid() == tied:
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os.kill(tied, signal.SIGKILL)
        time.sleep(0.5)
    os._exit(0)


if __name__ == "__main__":
    tie(int(sys.argv[1]))
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(f"{sys.argv[2]} cannot be run: {error.strerror}")
