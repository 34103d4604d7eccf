"""One live auth for all attacks, behind a proxy that it trusts, which each attacker seems to come through."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from libs.core.testing import eventually
from tests.auth.attacks.scene import LAX, ME, Person, Scene, Visitor
from tests.live import LiveAuth, auth_process, shared_namespace
from tests.web import web


@pytest.fixture(scope="package")
def attacked(tmp_path_factory: pytest.TempPathFactory, mongo_url: str, redis_url: str) -> Iterator[LiveAuth]:
    """Messages are limited in the tenant `other` as they are by default, and hardly in `demo`."""
    folder = tmp_path_factory.mktemp("attacks")
    with (
        shared_namespace(mongo_url, redis_url) as namespace,
        auth_process(folder, mongo_url, redis_url, namespace, TRUSTED_PROXIES="127.0.0.1/32") as live,
    ):
        asyncio.run(_prepare(live))
        yield live


async def _prepare(live: LiveAuth) -> None:
    async with web(timeout=30) as http:
        scene = Scene(live, http)
        await scene.configure("demo", **LAX)
        person = await scene.person()

        async def believed() -> bool:
            return "errors" not in await person.answer(ME)

        await eventually(believed)


@pytest.fixture
async def scene(attacked: LiveAuth) -> AsyncIterator[Scene]:
    async with web(timeout=30, limits=httpx.Limits(max_connections=200)) as http:
        yield Scene(attacked, http)


@pytest.fixture
def visitor(scene: Scene) -> Visitor:
    """Somebody who is nobody here."""
    return scene.visitor()


@pytest.fixture
async def ann(scene: Scene) -> Person:
    return await scene.person()


@pytest.fixture
async def eve(scene: Scene) -> Person:
    """Who has an account, too."""
    return await scene.person()
