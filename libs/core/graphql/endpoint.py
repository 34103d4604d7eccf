"""The ASGI application: one path, three transports."""

import math
import time
from urllib.parse import parse_qs

import orjson
from graphql import OperationType
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send
from strawberry import Schema
from strawberry.http.ides import get_graphql_ide_html

from libs.core.context import Context, correlation_id
from libs.core.errors import RateLimited, Unauthenticated
from libs.core.graphql.engine import ContextFactory, Engine
from libs.core.graphql.errors import HTTPRefused, RequestRefused
from libs.core.graphql.execution import SchemaEngine
from libs.core.graphql.http import (
    EVENT_STREAM,
    JSON,
    Disconnected,
    negotiate,
    read_request,
    respond,
    status_of,
)
from libs.core.graphql.limits import Limits
from libs.core.graphql.sse import TOKEN_HEADER, EventStreams
from libs.core.graphql.streams import Streams
from libs.core.graphql.websocket import serve_socket

# Who takes longer, or is about to hold a stream, is asked for anew: their token may have been revoked meanwhile.
_BODY_WITHIN_S = 0.25


class GraphQLEndpoint:
    """Serves an engine over HTTP, graphql-transport-ws and graphql-sse.

    Mount it at one exact path, for HTTP and for WebSocket; it answers every method itself. `development` allows
    introspection, suggestions, and GraphiQL for a browser (whose scripts come over the internet). `limits` are for a
    Strawberry schema; any other engine has its own.
    """

    def __init__(
        self,
        schema: Schema | Engine,
        context: ContextFactory,
        *,
        limits: Limits | None = None,
        development: bool = False,
    ) -> None:
        self._engine: Engine = (
            SchemaEngine(schema, limits or Limits(), development=development) if isinstance(schema, Schema) else schema
        )
        self._context = context
        self._page = get_graphql_ide_html().encode() if development else b""
        self._streams = Streams()
        self._events = EventStreams(self._engine, self._streams)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await serve_socket(self._engine, self._streams, self._context, scope, receive, send)
        else:
            await self._serve_http(scope, receive, send)

    def end_session(self, session_id: str) -> None:
        """Ends every stream of a session: its tokens were revoked."""
        self._streams.end_session(session_id)

    def end_subject(self, tenant_id: str, subject: str) -> None:
        """The same of a subject. Those that are opened with newer tokens are let be."""
        self._streams.end_subject(tenant_id, subject)

    def end_all(self) -> None:
        """Ends every stream that is open: a key was withdrawn, and any of them may be by what a thief signed."""
        self._streams.end_all()

    def stop(self) -> None:
        """Ends every stream, and every one that is opened from now on: the server is about to stop."""
        self._streams.stop()

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        media_type = JSON
        if self._page and scope["method"] == "GET" and _is_browser(scope, headers):
            await respond(send, 200, "text/html", self._page, {})
            return
        try:
            media_type = negotiate(headers.get("accept", ""))
            context = await self._context(scope, headers, None)
            correlation_id.set(context.correlation_id)
            await self._answer(scope, headers, media_type, context, receive, send)
        except Disconnected:
            return
        except Exception as error:
            # A stream that has begun says what went wrong itself, so nothing was sent yet.
            await _refuse(send, error, media_type)

    async def _answer(
        self, scope: Scope, headers: Headers, media_type: str, context: Context, receive: Receive, send: Send
    ) -> None:
        method, token = scope["method"], _stream_token(scope, headers)
        sent = {"x-correlation-id": context.correlation_id}
        if method == "PUT":
            await respond(send, 201, "text/plain", self._events.reserve(context.caller).encode(), sent)
        elif method == "DELETE" and token:
            self._events.complete(token, _query_parameter(scope, "operationId"), context.caller)
            await respond(send, 200, "text/plain", b"", sent)
        elif method not in ("GET", "POST"):
            raise HTTPRefused(405, "METHOD_NOT_ALLOWED", "use GET or POST", allow="GET, POST")
        elif token and media_type == EVENT_STREAM:
            await self._events.connect(token, context.caller, receive, send, sent)
        else:
            began = time.monotonic()
            request = await read_request(scope, headers, receive, self._engine.limits)
            if media_type == EVENT_STREAM or time.monotonic() - began > _BODY_WITHIN_S:
                context = await self._context(scope, headers, None)
            if media_type == EVENT_STREAM:
                await self._events.distinct(request, context, receive, send, sent)
            elif token:
                self._events.operate(token, request, context)
                await respond(send, 202, "text/plain", b"", sent)
            else:
                prepared = self._engine.prepare(request, context)
                if prepared.type is OperationType.SUBSCRIPTION:
                    raise HTTPRefused(406, "NOT_ACCEPTABLE", f"a subscription takes {EVENT_STREAM} or a WebSocket")
                await respond(send, 200, media_type, await prepared.execute(), sent)


def _is_browser(scope: Scope, headers: Headers) -> bool:
    """Whether a person opened the address, rather than a program asked for an answer."""
    return "text/html" in headers.get("accept", "") and b"query=" not in scope["query_string"]


def _stream_token(scope: Scope, headers: Headers) -> str:
    return headers.get(TOKEN_HEADER) or (_query_parameter(scope, "token") if b"token=" in scope["query_string"] else "")


def _query_parameter(scope: Scope, name: str) -> str:
    query: str = scope["query_string"].decode("latin-1")
    return parse_qs(query).get(name, [""])[0]


async def _refuse(send: Send, error: Exception, media_type: str) -> None:
    refused = RequestRefused.of(error)
    headers = dict(error.headers) if isinstance(error, HTTPRefused) else {}
    if isinstance(error, RateLimited):
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    if refused.status == Unauthenticated.status:
        headers["www-authenticate"] = "Bearer"
    if correlation := correlation_id.get():
        headers["x-correlation-id"] = correlation
    media_type = JSON if media_type == EVENT_STREAM else media_type
    status = status_of(refused, media_type)
    await respond(send, status, media_type, orjson.dumps({"errors": refused.errors}), headers)
