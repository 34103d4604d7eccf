"""Second factors that are lost for good: removed by somebody who has made sure, by other means, of who asks."""

from dataclasses import replace

from libs.core.context import Context
from libs.core.errors import Refusal
from libs.core.mongo import Session
from services.auth.commands import devices
from services.auth.commands.administration import change, reason_of, refuse_oneself, target
from services.auth.commands.auth import Auth, record
from services.auth.commands.fresh import demand_fresh
from services.auth.commands.sessions import end_sessions
from services.auth.commands.sign_in import notify
from services.auth.domain.sessions import EndReason
from services.auth.domain.users import User
from services.auth.events import MfaDisabled
from services.auth.store import factors, passkeys, users


async def remove_all(auth: Auth, context: Context, user_id: str, reason: str) -> User:
    """All that another user has, recovery codes included. They are signed out everywhere, and hear of it.

    Whoever has talked somebody into this may know the password: where there is an address to send a code to, it has to
    be reset first.
    """
    reason = reason_of(reason)
    refuse_oneself(context, user_id)
    await demand_fresh(auth, context)

    async def work(session: Session) -> User:
        before = await target(auth, context, session, "factor:manage", user_id)
        if not before.second_factors:
            raise Refusal("FACTOR_NOT_FOUND", "they have no second factor", rule="factor.exists")
        await factors.remove_totp(auth.database, session, before.tenant_id, before.id)
        await factors.remove_recovery_codes(auth.database, session, before.tenant_id, before.id)
        await passkeys.remove_all(auth.database, session, before.tenant_id, before.id)
        without = replace(before, second_factors=(), must_reset=bool(before.email or before.phone))
        after = await users.save(auth.database, session, before, without)
        await devices.forget_trust(auth, session, after)
        await end_sessions(auth, context, session, after.tenant_id, after.id, reason=EndReason.FACTORS, actor=None)
        for method in before.second_factors:
            told = MfaDisabled(user_id=after.id, method=method, methods=[])
            await record(auth, session, context, f"{method}.removed", user_id=after.id, event=told, reason=reason)
        await notify(auth, session, after, "second_factors_removed")
        return after

    return await change(auth, context, work)
