"""Where the tests' MongoDB and Redis come from, first that applies: the environment, Docker, the PATH, embedded."""

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from pymongo import MongoClient
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from scripts import embedded
from scripts.process import READY_WITHIN_S, Failure

MONGO_IMAGE, REDIS_IMAGE = "mongo:8.0", "redis:8.2"


def start(stack: ExitStack) -> None:
    """Sets MONGO_URL and REDIS_URL where they are not set, to servers that end with `stack`."""
    missing = {"MONGO_URL", "REDIS_URL"} - os.environ.keys()
    if not missing:
        return
    urls = (
        _containers(stack)
        if _docker_holds(MONGO_IMAGE, REDIS_IMAGE, testcontainers_config.ryuk_image)
        else _processes(stack)
    )
    os.environ.update({name: urls[name] for name in missing})


def _docker_holds(*images: str) -> bool:
    """Nothing is pulled for a test run: an engine without the images counts as none."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    with suppress(subprocess.TimeoutExpired):
        asked = subprocess.run([docker, "image", "inspect", *images], capture_output=True, timeout=5, check=False)
        return asked.returncode == 0
    return False


def _containers(stack: ExitStack) -> dict[str, str]:
    mongo = DockerContainer(MONGO_IMAGE).with_command("--replSet rs0 --bind_ip_all").with_exposed_ports(27017)
    redis = DockerContainer(REDIS_IMAGE).with_exposed_ports(6379)
    for container in (mongo, redis):
        stack.enter_context(container)
    mongo_url = f"mongodb://{mongo.get_container_host_ip()}:{mongo.get_exposed_port(27017)}/?directConnection=true"
    redis_url = f"redis://{redis.get_container_host_ip()}:{redis.get_exposed_port(6379)}/0"
    deadline = time.monotonic() + READY_WITHIN_S
    while not (embedded.mongo_is_ready(mongo_url, member="127.0.0.1:27017") and embedded.redis_is_ready(redis_url)):
        if time.monotonic() > deadline:
            raise Failure("MongoDB and Redis in Docker did not answer within a minute")
        time.sleep(0.05)
    return {"MONGO_URL": mongo_url, "REDIS_URL": redis_url}


def _processes(stack: ExitStack) -> dict[str, str]:
    data = Path(tempfile.mkdtemp(prefix="payments-tests-"))
    stack.callback(shutil.rmtree, data, ignore_errors=True)
    mongo, redis = embedded.mongo(data / "mongo"), embedded.redis(data / "redis")
    for server in (mongo, redis):
        stack.callback(server.kill)
    with MongoClient[dict[str, object]](mongo.url) as client:
        # Dropped collections keep their files open for as long as a snapshot may want them: five minutes, unless told
        # otherwise. Seen: 20,000 files, all that a process may have, after 300 tests that made 30 collections each.
        client.admin.command("setParameter", 1, minSnapshotHistoryWindowInSeconds=15)
        # Once a minute it would delete what a test's clock, which stands still in the past, dates.
        client.admin.command("setParameter", 1, ttlMonitorEnabled=False)
    return {"MONGO_URL": mongo.url, "REDIS_URL": redis.url}
