"""Subscriptions over WebSockets: graphql-transport-ws.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.frames import CloseCode
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from gateway.federation.http.broken import INVALID, TIMEOUT, UNREACHABLE, Broken, too_large
from gateway.federation.http.headers import passed
from gateway.federation.http.origin import Origin

_PROTOCOL = Subprotocol("graphql-transport-ws")
# Messages that are kept for a consumer who is slow; beyond that no more is read.
_AHEAD = 16
_FAREWELL_S = 1.0


class Socket(ClientConnection):
    """Speaks messages of the protocol."""

    def __init__(self, origin: Origin) -> None:
        self.limits = origin.limits
        self.heard_at = 0.0
        self.over = False  # the subgraph said so
        super().__init__(
            ClientProtocol(parse_uri(origin.url), subprotocols=[_PROTOCOL], max_size=self.limits.max_response_bytes),
            ping_interval=self.limits.stream_silence_s / 2,
            ping_timeout=None,  # an answer is not read while the consumer is slow
            close_timeout=_FAREWELL_S,
            max_queue=_AHEAD,
        )

    @property
    def gone(self) -> "asyncio.Future[None]":
        return self.connection_lost_waiter

    def data_received(self, data: bytes) -> None:
        self.heard_at = self.loop.time()
        super().data_received(data)

    async def say(self, **message: Any) -> None:
        """`Broken` if nobody listens any more."""
        try:
            async with asyncio.timeout(self.limits.stream_silence_s):
                await self.send(orjson.dumps(message), text=True)
        except ConnectionClosed as closed:
            raise self._end(closed) from None
        except TimeoutError:
            raise Broken(TIMEOUT, "it does not read what it is sent") from None

    async def hear(self) -> dict[str, Any]:
        """The next message. `Broken` if it is none, or if there will be none."""
        try:
            text = await self._next()
        except ConnectionClosed as closed:
            raise self._end(closed) from None
        with suppress(orjson.JSONDecodeError):
            message = orjson.loads(text)
            if type(message) is dict and isinstance(message.get("type"), str):
                return message
        raise Broken(INVALID, "it sent what is no message of graphql-transport-ws")

    async def _next(self) -> bytes:
        since = self.loop.time()  # as in sse.py
        while True:
            until = max(since, self.heard_at) + self.limits.stream_silence_s
            if until <= self.loop.time():
                raise Broken(TIMEOUT, "its stream fell silent")
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    return await self.recv(decode=False)

    def _end(self, closed: ConnectionClosed) -> Broken:
        if closed.sent and not closed.rcvd_then_sent and closed.sent.code == CloseCode.MESSAGE_TOO_BIG:
            return too_large(self.limits.max_response_bytes)
        if closed.rcvd:
            return Broken(UNREACHABLE, f"it closed the WebSocket with code {closed.rcvd.code}")
        return Broken(UNREACHABLE, "its stream broke off")

    async def leave(self, *, politely: bool) -> None:
        """Tells it, and waits a little for what it says to that."""
        try:
            if politely:
                with suppress(Broken, TimeoutError):
                    async with asyncio.timeout(_FAREWELL_S):
                        if not self.over:
                            await self.say(id="1", type="complete")
                        await self.close()
        finally:
            self.transport.abort()


async def over_websocket(
    origin: Origin, headers: Mapping[str, str], body: bytes, deadline: float
) -> AsyncGenerator[dict[str, Any], None]:
    """The responses that come as messages. `Broken`."""
    socket = await _subscribed(origin, dict(passed(headers)), body, deadline)
    try:
        while True:
            message = await socket.hear()
            payload = message.get("payload")
            match message["type"]:
                case "next" if type(payload) is dict:
                    yield payload
                case "error" if type(payload) is list:
                    socket.over = True
                    yield {"errors": payload}
                    return
                case "complete":
                    socket.over = True
                    return
                case "ping":
                    await socket.say(type="pong")
                case "pong":
                    pass
                case _:
                    raise Broken(INVALID, "it sent what is no message of graphql-transport-ws")
    finally:
        await socket.leave(politely=True)


async def _subscribed(origin: Origin, headers: Mapping[str, str], body: bytes, deadline: float) -> Socket:
    try:
        async with asyncio.timeout_at(deadline):
            socket = await origin.connect(lambda: Socket(origin))
            try:
                await _shake_hands(socket, headers)
                await socket.say(id="1", type="subscribe", payload=orjson.Fragment(body))
            except BaseException:
                await socket.leave(politely=False)
                raise
            return socket
    except TimeoutError:
        raise Broken(TIMEOUT, "its stream did not begin in time") from None
    except ConnectionClosed:
        raise Broken(UNREACHABLE, "it closed the connection before it had answered") from None
    except InvalidStatus as refused:
        raise Broken(INVALID, f"it refused a WebSocket (HTTP status {refused.response.status_code})") from None
    except InvalidHandshake:
        raise Broken(INVALID, "it does not speak graphql-transport-ws") from None


async def _shake_hands(socket: Socket, headers: Mapping[str, str]) -> None:
    await socket.handshake(headers, None)
    if socket.subprotocol != _PROTOCOL:
        raise Broken(INVALID, "it does not speak graphql-transport-ws")
    socket.start_keepalive()
    await socket.say(type="connection_init", payload=headers)
    while (message := await socket.hear())["type"] != "connection_ack":
        if message["type"] != "ping":
            raise Broken(INVALID, "it did not accept the connection")
        await socket.say(type="pong")
