"""Passwords: changed by who knows them, reset by who does not."""

from libs.core.context import Context
from libs.core.errors import Refusal
from libs.core.mongo import Session
from services.auth.commands import codes, flows, profile
from services.auth.commands.auth import Auth
from services.auth.commands.codes import Letter
from services.auth.commands.devices import Device
from services.auth.commands.flows import Started
from services.auth.commands.fresh import demand_fresh
from services.auth.commands.password_rules import check_password
from services.auth.commands.sign_in import Challenge, set_password, sign_in
from services.auth.commands.tokens import SignedIn
from services.auth.domain.flows import Flow, FlowKind
from services.auth.domain.identifiers import Identifier
from services.auth.domain.users import User
from services.auth.store import users


async def request_reset(auth: Auth, context: Context, recipient: Identifier) -> Started:
    user = await users.by_identifier(auth.database, None, context.tenant_id, recipient)
    letter = Letter("password_reset", "no_account", good=user is not None and user.active)
    user_id, locale = (user.id, user.locale) if user else ("", "")
    return await codes.start(auth, context, FlowKind.PASSWORD_RESET, recipient, letter, user_id=user_id, locale=locale)


async def reset(
    auth: Auth, context: Context, flow_token: str, code: str, password: str, *, device: Device
) -> SignedIn | Challenge:
    """Who has a second factor has to show it before the new password counts."""
    await check_password(auth, context.tenant_id, password)
    flow = await codes.attempt(auth, context, FlowKind.PASSWORD_RESET, flow_token, code)
    user = await of_flow(auth, flow)
    await check_password(auth, user.tenant_id, password, *personal(user))
    encoded = await auth.hasher.hash(password)
    methods = (codes.recipient_of(flow).channel,)
    return await sign_in(auth, context, user, methods, device=device, after=flow, password=encoded)


async def change(auth: Auth, context: Context, current: str, password: str) -> User:
    """Everybody who is signed in elsewhere is signed out."""
    user = await demand_fresh(auth, context)
    await check_password(auth, user.tenant_id, password, *personal(user))
    attempt = await auth.throttle.admit_known(context.tenant_id, user.id)
    if user.password and not (await auth.hasher.verify(user.password, current)).ok:
        raise Refusal("INVALID_CREDENTIALS", "that is not the password", rule="login.credentials")
    await auth.throttle.succeeded(attempt)
    encoded = await auth.hasher.hash(password)
    session_id = context.caller.session_id

    async def work(session: Session) -> User:
        before = await users.load(auth.database, session, user.tenant_id, user.id)
        if before is None or before.password != user.password:
            raise Refusal("USER_CHANGED", "the user was changed meanwhile", rule="user.version", userId=user.id)
        return await set_password(
            auth, context, session, before, encoded, how="change", actor=user.id, keep_session=session_id
        )

    changed = await auth.transaction(user.tenant_id, work, revokes=True)
    await profile.forget(auth, changed)
    return changed


async def of_flow(auth: Auth, flow: Flow) -> User:
    """Whom it is about, if they are still there, and still reached where the code was sent: who has left a mailbox
    behind did so for a reason."""
    user, sent_to = await users.load(auth.database, None, flow.tenant_id, flow.user_id), codes.recipient_of(flow)
    if user is None or not user.active or getattr(user, sent_to.kind) != sent_to.value:
        raise flows.over()
    return user


def personal(user: User) -> list[str]:
    """What a password must not be made of."""
    return [user.email, user.phone, user.username, user.name]
