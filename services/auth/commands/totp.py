"""Authenticator apps: set up, confirmed by a first code, taken away."""

from dataclasses import dataclass
from datetime import datetime

from libs.core.context import Context
from libs.core.errors import Misconfigured, Refusal
from libs.core.mongo import Session
from services.auth.commands import factors, flows
from services.auth.commands.auth import Auth
from services.auth.commands.codes import wrong_code
from services.auth.commands.fresh import demand_fresh, demand_level
from services.auth.domain.flows import FlowKind
from services.auth.domain.totp import Totp, accepted_step, new_totp_secret, provisioning_uri, sealed_for
from services.auth.domain.users import User
from services.auth.store import factors as stored

_SEALED_AT_ONCE = 100
_LOST_MOST = 1_000


@dataclass(frozen=True, slots=True)
class TotpSetup:
    """For the user's app: `secret` in base32, or `uri`, which says the same and more."""

    flow_token: str
    secret: str
    uri: str
    expires_at: datetime


async def start_totp(auth: Auth, context: Context) -> TotpSetup:
    """Counts for nothing before it is confirmed; until then the app that they have, if any, stays."""
    user = await demand_fresh(auth, context)
    secret = new_totp_secret()
    data = {
        "sealed": auth.box.seal(secret, owner=sealed_for(user.tenant_id, user.id)),
        "session_id": context.caller.session_id,
    }
    token, flow = await flows.begin(auth, context, FlowKind.TOTP_SETUP, user_id=user.id, data=data)
    tenant = await auth.platform.tenants.get(user.tenant_id)
    uri = provisioning_uri(secret, issuer=tenant.name, account=account_of(user))
    return TotpSetup(token, secret, uri, flow.expires_at)


async def confirm_totp(auth: Auth, context: Context, flow_token: str, code: str) -> list[str]:
    """The app is a second factor from now on. The answer is recovery codes, if the user had none."""
    flow = await factors.attempt_own(auth, context, FlowKind.TOTP_SETUP, flow_token)
    now = auth.platform.clock.now()
    owner = sealed_for(flow.tenant_id, flow.user_id)
    secret = auth.box.open(flow.data["sealed"], owner=owner)
    step = accepted_step(secret, code, now, last_step=0)
    if step is None:
        raise wrong_code()
    sealed = auth.box.seal(secret, owner=owner)
    confirmed = Totp(flow.tenant_id, flow.user_id, sealed, auth.box.key_id, step, now)

    async def work(session: Session, user: User) -> list[str]:
        demand_level(auth, context, user)
        await flows.finish(auth, session, flow)
        await stored.put_totp(auth.database, session, confirmed)
        replaced = factors.TOTP in user.second_factors
        return await factors.changed(auth, context, session, user, "totp.replaced" if replaced else "totp.enabled")

    return await factors.change(auth, context, work)


async def remove_totp(auth: Auth, context: Context) -> None:
    await demand_fresh(auth, context)

    async def work(session: Session, user: User) -> None:
        if not await stored.remove_totp(auth.database, session, user.tenant_id, user.id):
            raise Refusal("FACTOR_NOT_FOUND", "there is no authenticator app to remove", rule="factor.exists")
        await factors.changed(auth, context, session, user, "totp.disabled")

    await factors.change(auth, context, work)


async def seal_anew(auth: Auth) -> int:
    """Those that are sealed with an older key, so that it can be given up: how many there were. A job calls it.

    `Misconfigured` once all that can be is done, or too many cannot, if there are some that none of the keys opens.
    """
    total, lost = 0, list[str]()
    while len(lost) < _LOST_MOST and (
        found := await stored.sealed_otherwise(auth.database, auth.box.key_id, _SEALED_AT_ONCE, but=lost)
    ):
        for totp in found:
            owner = sealed_for(totp.tenant_id, totp.user_id)
            try:
                secret = auth.box.open(totp.sealed, owner=owner)
            except Misconfigured:
                lost.append(totp.key)
            else:
                await stored.seal_anew(auth.database, totp, auth.box.seal(secret, owner=owner), auth.box.key_id)
                total += 1
    if lost:
        raise Misconfigured(f"secrets of authenticator apps: {len(lost)} of them open with none of the keys")
    return total


def account_of(user: User) -> str:
    """What the user will know this account by, in a list of many."""
    return user.email or user.phone or user.username or user.name or user.id
