"""Second factors: which a user has, and what follows when that changes."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from libs.core.context import Context
from libs.core.errors import Unauthenticated
from libs.core.events import EventData
from libs.core.mongo import Session
from services.auth.commands import devices, flows, profile
from services.auth.commands.auth import Auth, record
from services.auth.commands.sign_in import notify
from services.auth.domain.flows import Flow, FlowKind
from services.auth.domain.passkeys import Passkey
from services.auth.domain.recovery_codes import RecoveryCodes, new_recovery_codes, recovery_code_hashes
from services.auth.domain.totp import Totp
from services.auth.domain.users import User
from services.auth.events import MfaDisabled, MfaEnabled
from services.auth.store import factors as stored, passkeys as stored_passkeys, users

T = TypeVar("T")

TOTP, PASSKEY = "totp", "passkey"


@dataclass(frozen=True, slots=True)
class Factors:
    """What a user has."""

    totp: Totp | None
    passkeys: list[Passkey]
    recovery_codes: RecoveryCodes | None

    @property
    def kinds(self) -> tuple[str, ...]:
        return (TOTP,) * (self.totp is not None) + (PASSKEY,) * bool(self.passkeys)


async def factors_of(auth: Auth, tenant_id: str, user_id: str, session: Session | None = None) -> Factors:
    return Factors(
        await stored.totp(auth.database, session, tenant_id, user_id),
        await stored_passkeys.of_user(auth.database, session, tenant_id, user_id),
        await stored.recovery_codes(auth.database, session, tenant_id, user_id),
    )


async def change(auth: Auth, context: Context, work: Callable[[Session, User], Awaitable[T]]) -> T:
    """A transaction that changes what the caller has. `work` is given the caller, as they are in it."""

    async def with_caller(session: Session) -> tuple[User, T]:
        user = await users.load(auth.database, session, context.tenant_id, context.caller.user_id)
        if user is None or not user.active:
            raise Unauthenticated("the token's user is not active")
        return user, await work(session, user)

    user, result = await auth.transaction(context.tenant_id, with_caller)
    await profile.forget(auth, user)
    return result


async def attempt_own(auth: Auth, context: Context, kind: FlowKind, token: str) -> Flow:
    """A flow that this session began, one try the poorer: somebody else's is as good as none."""
    flow = await flows.attempt(auth, context, kind, token)
    if (flow.user_id, flow.data["session_id"]) != (context.caller.user_id, context.caller.session_id):
        raise flows.over()
    return flow


async def changed(
    auth: Auth,
    context: Context,
    session: Session,
    user: User,
    action: str,
    *,
    resource: str = "",
    details: Mapping[str, Any] | None = None,
) -> list[str]:
    """In the transaction that wrote or deleted a factor of `user`: what they have is noted, with all that follows.

    The answer is new recovery codes, to be shown once, if this is the first factor.
    """
    now = await factors_of(auth, user.tenant_id, user.id, session)
    # Saved even if it is the same: of two changes at once, each sees the other's, or is done again.
    await users.save(auth.database, session, user, replace(user, second_factors=now.kinds))
    await devices.forget_trust(auth, session, user)
    await record(
        auth,
        session,
        context,
        action,
        user_id=user.id,
        event=_told(user, now),
        resource=resource,
        before={"secondFactors": [*user.second_factors]},
        after={"secondFactors": [*now.kinds], **(details or {})},
    )
    await notify(auth, session, user, action.replace(".", "_"))
    if not now.kinds:
        await stored.remove_recovery_codes(auth.database, session, user.tenant_id, user.id)
    elif now.recovery_codes is None:
        return await make_recovery_codes(auth, session, user)
    return []


async def make_recovery_codes(auth: Auth, session: Session, user: User) -> list[str]:
    """In the place of those before. This is the one time that they are known."""
    codes = new_recovery_codes()
    hashes = recovery_code_hashes(user.tenant_id, user.id, codes)
    await stored.put_recovery_codes(auth.database, session, user.tenant_id, user.id, hashes, auth.platform.clock.now())
    return codes


def _told(user: User, now: Factors) -> EventData | None:
    """A kind came, or went: one at a time."""
    for kind in set(now.kinds) - set(user.second_factors):
        return MfaEnabled(user_id=user.id, method=kind, methods=[*now.kinds])
    for kind in set(user.second_factors) - set(now.kinds):
        return MfaDisabled(user_id=user.id, method=kind, methods=[*now.kinds])
    return None
