"""What commands work with, how they write, and what they leave in the log."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from libs.core.app import Platform
from libs.core.audit import AuditLog
from libs.core.context import Context
from libs.core.crypto import SecretBox
from libs.core.events import Event, EventData
from libs.core.mongo import Database, Session
from libs.core.pagination import Paginator
from services.auth.breaches import PasswordRules
from services.auth.domain.users import user_key
from services.auth.groups import Groups
from services.auth.keys import SigningKeys
from services.auth.messages import Messages
from services.auth.passwords import Hasher
from services.auth.places import Places
from services.auth.providers import Providers
from services.auth.settings import AuthConfig, AuthSettings
from services.auth.throttle import Throttle

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Auth:
    """One a process."""

    platform: Platform
    settings: AuthSettings
    paginator: Paginator
    box: SecretBox
    hasher: Hasher
    rules: PasswordRules
    keys: SigningKeys
    throttle: Throttle
    messages: Messages
    places: Places
    providers: Providers
    groups: Groups

    @property
    def database(self) -> Database:
        return self.platform.mongo.db

    def config(self, tenant_id: str) -> AuthConfig:
        return self.platform.config.get(AuthConfig, tenant_id)

    async def transaction(self, tenant_id: str, work: Callable[[Session], Awaitable[T]], *, revokes: bool = False) -> T:
        """As `Mongo.transaction`, for work that calls `record`. `revokes`: it may have ended sessions.

        A tenant's log is one chain, which every such transaction writes: what waits commits together (`groups.py`).
        """
        result = await self.groups.transaction(tenant_id, work)
        self.platform.outbox.kick()
        if revokes:
            await self.tell()
        return result

    async def tell(self) -> None:
        """Every service hears at once of what was written: events, and sessions that ended."""
        self.platform.outbox.kick()
        await self.platform.revocations.tell()


def security_log(auth: Auth, tenant_id: str) -> AuditLog:
    return AuditLog(auth.database, f"auth.{tenant_id}", clock=auth.platform.clock)


async def record(
    auth: Auth,
    session: Session,
    context: Context,
    action: str,
    *,
    user_id: str,
    event: EventData | None = None,
    actor: str | None = None,
    tenant_id: str | None = None,
    resource: str = "",
    before: Any = None,
    after: Any = None,
    reason: str = "",
) -> None:
    """A row in the tenant's security log, and what everybody else is told, if anything.

    `user_id` is whom it is about ("": somebody who is nobody here); whoever did it is the caller, or `actor` where
    somebody has only just shown who they are. `resource` is what it is about, if not the user.
    """
    tenant_id = tenant_id or context.tenant_id
    who = actor or context.caller.subject or "anonymous"
    await security_log(auth, tenant_id).append(
        session,
        actor=who,
        on_behalf_of=user_id if user_id and user_id != who else None,
        action=action,
        resource=resource or user_id or "unknown",
        tenant_id=tenant_id,
        before=before,
        after=after,
        reason=reason,
        origin=context.client.address,
    )
    if event is not None:
        told = Event.new(
            event,
            source="auth",
            subject=user_id,
            tenant_id=tenant_id,
            partition_key=user_key(tenant_id, user_id),
            time=auth.platform.clock.now(),
            actor=who,
        )
        await auth.platform.outbox.append(session, [told])
