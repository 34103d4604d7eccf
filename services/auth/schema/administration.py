"""Users, for those who administer them."""

from datetime import datetime
from typing import Annotated

import strawberry
from strawberry import ID, Info

from libs.core.access import Requires
from libs.core.context import Context
from libs.core.errors import InvalidInput
from libs.core.graphql import Problem
from libs.core.ids import parse_id
from libs.core.pagination import Connection, PageArgs
from services.auth.commands import administration
from services.auth.domain.user_lists import SearchBy, UserFilter, UserKind, parse_prefix
from services.auth.domain.users import UserStatus
from services.auth.schema.common import auth_of, or_problem, scope_of, text_of
from services.auth.schema.sessions import Session
from services.auth.schema.users import User, UserResult
from services.auth.store import sessions as stored_sessions, users as stored

LIST = "user:list"


strawberry.enum(SearchBy, name="UserSearchBy")


@strawberry.input(description="All of it holds. What is left out does not matter.")
class UserFilterInput:
    status: UserStatus | None = None
    role: str | None = None
    kind: UserKind | None = None
    created_since: datetime | None = None
    created_until: datetime | None = strawberry.field(default=None, description="Before this instant.")

    def filter(self) -> UserFilter:
        role = text_of(self.role, "filter.role") if self.role is not None else None
        return UserFilter(self.status, role, self.kind, self.created_since, self.created_until)


@strawberry.input(description="Those of whom it begins like that, in its order: two characters at least.")
class UserSearchInput:
    by: SearchBy
    prefix: str


@strawberry.input
class UserReasonInput:
    user_id: ID
    reason: str = strawberry.field(description="For the security log.")


@strawberry.input
class RevokeUserSessionsInput:
    user_id: ID
    reason: str
    session_id: ID | None = strawberry.field(default=None, description="This one alone; left out: all.")


@strawberry.type
class SessionsRevoked:
    count: int


SessionsRevokedResult = Annotated[SessionsRevoked | Problem, strawberry.union("SessionsRevokedResult")]


@strawberry.type
class AdministrationQueries:
    @strawberry.field(
        description="The tenant's users, the newest first; or those that `search` finds. One or the other.",
        extensions=[Requires(LIST)],
    )
    async def users(
        self,
        info: Info[Context],
        filter: UserFilterInput | None = None,  # noqa: A002
        search: UserSearchInput | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[User]:
        auth, args, tenant_id = auth_of(info), PageArgs(first, after, last, before), info.context.tenant_id
        administration.demand_tenant(info.context, LIST)
        within = scope_of(info, LIST).query(owner="id", id="id")
        if search and filter:
            raise InvalidInput("filter or search, not both", field="search")
        if search:
            by = search.by
            prefix = parse_prefix(by, search.prefix)
            page = await stored.search(auth.database, auth.paginator, tenant_id, by, prefix, args, within=within)
        else:
            wanted = filter.filter() if filter else UserFilter()
            page = await stored.page_of(auth.database, auth.paginator, tenant_id, wanted, args, within=within)
        return Connection.of(page, User.of)

    @strawberry.field(description="Null if there is none, or it is not for you.", extensions=[Requires("user:read")])
    async def user(self, info: Info[Context], id: ID) -> User | None:  # noqa: A002
        found = await administration.seen(auth_of(info), info.context, "user:read", parse_id(id, "id"))
        return User.of(found) if found else None

    @strawberry.field(description="Where a user is signed in, the newest first.", extensions=[Requires("session:read")])
    async def user_sessions(
        self,
        info: Info[Context],
        user_id: ID,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[Session] | None:
        auth, caller = auth_of(info), info.context.caller
        user = await administration.seen(auth, info.context, "session:read", parse_id(user_id, "userId"))
        if user is None:
            return None
        page = await stored_sessions.page_of(
            auth.database,
            auth.paginator,
            user.tenant_id,
            user.id,
            auth.platform.clock.now(),
            PageArgs(first, after, last, before),
        )
        return Connection.of(page, lambda session: Session.of(session, caller.session_id))


@strawberry.type
class AdministrationMutations:
    @strawberry.mutation(
        description="Signed out everywhere, and not let in until `resumeUser`.", extensions=[Requires("user:suspend")]
    )
    async def suspend_user(self, info: Info[Context], input: UserReasonInput) -> UserResult:  # noqa: A002
        return await _changed(info, administration.suspend, input)

    @strawberry.mutation(extensions=[Requires("user:suspend")])
    async def resume_user(self, info: Info[Context], input: UserReasonInput) -> UserResult:  # noqa: A002
        return await _changed(info, administration.resume, input)

    @strawberry.mutation(
        description="For good. What they signed in with is removed, and free for others; the id is theirs for ever. "
        "Needs that you signed in lately.",
        extensions=[Requires("user:delete")],
    )
    async def delete_user(self, info: Info[Context], input: UserReasonInput) -> UserResult:  # noqa: A002
        return await _changed(info, administration.delete, input)

    @strawberry.mutation(
        description="Signed out everywhere; the password is not accepted until it is reset, second factor included.",
        extensions=[Requires("user:reset")],
    )
    async def force_password_reset(self, info: Info[Context], input: UserReasonInput) -> UserResult:  # noqa: A002
        return await _changed(info, administration.force_reset, input)

    @strawberry.mutation(extensions=[Requires("session:revoke")])
    async def revoke_user_sessions(
        self,
        info: Info[Context],
        input: RevokeUserSessionsInput,  # noqa: A002
    ) -> SessionsRevokedResult:
        user_id = parse_id(input.user_id, "input.userId")
        only = parse_id(input.session_id, "input.sessionId") if input.session_id is not None else ""
        revoked = await or_problem(
            administration.revoke_sessions(auth_of(info), info.context, user_id, input.reason, only=only)
        )
        return revoked if isinstance(revoked, Problem) else SessionsRevoked(count=revoked)


async def _changed(info: Info[Context], change: administration.ByReason, asked: UserReasonInput) -> User | Problem:
    user_id = parse_id(asked.user_id, "input.userId")
    changed = await or_problem(change(auth_of(info), info.context, user_id, asked.reason))
    return changed if isinstance(changed, Problem) else User.of(changed)
