"""Payment over HTTP that is not GraphQL: statements."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from libs.core.app import allowed
from libs.core.context import Context
from libs.core.downloads import Download, Downloads, parse_instant
from libs.core.errors import InvalidInput
from libs.core.ids import parse_id
from services.payment.commands import Payment
from services.payment.commands.history import lines_of, open_statement
from services.payment.statements import as_csv, as_json

router = APIRouter()

_statements = Downloads("statements", at_once=32, per_caller=4)

_MEDIA: dict[str, str] = {"csv": "text/csv; charset=utf-8; header=present", "json": "application/json"}


@router.get("/wallets/{wallet_id}/statement")
async def statement(
    wallet_id: str,
    request: Request,
    context: Annotated[Context, Depends(allowed("transaction:read"))],
    since: Annotated[str | None, Query(alias="from")] = None,
    until: str | None = None,
    format: str | None = None,  # noqa: A002
) -> Download:
    """A wallet's lines with `from` <= at < `until`, with its balances before and after them. See docs/howto."""
    payment: Payment = context.service
    chosen = _format(format, request.headers.get("accept", ""))
    opened = await open_statement(
        payment, context, parse_id(wallet_id, "walletId"), parse_instant(since, "from"), parse_instant(until, "until")
    )
    text = (as_csv if chosen == "csv" else as_json)(opened, lines_of(payment, opened))
    name = f"statement-{opened.wallet.id}.{chosen}"
    return _statements.answer(name, _MEDIA[chosen], text, (context.tenant_id, context.caller.subject))


def _format(named: str | None, accept: str) -> str:
    """What is named; else CSV, if that alone of the two is accepted by name; else JSON."""
    if named is None:
        return "csv" if "text/csv" in accept.lower() and "application/json" not in accept.lower() else "json"
    if named in _MEDIA:
        return named
    raise InvalidInput("format is csv or json", field="format")
