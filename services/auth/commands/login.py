"""Logins: by password, and by a code that is sent."""

from dataclasses import replace

from libs.core.context import Context
from libs.core.errors import Refusal
from libs.core.mongo import Session
from services.auth.commands import codes, devices
from services.auth.commands.auth import Auth
from services.auth.commands.codes import Letter
from services.auth.commands.devices import Device
from services.auth.commands.flows import Started
from services.auth.commands.passwords import of_flow
from services.auth.commands.sign_in import Challenge, failed, sign_in
from services.auth.commands.tokens import SignedIn
from services.auth.domain.flows import FlowKind
from services.auth.domain.identifiers import Identifier
from services.auth.domain.users import User
from services.auth.store import users


async def login(
    auth: Auth, context: Context, identifier: Identifier, password: str, *, device: Device
) -> SignedIn | Challenge:
    """The same work is done whether there is such an account or not, and the same said."""
    user = await users.by_identifier(auth.database, None, context.tenant_id, identifier)
    seen = await devices.known(auth, user, device)
    attempt = await auth.throttle.admit(
        context.tenant_id, identifier, context.client.address, seen.id if seen else None
    )
    verdict = await auth.hasher.verify(user.password if user else None, password)
    if user is None or not verdict.ok:
        await failed(auth, context, user, "pwd", "wrong password" if user else "no such account")
        raise Refusal("INVALID_CREDENTIALS", "that is not right", rule="login.credentials")
    await auth.throttle.succeeded(attempt)
    if verdict.rehash:
        user = await _rehash(auth, user, password)
    return await sign_in(auth, context, user, ("pwd",), device=device)


async def request_code(auth: Auth, context: Context, recipient: Identifier) -> Started:
    user = await users.by_identifier(auth.database, None, context.tenant_id, recipient)
    letter = Letter("login_code", "no_account", good=user is not None and user.active)
    user_id, locale = (user.id, user.locale) if user else ("", "")
    return await codes.start(auth, context, FlowKind.LOGIN_CODE, recipient, letter, user_id=user_id, locale=locale)


async def login_with_code(
    auth: Auth, context: Context, flow_token: str, code: str, *, device: Device
) -> SignedIn | Challenge:
    flow = await codes.attempt(auth, context, FlowKind.LOGIN_CODE, flow_token, code)
    user = await of_flow(auth, flow)
    return await sign_in(auth, context, user, (codes.recipient_of(flow).channel,), device=device, after=flow)


async def _rehash(auth: Auth, user: User, password: str) -> User:
    """With the parameters of today. Whoever changed the user meanwhile wins: there will be another login."""
    after = replace(user, password=await auth.hasher.hash(password))

    async def work(session: Session) -> User:
        return await users.save(auth.database, session, user, after)

    try:
        return await auth.platform.mongo.transaction(work)
    except Refusal:
        return user
