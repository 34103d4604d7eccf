"""The endpoint as a client meets it: in memory for most tests, behind uvicorn where the connection matters."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from libs.core.graphql import GraphQLEndpoint
from scripts.process import free_port
from tests.core.graphql.service import endpoint

Post = Callable[..., Awaitable[httpx.Response]]
Node = Callable[..., Awaitable[str]]


@pytest.fixture
def post() -> Post:
    """Posts `{"query": …}` to an endpoint with these limits, in memory."""

    async def post(query: Any, *, headers: dict[str, str] | None = None, limits: Any = (), **parameters: Any) -> Any:
        transport = httpx.ASGITransport(endpoint(**dict(limits)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/graphql", json={"query": query, **parameters}, headers=headers)

    return post


@dataclass
class Served:
    endpoint: GraphQLEndpoint
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/graphql"

    def socket(self, protocol: str = "graphql-transport-ws") -> connect:
        return connect(self.url.replace("http", "ws"), subprotocols=[protocol])  # type: ignore[list-item]


@asynccontextmanager
async def serve(**limits: Any) -> AsyncIterator[Served]:
    served = Served(endpoint(**limits), free_port())
    config = uvicorn.Config(
        served.endpoint, port=served.port, lifespan="off", log_config=None, ws="websockets-sansio", access_log=False
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    # Not serve(): it takes over the test run's signal handlers, and needs 200 ms to notice that it should end.
    await server.startup()
    try:
        yield served
    finally:
        served.endpoint.stop()
        await server.shutdown()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serve() as served:
        yield served


@pytest.fixture
def node() -> Node:
    """Runs a script, of this folder unless its path says another, and answers what it printed."""

    async def run(script: str | Path, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "node", str(Path(__file__).parent / script), *arguments, stdout=asyncio.subprocess.PIPE
        )
        try:
            printed, _ = await asyncio.wait_for(process.communicate(), 60)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, printed.decode()
        return printed.decode()

    return run


__all__ = ["ClientConnection", "Node", "Post", "Served", "serve"]
