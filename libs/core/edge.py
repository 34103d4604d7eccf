"""What happens around every request, in one plain ASGI layer.

Each request gets a correlation id (its own `x-correlation-id`, if that is well formed), its share in the metrics, a
span if traces are kept, a line in the log if it failed or was slow (all of them at LOG_LEVEL=DEBUG), and the response
headers that a browser should see. `/graphql` is handed to its endpoint from here, past FastAPI's layers; everything
else goes to FastAPI.
"""

import logging
import time
from contextlib import AbstractContextManager
from functools import lru_cache
from logging import DEBUG, INFO
from typing import Any

import structlog
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.core.context import Caller, correlation_id
from libs.core.ids import ID_PATTERN, new_id
from libs.core.telemetry import NO_SPAN, span, tracing

GRAPHQL_PATH = "/graphql"
# Where the context factory leaves who asks, for the log line.
CALLER = "platform.caller"

_SLOW_S = 1.0

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
# Development serves FastAPI's documentation pages, which load scripts.
_PRODUCTION_HEADERS = (
    *_HEADERS,
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"strict-transport-security", b"max-age=31536000"),
)

_REQUESTS = Counter("http_requests", "Requests, by the pattern of their path", ("method", "route", "status"))
_SECONDS = Histogram("http_request_seconds", "From a request's headers to the last byte of its answer", ("route",))

# prometheus_client takes a lock and a µs to find a label's counter; there are few.
_requests = lru_cache(maxsize=1024)(_REQUESTS.labels)
_seconds = lru_cache(maxsize=256)(_SECONDS.labels)

log = structlog.get_logger(__name__)
# Asked for every request: structlog takes 5 µs to say what this says in 0.1.
_level = logging.getLogger(__name__)


class Edge:
    """Made by `create_app`, around FastAPI (`app`) and the GraphQL endpoint."""

    def __init__(self, app: ASGIApp, *, graphql: ASGIApp, development: bool) -> None:
        self._app = app
        self._graphql = graphql
        self._headers = _HEADERS if development else _PRODUCTION_HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        correlation = _correlation_of(scope)
        correlation_id.set(correlation)  # for good: this task serves this request alone
        answer = _Answer(send, (*self._headers, (b"x-correlation-id", correlation.encode())))
        started = time.perf_counter()
        try:
            with _span_of(scope):
                await (self._graphql if scope["path"] == GRAPHQL_PATH else self._app)(scope, receive, answer.send)
        finally:
            _record(scope, answer.status, time.perf_counter() - started)


class _Answer:
    """Passes a response on, with those of `headers` that it lacks, and remembers its status: 0 while there is none."""

    def __init__(self, send: Send, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self.status = 0
        self._send = send
        self._headers = headers

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self.status = message["status"]
            self._add_headers(message)
        elif kind == "websocket.accept":
            self.status = 101
            self._add_headers(message)
        await self._send(message)

    def _add_headers(self, message: Message) -> None:
        given = list(message.get("headers", ()))
        names = {name for name, _ in given}
        message["headers"] = given + [header for header in self._headers if header[0] not in names]


def _header(scope: Scope, wanted: bytes) -> str:
    for name, value in scope["headers"]:
        if name == wanted:
            return str(value, "latin-1")
    return ""


def _correlation_of(scope: Scope) -> str:
    given = _header(scope, b"x-correlation-id")
    return given if ID_PATTERN.fullmatch(given) else new_id()


def _span_of(scope: Scope) -> AbstractContextManager[Any]:
    if not tracing():
        return NO_SPAN
    method = scope.get("method", "WEBSOCKET")
    return span(f"{method} {scope['path']}", kind="server", parent=_header(scope, b"traceparent"))


def _record(scope: Scope, status: int, seconds: float) -> None:
    """Two numbers; and a line, if it went wrong or was slow, or else for those who debug: it costs 15 µs of 70.

    The path is logged without its query, which may hold what a client should not have sent.
    """
    method, route = scope.get("method", "WEBSOCKET"), _route_of(scope)
    _requests(method, route, status).inc()
    if scope["type"] == "http":
        _seconds(route).observe(seconds)
    noteworthy = status >= 400 or status == 0 or (seconds > _SLOW_S and scope["type"] == "http")
    if not noteworthy and not _level.isEnabledFor(DEBUG):
        return
    caller: Caller | None = scope.get(CALLER)
    log.log(
        INFO if noteworthy else DEBUG,
        "request",
        method=method,
        path=scope["path"],
        status=status,
        ms=round(seconds * 1000, 2),
        tenant=caller.tenant_id if caller else "",
        subject=caller.subject if caller else "",
    )


def _route_of(scope: Scope) -> str:
    """The pattern, `/users/{id}`, and not the path: metrics must not grow with what clients make up."""
    if scope["path"] == GRAPHQL_PATH:
        return GRAPHQL_PATH
    return getattr(scope.get("route"), "path", "unmatched")
