"""Flows: begun in one request, tried and finished in later ones."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from libs.core.context import Context
from libs.core.errors import InvalidInput, Refusal
from libs.core.mongo import Session
from services.auth.commands.auth import Auth
from services.auth.domain.flows import Flow, FlowKind, flow_key
from services.auth.store import flows as stored

_TOKEN_CHARS = 128


@dataclass(frozen=True, slots=True)
class Started:
    """`token` is for the client alone. A code, if one was sent, can be sent anew from `resend_at` on."""

    token: str
    expires_at: datetime
    resend_at: datetime | None = None


def new_token() -> str:
    return secrets.token_urlsafe(32)


async def begin(
    auth: Auth,
    context: Context,
    kind: FlowKind,
    *,
    user_id: str = "",
    data: Mapping[str, Any] | None = None,
    ttl_s: int | None = None,
    session: Session | None = None,
    token: str = "",
) -> tuple[str, Flow]:
    """The token, for the client, and the flow. Without a `user_id` it is about nobody."""
    token, now = token or new_token(), auth.platform.clock.now()
    lives = timedelta(seconds=ttl_s or auth.config(context.tenant_id).flow_s)
    flow = Flow(flow_key(token), context.tenant_id, kind, user_id, now, now + lives, 0, data or {})
    await stored.insert(auth.database, session, flow)
    return token, flow


async def attempt(auth: Auth, context: Context, kind: FlowKind, token: str) -> Flow:
    """Counts one try, before anything is compared: of many at once, only so many are let in. Raises FLOW_OVER if it is
    of another kind or tenant, over, or out of tries: which of these, nobody is told."""
    _check(token)
    most, now = auth.config(context.tenant_id).flow_tries, auth.platform.clock.now()
    flow = await stored.count_try(auth.database, context.tenant_id, kind, flow_key(token), now, most)
    if flow is None:
        raise over()
    return flow


async def look(auth: Auth, context: Context, kind: FlowKind, token: str) -> Flow:
    """Without a try being counted: for what compares nothing."""
    _check(token)
    flow = await stored.load(auth.database, context.tenant_id, kind, flow_key(token), auth.platform.clock.now())
    if flow is None:
        raise over()
    return flow


async def finish(auth: Auth, session: Session, flow: Flow) -> None:
    """In the transaction of its effect, so that it has one. Raises FLOW_OVER if another request was first."""
    if not await stored.finish(auth.database, session, flow, auth.platform.clock.now()):
        raise over()


def over() -> Refusal:
    return Refusal("FLOW_OVER", "this has expired, was used, or was tried too often: begin anew", rule="flow")


def _check(token: str) -> None:
    if not 0 < len(token) <= _TOKEN_CHARS:
        raise InvalidInput("this is no flow's id", field="input.flowId")
