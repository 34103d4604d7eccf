"""The life of a whole stack, as its user sees it: a process of its own, in a folder and on ports of its own."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pymongo import MongoClient
from redis import ConnectionError as RedisConnectionError, Redis

from scripts.process import port_in_use

ROOT = Path(__file__).parents[2]
UP_WITHIN_S = 60.0
_shifts = itertools.cycle(range(10_000, 11_000, 100))


class Stack:
    def __init__(self, run_dir: Path, shift: int) -> None:
        self.shift = shift
        self.mongo_port, self.redis_port, self.auth_port = 9017 + shift, 9079 + shift, 9001 + shift
        self.run_dir = run_dir
        self.environment = {**os.environ, "RUN_DIR": str(run_dir), "PORT_SHIFT": str(self.shift)}
        for name in ("MONGO_URL", "REDIS_URL"):
            self.environment.pop(name, None)
        self.process: subprocess.Popen[str] | None = None

    def run(self, module: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=UP_WITHIN_S,
            check=False,
        )

    def up(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scripts.up"], cwd=ROOT, env=self.environment, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            if line.startswith("  up."):
                return self.process
        raise AssertionError(f"it did not come up: {said}")

    @property
    def silent(self) -> bool:
        """Nothing of it listens any more."""
        return not any(map(port_in_use, (self.mongo_port, self.redis_port, self.auth_port)))

    def mongo(self) -> MongoClient[dict[str, object]]:
        return MongoClient(f"mongodb://127.0.0.1:{self.mongo_port}/?directConnection=true")

    def redis_pid(self) -> int | None:
        with Redis(port=self.redis_port) as client, suppress(RedisConnectionError):
            return int(client.info("server")["process_id"])
        return None

    def end(self) -> None:
        if self.process is not None:
            assert self.process.stderr is not None
            self.process.kill()
            self.process.wait()
            self.process.stderr.close()


def new_stack(folder: Path, worker_id: str) -> Stack:
    """Each worker of xdist has a thousand ports of its own, out of the range that the kernel gives to clients."""
    worker = int(worker_id.removeprefix("gw")) if worker_id != "master" else 9
    return Stack(folder / "run", shift=next(_shifts) + 1000 * worker)


@pytest.fixture
def stack(tmp_path: Path, worker_id: str) -> Iterator[Stack]:
    stack = new_stack(tmp_path, worker_id)
    yield stack
    stack.end()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Stack]:
    stack = new_stack(tmp_path_factory.mktemp("running"), worker_id)
    stack.up()
    yield stack
    stack.end()


def soon(condition: Callable[[], bool], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class TestUp:
    def test_ctrl_c_stops_everything_and_the_next_start_has_its_data(self, stack: Stack) -> None:
        process = stack.up()
        with stack.mongo() as client:
            client.kept.things.insert_one({"_id": "a thing"})
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert stack.silent
        stack.end()
        stack.up()
        with stack.mongo() as client:
            assert client.kept.things.count_documents({"_id": "a thing"}) == 1

    def test_kill_9_of_the_starter_leaves_no_orphan(self, stack: Stack) -> None:
        stack.up().kill()
        assert soon(lambda: stack.silent)

    def test_twice_at_once_is_one_sentence(self, running: Stack) -> None:
        assert running.process is not None
        second = running.run("scripts.up")
        assert second.returncode == 1
        assert second.stderr == f"  it is up already, as process {running.process.pid}: make down stops it\n"

    def test_a_port_in_use_is_one_sentence(self, stack: Stack) -> None:
        with socket.create_server(("127.0.0.1", stack.mongo_port)):
            result = stack.run("scripts.up")
        assert result.returncode == 1
        assert result.stderr == (
            f"  port {stack.mongo_port} on 127.0.0.1 is in use by another program, and MongoDB needs it\n"
        )

    def test_a_killed_server_is_started_again(self, running: Stack) -> None:
        killed = running.redis_pid()
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        assert soon(lambda: running.redis_pid() not in (None, killed))


class TestHealth:
    def test_is_ready(self, running: Stack) -> None:
        shown = running.run("scripts.health")
        assert shown.returncode == 0
        services = [line.split()[:2] for line in shown.stdout.splitlines() if not line.startswith(" ")]
        assert services == [["auth", "ready"], ["payment", "ready"], ["gateway", "ready"]]

    def test_of_nothing(self, stack: Stack) -> None:
        shown = stack.run("scripts.health")
        assert (shown.returncode, shown.stderr) == (1, "nothing is running here: make up starts it\n")


class TestDown:
    def test_stops_everything(self, stack: Stack) -> None:
        process = stack.up()
        assert stack.run("scripts.down").stdout == "stopped\n"
        assert process.wait(5) == 0
        assert stack.silent

    def test_nothing_to_stop(self, stack: Stack) -> None:
        assert stack.run("scripts.down").stdout == "nothing is running here\n"

    def test_a_process_that_only_has_the_same_id_is_left_alone(self, stack: Stack) -> None:
        stack.run_dir.mkdir()
        (stack.run_dir / "up.lock").write_text(str(os.getpid()))
        assert stack.run("scripts.down").stdout == "nothing is running here\n"
