"""Grants: one permission for one user, for a while, or under a condition."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from libs.access_engine import Effect
from libs.core.context import Context
from libs.core.errors import NotFound
from libs.core.grants import StoredGrant
from libs.core.mongo import Session
from services.auth.commands.administration import reason_of, refuse_oneself, target
from services.auth.commands.auth import Auth, record
from services.auth.commands.fresh import demand_fresh


@dataclass(frozen=True, slots=True)
class NewGrant:
    user_id: str
    permission: str
    effect: Literal["allow", "deny"] = "allow"
    brand_id: str = ""
    since: datetime | None = None
    until: datetime | None = None
    level: int = 0
    condition: Mapping[str, Any] | None = None


async def grant(auth: Auth, context: Context, new: NewGrant, reason: str) -> StoredGrant:
    """In force everywhere in a moment. `Refusal` GRANT_TOO_WIDE unless the author holds all of it."""
    reason = reason_of(reason)
    refuse_oneself(context, new.user_id)
    await demand_fresh(auth, context)

    async def work(session: Session) -> StoredGrant:
        user = await target(auth, context, session, "grant:manage", new.user_id)
        given = await auth.platform.access.grant(
            context.caller,
            user.id,
            new.permission,
            reason=reason,
            effect=new.effect,
            brand_id=new.brand_id,
            since=new.since,
            until=new.until,
            level=new.level,
            condition=new.condition,
            session=session,
        )
        await _record(auth, context, session, given, "permission.granted", reason)
        return given

    given = await auth.transaction(context.tenant_id, work)
    await auth.platform.access.changed()
    return given


async def revoke(auth: Auth, context: Context, grant_id: str, reason: str) -> StoredGrant:
    """One that was revoked before stays as it is. To lift a denial is to give, with all that this asks for."""
    reason = reason_of(reason)
    access = auth.platform.access

    async def work(session: Session) -> StoredGrant:
        found = await access.load_grant(context.tenant_id, grant_id, session)
        if found is None:
            raise NotFound("there is no such grant", field="input.grantId")
        if found.rule.effect is Effect.DENY:
            refuse_oneself(context, found.subject_id)
            await demand_fresh(auth, context)
        await target(auth, context, session, "grant:manage", found.subject_id)
        revoked = await access.revoke_grant(context.caller, grant_id, reason=reason, session=session)
        if found.revoked_at is None:
            await _record(auth, context, session, revoked, "permission.revoked", reason)
        return revoked

    revoked = await auth.transaction(context.tenant_id, work)
    await access.changed()
    return revoked


async def _record(
    auth: Auth, context: Context, session: Session, changed: StoredGrant, action: str, reason: str
) -> None:
    await record(
        auth, session, context, action, user_id=changed.subject_id, resource=changed.id, reason=reason,
        after=str(changed.rule),
    )  # fmt: skip
