"""GraphQL over server-sent events, in both modes of graphql-sse's protocol.

https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md

A reservation (single connection mode) lives in the process that made it: balance such clients by connection.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any

import orjson
from starlette.types import Receive, Send

from libs.core.context import Caller, Context
from libs.core.errors import InvalidInput, NotFound, RateLimited, Unauthenticated, Unavailable
from libs.core.graphql.engine import Engine, Request, Response
from libs.core.graphql.errors import HTTPRefused, RequestRefused
from libs.core.graphql.http import EVENT_STREAM
from libs.core.graphql.streams import FAREWELL_S, Ending, Streams
from libs.core.tasks import ended

TOKEN_HEADER = "x-graphql-event-stream-token"

_COMPLETE = b"event: complete\ndata: \n\n"
_KEEPALIVE = b":\n\n"
_QUEUE = 100


_ENDINGS = {
    Ending.EXPIRED: Unauthenticated.code,
    Ending.REVOKED: Unauthenticated.code,
    Ending.STOPPING: Unavailable.code,
}


def _next(data: Any) -> bytes:
    return b"event: next\ndata: %s\n\n" % orjson.dumps(data)


class Reservation:
    """A caller's event stream in single connection mode, before and while it is connected."""

    def __init__(self, owner: Caller) -> None:
        self.token = secrets.token_urlsafe(24)
        self.owner = _identity(owner)
        self.connected = False
        self.operations: dict[str, asyncio.Task[None]] = {}
        # Full while the client reads too slowly: the resolvers' generators then wait.
        self.events: asyncio.Queue[bytes] = asyncio.Queue(_QUEUE)

    async def drain(self) -> AsyncGenerator[bytes, None]:
        while True:
            yield await self.events.get()

    def start(self, operation_id: str, responses: AsyncGenerator[Response, None]) -> None:
        self.operations[operation_id] = asyncio.create_task(self._run(operation_id, responses))

    async def _run(self, operation_id: str, responses: AsyncGenerator[Response, None]) -> None:
        try:
            async with aclosing(responses):
                async for response in responses:
                    await self.events.put(_next({"id": operation_id, "payload": orjson.Fragment(response)}))
        except RequestRefused as refused:
            await self.events.put(_next({"id": operation_id, "payload": {"errors": refused.errors}}))
        await self.events.put(b"event: complete\ndata: %s\n\n" % orjson.dumps({"id": operation_id}))
        del self.operations[operation_id]  # a stopped one, whose id may be in use again, does not get here

    def stop(self, operation_id: str) -> None:
        """Ends an operation; its resolver cleans up by itself. Nothing happens if it is over."""
        if task := self.operations.pop(operation_id, None):
            task.cancel()

    def dispose(self) -> None:
        for operation_id in list(self.operations):
            self.stop(operation_id)


class EventStreams:
    """Distinct event streams, and the reservations of this process."""

    def __init__(self, engine: Engine, streams: Streams) -> None:
        self._engine = engine
        self._streams = streams
        self._reservations: dict[str, Reservation] = {}

    async def distinct(
        self, request: Request, context: Context, receive: Receive, send: Send, headers: Mapping[str, str]
    ) -> None:
        """One operation's own stream."""
        await self._send(self._events(request, context), _COMPLETE, context.caller, receive, send, headers)

    def reserve(self, caller: Caller) -> str:
        """A new reservation's token, for a caller who is known. `RateLimited` if they hold too many."""
        caller.user_id  # noqa: B018  (raises for an anonymous caller)
        held = sum(r.owner == _identity(caller) for r in self._reservations.values())
        if held >= self._engine.limits.reservations_per_caller:
            raise RateLimited("too many event streams are reserved", retry_after_s=self._engine.limits.reservation_s)
        reservation = Reservation(caller)
        self._reservations[reservation.token] = reservation
        asyncio.get_running_loop().call_later(self._engine.limits.reservation_s, self._expire, reservation)
        return reservation.token

    async def connect(
        self, token: str, caller: Caller, receive: Receive, send: Send, headers: Mapping[str, str]
    ) -> None:
        """The reserved stream itself; when it ends, the reservation is gone."""
        reservation = self._reservation(token, caller)
        if reservation.connected:
            raise HTTPRefused(409, "CONFLICT", "the reservation's stream is already open")
        reservation.connected = True
        try:
            await self._send(reservation.drain(), b"", caller, receive, send, headers)
        finally:
            self._dispose(reservation)

    def operate(self, token: str, request: Request, context: Context) -> None:
        """Runs an operation whose responses go to the reserved stream; what refuses it is raised here."""
        reservation = self._reservation(token, context.caller)
        operation_id = request.extensions.get("operationId")
        if not isinstance(operation_id, str) or not 0 < len(operation_id) <= 128:
            raise InvalidInput("extensions.operationId must be a string", field="extensions.operationId")
        if operation_id in reservation.operations:
            raise HTTPRefused(409, "CONFLICT", "an operation with this id is running")
        if len(reservation.operations) >= self._engine.limits.operations_per_connection:
            raise RateLimited("too many operations on one stream", retry_after_s=1)
        reservation.start(operation_id, self._engine.prepare(request, context).responses())

    def complete(self, token: str, operation_id: str, caller: Caller) -> None:
        self._reservation(token, caller).stop(operation_id)

    def _reservation(self, token: str, caller: Caller) -> Reservation:
        reservation = self._reservations.get(token)
        if reservation is None or reservation.owner != _identity(caller):
            raise NotFound("there is no such reservation")
        return reservation

    def _expire(self, reservation: Reservation) -> None:
        if not reservation.connected:
            self._dispose(reservation)

    def _dispose(self, reservation: Reservation) -> None:
        self._reservations.pop(reservation.token, None)
        reservation.dispose()

    async def _events(self, request: Request, context: Context) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self._engine.prepare(request, context).responses()) as responses:
                async for response in responses:
                    yield _next(orjson.Fragment(response))
        except (RequestRefused, HTTPRefused) as error:
            yield _next({"errors": RequestRefused.of(error).errors})

    async def _send(
        self,
        events: AsyncGenerator[bytes, None],
        last: bytes,
        caller: Caller,
        receive: Receive,
        send: Send,
        headers: Mapping[str, str],
    ) -> None:
        """Sends `events` until they end, the client leaves, or the stream is ended from outside."""
        await send({"type": "http.response.start", "status": 200, "headers": _stream_headers(headers)})
        with self._streams.open() as stream, self._streams.bound(stream, caller):
            gone = asyncio.create_task(_wait_until_gone(receive))
            sender = asyncio.create_task(_send_all(events, send))
            pinger = asyncio.create_task(_ping(send, self._engine.limits.keepalive_s))
            try:
                ends: set[asyncio.Future[Any]] = {gone, sender, stream.ending}
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                left = gone.done()
                if stream.ending.done() and not sender.done() and last:
                    last = _farewell(stream.ending.result()) + last
            finally:
                await ended(gone, sender, pinger)
        if not left:
            with suppress(TimeoutError):  # a client that no longer reads
                async with asyncio.timeout(FAREWELL_S):
                    await send({"type": "http.response.body", "body": last})


async def _send_all(events: AsyncGenerator[bytes, None], send: Send) -> None:
    async with aclosing(events):
        async for event in events:
            await send({"type": "http.response.body", "body": event, "more_body": True})


async def _ping(send: Send, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        await send({"type": "http.response.body", "body": _KEEPALIVE, "more_body": True})


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _identity(caller: Caller) -> tuple[str, str, str]:
    return caller.tenant_id, caller.subject, caller.session_id


def _farewell(ending: Ending) -> bytes:
    """Why the stream ends before its events do, which `complete` alone does not tell: whoever asked may ask again."""
    return _next({"errors": [{"message": str(ending), "extensions": {"code": _ENDINGS[ending]}}]})


def _stream_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", EVENT_STREAM.encode() + b"; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),  # nginx would otherwise hold events back
        *((name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()),
    ]
