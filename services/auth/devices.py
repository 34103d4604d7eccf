"""Devices: a token that a client keeps, and what it is worth when its user comes back.

It is reputation (a known device is slowed down less by somebody else's guesses) and, once its user said so after two
factors, trust: for a while it stands in for the second. It never stands in for a fresh proof.
"""

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from libs.core.context import Context
from libs.core.mongo import Session
from services.auth.domain.devices import KNOWN_FOR, KnownDevice, device_id, new_device_token
from services.auth.domain.users import User
from services.auth.store import devices as store

if TYPE_CHECKING:
    from services.auth.commands.auth import Auth

NAME_LIMIT, AGENT_LIMIT = 64, 256


async def known(auth: "Auth", tenant_id: str, user_id: str, token: str) -> bool:
    """Whether this user has signed in with it before."""
    return await _find(auth, None, tenant_id, user_id, token) is not None


async def trusted(auth: "Auth", tenant_id: str, user_id: str, token: str) -> bool:
    """Whether it stands in for this user's second factor."""
    found = await _find(auth, None, tenant_id, user_id, token)
    return found is not None and found.trusted(auth.platform.clock.now())


async def seen(
    auth: "Auth", session: Session, context: Context, user: User, token: str, name: str, *, trust: bool = False
) -> str:
    """Notes that `user` signed in with it; answers the token that the client has to keep from now on.

    That is the same if it was this user's, and a new one if not: what somebody else knows must not become this user's.
    For the same reason a device that becomes trusted gets a new one.
    """
    now, config = auth.platform.clock.now(), auth.config(user.tenant_id)
    found = await _find(auth, session, user.tenant_id, user.id, token)
    kept = found is not None and not trust
    if found and not kept:
        await store.remove(auth.database, session, user.tenant_id, user.id, found.id)
    given = token if kept else new_device_token()
    id_ = device_id(user.tenant_id, user.id, given)
    assert id_ is not None, "it is well formed"
    before = found or KnownDevice(id_, user.tenant_id, user.id, "", "", "", now, now, now)
    after = replace(
        before,
        id=id_,
        name=name.strip()[:NAME_LIMIT] or before.name,
        agent=context.client.agent[:AGENT_LIMIT],
        address=context.client.address,
        last_seen_at=now,
        expires_at=now + KNOWN_FOR,
        trusted_until=now + timedelta(days=config.trusted_device_days) if trust else before.trusted_until,
    )
    await store.put(auth.database, session, after)
    return given


async def distrust(auth: "Auth", session: Session, tenant_id: str, user_id: str) -> None:
    """What they were trusted on has changed: the password, or the factors. They stay known."""
    await store.distrust_all(auth.database, session, tenant_id, user_id)


async def _find(auth: "Auth", session: Session | None, tenant_id: str, user_id: str, token: str) -> KnownDevice | None:
    id_ = device_id(tenant_id, user_id, token)
    if id_ is None:
        return None
    return await store.load(auth.database, session, tenant_id, user_id, id_, auth.platform.clock.now())
