"""One subgraph's address, and the connections to it."""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

from gateway.federation.http.connection import UNREACHABLE, Broken, Connection, HttpLimits

C = TypeVar("C", bound=Connection)

# What a request has anyway, and whoever passes headers on must not say otherwise.
_OURS = {"host", "content-length", "content-type", "accept", "connection", "transfer-encoding", "accept-encoding"}


class Origin:
    """Connects to `url`, and keeps connections for the next exchange."""

    def __init__(self, url: str, limits: HttpLimits, tls: ssl.SSLContext | None) -> None:
        """`ValueError` if the URL is none that can be asked."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
            raise ValueError(f"{url!r} is no URL of a subgraph: http://host/graphql")
        secure = parts.scheme in ("https", "wss")
        self.url = url
        self.limits = limits
        self.in_flight = 0
        self.connections = 0
        self._host, self._port = parts.hostname, parts.port or (443 if secure else 80)
        self._tls = (tls or ssl.create_default_context()) if secure else None
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._start = f"POST {target} HTTP/1.1\r\nhost: {parts.netloc.rpartition('@')[2]}\r\n".encode("ascii")
        self._idle: deque[Connection] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    def message(self, headers: Mapping[str, str], body: bytes, accept: bytes) -> bytes:
        """The request. `Broken` if a header would end before its time."""
        lines = [self._start, b"content-type: application/json\r\naccept: ", accept, b"\r\n"]
        for name, value in headers.items():
            if name.lower() not in _OURS:
                lines.append(_header(name, value))
        lines.append(b"content-length: %d\r\n\r\n" % len(body))
        lines.append(body)
        return b"".join(lines)

    async def exchange(self, message: bytes, *, repeatable: bool) -> bytes:
        """The body of the answer; `Broken`. What is `repeatable` is sent again if a kept connection was closed."""
        await self._admit()
        try:
            while True:
                connection = self._kept() or await self.connect(lambda: Connection(self.limits))
                was_kept = connection.kept
                try:
                    return await connection.exchange(message)
                except Broken as broken:
                    if not (broken.untouched and was_kept and repeatable):
                        raise
                finally:
                    self._keep(connection)
        finally:
            self._leave()

    async def connect(self, make: Callable[[], C]) -> C:
        try:
            server_hostname = self._host if self._tls else None
            _, connection = await asyncio.get_running_loop().create_connection(
                make, self._host, self._port, ssl=self._tls, server_hostname=server_hostname
            )
        except OSError:
            raise Broken(UNREACHABLE, "it cannot be reached") from None
        return connection

    def close(self) -> None:
        """Closes what is idle; what is under way ends by itself."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        if self._sweep is not None:
            self._sweep.cancel()

    async def _admit(self) -> None:
        if self.in_flight < self.limits.connections:
            self.in_flight += 1
            return
        if len(self._waiting) >= self.limits.waiting:
            raise Broken(UNREACHABLE, "too many requests wait for it")
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn  # whoever leaves hands its place on
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    def _leave(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.in_flight -= 1

    def _kept(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()  # the one used last: the others can go
            if connection.reusable:
                return connection
        return None

    def _keep(self, connection: Connection) -> None:
        if not connection.reusable or self._closed:
            connection.close()
            return
        connection.idle_since = connection.loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = connection.loop.call_later(self.limits.idle_s, self._sweep_idle)

    def _sweep_idle(self) -> None:
        loop = asyncio.get_running_loop()
        old = loop.time() - self.limits.idle_s
        while self._idle and self._idle[0].idle_since <= old:
            self._idle.popleft().close()
        self._sweep = loop.call_later(self.limits.idle_s, self._sweep_idle) if self._idle else None


def _header(name: str, value: str) -> bytes:
    line = f"{name}: {value}"
    if "\r" in line or "\n" in line or "\0" in line:
        raise Broken(UNREACHABLE, f"the header {name!r} cannot be sent to it")
    return line.encode("latin-1", "replace") + b"\r\n"
