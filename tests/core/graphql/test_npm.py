"""What others wrote to judge, and to talk to, servers like ours: as they are."""

import json
from typing import Any

import pytest

from libs.core.testing import eventually
from tests.core.graphql.conftest import Node, Served
from tests.core.graphql.service import running


def lines(printed: str) -> list[Any]:
    return [json.loads(line) for line in printed.splitlines()]


async def test_all_audits_of_graphql_http(served: Served, node: Node) -> None:
    assert await node("audits.mjs", served.url) == "61 of 61\n"


async def test_the_client_of_graphql_ws(served: Served, node: Node) -> None:
    assert lines(await node("graphql_ws.mjs", served.url.replace("http", "ws"))) == [
        [{"whoami": "anna"}],
        [{"count": 1}, {"count": 2}, {"count": 3}],
        [{"breaks": 1}, ["INTERNAL"]],
        [["GRAPHQL_VALIDATION_FAILED"]],
        {"ticks": {"id": "npm"}},
    ]
    await eventually(lambda: "npm" not in running)


@pytest.mark.parametrize("mode", ["distinct", "single"])
async def test_the_client_of_graphql_sse(served: Served, node: Node, mode: str) -> None:
    assert lines(await node("graphql_sse.mjs", served.url, mode)) == [
        [{"whoami": "anna"}],
        [{"count": 1}, {"count": 2}, {"count": 3}],
        [{"breaks": 1}, ["INTERNAL"]],
        {"ticks": {"id": "npm"}},
    ]
    await eventually(lambda: "npm" not in running)
