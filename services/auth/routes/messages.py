"""What users were sent, for those who develop: mounted in development alone."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from libs.core.app import request_context
from libs.core.context import Context
from services.auth.domain.identifiers import parse_identifier
from services.auth.store import messages as stored

router = APIRouter(prefix="/development", tags=["development"])


@router.get("/messages")
async def latest(
    context: Annotated[Context, Depends(request_context)],
    recipient: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> list[dict[str, Any]]:
    """The newest first, to one recipient or to everybody in the tenant."""
    to = parse_identifier(recipient, "recipient").value if recipient else None
    found = await stored.latest(context.platform.mongo.db, context.tenant_id, to, limit)
    return [
        {
            "id": message.id,
            "channel": message.channel,
            "recipient": message.recipient,
            "template": message.template,
            "params": message.params,
            "expiresAt": message.expires_at,
        }
        for message in found
    ]
