"""Registration: an account is there once its owner has shown that a code sent to them arrives."""

from dataclasses import dataclass
from typing import Any

from pymongo.errors import DuplicateKeyError

from libs.core.context import Context
from libs.core.errors import Refusal
from libs.core.ids import new_id
from libs.core.mongo import Session
from services.auth.commands import codes, flows
from services.auth.commands.auth import Auth, record
from services.auth.commands.codes import Letter
from services.auth.commands.devices import Device
from services.auth.commands.flows import Started
from services.auth.commands.password_rules import check_password
from services.auth.commands.sign_in import Challenge, open_session
from services.auth.commands.tokens import SignedIn
from services.auth.domain.flows import FlowKind
from services.auth.domain.identifiers import Identifier, parse_username
from services.auth.domain.users import User
from services.auth.events import UserRegistered, UserVerified
from services.auth.store import users


@dataclass(frozen=True, slots=True)
class Registration:
    recipient: Identifier
    password: str
    username: Identifier | None = None
    name: str = ""
    locale: str = ""


async def register(auth: Auth, context: Context, new: Registration) -> Started:
    """The same happens whether there is such an account or not: a password is hashed, a message sent, a flow begun.

    Who has an account already is told so, in the message.
    """
    username = new.username.value if new.username else ""
    await check_password(auth, context.tenant_id, new.password, new.recipient.value, username, new.name)
    # First of all, for hashing is work that whoever asks too often is not worth.
    await auth.throttle.may_send(context.tenant_id, new.recipient, context.client.address)
    encoded = await auth.hasher.hash(new.password)
    there = await users.by_identifier(auth.database, None, context.tenant_id, new.recipient)
    return await codes.start(
        auth,
        context,
        FlowKind.REGISTRATION,
        new.recipient,
        Letter("registration", "already_registered", good=there is None),
        data={
            "password": encoded,
            "username": username,
            "name": new.name,
        },
        locale=new.locale,
        admitted=True,
    )


async def verify_registration(
    auth: Auth, context: Context, flow_token: str, code: str, *, username: str = "", device: Device
) -> SignedIn | Challenge:
    """`username`: in place of the one before, which was taken."""
    flow = await codes.attempt(auth, context, FlowKind.REGISTRATION, flow_token, code)
    now, recipient = auth.platform.clock.now(), codes.recipient_of(flow)
    user = User(
        tenant_id=context.tenant_id,
        id=new_id(),
        created_at=now,
        roles=auth.config(context.tenant_id).default_roles,
        username=parse_username(username, "input.username").value if username else flow.data["username"],
        name=flow.data["name"],
        locale=flow.data["locale"],
    )
    user = user.with_identifier(recipient).with_password(flow.data["password"], now)
    if await _username_taken(auth, user):
        raise _taken()

    async def work(session: Session) -> SignedIn:
        await flows.finish(auth, session, flow)
        await insert(auth, context, session, user, method="password", verified=[recipient.kind])
        return await open_session(auth, context, session, user, ("pwd",), device=device)

    try:
        return await auth.transaction(context.tenant_id, work)
    except DuplicateKeyError:  # whoever was first in this moment
        raise (_taken() if await _username_taken(auth, user) else flows.over()) from None


async def insert(
    auth: Auth, context: Context, session: Session, user: User, *, method: str, verified: list[str], actor: str = ""
) -> None:
    """A user, and all that is told of it, in the caller's transaction. DuplicateKeyError as `users.insert`."""
    await users.insert(auth.database, session, user)
    registered = UserRegistered(user_id=user.id, method=method, locale=user.locale)
    who = actor or user.id
    await record(
        auth, session, context, "user.registered", user_id=user.id, actor=who, event=registered, after=_told(user)
    )
    for identifier in verified:
        told = UserVerified(user_id=user.id, identifier=identifier)
        await record(auth, session, context, "user.verified", user_id=user.id, actor=who, event=told)


def _told(user: User) -> dict[str, Any]:
    return {"roles": list(user.roles), "username": user.username}


async def _username_taken(auth: Auth, user: User) -> bool:
    wanted = Identifier("username", user.username, user.username)
    return bool(user.username) and bool(await users.by_identifier(auth.database, None, user.tenant_id, wanted))


def _taken() -> Refusal:
    """Said to nobody but who has shown a mailbox or phone of their own, five times at most."""
    return Refusal("USERNAME_TAKEN", "this username is taken: choose another", rule="user.username")
