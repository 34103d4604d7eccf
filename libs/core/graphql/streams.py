"""The streams that are open: sockets and event streams, so that they can be ended from outside."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum

from libs.core.context import Caller

# How long the last words to a client may take.
FAREWELL_S = 5.0
# Sessions that were ended, the newest: one may end between its token's check and its stream's beginning.
_ENDED_KEPT = 10_000


class Ending(StrEnum):
    """Why the server ends a stream."""

    EXPIRED = "the token expired"
    REVOKED = "the session was revoked"
    STOPPING = "the server is stopping"


class Stream:
    """One open stream. `ending` resolves when it has to end."""

    def __init__(self) -> None:
        self.ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self.session_id = ""
        self.subject = ("", "")  # with the tenant before it

    def end(self, reason: Ending) -> None:
        if not self.ending.done():
            self.ending.set_result(reason)


class Streams:
    def __init__(self) -> None:
        self._open: set[Stream] = set()
        self._ended: dict[str, None] = {}
        self._stopping = False

    @contextmanager
    def open(self) -> Iterator[Stream]:
        """A stream that is known until the block ends."""
        stream = Stream()
        if self._stopping:
            stream.end(Ending.STOPPING)
        self._open.add(stream)
        try:
            yield stream
        finally:
            self._open.discard(stream)
            stream.ending.cancel()

    @contextmanager
    def bound(self, stream: Stream, caller: Caller) -> Iterator[None]:
        """Ends `stream` when the caller's token expires, or their session is revoked."""
        stream.session_id, stream.subject = caller.session_id, (caller.tenant_id, caller.subject)
        if caller.session_id in self._ended:
            stream.end(Ending.REVOKED)
        if caller.expires_at is None:
            yield
            return
        left_s = (caller.expires_at - datetime.now(UTC)).total_seconds()
        timer = asyncio.get_running_loop().call_later(left_s, stream.end, Ending.EXPIRED)
        try:
            yield
        finally:
            timer.cancel()

    def end_session(self, session_id: str) -> None:
        self._ended[session_id] = None
        if len(self._ended) > _ENDED_KEPT:
            del self._ended[next(iter(self._ended))]
        for stream in self._open:
            if stream.session_id == session_id:
                stream.end(Ending.REVOKED)

    def end_subject(self, tenant_id: str, subject: str) -> None:
        for stream in self._open:
            if stream.subject == (tenant_id, subject):
                stream.end(Ending.REVOKED)

    def end_all(self) -> None:
        for stream in self._open:
            stream.end(Ending.REVOKED)

    def stop(self) -> None:
        """Ends all, and every one that is opened from now on."""
        self._stopping = True
        for stream in self._open:
            stream.end(Ending.STOPPING)
