"""Recovery codes: made anew, and used up."""

from libs.core.context import Context
from libs.core.mongo import Session
from services.auth.commands import factors
from services.auth.commands.auth import Auth, record
from services.auth.commands.fresh import demand_fresh
from services.auth.commands.sign_in import notify
from services.auth.domain.recovery_codes import recovery_code_hash
from services.auth.domain.users import User
from services.auth.store import factors as stored, users


async def regenerate_recovery_codes(auth: Auth, context: Context) -> list[str]:
    """Ten new ones, to be shown once. Those before are good for nothing any more."""
    await demand_fresh(auth, context, level=2)

    async def work(session: Session, user: User) -> list[str]:
        # What is removed at the same time removes the codes with it: one of the two is done again.
        await users.save(auth.database, session, user, user)
        codes = await factors.make_recovery_codes(auth, session, user)
        await record(auth, session, context, "recovery_codes.made", user_id=user.id)
        await notify(auth, session, user, "recovery_codes_made")
        return codes

    return await factors.change(auth, context, work)


async def use_recovery_code(auth: Auth, context: Context, session: Session, user: User, code: str) -> bool:
    """Whether it was good, and is not any more. The user is told: they may not have been the one who used it."""
    code_hash = recovery_code_hash(user.tenant_id, user.id, code)
    if code_hash is None:
        return False
    left = await stored.use_recovery_code(auth.database, session, user.tenant_id, user.id, code_hash)
    if left is None:
        return False
    await record(
        auth,
        session,
        context,
        "recovery_code.used",
        user_id=user.id,
        actor=user.id,
        after={"left": left.left},
    )
    await notify(auth, session, user, "recovery_codes_low" if left.low else "recovery_code_used")
    return True
