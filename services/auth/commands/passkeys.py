"""Passkeys: registered, used, renamed, removed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from libs.core.context import Context
from libs.core.errors import InvalidInput, Refusal
from libs.core.mongo import Session
from services.auth.commands import factors, flows
from services.auth.commands.auth import Auth, record
from services.auth.commands.devices import Device
from services.auth.commands.fresh import demand_fresh, demand_level
from services.auth.commands.sign_in import Challenge, failed, sign_in
from services.auth.commands.tokens import SignedIn
from services.auth.commands.totp import account_of
from services.auth.domain.flows import FlowKind
from services.auth.domain.identities import signs_in_without
from services.auth.domain.passkeys import (
    MAX_NAME,
    MAX_PASSKEYS,
    NewCredential,
    Passkey,
    PasskeyRefused,
    RelyingParty,
    challenge_of,
    check_assertion,
    check_registration,
    login_options,
    named_passkey,
    passkey_id,
    registration_options,
)
from services.auth.domain.users import User
from services.auth.store import identities, passkeys as stored, users


@dataclass(frozen=True, slots=True)
class Ceremony:
    """`options` are for the browser's `navigator.credentials`, as JSON."""

    flow_token: str
    options: dict[str, Any]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Registered:
    passkey: Passkey
    recovery_codes: list[str]


async def start_registration(auth: Auth, context: Context) -> Ceremony:
    user = await demand_fresh(auth, context)
    existing = await stored.of_user(auth.database, None, user.tenant_id, user.id)
    _refuse_too_many(existing)
    data = {"session_id": context.caller.session_id}
    token, flow = await flows.begin(auth, context, FlowKind.PASSKEY_SETUP, user_id=user.id, data=data)
    options = registration_options(
        await _party(auth, user.tenant_id),
        user_id=user.id,
        account=account_of(user),
        name=user.name,
        challenge=challenge_of(token),
        existing=existing,
    )
    return Ceremony(token, options, flow.expires_at)


async def finish_registration(
    auth: Auth, context: Context, flow_token: str, answer: Mapping[str, Any], name: str
) -> Registered:
    """`Refusal` PASSKEY_REFUSED if the answer is not good, PASSKEY_TAKEN if it is somebody's already."""
    flow = await factors.attempt_own(auth, context, FlowKind.PASSKEY_SETUP, flow_token)
    try:
        made = check_registration(await _party(auth, flow.tenant_id), answer, challenge_of(flow_token))
    except PasskeyRefused:
        raise _refused() from None
    passkey = _passkey(made, flow.tenant_id, flow.user_id, _name(name), auth.platform.clock.now())

    async def work(session: Session, user: User) -> Registered:
        demand_level(auth, context, user)
        await flows.finish(auth, session, flow)
        _refuse_too_many(await stored.of_user(auth.database, session, user.tenant_id, user.id))
        await stored.insert(auth.database, session, passkey)
        details = {"name": passkey.name, "synced": passkey.synced}
        codes = await factors.changed(
            auth, context, session, user, "passkey.added", resource=passkey.id, details=details
        )
        return Registered(passkey, codes)

    return await factors.change(auth, context, work)


async def rename_passkey(auth: Auth, context: Context, passkey_id: str, name: str) -> Passkey:
    new_name = _name(name)

    async def work(session: Session) -> Passkey:
        passkey = await _own(auth, context, session, passkey_id)
        await stored.rename(auth.database, session, passkey, new_name)
        await record(
            auth,
            session,
            context,
            "passkey.renamed",
            user_id=passkey.user_id,
            resource=passkey.id,
            before={"name": passkey.name},
            after={"name": new_name},
        )
        return replace(passkey, name=new_name)

    return await auth.transaction(context.tenant_id, work)


async def remove_passkey(auth: Auth, context: Context, passkey_id: str) -> None:
    await demand_fresh(auth, context)

    async def work(session: Session, user: User) -> None:
        passkey = await _own(auth, context, session, passkey_id)
        await stored.remove(auth.database, session, passkey)
        await _refuse_last_way_in(auth, session, user)
        details = {"name": passkey.name}
        await factors.changed(auth, context, session, user, "passkey.removed", resource=passkey.id, details=details)

    await factors.change(auth, context, work)


async def _refuse_last_way_in(auth: Auth, session: Session, user: User) -> None:
    left = await stored.of_user(auth.database, session, user.tenant_id, user.id)
    others = len(left) + len(await identities.of_user(auth.database, session, user.tenant_id, user.id))
    if not signs_in_without(replace(user, second_factors=()), others):
        raise Refusal("LAST_WAY_IN", "this is the only way that you can sign in", rule="identity.last")


async def start_login(auth: Auth, context: Context) -> Ceremony:
    """Without a name: whoever has a passkey for this site on the device chooses it there."""
    await auth.throttle.may_begin_passkey_login(context.tenant_id, context.client.address)
    token, flow = await flows.begin(auth, context, FlowKind.PASSKEY_LOGIN)
    party = await _party(auth, context.tenant_id)
    return Ceremony(token, login_options(party, challenge=challenge_of(token), verify_user=True), flow.expires_at)


async def finish_login(
    auth: Auth, context: Context, flow_token: str, answer: Mapping[str, Any], device: Device
) -> SignedIn | Challenge:
    """The device verified who holds it, so this is two factors at once. One answer, whatever is wrong."""
    flow = await flows.attempt(auth, context, FlowKind.PASSKEY_LOGIN, flow_token)
    passkey = await _named(auth, None, context.tenant_id, answer)
    user = await users.load(auth.database, None, passkey.tenant_id, passkey.user_id) if passkey else None

    async def work(session: Session) -> bool:
        challenge = challenge_of(flow_token)
        if not (user and passkey and await _use(auth, session, passkey, answer, challenge, verify_user=True)):
            return False
        await flows.finish(auth, session, flow)
        return True

    if not await auth.platform.mongo.transaction(work) or not (user and passkey):
        await failed(auth, context, user, "passkey", "passkey_refused")
        raise _refused()
    return await sign_in(auth, context, user, (passkey.method, "mfa"), device=device)


async def use_passkey(
    auth: Auth, session: Session, user: User, answer: Mapping[str, Any], challenge: bytes
) -> str | None:
    """As a second factor of `user`: how it was proven, None if it was not. Holding the device is enough for that."""
    passkey = await _named(auth, session, user.tenant_id, answer)
    if passkey is None or passkey.user_id != user.id:
        return None
    good = await _use(auth, session, passkey, answer, challenge, verify_user=False)
    return passkey.method if good else None


async def options_for(auth: Auth, user: User, flow_token: str) -> dict[str, Any] | None:
    """What the browser is asked for, where `user` shows a factor in a flow. None if they have no passkey."""
    existing = await stored.of_user(auth.database, None, user.tenant_id, user.id)
    if not existing:
        return None
    party = await _party(auth, user.tenant_id)
    return login_options(party, challenge=challenge_of(flow_token), allowed=existing, verify_user=False)


async def second_factor_options(auth: Auth, context: Context, flow_token: str) -> dict[str, Any] | None:
    flow = await flows.look(auth, context, FlowKind.SECOND_FACTOR, flow_token)
    user = await users.load(auth.database, None, flow.tenant_id, flow.user_id)
    return await options_for(auth, user, flow_token) if user else None


async def _named(auth: Auth, session: Session | None, tenant_id: str, answer: Mapping[str, Any]) -> Passkey | None:
    """The passkey that the answer says it is of."""
    try:
        return await stored.load(auth.database, session, tenant_id, named_passkey(answer))
    except PasskeyRefused:
        return None


async def _use(
    auth: Auth, session: Session, passkey: Passkey, answer: Mapping[str, Any], challenge: bytes, *, verify_user: bool
) -> bool:
    try:
        party = await _party(auth, passkey.tenant_id)
        proven = check_assertion(party, passkey, answer, challenge, verify_user=verify_user)
    except PasskeyRefused:
        return False
    return await stored.record_use(
        auth.database,
        session,
        passkey,
        sign_count=proven.sign_count,
        backed_up=proven.backed_up,
        at=auth.platform.clock.now(),
    )


async def _own(auth: Auth, context: Context, session: Session, passkey_id: str) -> Passkey:
    passkey = await stored.load(auth.database, session, context.tenant_id, passkey_id)
    if passkey is None or passkey.user_id != context.caller.user_id:
        raise Refusal("FACTOR_NOT_FOUND", "you have no such passkey", rule="factor.exists")
    return passkey


async def _party(auth: Auth, tenant_id: str) -> RelyingParty:
    tenant, config = await auth.platform.tenants.get(tenant_id), auth.config(tenant_id)
    return RelyingParty.of(
        tenant.name,
        configured_id=config.passkey_rp_id,
        configured_origins=config.passkey_origins,
        hosts=tenant.hosts,
        public_url=auth.settings.public_url,
    )


def _passkey(made: NewCredential, tenant_id: str, user_id: str, name: str, at: datetime) -> Passkey:
    return Passkey(
        id=passkey_id(made.credential_id),
        tenant_id=tenant_id,
        user_id=user_id,
        credential_id=made.credential_id,
        public_key=made.public_key,
        sign_count=made.sign_count,
        name=name,
        synced=made.synced,
        backed_up=made.backed_up,
        transports=made.transports,
        aaguid=made.aaguid,
        created_at=at,
    )


def _name(name: str) -> str:
    plain = name.strip()
    if not 0 < len(plain) <= MAX_NAME or not plain.isprintable():
        raise InvalidInput(f"a passkey's name has 1 to {MAX_NAME} characters", field="input.name")
    return plain


def _refuse_too_many(existing: list[Passkey]) -> None:
    if len(existing) >= MAX_PASSKEYS:
        raise Refusal("PASSKEY_LIMIT", "remove a passkey first", rule="passkey.limit", limit=MAX_PASSKEYS)


def _refused() -> Refusal:
    return Refusal("PASSKEY_REFUSED", "this passkey is not accepted", rule="passkey")
