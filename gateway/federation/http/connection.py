"""One HTTP/1.1 connection: what is sent on it, and what comes back, within bounds.

Leaner than a general client, since it stands in the way of every request: docs/benchmarks.md says what that saves.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import httptools

_HEAD_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds for each subgraph: `connections` at once, and `waiting` for one of them at most. An answer, or an event of
    a stream, has at most `response_bytes`. A connection that is idle is kept for `idle_s`; a stream of which nothing is
    heard for `silence_s`, not even a sign of life, is taken to have ended.
    """

    connections: int = 100
    waiting: int = 1_000
    response_bytes: int = 16_000_000
    idle_s: float = 15.0
    silence_s: float = 60.0


UNREACHABLE, INVALID, TOO_LARGE = "SUBGRAPH_UNREACHABLE", "SUBGRAPH_INVALID_RESPONSE", "SUBGRAPH_TOO_LARGE"
TIMEOUT = "SUBGRAPH_TIMEOUT"


class Broken(Exception):
    """The exchange came to nothing; `code`, `message` are as in `SubgraphFailed`. `untouched`: a kept connection turned
    out to be closed, and not a byte came back."""

    def __init__(self, code: str, message: str, *, untouched: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.untouched = untouched


class Connection(asyncio.Protocol):
    """Exchanges one message at a time for its answer."""

    def __init__(self, limits: HttpLimits) -> None:
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.kept = False  # it has answered before
        self.idle_since = 0.0
        self._answer: asyncio.Future[bytes] | None = None
        self._begin()

    def _begin(self) -> None:
        self._parser: Any = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._size = self._head_size = 0
        self._in_body = self._touched = self._keep = False
        self._until_close = True
        self._encoding = b""

    async def exchange(self, message: bytes) -> bytes:
        """The whole body of the answer, whatever its status; `Broken`. Who is cancelled closes it."""
        self.send(message)
        self._answer = self.loop.create_future()
        try:
            body = await self._answer
        except BaseException:
            self.close()
            raise
        self.kept = True
        return body

    def send(self, message: bytes) -> None:
        self._begin()
        if self.transport is None or self.transport.is_closing():
            raise Broken(UNREACHABLE, "it closed the connection", untouched=True)
        self.transport.write(message)

    @property
    def reusable(self) -> bool:
        return self._keep and self.transport is not None and not self.transport.is_closing()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    # What comes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.expecting:
            self.close()  # what nobody asked for
            return
        self._touched = True
        in_head = not self._in_body
        self._head_size += len(data) if in_head else 0
        try:
            self._parser.feed_data(data)
            if in_head and not self._in_body and self._head_size > _HEAD_BYTES:
                raise Broken(INVALID, "the head of its answer does not end")
        except Broken as broken:
            self.fail(broken)
        except httptools.HttpParserError as error:
            told = error.__context__
            self.fail(told if isinstance(told, Broken) else Broken(INVALID, "it did not answer with HTTP"))

    def connection_lost(self, _: Exception | None) -> None:
        if not self.expecting:
            return
        if self._in_body and self._until_close:
            self.completed()
        else:
            untouched = self.kept and not self._touched
            self.fail(Broken(UNREACHABLE, "it closed the connection before it had answered", untouched=untouched))

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-length":
            self._until_close = False
            if int(value) > self.limits.response_bytes:
                raise self.too_large()
        elif name == b"transfer-encoding":
            self._until_close = False
        elif name == b"content-encoding":
            self._encoding = value.lower()
        else:
            self.header(name, value)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101:
                raise Broken(INVALID, "it wants to speak another protocol")
            return
        self._in_body = True
        if self._encoding not in (b"", b"identity"):
            raise Broken(INVALID, "its answer is encoded, which it was not asked for")
        self.head_came(status)

    def on_body(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self.limits.response_bytes:
            raise self.too_large()
        self._body.append(chunk)

    def on_message_complete(self) -> None:
        if self._in_body:
            self._keep = self._parser.should_keep_alive()
            self.completed()

    # For streams, which do these differently

    @property
    def expecting(self) -> bool:
        return self._answer is not None and not self._answer.done()

    def header(self, name: bytes, value: bytes) -> None:
        pass

    def head_came(self, status: int) -> None:
        pass

    def completed(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(self._body[0] if len(self._body) == 1 else b"".join(self._body))

    def fail(self, broken: Broken) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(broken)
        self.close()

    def too_large(self) -> Broken:
        return Broken(TOO_LARGE, f"its answer exceeds {self.limits.response_bytes} bytes")
