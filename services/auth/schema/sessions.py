"""Sessions: gone on with, looked at, ended."""

from datetime import datetime
from typing import Self

import strawberry
from strawberry import ID, Info

from libs.core.access import Public, Requires
from libs.core.context import Context
from libs.core.ids import parse_id
from libs.core.pagination import Connection, PageArgs
from services.auth.commands import sessions
from services.auth.domain import sessions as domain
from services.auth.domain.sessions import EndReason
from services.auth.schema.common import auth_of, or_problem
from services.auth.schema.sign_in import SignInResult, sign_in_result
from services.auth.store import sessions as stored


@strawberry.type(description="Somebody signed in somewhere.")
class Session:
    id: ID
    current: bool = strawberry.field(description="It is the one that asks.")
    device: str = strawberry.field(description="As it called itself; may be empty.")
    agent: str = strawberry.field(description="Its browser or app, as that says.")
    address: str
    place: str = strawberry.field(description="City and country, as far as the address tells; may be empty.")
    methods: list[str] = strawberry.field(description="How, as in RFC 8176.")
    level: int = strawberry.field(description="How many factors were shown.")
    created_at: datetime
    last_used_at: datetime
    authenticated_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, session: domain.Session, current_id: str) -> Self:
        return cls(
            id=ID(session.id),
            current=session.id == current_id,
            device=session.device,
            agent=session.agent,
            address=session.address,
            place=session.place,
            methods=list(session.methods),
            level=session.level,
            created_at=session.created_at,
            last_used_at=session.last_used_at,
            authenticated_at=session.authenticated_at,
            expires_at=min(session.expires_at, session.idle_until),
        )


@strawberry.type
class SessionQueries:
    @strawberry.field(description="Where you are signed in, the newest first.", extensions=[Requires("session:read")])
    async def my_sessions(
        self,
        info: Info[Context],
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[Session]:
        auth, caller = auth_of(info), info.context.caller
        page = await stored.page_of(
            auth.database,
            auth.paginator,
            caller.tenant_id,
            caller.user_id,
            auth.platform.clock.now(),
            PageArgs(first, after, last, before),
        )
        return Connection.of(page, lambda session: Session.of(session, caller.session_id))


@strawberry.type
class SessionMutations:
    @strawberry.mutation(
        description="The next tokens. A refresh token is good once: used again, it ends the session, except by a "
        "client that asks again right away, which is given the same.",
        extensions=[Public()],
    )
    async def refresh_session(self, info: Info[Context], refresh_token: str) -> SignInResult:
        return sign_in_result(await or_problem(sessions.refresh(auth_of(info), info.context, refresh_token)))

    @strawberry.mutation(extensions=[Requires("session:revoke")])
    async def logout(self, info: Info[Context]) -> bool:
        await sessions.logout(auth_of(info), info.context)
        return True

    @strawberry.mutation(description="False if you have no such session.", extensions=[Requires("session:revoke")])
    async def revoke_session(self, info: Info[Context], id: ID) -> bool:  # noqa: A002
        return bool(await _end(info, only=parse_id(id, "id")))

    @strawberry.mutation(description="How many there were.", extensions=[Requires("session:revoke")])
    async def revoke_other_sessions(self, info: Info[Context]) -> int:
        return len(await _end(info, keep=info.context.caller.session_id))

    @strawberry.mutation(description="This one, too. How many there were.", extensions=[Requires("session:revoke")])
    async def revoke_all_sessions(self, info: Info[Context]) -> int:
        return len(await _end(info))


async def _end(info: Info[Context], *, only: str = "", keep: str = "") -> list[str]:
    user_id = info.context.caller.user_id
    return await sessions.end(auth_of(info), info.context, user_id, only=only, keep=keep, reason=EndReason.REVOKED)
