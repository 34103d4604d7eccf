"""From a proven factor to a session, by way of the second factor if there is one."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from libs.core.context import Context
from libs.core.errors import Refusal
from libs.core.ids import new_id
from libs.core.mongo import Session as Transaction
from services.auth.commands import devices, flows, profile, sessions
from services.auth.commands.auth import Auth, record
from services.auth.commands.devices import Device
from services.auth.commands.tokens import SignedIn, issue, new_refresh_token
from services.auth.domain.flows import Flow, FlowKind, flow_key
from services.auth.domain.messages import Channel
from services.auth.domain.sessions import EndReason, Session, level_of
from services.auth.domain.users import User, UserStatus
from services.auth.events import LoginFailed, LoginSucceeded, PasswordChanged
from services.auth.store import sessions as stored, users
from services.auth.store.sessions import RefreshToken


@dataclass(frozen=True, slots=True)
class Challenge:
    """A second factor is asked for: one of `methods`."""

    flow_token: str
    methods: tuple[str, ...]
    expires_at: datetime


async def sign_in(
    auth: Auth,
    context: Context,
    user: User,
    methods: tuple[str, ...],
    *,
    device: Device,
    after: Flow | None = None,
    password: str = "",
) -> SignedIn | Challenge:
    """A first factor was proven, by `methods` (RFC 8176). `after` is the flow that this ends, if it was one.

    `password` is a new one, encoded: it is set when the user is in, and not before the second factor.
    """
    if refusal := _standing_refusal(user, resets=bool(password)):
        await failed(auth, context, user, methods[0], refusal.code.lower())
        raise refusal
    wants_another = bool(user.second_factors) and level_of(methods) < 2
    if wants_another and (password or not await devices.trusted(auth, user, device)):
        return await _challenge(auth, context, user, methods, after, password)

    async def work(session: Transaction) -> SignedIn:
        if after:
            await flows.finish(auth, session, after)
        return await open_session(auth, context, session, user, methods, device=device, password=password)

    signed_in = await auth.transaction(user.tenant_id, work, revokes=bool(password))
    if password:
        await profile.forget(auth, user)
    return signed_in


async def second_factor_shown(
    auth: Auth,
    context: Context,
    session: Transaction,
    flow: Flow,
    methods: tuple[str, ...],
    *,
    device: Device,
    trust: bool,
) -> SignedIn:
    """In the transaction that used the factor up: what waited for it happens. `methods` are the second factor's."""
    await flows.finish(auth, session, flow)
    user = await users.load(auth.database, session, flow.tenant_id, flow.user_id)
    password = flow.data["password"]
    if user is None or _standing_refusal(user, resets=bool(password)):
        raise flows.over()
    if user.password_changed_at and user.password_changed_at > flow.created_at:
        raise flows.over()  # whoever knew the one before has waited with it
    return await open_session(
        auth, context, session, user, (*flow.data["methods"], *methods), device=device, trust=trust, password=password
    )


async def open_session(
    auth: Auth,
    context: Context,
    session: Transaction,
    user: User,
    methods: tuple[str, ...],
    *,
    device: Device,
    trust: bool = False,
    password: str = "",
) -> SignedIn:
    """A session with its first tokens, written in the caller's transaction, with all that is told of it."""
    before = await users.load(auth.database, session, user.tenant_id, user.id)
    if before is None or _standing_refusal(before, resets=bool(password)) or _proven_otherwise(user, before, methods):
        raise flows.over()  # suspended, told to reset, or with another password or factor, since this one was proven
    user = before
    now, config = auth.platform.clock.now(), auth.config(user.tenant_id)
    if password:
        user = await set_password(auth, context, session, user, password, how="reset", actor=user.id)
    token = await devices.remember(auth, session, context, user, device, trust=trust)
    opened = Session(
        id=new_id(),
        tenant_id=user.tenant_id,
        user_id=user.id,
        created_at=now,
        last_used_at=now,
        authenticated_at=now,
        methods=methods,
        level=level_of(methods),
        expires_at=now + timedelta(hours=config.session_absolute_h),
        idle_until=now + timedelta(hours=config.session_idle_h),
        device=device.name[:100],
        agent=context.client.agent,
        address=context.client.address,
        place=auth.places.of(context.client.address),
    )
    refresh = new_refresh_token()
    await sessions.make_room(auth, context, session, user)
    await stored.insert(auth.database, session, opened)
    await stored.insert_token(auth.database, session, RefreshToken(flow_key(refresh), opened.id, opened.expires_at))
    told = LoginSucceeded(
        user_id=user.id,
        session_id=opened.id,
        methods=list(methods),
        level=opened.level,
        device=opened.device or opened.agent,
        place=opened.place,
    )
    await record(
        auth, session, context, "login.succeeded", user_id=user.id, actor=user.id, event=told, resource=opened.id,
        after={"methods": list(methods), "level": opened.level, "agent": opened.agent},
    )  # fmt: skip
    return issue(auth, user, opened, refresh, token)


async def set_password(
    auth: Auth,
    context: Context,
    session: Transaction,
    user: User,
    encoded: str,
    *,
    how: Literal["change", "reset"],
    actor: str,
    keep_session: str = "",
) -> User:
    """Whoever is signed in elsewhere, by whatever they knew before, is not any more."""
    changed = user.with_password(encoded, auth.platform.clock.now())
    changed = await users.save(auth.database, session, user, changed)
    await devices.forget_trust(auth, session, changed)
    await sessions.end_sessions(
        auth, context, session, user.tenant_id, user.id, keep=keep_session, reason=EndReason.PASSWORD, actor=actor
    )
    told = PasswordChanged(user_id=user.id, how=how)
    await record(auth, session, context, "password.changed", user_id=user.id, actor=actor, event=told, reason=how)
    await notify(auth, session, user, "password_changed")
    return changed


async def notify(auth: Auth, session: Transaction, user: User, what: str) -> None:
    """Tells the user what happened to their account, wherever they can be told."""
    channel: Channel = "email" if user.email else "sms"
    if address := user.email or user.phone:
        until = auth.platform.clock.now() + timedelta(days=1)
        params = {"what": what, "locale": user.locale}
        await auth.messages.queue(session, user.tenant_id, channel, address, "security_notice", params, until)


async def failed(auth: Auth, context: Context, user: User | None, method: str, reason: str) -> None:
    """As much is written for an account that does not exist as for one that does."""
    await failed_for(auth, context, user.id if user else "", method, reason)


async def failed_for(auth: Auth, context: Context, user_id: str, method: str, reason: str) -> None:
    """`user_id` "": nobody's."""
    told = LoginFailed(user_id=user_id, method=method, reason=reason)

    async def work(session: Transaction) -> None:
        await record(auth, session, context, "login.failed", user_id=user_id, event=told, reason=reason)

    await auth.transaction(context.tenant_id, work)


async def _challenge(
    auth: Auth, context: Context, user: User, methods: tuple[str, ...], after: Flow | None, password: str
) -> Challenge:
    data = {"methods": list(methods), "password": password}

    async def work(session: Transaction) -> Challenge:
        if after:
            await flows.finish(auth, session, after)
        token, flow = await flows.begin(
            auth, context, FlowKind.SECOND_FACTOR, user_id=user.id, data=data, session=session
        )
        return Challenge(token, (*user.second_factors, "recovery_code"), flow.expires_at)

    return await auth.platform.mongo.transaction(work)


def _proven_otherwise(then: User, now: User, methods: tuple[str, ...]) -> bool:
    """Whether what was proven of them then would not be enough, or not be right, now."""
    if now.second_factors != then.second_factors:
        return True
    # Not the password itself: another login of this moment may have hashed it anew.
    return "pwd" in methods and now.password_changed_at != then.password_changed_at


def _standing_refusal(user: User, *, resets: bool) -> Refusal | None:
    """Told only to somebody who has proven a factor."""
    if user.status is UserStatus.SUSPENDED:
        return Refusal("ACCOUNT_SUSPENDED", "this account is suspended", rule="user.status")
    if user.status is UserStatus.DELETED:
        return Refusal("INVALID_CREDENTIALS", "that is not right", rule="login.credentials")
    if user.must_reset and not resets:
        return Refusal("PASSWORD_RESET_REQUIRED", "the password has to be reset first", rule="user.must_reset")
    return None
