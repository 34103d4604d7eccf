"""The devices that somebody signed in on: known ones are slowed down less, trusted ones are a second factor."""

from dataclasses import dataclass, replace
from datetime import timedelta

from libs.core.context import Context
from libs.core.mongo import Session
from services.auth.commands.auth import Auth, record
from services.auth.domain.devices import KNOWN_FOR, KnownDevice, device_id, new_device_token
from services.auth.domain.users import User
from services.auth.store import devices as stored

_NAME_CHARS, _AGENT_CHARS = 100, 256


@dataclass(frozen=True, slots=True)
class Device:
    """What a client says of itself: the token that it was given here before, if any, and a name for people to read."""

    token: str = ""
    name: str = ""


async def known(auth: Auth, user: User | None, device: Device, session: Session | None = None) -> KnownDevice | None:
    """As `user` has it. Asks the database as often for nobody."""
    tenant_id, user_id = (user.tenant_id, user.id) if user else ("", "")
    id_ = device_id(tenant_id, user_id, device.token)
    if id_ is None:
        return None
    return await stored.load(auth.database, session, tenant_id, user_id, id_, auth.platform.clock.now())


async def trusted(auth: Auth, user: User, device: Device) -> bool:
    seen = await known(auth, user, device)
    return seen is not None and seen.trusted(auth.platform.clock.now())


async def remember(
    auth: Auth, session: Session, context: Context, user: User, device: Device, *, trust: bool = False
) -> str:
    """The token that this device has from now on: a new one, if it had none or another user's.

    And a new one as soon as it is trusted: whoever came to know the old one knows nothing that is trusted.
    """
    now = auth.platform.clock.now()
    before, token = await known(auth, user, device, session), device.token
    if before and trust:
        await stored.remove(auth.database, session, user.tenant_id, user.id, before.id)
    if before is None or trust:
        token = new_device_token()
    id_ = device_id(user.tenant_id, user.id, token) or ""
    config = auth.config(user.tenant_id)
    if before is None:
        await stored.keep_latest(auth.database, session, user.tenant_id, user.id, config.devices_most - 1)
    before = before or KnownDevice(id_, user.tenant_id, user.id, "", "", "", now, now, now)
    seen = replace(
        before,
        id=id_,
        name=device.name[:_NAME_CHARS] or before.name,
        agent=context.client.agent[:_AGENT_CHARS],
        address=context.client.address,
        last_seen_at=now,
        expires_at=now + KNOWN_FOR,
        trusted_until=now + timedelta(days=config.trusted_device_days) if trust else before.trusted_until,
    )
    await stored.put(auth.database, session, seen)
    return token


async def forget_trust(auth: Auth, session: Session, user: User) -> None:
    """Whoever trusted them may have been somebody else."""
    await stored.distrust_all(auth.database, session, user.tenant_id, user.id)


async def remove_device(auth: Auth, context: Context, device_id: str) -> bool:
    """One of the caller's: it is a stranger from now on, neither trusted nor known. False if there was none."""
    user_id = context.caller.user_id

    async def work(session: Session) -> bool:
        removed = await stored.remove(auth.database, session, context.tenant_id, user_id, device_id)
        if removed:
            await record(auth, session, context, "device.removed", user_id=user_id, resource=device_id)
        return removed

    return await auth.transaction(context.tenant_id, work)
