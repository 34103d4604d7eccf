"""The servers that all tests share, each test's own corner of them, and private ones for tests that break them."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.testing import FrozenClock, scratch_mongo, scratch_namespace, scratch_redis
from scripts import embedded
from scripts.process import Failure, Server
from tests import servers

_servers = ExitStack()


def pytest_sessionstart(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):  # a worker of xdist: it inherits the environment that we set here
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():  # a first run downloads: let it be seen
        try:
            servers.start(_servers)
        except Failure as failure:
            pytest.exit(str(failure), returncode=pytest.ExitCode.INTERNAL_ERROR)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts whole stacks comes first, so that no worker is left alone with it in the end."""
    here = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(here).parts[0] not in ("journeys", "scripts", "soak"))


def pytest_sessionfinish() -> None:
    _servers.close()


@pytest.fixture(scope="session")
def mongo_url() -> str:
    return os.environ["MONGO_URL"]


@pytest.fixture(scope="session")
def redis_url() -> str:
    return os.environ["REDIS_URL"]


@pytest.fixture
def namespace() -> str:
    """This test's own, in MongoDB and in Redis."""
    return scratch_namespace()


@pytest.fixture
async def mongo(mongo_url: str, namespace: str) -> AsyncIterator[Mongo]:
    async with scratch_mongo(mongo_url, namespace=namespace) as mongo:
        yield mongo


@pytest.fixture
async def redis(redis_url: str, namespace: str) -> AsyncIterator[Redis]:
    async with scratch_redis(redis_url, namespace=namespace) as redis:
        yield redis


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def own_mongo(tmp_path: Path) -> Iterator[Server]:
    """A MongoDB that this test alone uses, and may kill and restart. Costs about a second."""
    server = embedded.mongo(tmp_path / "mongo")
    yield server
    server.kill()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Server]:
    """A Redis that this test alone uses, and may kill, flush and restart. Costs about 50 ms."""
    server = embedded.redis(tmp_path / "redis")
    yield server
    server.kill()
