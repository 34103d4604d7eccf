"""Sessions: gone on with, looked at, ended."""

import secrets
from datetime import timedelta

from libs.core.context import Context
from libs.core.errors import Refusal
from libs.core.mongo import Session as Transaction
from libs.core.revocations import RevokedSession
from services.auth.commands.auth import Auth, record
from services.auth.commands.tokens import SignedIn, issue, successor
from services.auth.domain.flows import flow_key
from services.auth.domain.sessions import EndReason, Session
from services.auth.domain.users import User
from services.auth.events import SessionRevoked
from services.auth.store import sessions as stored, users
from services.auth.store.sessions import RefreshToken

# Beyond the longest life of an access token, by what clocks may differ.
REVOKED_FOR = timedelta(minutes=12)
_SEED_BYTES = 32
_TOKEN_CHARS = 128


async def refresh(auth: Auth, context: Context, token: str) -> SignedIn:
    """The next tokens of a session. A token is good once; used again, it ends the session, for one of two who had it
    was a thief.

    Except right afterwards: a client whose answer was lost, or that asked from several tabs at once, is answered with
    the same successor, as long as that has not been used itself.
    """

    async def work(session: Transaction) -> SignedIn | EndReason | None:
        found = await _of_token(auth, session, context, token)
        if found is None:
            return None
        stale, opened, user = found
        if stale.spent_at is None:
            return await _rotate(auth, session, token, stale, opened, user)
        next_token = successor(token, stale.seed)
        follower = await stored.load_token(auth.database, session, flow_key(next_token))
        grace = timedelta(seconds=auth.config(user.tenant_id).refresh_grace_s)
        if follower and follower.spent_at is None and auth.platform.clock.now() <= stale.spent_at + grace:
            return issue(auth, user, opened, next_token)
        await end_sessions(
            auth, context, session, user.tenant_id, user.id, only=opened.id, reason=EndReason.REPLAY, actor="auth"
        )
        return EndReason.REPLAY

    result = await auth.platform.mongo.transaction(work)
    if isinstance(result, SignedIn):
        return result
    if result is EndReason.REPLAY:
        await auth.tell()
    raise Refusal("SESSION_OVER", "this session is over: sign in again", rule="session.refresh")


async def _of_token(
    auth: Auth, session: Transaction, context: Context, token: str
) -> tuple[RefreshToken, Session, User] | None:
    if not 0 < len(token) <= _TOKEN_CHARS:
        return None
    found = await stored.load_token(auth.database, session, flow_key(token))
    if found is None:
        return None
    opened = await stored.load(auth.database, session, context.tenant_id, found.session_id)
    if opened is None or not opened.alive(auth.platform.clock.now()):
        return None
    user = await users.load(auth.database, session, opened.tenant_id, opened.user_id)
    return (found, opened, user) if user and user.active else None


async def _rotate(
    auth: Auth, session: Transaction, token: str, stale: RefreshToken, opened: Session, user: User
) -> SignedIn:
    now, seed = auth.platform.clock.now(), secrets.token_bytes(_SEED_BYTES)
    next_token = successor(token, seed)
    await stored.spend_token(auth.database, session, stale.key, now, seed)
    await stored.insert_token(auth.database, session, RefreshToken(flow_key(next_token), opened.id, opened.expires_at))
    idle_until = now + timedelta(hours=auth.config(user.tenant_id).session_idle_h)
    await stored.change(auth.database, session, opened.id, {"last_used_at": now, "idle_until": idle_until})
    return issue(auth, user, opened, next_token)


async def logout(auth: Auth, context: Context) -> None:
    caller = context.caller
    await end(auth, context, caller.user_id, only=caller.session_id, reason=EndReason.LOGOUT)


async def end(
    auth: Auth, context: Context, user_id: str, *, only: str = "", keep: str = "", reason: EndReason
) -> list[str]:
    """Of the caller's tenant. The ids of those that were ended."""
    tenant_id = context.tenant_id

    async def work(session: Transaction) -> list[str]:
        return await end_sessions(
            auth, context, session, tenant_id, user_id, only=only, keep=keep, reason=reason, actor=None
        )

    return await auth.transaction(tenant_id, work, revokes=True)


async def end_sessions(
    auth: Auth,
    context: Context,
    session: Transaction,
    tenant_id: str,
    user_id: str,
    *,
    only: str = "",
    keep: str = "",
    reason: EndReason,
    actor: str | None,
) -> list[str]:
    """In the caller's transaction. All of a user's, or `only` that one, or all but the one to `keep`.

    Every service refuses their tokens within a second or two; `Auth.tell` has them look at once.
    """
    now = auth.platform.clock.now()
    found = await stored.alive(auth.database, session, tenant_id, user_id, now)
    ending = [it for it in found if it.id != keep and only in ("", it.id)]
    for it in ending:
        await stored.change(auth.database, session, it.id, {"ended_at": now, "end_reason": reason.value})
        told = SessionRevoked(user_id=user_id, session_id=it.id, reason=reason.value)
        await record(
            auth, session, context, "session.revoked", user_id=user_id, actor=actor, tenant_id=tenant_id, event=told,
            resource=it.id, reason=reason.value,
        )  # fmt: skip
    await auth.platform.revocations.add(session, [RevokedSession(it.id, now + REVOKED_FOR) for it in ending])
    return [it.id for it in ending]


async def make_room(auth: Auth, context: Context, session: Transaction, user: User) -> None:
    """For one session more: of as many as there may be, the one that was used the longest ago ends.

    Else whoever opens thousands would still have some after all were ended.
    """
    now, most = auth.platform.clock.now(), auth.config(user.tenant_id).sessions_most
    found = await stored.alive(auth.database, session, user.tenant_id, user.id, now)
    for crowded in sorted(found, key=lambda it: it.last_used_at)[: max(0, len(found) - most + 1)]:
        await end_sessions(
            auth, context, session, user.tenant_id, user.id, only=crowded.id, reason=EndReason.CROWDED, actor=user.id
        )
