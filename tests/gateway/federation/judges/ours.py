"""Our engine over a world, and what is compared of two answers."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

from graphql import FragmentDefinitionNode, OperationDefinitionNode, parse, validate

from gateway.federation import Executor, Operation, Plan, Planner, SubgraphRequest, Supergraph
from tests.gateway.federation.judges.hive import Cost
from tests.gateway.federation.judges.serve import Waves
from tests.gateway.federation.judges.world import World

_DEADLINE_S = 30.0


@dataclass(slots=True)
class InProcess:
    """The transport of our engine to a world."""

    world: World
    waves: Waves

    async def fetch(self, request: SubgraphRequest) -> dict[str, Any]:
        body = json.loads(request.body)  # as it would arrive
        return await self.waves.answer(request.subgraph, body["query"], body.get("variables"))

    async def subscribe(self, request: SubgraphRequest) -> AsyncGenerator[dict[str, Any], None]:
        body = json.loads(request.body)
        for event in self.world.events(request.subgraph, body["query"], body.get("variables")):
            yield event


@dataclass(frozen=True, slots=True)
class Outcome:
    answer: dict[str, Any]
    plan: Plan
    cost: Cost


class Ours:
    """A supergraph's engine."""

    def __init__(self, world: World, supergraph: str) -> None:
        self._world = world
        self.supergraph = Supergraph.parse(supergraph)
        self._planner = Planner(self.supergraph)

    def plan(self, query: str, variables: Mapping[str, Any] | None = None) -> Plan:
        return self._planner.plan(self.operation(query), variables or {})

    def execute(self, query: str, variables: Mapping[str, Any] | None = None) -> Outcome:
        return asyncio.run(self._execute(query, variables or {}))

    def subscribe(self, query: str, variables: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """All answers."""
        return asyncio.run(self._subscribe(query, variables or {}))

    async def _execute(self, query: str, variables: Mapping[str, Any]) -> Outcome:
        plan = self.plan(query, variables)
        waves = Waves(self._world)
        executor = Executor(self.supergraph, InProcess(self._world, waves))
        answer = await executor.execute(plan, variables, headers={}, deadline=_deadline())
        return Outcome(answer, plan, Cost(waves.fetches, waves.hops))

    async def _subscribe(self, query: str, variables: Mapping[str, Any]) -> list[dict[str, Any]]:
        plan = self.plan(query, variables)
        executor = Executor(self.supergraph, InProcess(self._world, Waves(self._world)))
        events = executor.subscribe(plan, variables, headers={}, deadline=_deadline())
        return [event async for event in events]

    def operation(self, query: str) -> Operation:
        document = parse(query)
        errors = validate(self.supergraph.api_schema, document)
        assert not errors, errors
        (operation,) = (d for d in document.definitions if isinstance(d, OperationDefinitionNode))
        fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
        return Operation(operation, fragments)


def _deadline() -> float:
    return asyncio.get_running_loop().time() + _DEADLINE_S
