"""What one service adds to another's objects may be missing, and the rest is answered."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from graphql import parse

from gateway.federation import Executor, Operation, Planner, SubgraphFailed, SubgraphRequest, Supergraph

SUPERGRAPH = Path(__file__).parents[2] / "docs/reference/graphql/supergraph.graphql"


class WithoutPayment:
    async def fetch(self, request: SubgraphRequest) -> dict[str, Any]:
        if request.subgraph == "payment":
            raise SubgraphFailed("payment", "SUBGRAPH_TIMEOUT", "it did not answer in time")
        return {"data": {"me": {"__typename": "User", "id": "ann", "email": "ann@example.com"}}}

    async def subscribe(self, request: SubgraphRequest) -> AsyncGenerator[dict[str, Any], None]:
        yield await self.fetch(request)


async def test_who_somebody_is_without_payment() -> None:
    graph = Supergraph.parse(SUPERGRAPH.read_text())
    plan = Planner(graph).plan(Operation.of(parse("{ me { email balances { currency } } }")), {})
    deadline = asyncio.get_running_loop().time() + 5
    answer = await Executor(graph, WithoutPayment()).execute(plan, {}, headers={}, deadline=deadline)
    assert answer["data"] == {"me": {"email": "ann@example.com", "balances": None}}
    assert [error["path"] for error in answer["errors"]] == [["me"]]
