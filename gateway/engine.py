"""The engine behind the gateway's transports: documents checked against the supergraph, planned, and executed."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
from graphql import OperationType
from prometheus_client import Counter, Histogram

from gateway.federation import Operation, Plan, PlanTooLarge, SubgraphFailed
from gateway.supergraph import Graph, Watch
from gateway.transport import asking
from libs.core.context import Context
from libs.core.errors import DeadlineExceeded, OutcomeUnknown, Unavailable
from libs.core.graphql import LimitExceeded, Limits, Request
from libs.core.graphql.errors import RequestRefused
from libs.core.telemetry import span

_OPERATIONS = Counter(
    "gateway_operations",
    "Operations that were executed. Outcome: ok, errors (the answer has some), or failed (there is none)",
    ("operation", "type", "outcome"),
)
_SECONDS = Histogram("gateway_operation_seconds", "From a checked operation to its answer", ("operation",))

_operations = lru_cache(maxsize=4096)(_OPERATIONS.labels)
_seconds = lru_cache(maxsize=512)(_SECONDS.labels)


class Names:
    """Operations' names as labels of metrics, which must not grow with what clients make up: the first so many that
    callers with a token use are told apart, for as long as the process lives.
    """

    MOST = 200
    _SHORT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)

    def __init__(self) -> None:
        self._known: set[str] = set()

    def label(self, name: str | None, context: Context) -> str:
        if name is None:
            return "unnamed"
        if name not in self._known:
            if len(self._known) >= self.MOST or context.caller.kind == "anonymous" or not self._SHORT.fullmatch(name):
                return "other"
            self._known.add(name)
        return name


class FederationEngine:
    """Asks the supergraph that is in force when a request comes, to the request's end. See `Engine`."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._names = Names()

    def prepare(self, request: Request, context: Context) -> "_Prepared":
        watch: Watch = context.service.watch
        if watch.graph is None:
            raise RequestRefused.of(Unavailable("no service has told its schema yet: try again in a moment"))
        graph = watch.graph
        operation, _ = graph.documents.ask(request)
        name = self._names.label(operation.name, context)
        return _Prepared(operation.type, graph, graph.operation(operation), request.variables, context, name)


def headers_of(context: Context) -> dict[str, str]:
    """What subgraphs are told of the caller: they verify the token themselves, and believe the gateway's address."""
    headers = {
        "x-tenant": context.tenant_id,
        "x-correlation-id": context.correlation_id,
        "authorization": context.authorization,
        "x-forwarded-for": context.client.address,
        "user-agent": context.client.agent,
        "traceparent": context.traceparent,
    }
    return {name: value for name, value in headers.items() if value}


def _leave_open(errors: Iterable[dict[str, Any]]) -> None:
    """A mutation that a service did not answer is not known to have failed. What is asked for below it only reads."""
    for error in errors:
        extensions = error.get("extensions", {})
        if "service" in extensions and not error.get("path") and extensions["code"].startswith("SUBGRAPH_"):
            error["message"] = f"{extensions['service']} did not answer: ask again, with the same id if there is one"
            extensions["code"] = OutcomeUnknown.code


def _is_refusal(answer: Mapping[str, Any]) -> bool:
    """Whether it is no event: the service ends the stream, or did not let it begin."""
    return answer["data"] is None and not any(error.get("path") for error in answer.get("errors", ()))


def _dumped(answer: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(answer)
    except orjson.JSONEncodeError:  # orjson reads 1,024 levels, and writes 254
        raise RequestRefused([_NESTED], status=502) from None


_NESTED = {"message": "a service's answer is nested too deeply", "extensions": {"code": "SUBGRAPH_INVALID_RESPONSE"}}


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A request that will be executed."""

    type: OperationType
    _graph: Graph
    _operation: Operation
    _variables: dict[str, Any]
    _context: Context
    _name: str

    async def execute(self) -> bytes:
        began, outcome = time.perf_counter(), "failed"
        asking.set(self._context)
        try:
            deadline = self._deadline()
            plan = await self._plan(deadline)
            answer = await self._graph.executor.execute(
                plan, self._variables, headers=headers_of(self._context), deadline=deadline
            )
            outcome = "errors" if "errors" in answer else "ok"
            if self.type is OperationType.MUTATION:
                _leave_open(answer.get("errors", ()))
            return _dumped(answer)
        except Exception as error:
            raise RequestRefused.of(error) from error
        finally:
            _operations(self._name, self.type.value, outcome).inc()
            _seconds(self._name).observe(time.perf_counter() - began)

    async def responses(self) -> AsyncGenerator[bytes, None]:
        if self.type is not OperationType.SUBSCRIPTION:
            yield await self.execute()
            return
        async with aclosing(self._subscribe()) as events:
            async for event in events:
                yield event

    async def _subscribe(self) -> AsyncGenerator[bytes, None]:
        asking.set(self._context)
        outcome = "ok"
        executor, headers, deadline = self._graph.executor, headers_of(self._context), self._deadline()
        try:
            plan = await self._plan(deadline)
            async with aclosing(
                executor.subscribe(plan, self._variables, headers=headers, deadline=deadline)
            ) as answers:
                async for answer in answers:
                    if _is_refusal(answer):
                        raise RequestRefused(answer["errors"])
                    yield _dumped(answer)
        except SubgraphFailed as failed:
            outcome = "failed"
            extensions = {"code": failed.code, "service": failed.subgraph}
            raise RequestRefused([{"message": str(failed), "extensions": extensions}], status=502) from None
        except Exception as error:
            outcome = "failed"
            raise RequestRefused.of(error) from error
        finally:
            _operations(self._name, self.type.value, outcome).inc()

    async def _plan(self, deadline: float) -> Plan:
        plan = self._graph.planner.known(self._operation, self._variables)
        return plan or await self._planned_anew(deadline)

    async def _planned_anew(self, deadline: float) -> Plan:
        try:
            with span("graphql.plan"):
                async with asyncio.timeout_at(deadline):
                    return await self._graph.plan(self._operation, self._variables)
        except PlanTooLarge as error:
            raise RequestRefused.of(LimitExceeded(str(error), limit="plan"), by_graphql=True) from None
        except TimeoutError:
            raise DeadlineExceeded("time ran out before it was known how to answer") from None

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._context.deadline.remaining_s
