"""GraphQL over HTTP: requests read with bounds, responses as the client accepts them.

https://graphql.github.io/graphql-over-http/draft/
"""

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from libs.core.errors import InvalidInput
from libs.core.graphql.engine import Request
from libs.core.graphql.errors import HTTPRefused, RequestRefused
from libs.core.graphql.limits import LimitExceeded, Limits

GRAPHQL_JSON = "application/graphql-response+json"
JSON = "application/json"
EVENT_STREAM = "text/event-stream"

# What is chosen for a range that covers several; plain JSON until every client knows the newer one.
_RANGES = {"*/*": JSON, "application/*": JSON, "text/*": EVENT_STREAM}


class Disconnected(Exception):
    """The client left before its request was read: there is nobody to answer."""


@lru_cache(maxsize=256)
def negotiate(accept: str) -> str:
    """The media type to answer with, from an `Accept` header; `HTTPRefused` if it accepts none of ours."""
    best, best_quality = "", 0.0
    for part in (accept or "*/*").split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        offered = kind if kind in (GRAPHQL_JSON, JSON, EVENT_STREAM) else _RANGES.get(kind, "")
        quality = next((_quality(p) for p in parameters if p.startswith("q=")), 1.0)
        if offered and quality > best_quality:
            best, best_quality = offered, quality
    if not best:
        raise HTTPRefused(406, "NOT_ACCEPTABLE", f"responses come as {GRAPHQL_JSON}, {JSON} or {EVENT_STREAM}")
    return best


def _quality(parameter: str) -> float:
    try:
        return float(parameter[2:])
    except ValueError:
        return 0.0


async def read_request(scope: Scope, headers: Headers, receive: Receive, limits: Limits) -> Request:
    """`HTTPRefused`, `InvalidInput` or `LimitExceeded` if it is no GraphQL request; `Disconnected`."""
    if scope["method"] == "GET":
        return Request.parse(_query_parameters(scope["query_string"]), only_reads=True)
    _check_content_type(headers.get("content-type", ""))
    body = await _read_body(headers, receive, limits)
    try:
        parameters = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidInput("the body is not JSON") from None
    return Request.parse(parameters)


def _query_parameters(query_string: bytes) -> dict[str, Any]:
    parameters: dict[str, Any] = dict(parse_qsl(query_string.decode("latin-1")))
    for name in ("variables", "extensions"):
        if name in parameters:
            try:
                parameters[name] = orjson.loads(parameters[name])
            except (orjson.JSONDecodeError, UnicodeEncodeError):
                raise InvalidInput(f"{name} is not JSON", field=name) from None
    return parameters


@lru_cache(maxsize=64)
def _check_content_type(content_type: str) -> None:
    kind, *parameters = (piece.strip().lower() for piece in content_type.split(";"))
    charset = next((p.removeprefix("charset=").strip('"') for p in parameters if p.startswith("charset=")), "utf-8")
    if kind != JSON or charset not in ("utf-8", "utf8"):
        raise HTTPRefused(415, "UNSUPPORTED_MEDIA_TYPE", f"send {JSON} in UTF-8", accept_post=JSON)


async def _read_body(headers: Headers, receive: Receive, limits: Limits) -> bytes:
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:19]) > limits.body_bytes:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            return await _receive_body(receive, limits)
    except TimeoutError:
        raise HTTPRefused(408, "REQUEST_TIMEOUT", "the body did not arrive in time", connection="close") from None


async def _receive_body(receive: Receive, limits: Limits) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limits.body_bytes:
            raise _too_large(limits)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks) if len(chunks) > 1 else chunk


def _too_large(limits: Limits) -> HTTPRefused:
    # The connection stays open, and the server drops the rest of the body as it comes (for a minute at most): were it
    # closed, a client that is still sending would get a reset and never read why.
    return HTTPRefused(413, LimitExceeded.code, f"a body must not exceed {limits.body_bytes} bytes")


async def respond(send: Send, status: int, media_type: str, body: bytes, headers: Mapping[str, str]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": _raw(media_type, headers, len(body))})
    await send({"type": "http.response.body", "body": body})


def _raw(media_type: str, headers: Mapping[str, str], length: int) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"%s; charset=utf-8" % media_type.encode()),
        (b"content-length", b"%d" % length),
        *((name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()),
    ]


def status_of(refused: RequestRefused, media_type: str) -> int:
    """A well-formed request that GraphQL refused is a 200 to those who know only application/json."""
    return 200 if refused.by_graphql and media_type == JSON else refused.status
