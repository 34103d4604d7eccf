"""What a user is reached at and signs in by, added once it was verified."""

from dataclasses import replace

from pymongo.errors import DuplicateKeyError

from libs.core.context import Context
from libs.core.errors import Refusal
from libs.core.mongo import Session
from services.auth.commands import codes, flows, profile
from services.auth.commands.auth import Auth, record
from services.auth.commands.codes import Letter
from services.auth.commands.flows import Started
from services.auth.commands.fresh import demand_fresh
from services.auth.commands.sign_in import notify
from services.auth.domain.flows import FlowKind
from services.auth.domain.identifiers import Identifier
from services.auth.domain.users import User
from services.auth.events import UserVerified
from services.auth.store import users


async def add(auth: Auth, context: Context, recipient: Identifier) -> Started:
    """In place of the one of its kind that there was. Whether it is another account's, only its owner is told."""
    user = await demand_fresh(auth, context)
    other = await users.by_identifier(auth.database, None, user.tenant_id, recipient)
    letter = Letter("verify_identifier", "already_registered", good=other is None)
    return await codes.start(
        auth, context, FlowKind.VERIFICATION, recipient, letter, user_id=user.id, locale=user.locale
    )


async def verify(auth: Auth, context: Context, flow_token: str, code: str) -> User:
    flow = await codes.attempt(auth, context, FlowKind.VERIFICATION, flow_token, code)
    recipient = codes.recipient_of(flow)
    if flow.user_id != context.caller.user_id:
        raise flows.over()

    async def work(session: Session) -> User:
        await flows.finish(auth, session, flow)
        before = await users.load(auth.database, session, flow.tenant_id, flow.user_id)
        if before is None:
            raise flows.over()
        after = await users.save(auth.database, session, before, before.with_identifier(recipient))
        told = UserVerified(user_id=after.id, identifier=recipient.kind)
        await record(auth, session, context, "user.verified", user_id=after.id, event=told)
        await notify(auth, session, before, f"{recipient.kind}_changed")  # to where they were reached until now
        return after

    try:
        changed = await auth.transaction(context.tenant_id, work)
    except DuplicateKeyError:
        raise flows.over() from None
    await profile.forget(auth, changed)
    return changed


async def rename(auth: Auth, context: Context, username: Identifier | None, name: str | None) -> User:
    """What is None stays as it is."""
    if username:
        await auth.throttle.may_rename(context.tenant_id, context.caller.user_id)

    async def work(session: Session) -> User:
        before = await users.load(auth.database, session, context.tenant_id, context.caller.user_id)
        if before is None:
            raise flows.over()
        after = replace(
            before,
            username=username.value if username else before.username,
            name=before.name if name is None else name,
        )
        after = await users.save(auth.database, session, before, after)
        was, is_now = ({"username": it.username, "name": it.name} for it in (before, after))
        await record(auth, session, context, "user.renamed", user_id=after.id, before=was, after=is_now)
        return after

    try:
        changed = await auth.transaction(context.tenant_id, work)
    except DuplicateKeyError:
        raise Refusal("USERNAME_TAKEN", "this username is taken: choose another", rule="user.username") from None
    await profile.forget(auth, changed)
    return changed
