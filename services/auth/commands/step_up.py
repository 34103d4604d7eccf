"""Step-up: somebody who is signed in shows anew that it is them; for a while, or for one operation and nothing else."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from libs.core.context import Context
from libs.core.errors import Forbidden, InvalidInput, Refusal, Unauthenticated
from libs.core.mongo import Session as Transaction
from libs.core.stepup import SensitiveOperation
from services.auth.codes import is_code
from services.auth.commands import codes, factors, flows, passkeys
from services.auth.commands.auth import Auth, record
from services.auth.commands.codes import Letter
from services.auth.commands.second_factor import Proof, prove, wrong_factor
from services.auth.commands.sign_in import notify
from services.auth.commands.tokens import issue
from services.auth.domain.flows import Flow, FlowKind
from services.auth.domain.identifiers import Identifier, parse_email, parse_phone
from services.auth.domain.sessions import Session, level_of
from services.auth.domain.users import User
from services.auth.store import sessions, users
from services.auth.tokens import step_up_token

PASSWORD, CODE = "password", "code"


@dataclass(frozen=True, slots=True)
class Asked:
    """`operation` is for the person to see: what they confirm is this. One of `methods` has to be shown."""

    flow_token: str
    expires_at: datetime
    methods: tuple[str, ...]
    operation: SensitiveOperation | None
    passkey_options: dict[str, Any] | None = None
    code_sent_by: str = ""
    resend_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One of these."""

    password: str = ""
    code: str = ""
    factor: Proof | None = None

    def __post_init__(self) -> None:
        if sum((bool(self.password), bool(self.code), self.factor is not None)) != 1:
            raise InvalidInput("give one of password, totp, code, passkey and recoveryCode", field="input")

    @property
    def method(self) -> str:
        return PASSWORD if self.password else CODE if self.code else self.factor.method if self.factor else ""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The session is as good as new."""

    access_token: str
    expires_in_s: int
    session: Session


@dataclass(frozen=True, slots=True)
class Confirmed:
    token: str
    expires_at: datetime
    operation: SensitiveOperation


def methods_of(user: User) -> tuple[str, ...]:
    """Who has a second factor shows that: what opened the session may be what was stolen. A trusted device is nobody's
    say."""
    if user.second_factors:
        return (*user.second_factors, "recovery_code")
    return (PASSWORD,) * bool(user.password) + (CODE,) * bool(user.phone or user.email)


async def start(auth: Auth, context: Context, operation: SensitiveOperation | None, *, send_code: bool) -> Asked:
    """`Refusal` SECOND_FACTOR_MISSING if there is nothing that the caller could show."""
    user = await _person(auth, context)
    methods = methods_of(user)
    if not methods:
        raise Refusal("SECOND_FACTOR_MISSING", "sign in again, or set up a second factor first", rule="step_up.methods")
    data = {"session_id": context.caller.session_id, "operation": operation.content if operation else None}
    if CODE in methods and (send_code or methods == (CODE,)):
        to, letter = _recipient(user), Letter("step_up", "step_up", good=True)
        started = await codes.start(
            auth, context, FlowKind.STEP_UP, to, letter, user_id=user.id, data=data, locale=user.locale
        )
        sent_by = to.channel
        return Asked(started.token, started.expires_at, methods, operation, None, sent_by, started.resend_at)
    token, flow = await flows.begin(auth, context, FlowKind.STEP_UP, user_id=user.id, data=data)
    options = await passkeys.options_for(auth, user, token) if factors.PASSKEY in methods else None
    return Asked(token, flow.expires_at, methods, operation, options)


async def complete(auth: Auth, context: Context, flow_token: str, shown: Shown) -> Refreshed | Confirmed:
    """`Refusal` of what is wrong with what was shown, FLOW_OVER if there were too many tries."""
    user = await _person(auth, context)
    if shown.method not in methods_of(user):
        raise InvalidInput(f"show one of these: {', '.join(methods_of(user))}", field="input")
    # Over all flows: whoever found the session open could begin one after the other.
    attempt = await auth.throttle.admit_known(user.tenant_id, user.id)
    flow = await factors.attempt_own(auth, context, FlowKind.STEP_UP, flow_token)
    known = bool(shown.password) and (await auth.hasher.verify(user.password, shown.password)).ok

    async def work(session: Transaction) -> Refreshed | Confirmed | None:
        current = await _person(auth, context, session)
        if (current.password, current.second_factors) != (user.password, user.second_factors):
            raise flows.over()  # what has to be shown is another thing now
        if known:
            methods: tuple[str, ...] | None = ("pwd",)
        else:
            methods = await _proven(auth, context, session, flow, current, shown, flow_token)
        return await _succeeded(auth, context, session, flow, current, methods) if methods else None

    done = await auth.transaction(context.tenant_id, work)
    if done is None:
        await _failed(auth, context, flow, user, shown.method)
        raise _wrong(shown)
    await auth.throttle.succeeded(attempt)
    return done


async def _person(auth: Auth, context: Context, session: Transaction | None = None) -> User:
    caller = context.caller
    if caller.kind == "service" or caller.scopes is not None:
        raise Forbidden("a key's bearer is nobody who could be asked")
    user = await users.load(auth.database, session, context.tenant_id, caller.user_id)
    if user is None or not user.active:
        raise Unauthenticated("the token's user is not active")
    return user


def _recipient(user: User) -> Identifier:
    """A phone before a mailbox, which is open wherever somebody is signed in."""
    return parse_phone(user.phone, "phone") if user.phone else parse_email(user.email, "email")


async def _proven(
    auth: Auth, context: Context, session: Transaction, flow: Flow, user: User, shown: Shown, flow_token: str
) -> tuple[str, ...] | None:
    if shown.factor:
        return await prove(auth, context, session, user, shown.factor, flow_token)
    if shown.code and is_code(flow_token, shown.code, flow.data.get("code", "")):
        return (codes.recipient_of(flow).channel,)
    return None


async def _succeeded(
    auth: Auth, context: Context, session: Transaction, flow: Flow, user: User, methods: tuple[str, ...]
) -> Refreshed | Confirmed:
    await flows.finish(auth, session, flow)
    opened = await sessions.load(auth.database, session, user.tenant_id, context.caller.session_id)
    now = auth.platform.clock.now()
    if opened is None or not opened.alive(now):
        raise Unauthenticated("the session is over")
    proven = replace(
        opened,
        authenticated_at=now,
        methods=tuple(dict.fromkeys((*opened.methods, *methods))),
        level=_level(user, opened, methods),
    )
    content = flow.data["operation"]
    await record(
        auth,
        session,
        context,
        "step_up.confirmed" if content else "step_up.succeeded",
        user_id=user.id,
        resource=opened.id,
        after={"methods": list(methods), "operation": content},
    )
    return _confirmed(auth, user, proven, content) if content else await _refreshed(auth, session, user, proven)


def _level(user: User, opened: Session, methods: tuple[str, ...]) -> int:
    """Only a second factor makes two of one: what is sent to a mailbox, and a password, may be behind the same one."""
    return level_of((*opened.methods, *methods)) if user.second_factors else opened.level


async def _refreshed(auth: Auth, session: Transaction, user: User, proven: Session) -> Refreshed:
    fields = {
        "authenticated_at": proven.authenticated_at,
        "methods": list(proven.methods),
        "level": proven.level,
    }
    await sessions.change(auth.database, session, proven.id, fields)
    issued = issue(auth, user, proven, refresh_token="")
    return Refreshed(issued.access_token, issued.expires_in_s, proven)


def _confirmed(auth: Auth, user: User, proven: Session, content: dict[str, str]) -> Confirmed:
    operation = SensitiveOperation.of(content)
    lives = timedelta(seconds=auth.config(user.tenant_id).step_up_token_s)
    token = step_up_token(auth.keys, auth.settings, proven, operation.digest, lives)
    return Confirmed(token, proven.authenticated_at + lives, operation)


async def _failed(auth: Auth, context: Context, flow: Flow, user: User, method: str) -> None:
    """Once a flow has no tries left, its user is told: somebody else is in their session, or they need help."""

    async def work(session: Transaction) -> None:
        await record(
            auth,
            session,
            context,
            "step_up.failed",
            user_id=user.id,
            resource=context.caller.session_id,
            after={"operation": flow.data["operation"]},
            reason=f"wrong {method}",
        )
        if flow.tries >= auth.config(flow.tenant_id).flow_tries:
            await notify(auth, session, user, "step_up_failed")

    await auth.transaction(context.tenant_id, work)


def _wrong(shown: Shown) -> Refusal:
    if shown.password:
        return Refusal("INVALID_CREDENTIALS", "that is not the password", rule="login.credentials")
    return codes.wrong_code() if shown.code else wrong_factor()
