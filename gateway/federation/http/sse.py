"""Subscriptions over server-sent events: graphql-sse in its distinct connections mode.

https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md. Lines end with LF or CRLF.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from gateway.federation.http.broken import TIMEOUT, UNREACHABLE, Broken, too_large
from gateway.federation.http.limits import HttpLimits
from gateway.federation.http.origin import Origin
from gateway.federation.http.reader import Reader
from gateway.federation.http.response import decoded

# What is kept for a consumer who is slow; beyond that no more is read.
_AHEAD = 16
_AHEAD_BYTES = 1_000_000

Event = tuple[bytes, bytes]  # its type and its data


class EventStream(Reader):
    """An answer of `text/event-stream`, event by event."""

    def __init__(self, limits: HttpLimits) -> None:
        super().__init__(limits)
        self.began: asyncio.Future[None] = self.loop.create_future()
        self.is_stream = False
        self._events: deque[Event | Broken | None] = deque()
        self._ahead_bytes = 0
        self._news: asyncio.Future[None] | None = None
        self._heard_at = 0.0
        self._rest = bytearray()
        self._type = b""
        self._data: list[bytes] = []
        self._data_size = 0

    async def next(self) -> Event | None:
        """The next event; None once there are no more. `Broken` if it breaks off, or falls silent."""
        if not self._events:
            await self._hear()
        event = self._events.popleft()
        if isinstance(event, Broken):
            raise event
        if event is not None:
            self._ahead_bytes -= len(event[1])
            if not self._is_ahead and not self.transport.is_closing():
                self.transport.resume_reading()
        return event

    async def _hear(self) -> None:
        # Of the time in which nobody listened, it is not known that it was silent: reading may have been paused.
        since = self.loop.time()
        while not self._events:
            left_s = max(since, self._heard_at) + self.limits.stream_silence_s - self.loop.time()
            if left_s <= 0:
                raise Broken(TIMEOUT, "its stream fell silent")
            self._news = self.loop.create_future()
            await asyncio.wait([self._news], timeout=left_s)

    @property
    def _is_ahead(self) -> bool:
        return len(self._events) >= _AHEAD or self._ahead_bytes >= _AHEAD_BYTES

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        super().data_received(data)

    def head_came(self) -> None:
        self.is_stream = self.content_type.startswith(b"text/event-stream")
        if self.is_stream:
            self._begin(None)

    def on_body(self, chunk: bytes) -> None:
        if not self.is_stream:
            super().on_body(chunk)  # why it does not stream
            return
        self._size += len(chunk)
        if b"\n" not in chunk:
            self._rest += chunk
        else:
            *lines, rest = (bytes(self._rest) + chunk).split(b"\n")
            self._rest = bytearray(rest)
            for line in lines:
                self._take(line.removesuffix(b"\r"))
        if len(self._rest) > self.limits.max_response_bytes:
            raise too_large(self.limits.max_response_bytes)

    def _take(self, line: bytes) -> None:
        if not line:
            self._dispatch()
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            self._type = value
        elif field == b"data":
            self._data.append(value)
            self._data_size += len(value) + 1
            if self._data_size > self.limits.max_response_bytes:
                raise too_large(self.limits.max_response_bytes)

    def _dispatch(self) -> None:
        if self._type or self._data:
            data = b"\n".join(self._data)
            self._ahead_bytes += len(data)
            self._put((self._type, data))
            if self._is_ahead:
                self.transport.pause_reading()
        self._type, self._data, self._data_size = b"", [], 0

    def _put(self, event: Event | Broken | None) -> None:
        self._events.append(event)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _begin(self, broken: Broken | None) -> None:
        if self.began.done():
            return
        if broken is None:
            self.began.set_result(None)
        else:
            self.began.set_exception(broken)

    def completed(self) -> None:
        self._begin(None)
        self._put(None)

    def failed(self, broken: Broken) -> None:
        self._begin(broken)
        self._put(broken)


async def over_sse(origin: Origin, message: bytes, deadline: float) -> AsyncGenerator[dict[str, Any], None]:
    """The responses that come as events; the one response, if it does not stream. `Broken`."""
    stream = await _begun(origin, message, deadline)
    try:
        if not stream.is_stream:
            yield decoded(stream.body, stream.status)
            return
        while (event := await stream.next()) is not None:
            kind, data = event
            if kind == b"complete":
                return
            if kind == b"next":
                yield decoded(data)
        raise Broken(UNREACHABLE, "its stream broke off")
    finally:
        stream.close()


async def _begun(origin: Origin, message: bytes, deadline: float) -> EventStream:
    try:
        async with asyncio.timeout_at(deadline):
            stream = await origin.connect(lambda: EventStream(origin.limits))
            try:
                stream.send(message)
                await stream.began
            except BaseException:
                stream.close()
                raise
            return stream
    except TimeoutError:
        raise Broken(TIMEOUT, "its stream did not begin in time") from None
