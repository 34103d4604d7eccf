"""Codes that are sent to an e-mail address or a phone: in which flow, how often, and what else the message says."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from libs.core.context import Context
from libs.core.errors import InvalidInput, Refusal
from libs.core.mongo import Session
from services.auth.codes import code_hash, is_code, new_code
from services.auth.commands import flows
from services.auth.commands.auth import Auth
from services.auth.commands.flows import Started
from services.auth.commands.sign_in import failed_for
from services.auth.domain.flows import Flow, FlowKind
from services.auth.domain.identifiers import Identifier
from services.auth.store import flows as stored

# Who guesses at these is after an account.
_SIGNS_IN = (FlowKind.LOGIN_CODE, FlowKind.PASSWORD_RESET)
RESENDABLE = (FlowKind.REGISTRATION, FlowKind.VERIFICATION, FlowKind.PASSWORD_RESET, FlowKind.LOGIN_CODE)


@dataclass(frozen=True, slots=True)
class Letter:
    """What is sent: `template`, if the code in it would be good for something, else `decoy`, which has none.

    Either way something is sent and a flow begun, so that whoever asked cannot tell which it was.
    """

    template: str
    decoy: str
    good: bool

    @property
    def name(self) -> str:
        return self.template if self.good else self.decoy


async def start(
    auth: Auth,
    context: Context,
    kind: FlowKind,
    recipient: Identifier,
    letter: Letter,
    *,
    user_id: str = "",
    data: Mapping[str, Any] | None = None,
    locale: str = "",
    admitted: bool = False,
) -> Started:
    """A flow, and its first code on the way. `RateLimited` if too much was sent there, or asked for from here, unless
    the caller has seen to that."""
    if not admitted:
        await auth.throttle.may_send(context.tenant_id, recipient, context.client.address)
    token, code, lives_s = flows.new_token(), new_code(), auth.config(context.tenant_id).code_s
    known = {
        "recipient": [recipient.kind, recipient.value, recipient.limit_key],
        "letter": letter.name,
        "good": letter.good,
        "code": code_hash(token, code) if letter.good else "",
        "locale": locale,
    }

    async def work(session: Session) -> Started:
        told = {**(data or {}), **known}
        _, flow = await flows.begin(
            auth, context, kind, user_id=user_id, data=told, ttl_s=lives_s, session=session, token=token
        )
        await _send(auth, session, context, flow, token, code)
        return _started(auth, token, flow)

    started = await auth.platform.mongo.transaction(work)
    auth.platform.outbox.kick()
    return started


async def resend(auth: Auth, context: Context, purpose: str, token: str) -> Started:
    """Another code, in place of the one before. The tries of the flow are what they were."""
    if purpose not in RESENDABLE:
        raise InvalidInput(f"purpose is one of {', '.join(RESENDABLE)}", field="purpose")
    flow = await flows.look(auth, context, FlowKind(purpose), token)
    await auth.throttle.may_send(context.tenant_id, recipient_of(flow), context.client.address)
    code = new_code()

    async def work(session: Session) -> Started:
        fresh = {"code": code_hash(token, code) if flow.data["good"] else ""}
        if not await stored.change(auth.database, session, flow, fresh):
            raise flows.over()
        await _send(auth, session, context, flow, token, code)
        return _started(auth, token, flow)

    started = await auth.platform.mongo.transaction(work)
    auth.platform.outbox.kick()
    return started


async def attempt(auth: Auth, context: Context, kind: FlowKind, token: str, code: str) -> Flow:
    """The flow, if that is its code, and one try the poorer in any case."""
    flow = await flows.attempt(auth, context, kind, token)
    if not is_code(token, code, flow.data["code"]):
        if kind in _SIGNS_IN:
            await failed_for(auth, context, flow.user_id, kind.value, "wrong code")
        raise wrong_code()
    return flow


def recipient_of(flow: Flow) -> Identifier:
    return Identifier(*flow.data["recipient"])


def wrong_code() -> Refusal:
    return Refusal("CODE_WRONG", "that is not the code", rule="flow.code")


async def _send(auth: Auth, session: Session, context: Context, flow: Flow, token: str, code: str) -> None:
    recipient = recipient_of(flow)
    params = {"locale": flow.data["locale"]}
    if flow.data.get("operation"):  # what the code is good for, so that nobody enters it for another thing
        params["operation"] = flow.data["operation"]
    if flow.data["good"]:
        params |= {"code": code, "link": _link(auth, flow, token, code)}
    await auth.messages.queue(
        session, context.tenant_id, recipient.channel, recipient.value, flow.data["letter"], params, flow.expires_at
    )


def _link(auth: Auth, flow: Flow, token: str, code: str) -> str:
    """To the client's page, which takes what is behind the #: no server on the way gets to see it."""
    page = auth.config(flow.tenant_id).link_url
    return f"{page}#{urlencode({'kind': flow.kind.value, 'flow': token, 'code': code})}" if page else ""


def _started(auth: Auth, token: str, flow: Flow) -> Started:
    resend_at = auth.platform.clock.now() + timedelta(seconds=auth.config(flow.tenant_id).resend_s)
    return Started(token, flow.expires_at, resend_at)
