"""Signing keys, in an emergency. They are of all tenants, so only the platform's own administrators see to them."""

from datetime import timedelta

from libs.core.context import Context
from libs.core.mongo import Session
from libs.core.revocations import RevokedKey
from services.auth.commands.administration import demand_author, reason_of
from services.auth.commands.auth import Auth, record
from services.auth.commands.fresh import demand_fresh
from services.auth.events import SigningKeyWithdrawn
from services.auth.keys import SHOWN_AFTER, SigningKey

# Beyond the last token that anybody could sign with it and have taken for ours: services hold on to keys for an hour.
_REVOKED_FOR = timedelta(hours=2) + SHOWN_AFTER


def known(auth: Auth, context: Context) -> list[SigningKey]:
    auth.platform.access.demand_shared(context.caller, "signingkey:read")
    return auth.keys.all


async def withdraw(auth: Auth, context: Context, kid: str, reason: str) -> SigningKey:
    """Nothing that it signed is trusted any more, within a second or two: everybody has to refresh. Another takes over.

    `NotFound` if there is none of that id, or it was withdrawn before.
    """
    auth.platform.access.demand_shared(context.caller, "signingkey:manage")
    reason = reason_of(reason)
    await demand_fresh(auth, context)
    now = auth.platform.clock.now()

    async def work(session: Session) -> SigningKey:
        await demand_author(auth, context, session)
        key = await auth.keys.withdraw(session, kid)
        await auth.platform.revocations.add(session, [RevokedKey(kid, now + _REVOKED_FOR)])
        told = SigningKeyWithdrawn(kid=kid, reason=reason)
        await record(
            auth, session, context, "signing_key.withdrawn", user_id="", event=told, resource=kid, reason=reason
        )
        return key

    key = await auth.transaction(context.tenant_id, work)
    await auth.keys.replace()
    await auth.tell()
    return key
