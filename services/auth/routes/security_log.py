"""The security log as a file."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from libs.core.app import allowed
from libs.core.context import Context
from libs.core.downloads import Download, Downloads, parse_instant
from libs.core.errors import InvalidInput
from services.auth.commands.auth import Auth
from services.auth.commands.security_log import open_export
from services.auth.exports import as_csv, as_jsonl

router = APIRouter()

_downloads = Downloads("exports of the security log", at_once=16, per_caller=2)
_FORMATS = {
    "csv": ("text/csv; charset=utf-8; header=present", as_csv),
    "jsonl": ("application/jsonl; charset=utf-8", as_jsonl),
}


@router.get("/security-log/export")
async def export(
    context: Annotated[Context, Depends(allowed("audit:read"))],
    since: Annotated[str | None, Query(alias="from")] = None,
    until: str | None = None,
    format: str = "csv",  # noqa: A002
) -> Download:
    """The tenant's rows with `from` <= at < `until`, the oldest first. See docs/howto/administration.md."""
    if format not in _FORMATS:
        raise InvalidInput(f"format is one of {', '.join(_FORMATS)}", field="format")
    auth: Auth = context.service
    media, written = _FORMATS[format]
    rows = await open_export(auth, context, parse_instant(since, "from"), parse_instant(until, "until"))
    caller = (context.tenant_id, context.caller.subject)
    return _downloads.answer(f"security-log-{context.tenant_id}.{format}", media, written(rows), caller)
