"""Asks subgraphs: over HTTP, or in this process for the gateway's own fields; counted, timed and traced."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import lru_cache
from typing import Any

import orjson
from prometheus_client import Counter, Gauge, Histogram

from gateway.federation import SubgraphFailed, SubgraphRequest
from gateway.federation.http import HttpTransport
from gateway.settings import OWN, GatewayConfig
from libs.core.config import Config
from libs.core.context import Context
from libs.core.graphql import Engine, Request
from libs.core.graphql.errors import RequestRefused
from libs.core.telemetry import NO_SPAN, span, traceparent, tracing

# Whose request this is: the gateway's own fields decide by it as those of services do by the token.
asking: ContextVar[Context] = ContextVar("asking")

_REQUESTS = Counter(
    "gateway_subgraph_requests",
    "Requests to a subgraph. Outcome: ok, errors (it answered with some), or why there is no answer",
    ("subgraph", "operation", "outcome"),
)
_SECONDS = Histogram("gateway_subgraph_seconds", "From a request to a subgraph to its whole answer", ("subgraph",))
_IN_FLIGHT = Gauge("gateway_subgraph_in_flight", "Requests that a subgraph has not answered yet", ("subgraph",))

_requests = lru_cache(maxsize=4096)(_REQUESTS.labels)
_seconds = lru_cache(maxsize=256)(_SECONDS.labels)
_in_flight = lru_cache(maxsize=256)(_IN_FLIGHT.labels)


class Subgraphs:
    """The executor's transport."""

    def __init__(self, http: HttpTransport, own: Engine, config: Config) -> None:
        self._http = http
        self._own = own
        self._config = config

    async def fetch(self, request: SubgraphRequest) -> dict[str, Any]:
        with _measured(request) as outcome, _span_of(request):
            answer = await (self._answer(request) if request.subgraph == OWN else self._http.fetch(self._sent(request)))
            if "errors" in answer:
                outcome[0] = "errors"
            return answer

    async def subscribe(self, request: SubgraphRequest) -> AsyncGenerator[dict[str, Any], None]:
        """Counted as one request, when it is over; how long it took says nothing."""
        outcome = "ok"
        try:
            async with aclosing(self._http.subscribe(self._sent(request))) as events:
                async for event in events:
                    yield event
        except SubgraphFailed as failed:
            outcome = failed.code
            raise
        finally:
            _requests(request.subgraph, request.operation, outcome).inc()

    def _sent(self, request: SubgraphRequest) -> SubgraphRequest:
        """With the deadline of its subgraph, and as part of this trace."""
        timeout_s = self._config.get(GatewayConfig).timeouts_s.get(request.subgraph)
        if timeout_s is not None:
            deadline = min(request.deadline, asyncio.get_running_loop().time() + timeout_s)
            request = replace(request, deadline=deadline)
        if tracing():
            request = replace(request, headers={**request.headers, "traceparent": traceparent()})
        return request

    async def _answer(self, request: SubgraphRequest) -> dict[str, Any]:
        body = orjson.loads(request.body)
        asked = Request(body["query"], body.get("variables") or {}, None, {})
        try:
            answer: dict[str, Any] = orjson.loads(await self._own.prepare(asked, asking.get()).execute())
        except RequestRefused as refused:
            return {"errors": refused.errors}
        return answer


@contextmanager
def _measured(request: SubgraphRequest) -> Iterator[list[str]]:
    """The block may put another outcome into what it is given."""
    name, outcome, began = request.subgraph, ["ok"], time.perf_counter()
    in_flight = _in_flight(name)
    in_flight.inc()
    try:
        yield outcome
    except SubgraphFailed as failed:
        outcome[0] = failed.code
        raise
    except asyncio.CancelledError:
        outcome[0] = "cancelled"
        raise
    finally:
        in_flight.dec()
        _requests(name, request.operation, outcome[0]).inc()
        _seconds(name).observe(time.perf_counter() - began)


def _span_of(request: SubgraphRequest) -> AbstractContextManager[Any]:
    if not tracing():
        return NO_SPAN
    return span(f"{request.operation} {request.subgraph}", kind="client", subgraph=request.subgraph)
