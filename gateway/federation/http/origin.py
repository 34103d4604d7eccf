"""One subgraph's address, and the connections to it."""

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from gateway.federation.http import headers
from gateway.federation.http.broken import TIMEOUT, UNREACHABLE, Broken, Unheard, late
from gateway.federation.http.limits import HttpLimits
from gateway.federation.http.reader import Body, Connection

JSON = b"application/graphql-response+json, application/json"
EVENT_STREAM = b"text/event-stream"

_VISIBLE = re.compile(r"[!-~]+")


class Link(Protocol):
    """A connection of any protocol."""

    transport: Any

    @property
    def gone(self) -> "asyncio.Future[None]": ...


L = TypeVar("L", bound=Link)


@dataclass(frozen=True, slots=True)
class Counts:
    """What there is at this moment: requests under way and waiting for their turn, streams, and open connections."""

    in_flight: int
    waiting: int
    streams: int
    connections: int

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.in_flight + other.in_flight,
            self.waiting + other.waiting,
            self.streams + other.streams,
            self.connections + other.connections,
        )


class Origin:
    """Connects to `url`, and keeps connections for the next exchange."""

    def __init__(self, url: str, limits: HttpLimits, tls: ssl.SSLContext | None) -> None:
        """`ValueError` if nothing can be asked at this URL."""
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname or "@" in parts.netloc:
            raise ValueError(f"{url!r} is no URL of a subgraph, such as http://host:port/graphql")
        if not _VISIBLE.fullmatch(parts.netloc) or not _VISIBLE.fullmatch(target):
            raise ValueError(f"{url!r} holds characters that a URL encodes")
        secure = parts.scheme in ("https", "wss")
        self.url = url
        self.limits = limits
        self.streams = 0
        self._host, self._port = parts.hostname, parts.port or (443 if secure else 80)
        self._tls = (tls or _default_tls()) if secure else None
        self._head = f"POST {target} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n".encode()
        self._heads = {accept: b"%baccept: %b\r\n" % (self._head, accept) for accept in (JSON, EVENT_STREAM)}
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle: deque[Connection] = deque()
        self._open: set[Link] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._retired = False

    def message(self, sent: Mapping[str, str], body: bytes, accept: bytes) -> bytes:
        """The request. `Broken` if a header cannot be sent."""
        return b"%b%bcontent-length: %d\r\n\r\n%b" % (self._heads[accept], headers.lines(sent), len(body), body)

    async def exchange(self, message: bytes, deadline: float, *, repeatable: bool) -> tuple[int, Body]:
        """The status and the body of the answer. `Broken`.

        A message that is `repeatable` is sent once more if a kept connection was closed meanwhile. Any other goes only
        where there is no sign of that.
        """
        if deadline <= asyncio.get_running_loop().time():
            raise late()
        if self._in_flight < self.limits.connections:
            self._in_flight += 1
        else:
            await self._turn(deadline)
        try:
            if (connection := self._kept(surely=not repeatable)) is not None:
                try:
                    return await self._exchange(connection, message, deadline)
                except Unheard:
                    if not repeatable:
                        raise
            connection = await self._connect_by(deadline)
            return await self._exchange(connection, message, deadline)
        finally:
            self._leave()

    async def connect(self, make: Callable[[], L]) -> L:
        """`make` is of a protocol of asyncio. `Broken` if there is no connection."""
        try:
            _, link = await asyncio.get_running_loop().create_connection(
                make,  # type: ignore[type-var]
                self._host,
                self._port,
                ssl=self._tls,
                server_hostname=self._host if self._tls else None,
            )
        except ssl.SSLError:
            raise Broken(UNREACHABLE, "no TLS connection to it could be made") from None
        except (OSError, UnicodeError):  # the latter is of a name that cannot be looked up
            raise Broken(UNREACHABLE, "it cannot be reached") from None
        self._open.add(link)
        link.gone.add_done_callback(lambda _: self._open.discard(link))
        return link

    def retire(self) -> None:
        """Keeps no connections any more; what is under way ends by itself."""
        self._retired = True
        while self._idle:
            self._idle.pop().close()
        if self._sweep is not None:
            self._sweep.cancel()

    async def abort(self) -> None:
        """Ends what is under way as well."""
        self.retire()
        for link in self._open:
            link.transport.abort()
        if self._open:
            await asyncio.wait([link.gone for link in self._open])

    @property
    def counts(self) -> Counts:
        return Counts(self._in_flight, len(self._waiting), self.streams, len(self._open))

    async def _exchange(self, connection: Connection, message: bytes, deadline: float) -> tuple[int, Body]:
        try:
            return await connection.exchange(message, deadline)
        finally:
            self._keep(connection)

    async def _connect_by(self, deadline: float) -> Connection:
        try:
            async with asyncio.timeout_at(deadline):
                return await self.connect(lambda: Connection(self.limits))
        except TimeoutError:
            raise Broken(TIMEOUT, "no connection to it was made in time") from None

    async def _turn(self, deadline: float) -> None:
        if len(self._waiting) >= self.limits.waiting:
            raise Broken(UNREACHABLE, "too many requests wait for it")
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except BaseException as error:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled():
                self._leave()  # the turn came, too late
            if isinstance(error, TimeoutError):
                raise Broken(TIMEOUT, "no connection to it became free in time") from None
            raise

    def _leave(self) -> None:
        """Whoever waits longest takes the place over, so that no newcomer does."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # nor cancelled just now
                turn.set_result(None)
                return
        self._in_flight -= 1

    def _kept(self, *, surely: bool) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()  # the one used last, so that those that are too many become old
            if connection.reusable and (not surely or connection.is_quiet()):
                return connection
            connection.close()
        return None

    def _keep(self, connection: Connection) -> None:
        if self._retired or not connection.reusable:
            connection.close()
            return
        connection.idle_since = connection.loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = connection.loop.call_later(self.limits.idle_s, self._close_old)

    def _close_old(self) -> None:
        loop = asyncio.get_running_loop()
        while self._idle and self._idle[0].idle_since + self.limits.idle_s <= loop.time():
            self._idle.popleft().close()
        self._sweep = None
        if self._idle:
            self._sweep = loop.call_at(self._idle[0].idle_since + self.limits.idle_s, self._close_old)


@cache
def _default_tls() -> ssl.SSLContext:
    return ssl.create_default_context()
