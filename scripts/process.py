"""Child processes that never outlive this one."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

READY_WITHIN_S = 60.0
STOPPED_WITHIN_S = 30.0

_LEASH = Path(__file__).with_name("leash.py")
# On Linux a leash is tied to the thread that forked, so all are forked by one that lives as long as this process.
_spawner = ThreadPoolExecutor(1, thread_name_prefix="spawner")


class Failure(Exception):
    """Something that the person at the terminal must know, in one sentence."""


def spawn(command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Starts `command` with its output appended to `log`, and `env` on top of our environment.

    It is in a session of its own: Ctrl-C reaches only us, who then stop our children in order. Should we be killed,
    the kernel ends them.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    leashed = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), *command]
    with log.open("ab") as output:
        return _spawner.submit(
            subprocess.Popen,
            leashed,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        ).result()


@dataclass(slots=True)
class Server:
    """A child that listens on 127.0.0.1:`port`, and may be killed and started again. Its files are in `data`."""

    name: str
    command: Sequence[str]
    port: int
    url: str
    log: Path
    is_ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)
    data: Path | None = None
    begun_at: float = 0.0  # on the monotonic clock
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def end(self) -> str:
        """How it ended, if not by `stop`: `exit 1`, `SIGKILL`. Empty while it runs."""
        code = self._process.poll() if self._process else None
        if code is None:
            return ""
        return signal.Signals(-code).name if code < 0 else f"exit {code}"

    def start(self) -> None:
        """Returns once it is ready; `Failure` if its port is taken, it ends, or is not ready within a minute."""
        self.begin()
        self.wait_until_ready()

    def begin(self) -> None:
        """The first half of `start`, so that several can become ready together."""
        if port_in_use(self.port):
            raise Failure(f"port {self.port} on 127.0.0.1 is in use by another program, and {self.name} needs it")
        if self.data:
            self.data.mkdir(parents=True, exist_ok=True)
        self.begun_at = time.monotonic()
        self._process = spawn(self.command, log=self.log, env=self.env)

    def wait_until_ready(self) -> None:
        while not self.is_ready():
            if self.end:
                raise Failure(f"{self.name} ended while starting ({self.end}), see {self.log}:{self.last_words()}")
            if time.monotonic() > self.begun_at + READY_WITHIN_S:
                self.kill()
                raise Failure(f"{self.name} was not ready within {READY_WITHIN_S:.0f} s, see {self.log}")
            time.sleep(0.02)

    def ask_to_stop(self) -> None:
        """The first half of `stop`, so that several can stop together."""
        if self._process:
            self._process.terminate()

    def stop(self) -> None:
        """In order: what it holds is on the disk afterwards. After half a minute, not in order."""
        self.ask_to_stop()
        if self._process:
            try:
                self._process.wait(STOPPED_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """kill -9."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def restart(self, *, empty: bool = False) -> None:
        """Stops and starts it on the same port, with the same data or, if `empty`, with none."""
        self.stop()
        if empty and self.data:
            shutil.rmtree(self.data)
        self.start()

    def last_words(self, lines: int = 5) -> str:
        """The end of its log, indented, for a person who must know why it ended."""
        if not self.log.exists():
            return ""
        return "".join(f"\n    {line[:200]}" for line in self.log.read_text(errors="replace").splitlines()[-lines:])


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
