"""One HTTP/1.1 connection: what is sent on it, and what comes back, within bounds.

It is on the way of every request, so it does little per answer: no task, no timer, one future.
"""

import asyncio
import selectors
from typing import Any, cast

import httptools

from gateway.federation.http.broken import INVALID, UNREACHABLE, Broken, Unheard, late, too_large
from gateway.federation.http.limits import HttpLimits

_HEAD_BYTES = 65_536
# uvloop's timers are as fine as this, and may be early by as much.
_TICK_S = 0.001

Body = bytes | bytearray


class Reader(asyncio.Protocol):
    """Reads what comes, one answer at a time: `on_…` is called by the parser, `completed` or `failed` once for each."""

    transport: asyncio.Transport

    def __init__(self, limits: HttpLimits) -> None:
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = self.loop.create_future()
        self.expecting = False
        self.status = 0  # until the head of the answer has come
        self.body: Body = b""
        # Serves one message after the other. It holds our methods, so the two part when the connection is lost.
        self._parser: Any = httptools.HttpResponseParser(self)
        self._keep = False

    def send(self, message: bytes) -> None:
        self.expecting = True
        self.status = 0
        self.body = b""
        self._size = self._head_size = self._idle_size = 0
        self._heard = self._keep = False
        self.transport.write(message)

    @property
    def reusable(self) -> bool:
        return self._keep and not self.transport.is_closing()

    def close(self) -> None:
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        if not self.expecting:
            self.close()  # nobody asked
            return
        self._heard = True
        size = self._size
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            told = error.__context__  # by one of the methods below
            self._fail(told if isinstance(told, Broken) else Broken(INVALID, "it did not answer with HTTP"))
            return
        if self._size != size:
            self._idle_size = 0
        elif self.expecting:
            # A head, a trailer, or what may be said about a chunk, that does not end: the parser bounds none of them.
            self._idle_size += len(data)
            if self._idle_size > _HEAD_BYTES:
                self._fail(_endless())

    def connection_lost(self, _: Exception | None) -> None:
        self._parser = None
        self.gone.set_result(None)
        if not self.expecting:
            return
        if self.status and self._until_close:
            self.expecting = False
            self.completed()
        else:
            kind = Broken if self._heard else Unheard
            self._fail(kind(UNREACHABLE, "it closed the connection before it had answered"))

    def on_message_begin(self) -> None:
        if not self.expecting:
            raise Broken(INVALID, "it says more than it was asked")  # and would have it taken for the next answer
        self._until_close = True
        self.content_type = self._encoding = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value)
        if self._head_size > _HEAD_BYTES:
            raise _endless()
        name = name.lower()
        if name == b"content-length":
            self._until_close = False
            if int(value) > self.limits.max_response_bytes:
                raise too_large(self.limits.max_response_bytes)
        elif name == b"transfer-encoding":
            self._until_close = False
        elif name == b"content-encoding":
            self._encoding = value.lower()
        elif name == b"content-type":
            self.content_type = value.lower()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101:
                raise Broken(INVALID, "it wants to speak another protocol")
            return
        if self._encoding and self._encoding != b"identity":
            raise Broken(INVALID, "its answer is compressed, which it was not asked for")
        self.status = status
        self.head_came()

    def on_body(self, chunk: bytes) -> None:
        if not self._size:
            self.body = chunk
        else:
            if type(self.body) is bytes:
                self.body = bytearray(self.body)
            self.body += chunk
        self._size += len(chunk)
        if self._size > self.limits.max_response_bytes:
            raise too_large(self.limits.max_response_bytes)

    def on_message_complete(self) -> None:
        if not self.status:
            return  # it was a 1xx
        self.expecting = False
        # Who answers before all was sent may never read the rest.
        self._keep = self._parser.should_keep_alive() and not self.transport.get_write_buffer_size()
        self.completed()

    def _fail(self, broken: Broken) -> None:
        self.close()
        if self.expecting:
            self.expecting = False
            self.failed(broken)

    def head_came(self) -> None: ...

    def completed(self) -> None:
        raise NotImplementedError

    def failed(self, broken: Broken) -> None:
        raise NotImplementedError


class Connection(Reader):
    """Exchanges messages for answers."""

    _answer: asyncio.Future[tuple[int, Body]]

    def __init__(self, limits: HttpLimits) -> None:
        super().__init__(limits)
        self.idle_since = 0.0
        self._deadline = self._timer_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def exchange(self, message: bytes, deadline: float) -> tuple[int, Body]:
        """The status and the body of the answer. `Broken`. It is not `reusable` if this is cancelled."""
        self._answer = self.loop.create_future()
        self._watch(deadline)
        self.send(message)
        return await self._answer

    def is_quiet(self) -> bool:
        """Whether nothing waits to be read, such as its end. Costs some system calls."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.transport.get_extra_info("socket"), selectors.EVENT_READ)
            return not selector.select(0)

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(error)

    def completed(self) -> None:
        if not self._answer.done():
            self._answer.set_result((self.status, self.body))

    def failed(self, broken: Broken) -> None:
        if not self._answer.done():
            self._answer.set_exception(broken)

    def _watch(self, deadline: float) -> None:
        """The timer of an earlier exchange, which ends no later, will do: it looks at the deadline of then."""
        self._deadline = deadline
        if self._timer is not None:
            if self._timer_at <= deadline:
                return
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self.loop.call_at(deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self.expecting:
            return
        if self._deadline - self.loop.time() > _TICK_S:
            self._watch(self._deadline)
        else:
            self._fail(late())


def _endless() -> Broken:
    return Broken(INVALID, f"the head of its answer exceeds {_HEAD_BYTES} bytes")
