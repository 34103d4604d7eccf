"""Long answers over HTTP, written as fast as their client takes them, and only so many at once.

    downloads = Downloads("statements", at_once=32, per_caller=4)
    return downloads.answer("statement.csv", "text/csv", pieces, (context.tenant_id, context.caller.subject))

Each holds a connection and some memory. What breaks off is never ended, so that the client's HTTP library says so.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import structlog
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from libs.core.errors import InvalidInput, Unavailable

# A client that takes nothing for so long has gone, whatever its connection says.
TAKEN_WITHIN_S = 30.0

# What a spreadsheet would run: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = re.compile(r"\s*[=+\-@\t\r\n|%＝＋－＠]")

log = structlog.get_logger(__name__)

Caller = tuple[str, str]


class Downloads:
    """Those of one kind, `what`, in one process."""

    def __init__(self, what: str, *, at_once: int, per_caller: int, taken_within_s: float = TAKEN_WITHIN_S) -> None:
        self.what = what
        self.taken_within_s = taken_within_s
        self._at_once = at_once
        self._per_caller = per_caller
        self._by_caller: Counter[Caller] = Counter()

    def answer(self, name: str, media: str, text: AsyncIterator[bytes], caller: Caller) -> "Download":
        """`name` is the file's, for whoever saves it."""
        return Download(self, name, media, text, caller)

    @contextmanager
    def one(self, caller: Caller) -> Iterator[None]:
        """`Unavailable` if there are too many already, of this caller's or of all."""
        if self._by_caller[caller] >= self._per_caller or self._by_caller.total() >= self._at_once:
            raise Unavailable(f"too many {self.what} are being written: try again when they are done")
        self._by_caller[caller] += 1
        try:
            yield
        finally:
            self._by_caller[caller] -= 1
            self._by_caller += Counter()  # without those that have none


class Download(StreamingResponse):
    """One of them. It counts while it is written."""

    def __init__(self, downloads: Downloads, name: str, media: str, text: AsyncIterator[bytes], caller: Caller) -> None:
        super().__init__(text, headers={"content-disposition": f'attachment; filename="{name}"'})
        self.headers["content-type"] = media
        self._downloads = downloads
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._downloads.taken_within_s):
                await send(message)

        with self._downloads.one(self._caller):
            try:
                await super().__call__(scope, receive, send_in_time)
            except (TimeoutError, ClientDisconnect):
                log.info("download not taken", what=self._downloads.what, path=scope["path"])


def parse_instant(value: str | None, field: str) -> datetime | None:
    """A query parameter as an instant in UTC; None stays None. `InvalidInput` names `field`."""
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"{field} is an instant as in ISO 8601, such as 2026-03-01T00:00:00Z (a + is written %2B)", field=field
        ) from None


def harmless(text: str) -> str:
    """What others wrote, in a cell of a CSV file. With an apostrophe before it a spreadsheet takes it for text."""
    return f"'{text}" if _FORMULA.match(text) else text
