"""Child processes that never outlive this one."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_LEASH = Path(__file__).with_name("leash.py")
# On Linux a leash is tied to the thread that forked, so all are forked by one that lives as long as this process.
_spawner = ThreadPoolExecutor(1, thread_name_prefix="spawner")


class Failure(Exception):
    """Something that the person at the terminal must know, in one sentence."""


def spawn(command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Starts `command` with its output appended to `log`, in a session of its own: Ctrl-C reaches only us, who then
    stop our children in order. Should we be killed, the kernel ends them."""
    log.parent.mkdir(parents=True, exist_ok=True)
    leashed = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), *command]
    with log.open("ab") as output:
        return _spawner.submit(
            subprocess.Popen,
            leashed,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        ).result()


def stop(process: subprocess.Popen[bytes], *, grace_s: float = 30.0) -> None:
    """Asks it to end, and ends it after `grace_s`."""
    process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL: it gets no chance to tidy up."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on now. Another program may take it before it is used."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_in_use(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False
