"""A user's identities: linked by who is signed in, and unlinked as long as another way in is left."""

from dataclasses import asdict, dataclass
from datetime import datetime

from libs.core.context import Context
from libs.core.errors import NotFound, Refusal
from libs.core.mongo import Session
from services.auth.commands import flows, oauth
from services.auth.commands.auth import Auth, record
from services.auth.commands.fresh import demand_fresh
from services.auth.commands.oauth import Trip
from services.auth.commands.sign_in import notify
from services.auth.domain.flows import Flow, FlowKind
from services.auth.domain.identities import Identity, Proven, signs_in_without
from services.auth.events import IdentityUnlinked
from services.auth.store import identities, users


@dataclass(frozen=True, slots=True)
class LinkStarted:
    """`token` is in the address that the browser is to open: good once."""

    provider_id: str
    token: str
    expires_at: datetime


async def start_link(auth: Auth, context: Context, provider_id: str, return_url: str, challenge: str) -> LinkStarted:
    """For somebody who has shown just now who they are: a linked identity is a key to the account."""
    user = await demand_fresh(auth, context)
    oauth.provider_of(auth, context, provider_id)
    trip = Trip(provider_id, return_url, challenge, user_id=user.id, session_id=context.caller.session_id)
    oauth.check_trip(auth, context, trip)
    token, flow = await flows.begin(auth, context, FlowKind.OAUTH_LINK, user_id=user.id, data=asdict(trip))
    return LinkStarted(provider_id, token, flow.expires_at)


async def link_trip(auth: Auth, context: Context, provider_id: str, token: str) -> Trip:
    """What the browser that opened the address goes out for. The address is used up."""
    flow = await flows.attempt(auth, context, FlowKind.OAUTH_LINK, token)
    trip = Trip(**flow.data)
    if trip.provider_id != provider_id:
        raise flows.over()
    await auth.platform.mongo.transaction(lambda session: flows.finish(auth, session, flow))
    return trip


async def finish_link(auth: Auth, context: Context, code: str, verifier: str) -> Identity:
    """In the session that began it and no other. `Refusal` IDENTITY_TAKEN if it is another user's here."""
    flow = await oauth.redeem(auth, context, code, verifier)
    caller = context.caller
    if (flow.user_id, flow.data["session_id"]) != (caller.user_id, caller.session_id):
        raise flows.over()
    try:
        linked = await auth.transaction(context.tenant_id, lambda session: _link(auth, context, session, flow))
    except identities.Raced:
        linked = await auth.transaction(context.tenant_id, lambda session: _link(auth, context, session, flow))
    if isinstance(linked, Refusal):
        raise linked
    return linked


async def _link(auth: Auth, context: Context, session: Session, flow: Flow) -> Identity | Refusal:
    proven = Proven(**flow.data["proven"])
    await flows.finish(auth, session, flow)
    there = await identities.find(auth.database, session, flow.tenant_id, proven.issuer, proven.subject)
    if there and there.user_id != flow.user_id:
        return Refusal("IDENTITY_TAKEN", "this identity belongs to another account here", rule="identity.unique")
    user = await users.load(auth.database, session, flow.tenant_id, flow.user_id)
    if user is None or not user.active:
        return flows.over()
    if there:
        return there
    identity = oauth.identity_of(user, proven, auth)
    await identities.insert(auth.database, session, identity)
    await oauth.record_linked(auth, session, context, identity)
    await notify(auth, session, user, "identity_linked")
    return identity


async def unlink(auth: Auth, context: Context, identity_id: str) -> Identity:
    """`Refusal` LAST_WAY_IN if its owner could not come back."""
    user = await demand_fresh(auth, context)
    return await auth.transaction(
        context.tenant_id, lambda session: _unlink(auth, context, session, user.id, identity_id)
    )


async def _unlink(auth: Auth, context: Context, session: Session, user_id: str, identity_id: str) -> Identity:
    user = await users.load(auth.database, session, context.tenant_id, user_id)
    own = await identities.of_user(auth.database, session, context.tenant_id, user_id)
    identity = next((identity for identity in own if identity.id == identity_id), None)
    if user is None or identity is None:
        raise NotFound("there is no such identity of yours")
    if not signs_in_without(user, len(own) - 1):
        raise Refusal("LAST_WAY_IN", "this is the only way that you can sign in", rule="identity.last")
    # Two that are unlinked at once, or with a passkey that is removed, would each count on the other: one has to lose.
    # The log's one chain sees to that as well, but need not stay one.
    await users.save(auth.database, session, user, user)
    await identities.delete(auth.database, session, identity)
    told = IdentityUnlinked(user_id=user.id, issuer=identity.issuer)
    await record(
        auth, session, context, "identity.unlinked", user_id=user.id, event=told, resource=identity.id,
        before={"issuer": identity.issuer},
    )  # fmt: skip
    await notify(auth, session, user, "identity_unlinked")
    return identity


async def mine(auth: Auth, context: Context) -> list[Identity]:
    return await identities.of_user(auth.database, None, context.tenant_id, context.caller.user_id)
