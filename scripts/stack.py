"""The development stack that `make up` runs: what is in it, where its files are, and who holds it."""

import fcntl
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, TextIO

from scripts.process import Failure, Server

ROOT = Path(__file__).resolve().parent.parent
# A second stack beside the first: RUN_DIR gives it a folder, and PORT_SHIFT moves all its ports.
RUN = Path(os.environ.get("RUN_DIR") or ROOT / ".run").resolve()
PORT_SHIFT = int(os.environ.get("PORT_SHIFT") or 0)
LOGS = RUN / "logs"
LOCK = RUN / "up.lock"
ENVIRONMENT = RUN / "environment.json"

AUTH_URL = f"http://127.0.0.1:{9001 + PORT_SHIFT}"
MONGO_PORT = 9017 + PORT_SHIFT
REDIS_PORT = 9079 + PORT_SHIFT
DEMO_TENANT = "demo"
# Of everybody who is in the demo data, on a machine that nobody else reaches.
DEMO_PASSWORD = "a demo is not production"


GATEWAY = "gateway"


def services() -> list[str]:
    """The names of all services that exist: folders in `services/` with an `app.py`."""
    return [app.parent.name for app in sorted(ROOT.glob("services/*/app.py"))]


def processes() -> list[str]:
    """The services, and then the gateway, which asks them."""
    return [*services(), GATEWAY]


def package(process: str) -> str:
    """Where its code is: `services.payment`."""
    return GATEWAY if process == GATEWAY else f"services.{process}"


def subgraphs() -> str:
    """The services' addresses, as the gateway's environment has them."""
    return ",".join(f"{name}=http://127.0.0.1:{_port(name)}" for name in services())


def server(process: str, environment: Mapping[str, str], *, port: int | None = None) -> Server:
    """A service or the gateway, not started, on `port` or the one that its settings say."""
    port = port or _port(process)
    url = f"http://127.0.0.1:{port}"
    return Server(
        name=process,
        command=(sys.executable, "-m", "libs.core.server", f"{package(process)}.app:app"),
        port=port,
        url=url,
        log=LOGS / f"{process}.log",
        is_ready=lambda: readiness(url)[0] == HTTPStatus.OK,
        env={**environment, "HOST": "127.0.0.1", "PORT": str(port)},
    )


def _port(process: str) -> int:
    """Read, not imported: loading a service's settings takes as long as MongoDB to start."""
    settings = ROOT.joinpath(*package(process).split("."), "settings.py")
    port = re.search(r"^    port: .*= (\d+)$", settings.read_text(), re.MULTILINE)
    if port is None:
        raise Failure(f"{settings.relative_to(ROOT)} sets no port")
    return int(port[1]) + PORT_SHIFT


def development_lock(service: str) -> Path:
    """Held by `make dev` for as long as it, and not `make up`, runs this service."""
    return RUN / f"{service}.dev.lock"


def environment() -> dict[str, str]:
    """What the running stack gave to its services. `Failure` if none runs."""
    if holder(LOCK) is None:
        raise Failure("nothing is running here: make up starts it")
    loaded: dict[str, str] = json.loads(ENVIRONMENT.read_text())
    return loaded


def readiness(url: str) -> tuple[int, Any]:
    """The status and body of the service's `/health/ready`; status 0 and the reason while it does not answer."""
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=3) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error, suppress(ValueError):
            return error.code, json.load(error)
        return error.code, "what answers is not a service of ours"
    except (OSError, ValueError) as error:
        return 0, str(getattr(error, "reason", error))


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Holds the lock file `path` with our process id in it; False if another process holds it.

    The kernel lets go of it when its holder ends, however that happens.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        if not _lock(file):
            yield False
            return
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield True


def _lock(file: TextIO) -> bool:
    for _ in range(20):  # who looks (`holder`) holds it too, for microseconds
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.01)
    return False


def holder(path: Path) -> int | None:
    """The id of the process that holds the lock file `path`, if one does."""
    if not path.exists():
        return None
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read() or 0)
    return None


def say(line: str) -> None:
    """Progress, for the person at the terminal; the program's result alone goes to its standard output."""
    print(f"  {line}".rstrip(), file=sys.stderr, flush=True)
