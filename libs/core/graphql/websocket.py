"""GraphQL over WebSocket, protocol graphql-transport-ws.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack, aclosing, suppress
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from libs.core.context import Context, correlation_id
from libs.core.errors import CoreError, Forbidden, RateLimited, Unauthenticated
from libs.core.graphql.engine import ContextFactory, Engine, Request
from libs.core.graphql.errors import RequestRefused
from libs.core.graphql.streams import FAREWELL_S, Ending, Stream, Streams
from libs.core.tasks import ended

PROTOCOL = "graphql-transport-ws"

_ID_CHARS = 128
_CLOSE_CODES = {Ending.EXPIRED: 4403, Ending.REVOKED: 4403, Ending.STOPPING: 1012}


class _Close(Exception):
    """Ends the socket with a code that the client can act on."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class _Left(Exception):
    """The client closed the socket."""


async def serve_socket(
    engine: Engine, streams: Streams, context: ContextFactory, scope: Scope, receive: Receive, send: Send
) -> None:
    """One socket, from its handshake to its end."""
    await receive()  # websocket.connect
    if PROTOCOL not in scope["subprotocols"]:  # the legacy protocol, which is called graphql-ws, is not spoken
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4406, "reason": "Subprotocol not acceptable"})
        return
    await send({"type": "websocket.accept", "subprotocol": PROTOCOL})
    with ExitStack() as stack:
        stream = stack.enter_context(streams.open())
        await _Socket(engine, streams, stream, stack, context, scope, receive, send).serve()


class _Socket:
    def __init__(
        self,
        engine: Engine,
        streams: Streams,
        stream: Stream,
        stack: ExitStack,
        context: ContextFactory,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._engine = engine
        self._streams = streams
        self._stream = stream
        self._stack = stack
        self._make_context = context
        self._scope = scope
        self._headers = Headers(scope=scope)
        self._params: Mapping[str, Any] = {}
        self._receive_raw = receive
        self._send_raw = send
        self._operations: dict[str, asyncio.Task[None]] = {}
        # How one of the operations wants the socket closed.
        self._close: asyncio.Future[_Close] = asyncio.get_running_loop().create_future()

    async def serve(self) -> None:
        conversation = asyncio.create_task(self._converse())
        close: _Close | None = None
        try:
            ends: set[asyncio.Future[Any]] = {conversation, self._stream.ending, self._close}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            close = self._how_it_ended(conversation)
        finally:
            await ended(conversation, *self._operations.values())
        if close:
            with suppress(Exception):  # the client may have left meanwhile, or no longer read
                async with asyncio.timeout(FAREWELL_S):
                    await self._send_raw({"type": "websocket.close", "code": close.code, "reason": close.reason})

    def _how_it_ended(self, conversation: "asyncio.Task[None]") -> _Close | None:
        """None if the client left."""
        if self._stream.ending.done():
            ending = self._stream.ending.result()
            return _Close(_CLOSE_CODES[ending], ending)
        if self._close.done():
            return self._close.result()
        match conversation.exception():
            case _Close() as close:
                return close
            case Exception() as error if not isinstance(error, _Left):
                raise error
        return None

    async def _converse(self) -> None:
        await self._initialise()
        while True:
            match await self._receive():
                case {"type": "subscribe", "id": str(id_), "payload": dict(payload)} if 0 < len(id_) <= _ID_CHARS:
                    await self._subscribe(id_, payload)
                case {"type": "complete", "id": str(id_)}:
                    if task := self._operations.pop(id_, None):
                        task.cancel()
                case {"type": "ping"}:
                    await self._send({"type": "pong"})
                case {"type": "pong"}:
                    pass
                case {"type": "connection_init"}:
                    raise _Close(4429, "Too many initialisation requests")
                case _:
                    raise _Close(4400, "Invalid message")

    async def _initialise(self) -> None:
        try:
            async with asyncio.timeout(self._engine.limits.init_timeout_s):
                while not await self._is_init(await self._receive()):
                    pass
        except TimeoutError:
            raise _Close(4408, "Connection initialisation timeout") from None
        context = await self._authenticate()
        self._stack.enter_context(self._streams.bound(self._stream, context.caller))
        await self._send({"type": "connection_ack"})

    async def _is_init(self, message: Any) -> bool:
        match message:
            case {"type": "connection_init", "payload": dict(params)}:
                self._params = params
                return True
            case {"type": "connection_init", "payload": None}:
                return True
            case {"type": "connection_init", **rest} if "payload" not in rest:
                return True
            case {"type": "ping"}:
                await self._send({"type": "pong"})
            case {"type": "pong" | "complete"}:
                pass
            case {"type": "subscribe"}:
                raise _Close(4401, "Unauthorized")
            case _:
                raise _Close(4400, "Invalid message")
        return False

    async def _authenticate(self) -> Context:
        """Anew for every operation: a token may have expired, or been revoked, since the socket was opened."""
        try:
            context = await self._make_context(self._scope, self._headers, self._params)
        except (Unauthenticated, Forbidden) as error:
            raise _Close(4403, error.message[:120]) from None
        except Exception as error:
            refused = RequestRefused.of(error)
            raise _Close(4500, refused.errors[0]["extensions"]["code"]) from None
        correlation_id.set(context.correlation_id)
        return context

    async def _subscribe(self, id_: str, payload: dict[str, Any]) -> None:
        if id_ in self._operations:
            raise _Close(4409, f"Subscriber for {id_[:60]} already exists")
        try:
            request = Request.parse(payload)
        except CoreError:
            raise _Close(4400, "Invalid message") from None
        if len(self._operations) >= self._engine.limits.operations_per_connection:
            refused = RequestRefused.of(RateLimited("too many operations on one connection", retry_after_s=1))
            await self._send({"type": "error", "id": id_, "payload": refused.errors})
            return
        self._operations[id_] = asyncio.create_task(self._operate(id_, request))

    async def _operate(self, id_: str, request: Request) -> None:
        try:
            prepared = self._engine.prepare(request, await self._authenticate())
            async with aclosing(prepared.responses()) as responses:
                async for response in responses:
                    await self._send({"type": "next", "id": id_, "payload": orjson.Fragment(response)})
            last: dict[str, Any] = {"type": "complete", "id": id_}
        except RequestRefused as refused:
            last = {"type": "error", "id": id_, "payload": refused.errors}
        except _Close as close:
            if not self._close.done():
                self._close.set_result(close)
            return
        # Forgotten before the client hears that it is over: it may use the id again at once.
        del self._operations[id_]
        await self._send(last)

    async def _receive(self) -> Any:
        message = await self._receive_raw()
        if message["type"] == "websocket.disconnect":
            raise _Left
        text = message.get("text")
        if text is None:
            raise _Close(4400, "Messages are text")
        if len(text) > self._engine.limits.message_bytes:
            raise _Close(1009, "Message too big")
        try:
            return orjson.loads(text)
        except (orjson.JSONDecodeError, UnicodeEncodeError):
            raise _Close(4400, "Messages are JSON") from None

    async def _send(self, message: dict[str, Any]) -> None:
        await self._send_raw({"type": "websocket.send", "text": orjson.dumps(message).decode()})
