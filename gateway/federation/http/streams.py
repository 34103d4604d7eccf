"""Subscriptions of subgraphs: graphql-sse in its distinct connections mode, and graphql-transport-ws."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any

import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.typing import Subprotocol

from gateway.federation.http.connection import INVALID, TIMEOUT, UNREACHABLE, Broken, Connection, HttpLimits
from gateway.federation.http.origin import Origin

# Events that are kept for a slow consumer before no more are read.
_AHEAD = 16
_FAREWELL_S = 2.0


class EventStream(Connection):
    """An answer of `text/event-stream`, event by event."""

    def __init__(self, limits: HttpLimits) -> None:
        super().__init__(limits)
        self.began: asyncio.Future[None] = self.loop.create_future()
        self._events: asyncio.Queue[tuple[bytes, bytes] | Broken | None] = asyncio.Queue()
        self._type = b""
        self._rest = b""
        self._event, self._data = b"", []  # type: bytes, list[bytes]
        self._heard_at = self.loop.time()
        self._ended = False
        self._refusal: list[bytes] | None = None

    async def next(self) -> tuple[bytes, bytes] | None:
        """The next event and its data; None when it is over. `Broken` if it breaks off, or falls silent."""
        while True:
            try:
                async with asyncio.timeout_at(self._heard_at + self.limits.silence_s):
                    event = await self._events.get()
                break
            except TimeoutError:
                if self.loop.time() >= self._heard_at + self.limits.silence_s:
                    raise Broken(TIMEOUT, "its stream fell silent") from None
        if self._events.qsize() < _AHEAD and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
        if isinstance(event, Broken):
            raise event
        return event

    @property
    def expecting(self) -> bool:
        return not self._ended

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        super().data_received(data)

    def header(self, name: bytes, value: bytes) -> None:
        if name == b"content-type":
            self._type = value.lower()

    def head_came(self, status: int) -> None:
        if not self._type.startswith(b"text/event-stream"):
            self._refusal = []  # it says why it does not stream
        elif not self.began.done():
            self.began.set_result(None)

    def on_body(self, chunk: bytes) -> None:
        if self._refusal is not None:
            super().on_body(chunk)
            return
        *lines, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        if len(self._rest) + sum(map(len, self._data)) > self.limits.response_bytes:
            raise self.too_large()
        for line in lines:
            self._line(line)

    def _line(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if self._event or self._data:
                self._events.put_nowait((self._event or b"message", b"\n".join(self._data)))
                self._event, self._data = b"", []
                if self._events.qsize() >= _AHEAD and self.transport is not None:
                    self.transport.pause_reading()
        elif name == b"event":
            self._event = value
        elif name == b"data":
            self._data.append(value)

    def completed(self) -> None:
        self._end(None)
        if not self.began.done():
            self.began.set_result(None)

    def fail(self, broken: Broken) -> None:
        self._end(broken)
        if not self.began.done():
            self.began.set_exception(broken)
        self.close()

    def _end(self, how: Broken | None) -> None:
        if not self._ended:
            self._ended = True
            self._events.put_nowait(how)

    @property
    def refusal(self) -> bytes | None:
        """What it answered with instead of a stream."""
        return b"".join(self._body) if self._refusal is not None else None


async def over_sse(origin: Origin, message: bytes, deadline: float) -> AsyncGenerator[dict[str, Any], None]:
    try:
        async with asyncio.timeout_at(deadline):
            stream = await origin.connect(lambda: EventStream(origin.limits))
            try:
                stream.send(message)
                await stream.began
            except BaseException:
                stream.close()
                raise
    except TimeoutError:
        raise Broken(TIMEOUT, "its stream did not begin in time") from None
    try:
        if stream.refusal is not None:
            yield decoded(stream.refusal)
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


async def over_websocket(
    origin: Origin, body: bytes, headers: Mapping[str, str], deadline: float
) -> AsyncGenerator[dict[str, Any], None]:
    try:
        async with asyncio.timeout_at(deadline):
            socket = await connect(
                origin.url,
                subprotocols=[Subprotocol("graphql-transport-ws")],
                additional_headers=dict(headers),
                max_size=origin.limits.response_bytes,
                max_queue=_AHEAD,
                ping_interval=origin.limits.silence_s / 2,
                ping_timeout=origin.limits.silence_s / 2,
                close_timeout=_FAREWELL_S,
                proxy=None,
            )
            await socket.send(orjson.dumps({"type": "connection_init", "payload": dict(headers)}).decode())
            if (await _message(socket))["type"] != "connection_ack":
                raise Broken(INVALID, "it did not accept the connection")
            await socket.send(orjson.dumps({"id": "1", "type": "subscribe", "payload": orjson.Fragment(body)}).decode())
    except TimeoutError:
        raise Broken(TIMEOUT, "its stream did not begin in time") from None
    except (OSError, InvalidHandshake):
        raise Broken(UNREACHABLE, "it cannot be reached") from None
    except WebSocketException:
        raise Broken(UNREACHABLE, "it closed the connection before it had answered") from None
    try:
        while True:
            message = await _message(socket)
            payload = message.get("payload")
            match message["type"]:
                case "next" if isinstance(payload, dict):
                    yield payload
                case "error":
                    yield {"errors": payload if isinstance(payload, list) else []}
                    return
                case "complete":
                    return
                case "ping":
                    await socket.send('{"type":"pong"}')
    except WebSocketException:
        raise Broken(UNREACHABLE, "its stream broke off") from None
    finally:
        with suppress(WebSocketException, OSError):
            await socket.close()


async def _message(socket: Any) -> dict[str, Any]:
    message = _json(await socket.recv())
    if not isinstance(message.get("type"), str):
        raise Broken(INVALID, "it sent what is no message")
    return message


def decoded(body: bytes) -> dict[str, Any]:
    """A GraphQL response. `Broken` if it is none."""
    response = _json(body)
    if "data" not in response and "errors" not in response:
        raise Broken(INVALID, "its answer is no GraphQL response")
    return response


def _json(body: bytes | str) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Broken(INVALID, "its answer is not JSON") from None
    if type(found) is not dict:
        raise Broken(INVALID, "its answer is no JSON object")
    return found
