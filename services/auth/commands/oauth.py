"""Signing in by way of an identity provider: out with the browser, back with it, and in.

    set_out      the browser leaves for the provider, with a state that is good once, in this browser, for this provider
    come_back    what the provider answered is redeemed and checked; the browser goes on to the client, with a code
    finish       the client redeems the code, with the verifier of the challenge that it began with

The code in the client's address is worth nothing by itself (it is in histories, logs and referrers): who has no
verifier is not who began. And a client that did not begin has no verifier, so that nobody can be signed in to an
account of somebody else's by being sent such an address.
"""

import hmac
import re
import secrets
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Self

import structlog
from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from libs.core.context import Context
from libs.core.errors import InvalidInput, Misconfigured, Refusal
from libs.core.ids import new_id
from libs.core.mongo import Session
from services.auth.commands import flows, registration, sign_in
from services.auth.commands.auth import Auth, record
from services.auth.commands.devices import Device
from services.auth.commands.sign_in import Challenge
from services.auth.commands.tokens import SignedIn
from services.auth.domain.flows import Flow, FlowKind, flow_key
from services.auth.domain.identifiers import parse_email
from services.auth.domain.identities import Identity, Proven
from services.auth.domain.providers import IdentityProvider
from services.auth.domain.users import User
from services.auth.events import IdentityLinked
from services.auth.providers import Answer, Question
from services.auth.providers.answers import invalid, unavailable
from services.auth.store import identities, users

# Not in RFC 8176: somebody else looked at factors, and which ones is theirs to know. It counts as one.
FEDERATED = "fed"
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}", re.ASCII)
_CLIENT_STATE_CHARS = 500
_BROWSER = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
# What providers call it when a person changes their mind.
_CHANGED_MINDS = frozenset({"access_denied", "user_cancelled_authorize", "user_cancelled_login"})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Trip:
    """What a browser is sent out with, and what it must come back to. `user_id` and `session_id`: to be linked to."""

    provider_id: str
    return_url: str
    challenge: str
    client_state: str = ""
    user_id: str = ""
    session_id: str = ""


@dataclass(frozen=True, slots=True)
class Departure:
    """`browser` is a secret for a cookie: whoever comes back has to have it."""

    url: str
    browser: str
    by_post: bool
    lives_s: int


@dataclass(frozen=True, slots=True)
class _Under:
    """A trip under way, as its flow has it."""

    trip: Trip
    issuer: str
    nonce: str
    verifier: bytes
    browser: str

    @classmethod
    def of(cls, flow: Flow) -> Self:
        return cls(**{**flow.data, "trip": Trip(**flow.data["trip"])})


def provider_of(auth: Auth, context: Context, provider_id: str) -> IdentityProvider:
    """`Refusal` PROVIDER_UNKNOWN if the tenant has none of that id."""
    for provider in auth.config(context.tenant_id).identity_providers:
        if provider.id == provider_id:
            return provider
    raise Refusal("PROVIDER_UNKNOWN", "there is no such identity provider here", rule="oauth.provider")


def check_trip(auth: Auth, context: Context, trip: Trip) -> None:
    """`Refusal` RETURN_URL_REFUSED unless the address is one of the tenant's, character by character."""
    if trip.return_url not in auth.config(context.tenant_id).return_urls:
        raise Refusal("RETURN_URL_REFUSED", "this is no address to come back to", rule="oauth.return_url")
    if not _CHALLENGE.fullmatch(trip.challenge):
        raise InvalidInput("a challenge is the SHA-256 of a verifier in base64url: 43 characters", field="challenge")
    if len(trip.client_state) > _CLIENT_STATE_CHARS or not trip.client_state.isprintable():
        raise InvalidInput(f"state has at most {_CLIENT_STATE_CHARS} printable characters", field="state")


async def set_out(auth: Auth, context: Context, trip: Trip, browser: str) -> Departure:
    """`browser` is the secret that it has from a trip before, which it keeps: two tabs are one browser."""
    check_trip(auth, context, trip)
    provider = provider_of(auth, context, trip.provider_id)
    await auth.throttle.may_set_out(context.tenant_id, context.client.address)
    browser = browser if _BROWSER.fullmatch(browser) else secrets.token_urlsafe(32)
    token, nonce, verifier = flows.new_token(), secrets.token_urlsafe(32), secrets.token_urlsafe(48)
    question = Question(_state(context, token), nonce, verifier, redirect_uri(auth, provider.id))
    url = await auth.providers.at(provider).address(question)
    sealed = auth.box.seal(verifier, owner=_owner(flow_key(token)))
    under = _Under(trip, provider.at, nonce, sealed, _hashed(browser))
    lives_s = auth.config(context.tenant_id).flow_s
    await flows.begin(
        auth, context, FlowKind.OAUTH, user_id=trip.user_id, data=asdict(under), ttl_s=lives_s, token=token
    )
    return Departure(url, browser, provider.answers_by_post, lives_s)


async def come_back(auth: Auth, context: Context, provider_id: str, token: str, answer: Answer, browser: str) -> str:
    """Where the browser goes: to the client in any case, with a code or with an error. `Refusal` FLOW_OVER if there is
    no such trip, and so no client to go to."""
    flow = await flows.attempt(auth, context, FlowKind.OAUTH, token)
    under = _Under.of(flow)
    try:
        proven = await _proven(auth, context, flow, under, provider_id, answer, browser)
        code = await _leave(auth, context, under, proven)
    except Refusal as refusal:
        log.info("identity provider login refused", provider=provider_id, code=refusal.code, rule=refusal.rule)
        user = await users.load(auth.database, None, flow.tenant_id, flow.user_id) if flow.user_id else None
        await sign_in.failed(auth, context, user, FEDERATED, refusal.rule)
        return address_with(under.trip, error=refusal.code)
    return address_with(under.trip, code=code)


async def _proven(
    auth: Auth, context: Context, flow: Flow, under: _Under, provider_id: str, answer: Answer, browser: str
) -> Proven:
    # Not used up by this: the browser that it belongs to may still come.
    if not hmac.compare_digest(_hashed(browser), under.browser):
        raise Refusal("OTHER_BROWSER", "this was begun in another browser", rule="oauth.browser")
    await auth.platform.mongo.transaction(lambda session: flows.finish(auth, session, flow))
    # Each provider has an address of its own to come back to, so that the code of one is never shown to another.
    if provider_id != under.trip.provider_id:
        raise invalid("oauth.provider")
    provider = provider_of(auth, context, provider_id)
    if provider.at != under.issuer:
        raise flows.over()
    if answer.error:
        raise _declined(answer.error)
    verifier = auth.box.open(under.verifier, owner=_owner(flow.key))
    question = Question("", under.nonce, verifier, redirect_uri(auth, provider_id))
    try:
        return await auth.providers.at(provider).proven(question, answer)
    except Misconfigured as error:
        log.error("identity provider is misconfigured", provider=provider_id, error=error.message)
        raise unavailable() from None


async def _leave(auth: Auth, context: Context, under: _Under, proven: Proven) -> str:
    """A code for the client, as short-lived as the way to it takes."""
    trip = under.trip
    data = {
        "proven": asdict(proven),
        "challenge": trip.challenge,
        "provider_id": trip.provider_id,
        "session_id": trip.session_id,
    }
    lives_s = auth.config(context.tenant_id).oauth_code_s
    code, _ = await flows.begin(auth, context, FlowKind.OAUTH_CODE, user_id=trip.user_id, data=data, ttl_s=lives_s)
    return code


async def finish(auth: Auth, context: Context, code: str, verifier: str, *, device: Device) -> SignedIn | Challenge:
    """Whoever the provider vouched for is signed in, and is a user from now on if they were none.

    `Refusal` IDENTITY_NOT_LINKED if their address is an account's that this identity does not belong to.
    """
    flow = await redeem(auth, context, code, verifier)
    if flow.user_id:
        raise flows.over()  # it is to be linked to a session's user, and signs nobody in
    proven = Proven(**flow.data["proven"])
    user = await _user_of(auth, context, proven)
    return await sign_in.sign_in(auth, context, user, (FEDERATED,), device=device, after=flow)


async def redeem(auth: Auth, context: Context, code: str, verifier: str) -> Flow:
    """The flow of the code, if the verifier is that of its challenge: `Refusal` FLOW_OVER or VERIFIER_WRONG."""
    flow = await flows.attempt(auth, context, FlowKind.OAUTH_CODE, code)
    fits = _VERIFIER.fullmatch(verifier) is not None
    challenge = create_s256_code_challenge(verifier) if fits else ""
    if not hmac.compare_digest(str(challenge), str(flow.data["challenge"])):
        await sign_in.failed(auth, context, None, FEDERATED, "oauth.verifier")
        raise Refusal("VERIFIER_WRONG", "this verifier is not that of the challenge", rule="oauth.verifier")
    return flow


async def _user_of(auth: Auth, context: Context, proven: Proven) -> User:
    database, tenant_id = auth.database, context.tenant_id
    identity = await identities.find(database, None, tenant_id, proven.issuer, proven.subject)
    if identity is None:
        return await _register(auth, context, proven)
    await identities.used(database, identity, auth.platform.clock.now())
    user = await users.load(database, None, tenant_id, identity.user_id)
    if user is None:
        raise flows.over()
    return user


async def _register(auth: Auth, context: Context, proven: Proven) -> User:
    """A new user, unless the address is somebody's already.

    That is not linked by itself: who has the address at the provider now need not be who registered with it here (a
    mailbox that changed hands, a provider that is wrong once), and would get an account with money in it. Its owner
    signs in as ever, and links.

    It may be said that there is such an account: whoever is told has shown that the address is theirs, to a provider
    that the tenant trusts with that, and would learn the same from a password reset. Of an address that was not
    verified nothing is said, and nothing kept.
    """
    try:
        registered = await auth.transaction(context.tenant_id, lambda session: _add(auth, context, session, proven))
    except identities.Raced:  # by the same person in another tab; what they made is there now
        registered = await auth.transaction(context.tenant_id, lambda session: _add(auth, context, session, proven))
    if isinstance(registered, User):
        return registered
    await sign_in.failed(auth, context, registered.owner, FEDERATED, "oauth.not_linked")
    raise Refusal(
        "IDENTITY_NOT_LINKED",
        "there is an account with this e-mail address: sign in to it, and link this identity there",
        rule="oauth.not_linked",
    )


@dataclass(frozen=True, slots=True)
class _Taken:
    owner: User


async def _add(auth: Auth, context: Context, session: Session, proven: Proven) -> User | _Taken:
    database, tenant_id, now = auth.database, context.tenant_id, auth.platform.clock.now()
    there = await identities.find(database, session, tenant_id, proven.issuer, proven.subject)
    user = there and await users.load(database, session, tenant_id, there.user_id)
    if user:
        return user
    if proven.email:
        owner = await users.by_identifier(database, session, tenant_id, parse_email(proven.email, "email"))
        if owner:
            return _Taken(owner)
    user = User(
        tenant_id,
        new_id(),
        now,
        roles=auth.config(tenant_id).default_roles,
        email=proven.email,
        name=proven.name,
        locale=proven.locale,
    )
    identity = identity_of(user, proven, auth)
    with identities.unique():
        verified = ["email"] if user.email else []
        await registration.insert(auth, context, session, user, method="oauth", verified=verified)
    await identities.insert(database, session, identity)
    await record_linked(auth, session, context, identity, actor=user.id)
    return user


def identity_of(user: User, proven: Proven, auth: Auth) -> Identity:
    now = auth.platform.clock.now()
    label = proven.email or proven.name
    return Identity(new_id(), user.tenant_id, user.id, proven.issuer, proven.subject, label, now, now)


async def record_linked(
    auth: Auth, session: Session, context: Context, identity: Identity, *, actor: str | None = None
) -> None:
    told = IdentityLinked(user_id=identity.user_id, issuer=identity.issuer)
    await record(
        auth, session, context, "identity.linked", user_id=identity.user_id, actor=actor, event=told,
        resource=identity.id, after={"issuer": identity.issuer},
    )  # fmt: skip


def redirect_uri(auth: Auth, provider_id: str) -> str:
    """Nobody's to choose: a provider that is shown another one than it was registered with refuses."""
    return f"{auth.settings.public_url.rstrip('/')}/oauth/callback/{provider_id}"


def address_with(trip: Trip, **params: str) -> str:
    """The client's address, and what it is told."""
    given = {**params, **({"state": trip.client_state} if trip.client_state else {})}
    return str(add_params_to_uri(trip.return_url, list(given.items())))


def tenant_and_token(state: str) -> tuple[str, str]:
    """The provider sends browsers to one address, whatever the tenant: which one it is, the state says."""
    tenant_id, _, token = state.partition(".")
    return tenant_id, token


def _state(context: Context, token: str) -> str:
    return f"{context.tenant_id}.{token}"


def _owner(key: str) -> str:
    return f"oauth flow {key}"


def _hashed(browser: str) -> str:
    return sha256(browser.encode()).hexdigest()


def _declined(error: str) -> Refusal:
    if error in _CHANGED_MINDS:
        return Refusal(
            "PROVIDER_DECLINED", "the identity provider was not allowed to say who you are", rule="oauth.denied"
        )
    return invalid("oauth.error")
