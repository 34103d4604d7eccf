"""The way to identity providers: to public addresses over HTTPS, bounded in time and in what is read of an answer.

Issuers are a tenant's to choose, and what else is asked is the issuer's: neither may make us ask a machine inside.
"""

from collections.abc import AsyncIterator
from typing import Self

import httpcore
import httpx

from libs.core.http import fetch
from libs.core.webhooks.targets import GuardedNetwork, Resolver

# Google's discovery document and keys are 4 KB together; Keycloak's go up to some 20.
ANSWER_BYTES = 256 * 1024
WITHIN_S = 8.0
_TIMEOUT = httpx.Timeout(5.0, connect=3.0)


class Outside:
    """The connections of one process (`async with`). In development plain http and this machine are allowed, too."""

    def __init__(self, *, development: bool) -> None:
        self._development = development
        self._connections = _GuardedConnections(Resolver(development=development))
        self.transport: httpx.AsyncBaseTransport = _Guarded(self._connections, development=development)

    async def __aenter__(self) -> Self:
        self._http = httpx.AsyncClient(transport=self.transport, timeout=_TIMEOUT, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
        await self._connections.aclose()

    @property
    def timeout(self) -> httpx.Timeout:
        return _TIMEOUT

    def allows(self, url: str) -> bool:
        """Whether it may be asked, or a browser sent there, as far as the URL alone tells."""
        return url.startswith("https://") or (self._development and url.startswith("http://"))

    async def get(self, url: str) -> bytes:
        """`Unavailable` unless it answers with 200, in time, and not too much."""
        return await fetch(self._http, url, max_bytes=ANSWER_BYTES, within_s=WITHIN_S)


class _GuardedConnections(httpx.AsyncHTTPTransport):
    """httpx has no public way to say how connections are made."""

    def __init__(self, resolver: Resolver) -> None:
        tls = httpx.create_ssl_context(trust_env=False)
        super().__init__(verify=tls, trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=20,
            max_keepalive_connections=5,
            keepalive_expiry=30.0,
            network_backend=GuardedNetwork(resolver),
        )


class _Guarded(httpx.AsyncBaseTransport):
    """Shared by the clients that Authlib makes, one a login: closing those leaves the connections open."""

    def __init__(self, connections: httpx.AsyncBaseTransport, *, development: bool) -> None:
        self._connections = connections
        self._schemes = ("https", "http") if development else ("https",)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.scheme not in self._schemes:
            raise httpx.UnsupportedProtocol("an identity provider is asked over https")
        request.headers["Accept-Encoding"] = "identity"
        response = await self._connections.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Bounded(response.stream)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            await response.aclose()
            raise httpx.DecodingError("the answer is compressed, which nobody asked for")
        return response


class _Bounded(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = 0
        async for piece in self._stream:
            read += len(piece)
            if read > ANSWER_BYTES:
                raise httpx.ReadError(f"the answer has more than {ANSWER_BYTES} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()
