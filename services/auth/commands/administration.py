"""Users, administered by those who may: suspended, resumed, deleted, told to reset their password, signed out.

Nobody administers themselves here, nor anybody who holds more than they do.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

from libs.core.context import Caller, Context
from libs.core.errors import Forbidden, InvalidInput, NotFound, Refusal, Unauthenticated
from libs.core.mongo import Session
from libs.core.revocations import RevokedTokens
from services.auth.commands import devices, profile
from services.auth.commands.auth import Auth, record
from services.auth.commands.fresh import demand_fresh
from services.auth.commands.sessions import REVOKED_FOR, end_sessions
from services.auth.commands.sign_in import notify
from services.auth.domain.sessions import EndReason
from services.auth.domain.users import User, UserStatus
from services.auth.events import UserDeleted, UserResumed, UserSuspended
from services.auth.store import api_keys, devices as known_devices, factors, identities, passkeys, users

# Whoever issues a token in this moment may not have heard, and clocks differ: so much younger tokens are refused, too.
_CLOCKS_DIFFER = timedelta(seconds=5)
_REASON_CHARS = 500

# What is done to the user of that id, for that reason.
ByReason = Callable[[Auth, Context, str, str], Awaitable[User]]


async def suspend(auth: Auth, context: Context, user_id: str, reason: str) -> User:
    """Signed out everywhere, and not let in again. Does nothing to one who is suspended."""
    reason = reason_of(reason)
    refuse_oneself(context, user_id)

    async def work(session: Session) -> User:
        before = await target(auth, context, session, "user:suspend", user_id)
        if not before.active:
            return before
        after = await void_tokens(auth, session, replace(before, status=UserStatus.SUSPENDED))
        after = await users.save(auth.database, session, before, after)
        await end_sessions(auth, context, session, after.tenant_id, after.id, reason=EndReason.SUSPENDED, actor=None)
        told = UserSuspended(user_id=after.id, reason=reason)
        await record(auth, session, context, "user.suspended", user_id=after.id, event=told, reason=reason)
        return after

    return await change(auth, context, work)


async def resume(auth: Auth, context: Context, user_id: str, reason: str) -> User:
    """Takes a suspension back. Does nothing if there is none."""
    reason = reason_of(reason)
    refuse_oneself(context, user_id)

    async def work(session: Session) -> User:
        before = await target(auth, context, session, "user:suspend", user_id)
        if before.active:
            return before
        after = await users.save(auth.database, session, before, replace(before, status=UserStatus.ACTIVE))
        told = UserResumed(user_id=after.id, reason=reason)
        await record(auth, session, context, "user.resumed", user_id=after.id, event=told, reason=reason)
        return after

    return await change(auth, context, work)


async def delete(auth: Auth, context: Context, user_id: str, reason: str) -> User:
    """For good: what they signed in with is gone, and what they were called is free for others. The id stays theirs."""
    reason = reason_of(reason)
    refuse_oneself(context, user_id)
    await demand_fresh(auth, context)

    async def work(session: Session) -> User:
        before = await target(auth, context, session, "user:delete", user_id)
        await notify(auth, session, before, "account_deleted")
        nobody = User(before.tenant_id, before.id, before.created_at, before.kind, UserStatus.DELETED)
        after = await void_tokens(
            auth, session, replace(nobody, version=before.version, tokens_from=before.tokens_from)
        )
        after = await users.save(auth.database, session, before, after)
        await end_sessions(auth, context, session, after.tenant_id, after.id, reason=EndReason.DELETED, actor=None)
        await _remove_credentials(auth, context, session, after)
        told = UserDeleted(user_id=after.id, reason=reason)
        await record(
            auth, session, context, "user.deleted", user_id=after.id, event=told, reason=reason,
            before={"roles": list(before.roles), "kind": before.kind},
        )  # fmt: skip
        return after

    return await change(auth, context, work)


async def force_reset(auth: Auth, context: Context, user_id: str, reason: str) -> User:
    """Signed out everywhere, and let in again by way of a password reset alone, second factor included.

    `Refusal` RESET_IMPOSSIBLE if a code for that could not be sent anywhere.
    """
    reason = reason_of(reason)
    refuse_oneself(context, user_id)

    async def work(session: Session) -> User:
        before = await target(auth, context, session, "user:reset", user_id)
        if not (before.email or before.phone) or before.kind == "service":
            raise Refusal("RESET_IMPOSSIBLE", "there is no address to send a code to: suspend them", rule="user.reset")
        after = await users.save(auth.database, session, before, replace(before, must_reset=True))
        await devices.forget_trust(auth, session, after)
        await end_sessions(auth, context, session, after.tenant_id, after.id, reason=EndReason.OPERATOR, actor=None)
        await record(auth, session, context, "password.reset_forced", user_id=after.id, reason=reason)
        await notify(auth, session, after, "password_reset_forced")
        return after

    return await change(auth, context, work)


async def revoke_sessions(auth: Auth, context: Context, user_id: str, reason: str, *, only: str = "") -> int:
    """How many there were. The user can sign in again."""
    reason = reason_of(reason)

    async def work(session: Session) -> int:
        user = await target(auth, context, session, "session:revoke", user_id)
        ended = await end_sessions(
            auth, context, session, user.tenant_id, user.id, only=only, reason=EndReason.OPERATOR, actor=None
        )
        if ended:
            await record(auth, session, context, "sessions.revoked", user_id=user.id, reason=reason)
        return len(ended)

    return await auth.transaction(context.tenant_id, work, revokes=True)


def demand_tenant(context: Context, action: str) -> None:
    """`Forbidden` unless the caller may do `action` with what is the tenant's, and not only with what is their own."""
    scope = context.platform.access.scope(context.caller, action)
    if not scope.permits(owner_id=None, tenant_id=context.tenant_id, id=None):
        raise Forbidden(f"this needs the permission {action}:tenant", permission=action)


async def seen(auth: Auth, context: Context, action: str, user_id: str) -> User | None:
    """One whom the caller may do `action` with; None, too, if there is none."""
    user = await users.load(auth.database, None, context.tenant_id, user_id)
    scope = auth.platform.access.scope(context.caller, action)
    if user is None or not scope.permits(owner_id=user.id, tenant_id=user.tenant_id, id=user.id):
        return None
    return user


async def target(
    auth: Auth, context: Context, session: Session, action: str, user_id: str, field: str = "input.userId"
) -> User:
    """Whom something is done to, as they are in this transaction.

    `NotFound` if the caller may not do it to them, in the same words as if there were none; a `Refusal` with the code
    USER_OUTRANKS_YOU if they hold more than the caller.
    """
    access = auth.platform.access
    await demand_author(auth, context, session)
    user = await users.load(auth.database, session, context.tenant_id, user_id)
    scope = access.scope(context.caller, action)
    if user is None or user.status is UserStatus.DELETED:
        raise _not_found(field)
    if not scope.permits(owner_id=user.id, tenant_id=user.tenant_id, id=user.id):
        raise _not_found(field)
    if user.id != context.caller.subject and (beyond := access.outranks(caller_of(user), context.caller)):
        raise Refusal(
            "USER_OUTRANKS_YOU", "they hold permissions that you do not", rule="administration.rank", beyond=beyond
        )
    return user


async def demand_author(auth: Auth, context: Context, session: Session) -> None:
    """`Unauthenticated` unless whoever asks is, in this transaction, still who their token says.

    A token is refused a moment after its roles were taken. Of two administrators who take each other's in that moment,
    one is first: the log is one chain, so the other's transaction sees what the first has done.
    """
    author = await users.load(auth.database, session, context.tenant_id, context.caller.user_id)
    if author is None or not author.active or set(author.roles) != set(context.caller.roles):
        raise Unauthenticated("your roles are not what the token says: refresh it")


def caller_of(user: User) -> Caller:
    """Who they would be with a token of their own."""
    return Caller(user.tenant_id, user.id, user.roles, kind=user.kind)


def refuse_oneself(context: Context, user_id: str) -> None:
    """Neither by mistake, after which nobody may be left to take it back, nor to keep what others take away."""
    if user_id == context.caller.user_id:
        raise Refusal("NOT_TO_ONESELF", "somebody else has to do this to you", rule="administration.oneself")


async def void_tokens(auth: Auth, session: Session, user: User) -> User:
    """The access tokens that they have are refused everywhere within a second or two; their sessions go on."""
    now = auth.platform.clock.now()
    issued_until = now.replace(microsecond=0) + _CLOCKS_DIFFER
    if user.tokens_from:  # what was issued since the last time may be from then, which is yet to come
        issued_until = max(issued_until, user.tokens_from)
    revoked = RevokedTokens(user.tenant_id, user.id, issued_until, now + REVOKED_FOR)
    await auth.platform.revocations.add(session, [revoked])
    return replace(user, tokens_from=issued_until + timedelta(seconds=1))


async def _remove_credentials(auth: Auth, context: Context, session: Session, user: User) -> None:
    database, tenant_id = auth.database, user.tenant_id
    await factors.remove_totp(database, session, tenant_id, user.id)
    await factors.remove_recovery_codes(database, session, tenant_id, user.id)
    await passkeys.remove_all(database, session, tenant_id, user.id)
    await identities.delete_of(database, session, tenant_id, user.id)
    await known_devices.remove_all(database, session, tenant_id, user.id)
    by, at = context.caller.user_id, auth.platform.clock.now()
    await api_keys.revoke_all(database, session, tenant_id, user.id, at=at, by=by)


async def change(auth: Auth, context: Context, work: Callable[[Session], Awaitable[User]]) -> User:
    changed = await auth.transaction(context.tenant_id, work, revokes=True)
    await profile.forget(auth, changed)
    return changed


def reason_of(text: str) -> str:
    stripped = text.strip()
    if not 1 <= len(stripped) <= _REASON_CHARS or not stripped.isprintable():
        raise InvalidInput(f"say why, in 1 to {_REASON_CHARS} characters", field="input.reason")
    return stripped


def _not_found(field: str) -> NotFound:
    return NotFound("there is no such user", field=field)
