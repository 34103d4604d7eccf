"""Clients that others wrote, as they are, through the gateway's engine."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.datastructures import Headers
from starlette.types import Scope

from gateway.engine import FederationEngine
from gateway.federation import Subgraph
from gateway.federation.compose import compose
from gateway.federation.http import HttpTransport
from gateway.supergraph import Graph
from libs.core.context import Context
from libs.core.graphql import GraphQLEndpoint, Limits
from libs.core.testing import eventually
from scripts.process import free_port
from tests.core.graphql import service
from tests.core.graphql.conftest import Node, node, serve

__all__ = ["node"]

HERE = Path(__file__).parent


@dataclass
class Watching:
    graph: Graph


@dataclass
class Served:
    watch: Watching


@asynccontextmanager
async def gateway() -> AsyncIterator[str]:
    """The engine in front of `service`, at this URL."""
    async with serve() as behind, HttpTransport({"service": behind.url}) as http:
        text = compose([Subgraph("service", behind.url, service.schema.as_str())])
        served = Served(Watching(Graph(text, http, Limits(), development=True, at=datetime.now(UTC))))

        async def context(scope: Scope, headers: Headers, params: Mapping[str, Any] | None) -> Context:
            known = await service.context(scope, headers, params)
            authorization = (params or {}).get("authorization") or headers.get("authorization") or ""
            return replace(known, service=served, authorization=authorization)

        app, port = GraphQLEndpoint(FederationEngine(Limits()), context, development=True), free_port()
        config = uvicorn.Config(
            app, port=port, lifespan="off", log_config=None, ws="websockets-sansio", access_log=False
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        try:
            yield f"http://127.0.0.1:{port}/graphql"
        finally:
            app.stop()
            await server.shutdown()


def lines(printed: str) -> list[Any]:
    return [json.loads(line) for line in printed.splitlines()]


async def test_the_client_of_graphql_ws(node: Node) -> None:
    async with gateway() as url:
        assert lines(await node("graphql_ws.mjs", url.replace("http", "ws"))) == [
            [{"whoami": "anna"}],
            [{"count": 1}, {"count": 2}, {"count": 3}],
            [{"breaks": 1}, ["INTERNAL"]],
            [["GRAPHQL_VALIDATION_FAILED"]],
            {"ticks": {"id": "npm"}},
        ]
        await eventually(lambda: "npm" not in service.running)


@pytest.mark.parametrize("mode", ["distinct", "single"])
async def test_the_client_of_graphql_sse(node: Node, mode: str) -> None:
    async with gateway() as url:
        assert lines(await node("graphql_sse.mjs", url, mode)) == [
            [{"whoami": "anna"}],
            [{"count": 1}, {"count": 2}, {"count": 3}],
            [{"breaks": 1}, ["INTERNAL"]],
            {"ticks": {"id": "npm"}},
        ]
        await eventually(lambda: "npm" not in service.running)


ASKED = {
    "whoami": "anna",
    "wallet": {"id": "w1", "balance": str(2**53 + 1), "again": {"openedAt": "2026-01-01T00:00:00+00:00"}},
}


async def test_apollo_client(node: Node) -> None:
    """Which knows objects by their type and id, also those that mutations and subscriptions answer with."""
    async with gateway() as url:
        assert without_typenames(lines(await node(HERE / "apollo.mjs", url))) == [
            ASKED,
            {"pay": {"id": "w1", "balance": "7"}},
            "7",
            [{"whoami": "anna", "fails": None}, [[["fails"], "FORBIDDEN"]]],
            ["GRAPHQL_VALIDATION_FAILED"],
            [{"count": 1}, {"count": 2}, {"count": 3}],
            {"ticks": {"id": "npm", "balance": "1"}},
        ]
        await eventually(lambda: "npm" not in service.running)


async def test_urql(node: Node) -> None:
    async with gateway() as url:
        assert without_typenames(lines(await node(HERE / "urql.mjs", url))) == [
            ASKED,
            [True, ["POST", "GET"]],
            {"pay": {"id": "w1", "balance": "7"}},
            [{"whoami": "anna", "fails": None}, ["FORBIDDEN"]],
            ["GRAPHQL_VALIDATION_FAILED"],
            [{"count": 1}, {"count": 2}, {"count": 3}],
            {"ticks": {"id": "npm", "balance": "1"}},
        ]
        await eventually(lambda: "npm" not in service.running)


def without_typenames(value: Any) -> Any:
    """Which clients ask for on their own, everywhere."""
    if isinstance(value, list):
        return [without_typenames(each) for each in value]
    if isinstance(value, dict):
        return {name: without_typenames(each) for name, each in value.items() if name != "__typename"}
    return value
