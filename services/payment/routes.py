"""Payment over HTTP that is not GraphQL: statements."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from libs.core.app import allowed
from libs.core.context import Context
from libs.core.errors import InvalidInput, Unavailable
from libs.core.ids import parse_id
from services.payment.commands import Payment
from services.payment.commands.history import lines_of, open_statement
from services.payment.statements import as_csv, as_json

# A client that takes nothing for so long has gone, whatever its connection says.
TAKEN_WITHIN_S = 30.0
STATEMENTS_AT_ONCE = 32
STATEMENTS_A_CALLER = 4

log = structlog.get_logger(__name__)
router = APIRouter()

_MEDIA: dict[str, str] = {"csv": "text/csv; charset=utf-8; header=present", "json": "application/json"}


@router.get("/wallets/{wallet_id}/statement")
async def statement(
    wallet_id: str,
    request: Request,
    context: Annotated[Context, Depends(allowed("transaction:read"))],
    since: Annotated[str | None, Query(alias="from")] = None,
    until: str | None = None,
    format: str | None = None,  # noqa: A002
) -> StreamingResponse:
    """A wallet's lines with `from` <= at < `until`, with its balances before and after them. See docs/howto."""
    payment: Payment = context.service
    chosen = _format(format, request.headers.get("accept", ""))
    opened = await open_statement(
        payment, context, parse_id(wallet_id, "walletId"), _instant(since, "from"), _instant(until, "until")
    )
    text = (as_csv if chosen == "csv" else as_json)(opened, lines_of(payment, opened))
    name = f"statement-{opened.wallet.id}.{chosen}"
    return Download(name, text, chosen, (context.tenant_id, context.caller.subject))


def _format(named: str | None, accept: str) -> str:
    """What is named; else CSV, if that alone of the two is accepted by name; else JSON."""
    if named is None:
        return "csv" if "text/csv" in accept.lower() and "application/json" not in accept.lower() else "json"
    if named in _MEDIA:
        return named
    raise InvalidInput("format is csv or json", field="format")


def _instant(value: str | None, field: str) -> datetime | None:
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"{field} is an instant as in ISO 8601, such as 2026-03-01T00:00:00Z (a + is written %2B)", field=field
        ) from None


class _Open:
    """How many statements are being written, in all and for each caller: each holds a connection and some memory."""

    def __init__(self) -> None:
        self._by_caller: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def one(self, caller: tuple[str, str]) -> Iterator[None]:
        if self._by_caller[caller] >= STATEMENTS_A_CALLER or self._by_caller.total() >= STATEMENTS_AT_ONCE:
            raise Unavailable("too many statements are being written: try again when they are done")
        self._by_caller[caller] += 1
        try:
            yield
        finally:
            self._by_caller[caller] -= 1
            self._by_caller += Counter()  # without those that have none


_open = _Open()


class Download(StreamingResponse):
    """As fast as its client takes it. What breaks off is never ended, so that the client's HTTP library says so."""

    def __init__(self, name: str, text: AsyncIterator[bytes], chosen: str, caller: tuple[str, str]) -> None:
        super().__init__(text, headers={"content-disposition": f'attachment; filename="{name}"'})
        self.headers["content-type"] = _MEDIA[chosen]
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(TAKEN_WITHIN_S):
                await send(message)

        with _open.one(self._caller):
            try:
                await super().__call__(scope, receive, send_in_time)
            except (TimeoutError, ClientDisconnect):
                log.info("statement not taken", path=scope["path"])
