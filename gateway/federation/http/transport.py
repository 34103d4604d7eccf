"""Asks subgraphs over HTTP/1.1, and has their subscriptions over server-sent events or WebSockets."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Self

from gateway.federation.http.broken import UNREACHABLE, Broken
from gateway.federation.http.limits import HttpLimits
from gateway.federation.http.origin import EVENT_STREAM, JSON, Counts, Origin
from gateway.federation.http.response import decoded
from gateway.federation.http.sse import over_sse
from gateway.federation.http.websocket import over_websocket
from gateway.federation.transport import SubgraphFailed, SubgraphRequest


class HttpTransport:
    """`urls` are where each subgraph is asked, `stream_urls` where it has its subscriptions, if elsewhere.

    A subscription whose URL says ws:// or wss:// goes over graphql-transport-ws, any other over graphql-sse (distinct
    connections). `tls` is for URLs that say https or wss; the system's authorities are trusted without it.
    `ValueError` if a URL is none.

    Each subgraph has connections of its own, so that a slow one holds up nobody else.
    """

    def __init__(
        self,
        urls: Mapping[str, str],
        *,
        stream_urls: Mapping[str, str] | None = None,
        limits: HttpLimits | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = limits or HttpLimits()
        self._tls = tls
        self._asked: dict[str, Origin] = {}
        self._streamed: dict[str, Origin] = {}
        self._retired: list[Origin] = []
        self.update(urls, stream_urls=stream_urls)

    def update(self, urls: Mapping[str, str], *, stream_urls: Mapping[str, str] | None = None) -> None:
        """Asks these from now on. What is under way to others is not cut off. `ValueError`: all remains as it was."""
        asked = {name: self._origin(self._asked.get(name), url) for name, url in urls.items()}
        streamed = {name: self._origin(self._streamed.get(name), url) for name, url in (stream_urls or {}).items()}
        kept = {*asked.values(), *streamed.values()}
        self._retired = [origin for origin in self._retired if origin.counts.connections]
        for origin in {*self._asked.values(), *self._streamed.values()} - kept:
            origin.retire()
            self._retired.append(origin)
        self._asked, self._streamed = asked, streamed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cuts off what is under way."""
        self.update({})
        await asyncio.gather(*(origin.abort() for origin in self._retired))

    def counts(self) -> dict[str, Counts]:
        """Of each subgraph that is asked now."""
        counts = {name: origin.counts for name, origin in self._asked.items()}
        for name in counts.keys() & self._streamed.keys():
            counts[name] += self._streamed[name].counts
        return counts

    async def fetch(self, request: SubgraphRequest) -> dict[str, Any]:
        """The response, whatever its status. `SubgraphFailed` if there is none by the request's deadline.

        A query is sent once more if a kept connection turns out to be closed; a mutation never is. Whoever is cancelled
        closes the connection. Redirects are not followed.
        """
        origin = self._asked.get(request.subgraph)
        if origin is None:
            raise _unknown(request)
        try:
            message = origin.message(request.headers, request.body, JSON)
            status, body = await origin.exchange(message, request.deadline, repeatable=request.operation == "query")
            return decoded(body, status)
        except Broken as broken:
            raise SubgraphFailed(request.subgraph, broken.code, broken.message) from None

    async def subscribe(self, request: SubgraphRequest) -> AsyncGenerator[dict[str, Any], None]:
        """The responses, until the subgraph says that it is complete. `SubgraphFailed` if it does not begin by the
        request's deadline, breaks off, or falls silent.

        To close the generator tells the subgraph. While nobody asks for more, no more is read.
        """
        origin = self._streamed.get(request.subgraph) or self._asked.get(request.subgraph)
        if origin is None:
            raise _unknown(request)
        origin.streams += 1
        try:
            async with aclosing(_responses(origin, request)) as responses:
                async for response in responses:
                    yield response
        except Broken as broken:
            raise SubgraphFailed(request.subgraph, broken.code, broken.message) from None
        finally:
            origin.streams -= 1

    def _origin(self, known: Origin | None, url: str) -> Origin:
        return known if known is not None and known.url == url else Origin(url, self._limits, self._tls)


def _unknown(request: SubgraphRequest) -> SubgraphFailed:
    return SubgraphFailed(request.subgraph, UNREACHABLE, "nobody knows where it is")


async def _responses(origin: Origin, request: SubgraphRequest) -> AsyncGenerator[dict[str, Any], None]:
    if origin.url.startswith("ws"):
        responses = over_websocket(origin, request.headers, request.body, request.deadline)
    else:
        message = origin.message(request.headers, request.body, EVENT_STREAM)
        responses = over_sse(origin, message, request.deadline)
    async with aclosing(responses):
        async for response in responses:
            yield response
