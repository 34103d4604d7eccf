"""Asks subgraphs over HTTP/1.1.

    async with HttpTransport({"products": "http://products:4001/graphql"}) as transport:
        executor = Executor(supergraph, transport)

A query whose kept connection turns out to be closed is sent once more; a mutation never is. Answers are not to be
compressed, and redirects are not followed. Subscriptions go over server-sent events (graphql-sse), or over
graphql-transport-ws where the URL says ws:// or wss://.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Self

from gateway.federation.http.connection import TIMEOUT, UNREACHABLE, Broken, HttpLimits
from gateway.federation.http.origin import Origin
from gateway.federation.http.streams import decoded, over_sse, over_websocket
from gateway.federation.transport import SubgraphFailed, SubgraphRequest

__all__ = ["HttpLimits", "HttpTransport"]

_JSON = b"application/graphql-response+json, application/json"
_EVENTS = b"text/event-stream"


class HttpTransport:
    """`urls` are those of the subgraphs' endpoints, by name; `tls` is used where they say https or wss.

    Each subgraph has connections of its own, so that a slow one holds up nobody else.
    """

    def __init__(
        self, urls: Mapping[str, str], *, limits: HttpLimits | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._limits = limits or HttpLimits()
        self._tls = tls
        self._origins: dict[str, Origin] = {}
        self.update(urls)

    def update(self, urls: Mapping[str, str]) -> None:
        """Asks these from now on. What is under way to others is not cut off."""
        kept = {name: origin for name, origin in self._origins.items() if urls.get(name) == origin.url}
        for name, origin in self._origins.items():
            if name not in kept:
                origin.close()
        self._origins = {name: kept.get(name) or Origin(url, self._limits, self._tls) for name, url in urls.items()}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.update({})

    def in_flight(self) -> Mapping[str, int]:
        """By subgraph, how many requests are under way."""
        return {name: origin.in_flight for name, origin in self._origins.items()}

    async def fetch(self, request: SubgraphRequest) -> dict[str, Any]:
        origin = self._origin(request)
        try:
            message = origin.message(request.headers, request.body, _JSON)
            async with asyncio.timeout_at(request.deadline):
                body = await origin.exchange(message, repeatable=request.operation == "query")
            return decoded(body)
        except Broken as broken:
            raise SubgraphFailed(request.subgraph, broken.code, broken.message) from None
        except TimeoutError:
            raise SubgraphFailed(request.subgraph, TIMEOUT, "it did not answer in time") from None

    async def subscribe(self, request: SubgraphRequest) -> AsyncGenerator[dict[str, Any], None]:
        origin = self._origin(request)
        try:
            if origin.url.startswith("ws"):
                events = over_websocket(origin, request.body, request.headers, request.deadline)
            else:
                events = over_sse(origin, origin.message(request.headers, request.body, _EVENTS), request.deadline)
            async with aclosing(events):
                async for event in events:
                    yield event
        except Broken as broken:
            raise SubgraphFailed(request.subgraph, broken.code, broken.message) from None

    def _origin(self, request: SubgraphRequest) -> Origin:
        try:
            return self._origins[request.subgraph]
        except KeyError:
            raise SubgraphFailed(request.subgraph, UNREACHABLE, "it has no address") from None
