"""Executes plans: asks subgraphs as soon as what each request needs is there, and makes one answer of theirs.

A subgraph that fails costs its own fields: they are null, with an error, and the rest is answered.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import orjson

from gateway.federation.execute.introspection import introspect
from gateway.federation.execute.merging import merge, objects_at, only, shown, where
from gateway.federation.execute.projection import Fault, Projection
from gateway.federation.plan import Plan, Step
from gateway.federation.plan.representation import Incomplete, Representation
from gateway.federation.supergraph import Supergraph
from gateway.federation.transport import SubgraphFailed, SubgraphRequest, Transport

Json = dict[str, Any]
# Of one response; what a subgraph says beyond that is dropped.
_ERRORS = 100


class Executor:
    """Executes plans that were made for `supergraph`, by way of `transport`."""

    def __init__(self, supergraph: Supergraph, transport: Transport) -> None:
        self._graph = supergraph
        self._transport = transport
        self._projections: WeakKeyDictionary[Plan, Projection] = WeakKeyDictionary()

    async def execute(
        self, plan: Plan, variables: Mapping[str, Any], *, headers: Mapping[str, str], deadline: float
    ) -> Json:
        """`{"data": …}`, with "errors" if there are any. `variables` are as the client sent them, and known to fit.

        `headers` go to every subgraph. `deadline` is on the event loop's clock: what has not answered by then failed.
        """
        run = _Run(plan, self._transport, variables, headers, deadline)
        await run.all()
        return self._answer(plan, run)

    async def subscribe(
        self, plan: Plan, variables: Mapping[str, Any], *, headers: Mapping[str, str], deadline: float
    ) -> AsyncGenerator[Json, None]:
        """The same for each event of a subscription, with what other subgraphs add to it. `SubgraphFailed` if it cannot
        begin, or breaks off. `deadline` is for its beginning; each event has as long as that was away.
        """
        loop = asyncio.get_running_loop()
        within_s = deadline - loop.time()
        first = _Run(plan, self._transport, variables, headers, deadline)
        async with aclosing(self._transport.subscribe(first.root_request())) as events:
            async for event in events:
                run = _Run(plan, self._transport, variables, headers, loop.time() + within_s)
                await run.rest(event)
                yield self._answer(plan, run)

    def _answer(self, plan: Plan, run: "_Run") -> Json:
        projection = self._projections.get(plan)
        if projection is None:
            projection = self._projections[plan] = Projection(plan.layout, self._graph.api_schema)
        data, faults = projection.project(run.merged)
        errors = run.errors
        if faults:
            errors = errors + list(_uncovered(faults, errors))
        if plan.layout.introspection and data is not None:
            data = introspect(self._graph.api_schema, plan, run.variables, data)
        return {"data": data, "errors": errors} if errors else {"data": data}


def _uncovered(faults: Iterable[Fault], errors: list[Json]) -> Iterator[Json]:
    """The faults that no subgraph's error speaks of: what it gave as null it explained."""
    explained = [error.get("path") for error in errors]
    for fault in faults:
        path = fault.path[::-1]
        if not any(_related(path, other) for other in explained):
            yield {"message": fault.message, "path": path, "extensions": {"code": "SUBGRAPH_INVALID_RESPONSE"}}


def _related(path: list[str | int], other: Any) -> bool:
    return isinstance(other, list) and all(a == b for a, b in zip(path, other, strict=False))


class _Run:
    """One execution. `merged` grows as answers come."""

    def __init__(
        self,
        plan: Plan,
        transport: Transport,
        variables: Mapping[str, Any],
        headers: Mapping[str, str],
        deadline: float,
    ) -> None:
        self.merged: Json = {}
        self.errors: list[Json] = []
        self.variables = variables
        self._plan = plan
        self._transport = transport
        self._headers = headers
        self._deadline = deadline
        self._waiting = [len(step.after) for step in plan.steps]
        self._tasks: list[asyncio.Task[None]] = []

    async def all(self) -> None:
        await self._together([step for step in self._plan.steps if not step.after])

    async def rest(self, event: Json) -> None:
        """What follows from a subscription's event."""
        step = self._plan.steps[0]
        self._take_root(step, event)
        await self._together(self._released_by(step))

    def root_request(self) -> SubgraphRequest:
        return self._request(self._plan.steps[0], None)

    async def _together(self, steps: list[Step]) -> None:
        if len(steps) == 1 and len(self._plan.steps) == 1:
            await self._do(steps[0])
        elif steps:
            await self._in_order(steps)

    async def _in_order(self, steps: list[Step]) -> None:
        """A task for each request that need not wait for another, so that a slow one holds up only what needs it."""
        try:
            await self._chain(steps)
            for task in self._tasks:  # which may become more meanwhile
                await task
        finally:
            for task in self._tasks:
                task.cancel()

    async def _chain(self, steps: list[Step]) -> None:
        while steps:
            mine, *others = steps
            self._tasks += [asyncio.create_task(self._chain([step])) for step in others]
            await self._do(mine)
            steps = self._released_by(mine)

    def _released_by(self, done: Step) -> list[Step]:
        released = []
        for step in self._plan.steps[done.id + 1 :]:
            if done.id in step.after:
                self._waiting[step.id] -= 1
                if not self._waiting[step.id]:
                    released.append(step)
        return released

    async def _do(self, step: Step) -> None:
        try:
            if step.representations is None:
                await self._ask_root(step)
            else:
                await self._ask_entities(step, step.representations)
        except SubgraphFailed as failed:
            self._fail(step, failed)
        except RecursionError:  # JSON may be nested deeper than Python recurses
            self._fail(step, _invalid(step, "its answer is nested too deeply"))

    def _fail(self, step: Step, failed: SubgraphFailed) -> None:
        extensions = {"code": failed.code, "service": failed.subgraph}
        self.errors.append({"message": str(failed), "path": self._shown(step.paths[0]), "extensions": extensions})

    def _shown(self, path: Iterable[Any]) -> list[str | int]:
        return shown(self._plan.layout, path)

    def _note_errors(self, response: Json, place: Callable[[list[Any]], list[Any]]) -> None:
        """Passes on what the subgraph says: its own message, its extensions, and where that is in the answer."""
        errors = response.get("errors")
        for error in errors[:_ERRORS] if isinstance(errors, list) else ():
            if len(self.errors) >= _ERRORS:
                return
            noted: Json = {"message": "the subgraph answered with an error that says nothing"}
            if isinstance(error, dict):
                if isinstance(error.get("message"), str):
                    noted["message"] = error["message"]
                path = error.get("path")
                noted["path"] = place(path if isinstance(path, list) else [])
                if isinstance(error.get("extensions"), dict):
                    noted["extensions"] = error["extensions"]
            self.errors.append(noted)

    # The root

    async def _ask_root(self, step: Step) -> None:
        if any(step.paths) and not any(objects_at(self.merged, path) for path in step.paths):
            return
        self._take_root(step, await self._transport.fetch(self._request(step, None)))

    def _take_root(self, step: Step, response: Json) -> None:
        self._note_errors(response, lambda path: self._shown([*step.paths[0], *path]))
        data = response.get("data")
        if data is None:
            if not response.get("errors"):
                raise _invalid(step, "it answered without data")
            return
        if type(data) is not dict:
            raise _invalid(step, "its data is no object")
        if len(self._plan.steps) > 1:
            data = only(data, step.shape)
        if step.paths != ((),):
            for path in step.paths:
                for found in objects_at(self.merged, path):
                    merge(found, data)
        elif self.merged:
            merge(self.merged, data)
        else:
            self.merged = data

    def _request(self, step: Step, representations: bytes | None) -> SubgraphRequest:
        variables = {name: self.variables[name] for name in step.variables if name in self.variables}
        if representations is not None:
            variables[step.representations_variable] = orjson.Fragment(representations)
        body = b'%b,"variables":%b}' % (step.body, orjson.dumps(variables)) if variables else step.body + b"}"
        return SubgraphRequest(
            step.subgraph, step.query, variables, step.operation, self._headers, self._deadline, body
        )

    # Entities

    async def _ask_entities(self, step: Step, representations: Mapping[str | None, Representation]) -> None:
        named: dict[bytes, _Wanted] = {}
        for path in step.paths:
            for found in objects_at(self.merged, path):
                of_type = representations.get(None) or representations.get(found.get("__typename"))
                if of_type is None:
                    continue
                try:
                    name = of_type.of(found)
                except Incomplete:
                    continue
                wanted = named.setdefault(orjson.dumps(name), _Wanted(of_type, name, []))
                wanted.objects.append(found)
        if named:
            response = await self._transport.fetch(self._request(step, b"[%b]" % b",".join(named)))
            self._take_entities(step, response, list(named.values()))

    def _take_entities(self, step: Step, response: Json, wanted: list["_Wanted"]) -> None:
        def place(path: list[Any]) -> list[Any]:
            if len(path) > 1 and path[0] == "_entities" and type(path[1]) is int and 0 <= path[1] < len(wanted):
                return self._shown([*where(self.merged, step.paths, wanted[path[1]].objects[0]), *path[2:]])
            return self._shown(step.paths[0])

        self._note_errors(response, place)
        data = response.get("data")
        entities = data.get("_entities") if type(data) is dict else None
        if entities is None and response.get("errors"):
            return
        if type(entities) is not list or len(entities) != len(wanted):
            raise _invalid(step, "it did not answer each entity that it was asked for")
        answered = [(each, entity) for each, entity in zip(wanted, entities, strict=True) if type(entity) is dict]
        if not all(each.representation.is_of(each.name, entity) for each, entity in answered):
            raise _invalid(step, "it answered with other entities than it was asked for")
        for each, entity in answered:
            asked = only(entity, step.shape)
            for found in each.objects:
                merge(found, asked)


def _invalid(step: Step, message: str) -> SubgraphFailed:
    return SubgraphFailed(step.subgraph, "SUBGRAPH_INVALID_RESPONSE", message)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """An entity that a subgraph is asked for, and the objects that are it."""

    representation: Representation
    name: Json
    objects: list[Json]
