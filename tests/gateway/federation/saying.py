"""Subgraphs that answer as a test tells them, and what an operation gets of them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson
from graphql import parse

from gateway.federation import Executor, Operation, Plan, Planner, SubgraphRequest, Supergraph


def planned(graph: Supergraph, query: str, **variables: Any) -> Plan:
    return Planner(graph).plan(Operation.of(parse(query)), variables)


class Saying:
    """Subgraphs that answer as they are told, or fail."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers

    async def fetch(self, request: SubgraphRequest) -> dict[str, Any]:
        answer = self._answers[request.subgraph]
        if callable(answer):
            answer = answer(orjson.loads(request.body).get("variables", {}))
        if isinstance(answer, Exception):
            raise answer
        found: dict[str, Any] = orjson.loads(answer if isinstance(answer, bytes) else orjson.dumps(answer))
        return found

    async def subscribe(self, request: SubgraphRequest) -> AsyncGenerator[dict[str, Any], None]:
        yield await self.fetch(request)


async def executed(graph: Supergraph, query: str, **answers: Any) -> dict[str, Any]:
    deadline = asyncio.get_running_loop().time() + 5
    return await Executor(graph, Saying(**answers)).execute(planned(graph, query), {}, headers={}, deadline=deadline)
