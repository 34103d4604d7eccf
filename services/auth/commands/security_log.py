"""The security log: shown to be what was written, taken out, and its head told to everybody now and then."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter

from libs.core.audit import BEGINNING, AuditRow, Checked, Head
from libs.core.context import Context
from libs.core.errors import InvalidInput
from libs.core.events import Event, EventData
from libs.core.mongo import Session
from libs.core.pagination import Page, PageArgs
from services.auth.commands.administration import demand_tenant
from services.auth.commands.auth import Auth, record, security_log
from services.auth.domain.users import user_key
from services.auth.events import SecurityLogDiverged, SecurityLogHead
from services.auth.store import security_log as stored
from services.auth.store.security_log import LogFilter

# Of one question: about a second's work.
VERIFIED_AT_ONCE = 50_000
_BATCH = 1_000
# What another process, by a clock that is behind, might still write before an instant: it would be in no file.
_SETTLED = timedelta(seconds=10)
READ = "audit:read"

_DIVERGED = Counter("auth_security_log_diverged", "Security logs found not to be what was written", ["tenant"])

log = structlog.get_logger(__name__)


async def page(auth: Auth, context: Context, wanted: LogFilter, args: PageArgs) -> Page[AuditRow]:
    """Of the caller's tenant, the newest first."""
    demand_tenant(context, READ)
    return await stored.page_of(auth.database, auth.paginator, context.tenant_id, wanted, args)


async def page_of_oneself(auth: Auth, context: Context, args: PageArgs) -> Page[AuditRow]:
    wanted = LogFilter(user_id=context.caller.user_id)
    return await stored.page_of(auth.database, auth.paginator, context.tenant_id, wanted, args)


async def verify(auth: Auth, context: Context, since: Head) -> Checked:
    """Of the caller's tenant, from a head that somebody kept, as many rows as are read in a moment."""
    demand_tenant(context, READ)
    return await security_log(auth, context.tenant_id).check(since, at_most=VERIFIED_AT_ONCE)


async def open_export(
    auth: Auth, context: Context, since: datetime | None, until: datetime | None
) -> AsyncIterator[list[AuditRow]]:
    """The rows with `since` <= at < `until`, the oldest first. That they were taken out is a row itself."""
    demand_tenant(context, READ)
    end = auth.platform.clock.now() - _SETTLED
    end = min(until or end, end)
    if since is not None and since >= end:
        raise InvalidInput("that is no stretch of time in the past", field="from")
    told = {"from": since.isoformat() if since else None, "until": end.isoformat()}

    async def work(session: Session) -> None:
        await record(auth, session, context, "security_log.exported", user_id="", resource="security_log", after=told)

    await auth.transaction(context.tenant_id, work)
    return stored.rows_between(auth.database, context.tenant_id, since, end, _BATCH)


async def publish_heads(auth: Auth) -> None:
    """Where each tenant's log ends, if it verifies since the last time, and has grown.

    Whoever keeps one, out of the event stream, can tell later whether the log up to it is still the same: even the
    owner of the database can neither rewrite nor cut it unnoticed.
    """
    for tenant in await auth.platform.tenants.all():
        await _publish_head(auth, tenant.id)


async def _publish_head(auth: Auth, tenant_id: str) -> None:
    last = await stored.published_head(auth.database, tenant_id) or BEGINNING
    checked = await security_log(auth, tenant_id).check(last)
    told: EventData
    if checked.divergence:
        divergence = checked.divergence
        log.error("security log diverged", tenant=tenant_id, at=divergence.sequence, problem=divergence.problem)
        _DIVERGED.labels(tenant_id).inc()
        told = SecurityLogDiverged(sequence=divergence.sequence, problem=divergence.problem)
    elif checked.head == last:
        return
    else:
        told = SecurityLogHead(sequence=checked.head.sequence, hash=checked.head.hash)

    async def work(session: Session) -> None:
        if not checked.divergence:
            now = auth.platform.clock.now()
            await stored.publish_head(auth.database, session, tenant_id, checked.head, now)
        event = Event.new(
            told,
            source="auth",
            subject="security_log",
            tenant_id=tenant_id,
            partition_key=user_key(tenant_id, "security_log"),
            time=auth.platform.clock.now(),
        )
        await auth.platform.outbox.append(session, [event])

    await auth.platform.mongo.transaction(work)
    auth.platform.outbox.kick()
