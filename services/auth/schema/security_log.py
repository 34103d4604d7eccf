"""The security log: everything that happened to accounts, who did it, and whether it is still what was written."""

import re
from datetime import datetime
from typing import Self

import strawberry
from strawberry import ID, Info
from strawberry.scalars import JSON

from libs.core.access import Requires
from libs.core.audit import BEGINNING, AuditRow, Checked, Head
from libs.core.context import Context
from libs.core.errors import InvalidInput
from libs.core.ids import parse_id
from libs.core.pagination import Connection, PageArgs
from services.auth.commands import security_log
from services.auth.commands.security_log import READ
from services.auth.schema.common import auth_of
from services.auth.store.security_log import LogFilter

_ACTION = re.compile(r"[a-z_]{1,40}\.[a-z_]{1,40}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_SEQUENCE = 2**53


@strawberry.type(description="A row of the log. `hash` is over all of it and `previous`, the hash of the row before.")
class SecurityEvent:
    sequence: int
    at: datetime
    actor: str = strawberry.field(description="Who did it: a user, a service, or anonymous.")
    on_behalf_of: str | None = strawberry.field(description="Whom it was about, if not the actor.")
    action: str
    resource: str
    before: JSON | None
    after: JSON | None
    reason: str
    address: str = strawberry.field(description="Where it came from.")
    correlation_id: str
    hash: str

    @classmethod
    def of(cls, row: AuditRow) -> Self:
        return cls(
            sequence=row.sequence,
            at=row.at,
            actor=row.actor,
            on_behalf_of=row.on_behalf_of,
            action=row.action,
            resource=row.resource,
            before=row.before,
            after=row.after,
            reason=row.reason,
            address=row.origin,
            correlation_id=row.correlation_id,
            hash=row.hash,
        )


@strawberry.type(description="Something that happened to your account.")
class Activity:
    at: datetime
    action: str
    by_you: bool
    address: str | None = strawberry.field(description="Where it came from; null if somebody else of the house did it.")

    @classmethod
    def of(cls, row: AuditRow, user_id: str) -> Self:
        """Of what others did, what; who and why is not for everybody. A login that failed is nobody's of the house."""
        told = row.actor in (user_id, "anonymous")
        return cls(
            at=row.at, action=row.action, by_you=row.actor == user_id, address=row.origin or None if told else None
        )


@strawberry.type(description="Where the log ends, as events of the type security_log.head tell it.")
class LogHead:
    sequence: int
    hash: str


@strawberry.input
class LogHeadInput:
    sequence: int
    hash: str

    def head(self) -> Head:
        if not 0 <= self.sequence <= _MAX_SEQUENCE or not _HASH.fullmatch(self.hash):
            raise InvalidInput("this is no head of a log", field="since")
        return Head(self.sequence, self.hash)


@strawberry.type(description="The first row that is not what was written.")
class LogDivergence:
    sequence: int
    problem: str = strawberry.field(description="edited, unlinked, missing, cut, rewritten or unrecorded.")


@strawberry.type(description="All rows up to `head` are what was written.")
class LogVerified:
    head: LogHead
    divergence: LogDivergence | None
    complete: bool = strawberry.field(description="False: there are more rows. Go on with `since: head`.")

    @classmethod
    def of(cls, checked: Checked) -> Self:
        wrong = checked.divergence
        return cls(
            head=LogHead(sequence=checked.head.sequence, hash=checked.head.hash),
            divergence=LogDivergence(sequence=wrong.sequence, problem=wrong.problem) if wrong else None,
            complete=checked.complete,
        )


@strawberry.input(description="All of it holds. What is left out does not matter.")
class SecurityLogFilter:
    user_id: ID | None = strawberry.field(default=None, description="Who did it, or whom it was about.")
    action: str | None = strawberry.field(default=None, description="Such as login.failed.")
    since: datetime | None = None
    until: datetime | None = strawberry.field(default=None, description="Before this instant.")

    def filter(self) -> LogFilter:
        if self.action is not None and not _ACTION.fullmatch(self.action):
            raise InvalidInput("an action reads like login.failed", field="filter.action")
        user_id = parse_id(self.user_id, "filter.userId") if self.user_id is not None else ""
        return LogFilter(user_id, self.action or "", self.since, self.until)


@strawberry.type
class SecurityLogQueries:
    @strawberry.field(description="The tenant's, the newest first.", extensions=[Requires(READ)])
    async def security_log(
        self,
        info: Info[Context],
        filter: SecurityLogFilter | None = None,  # noqa: A002
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[SecurityEvent]:
        wanted = filter.filter() if filter else LogFilter()
        args = PageArgs(first, after, last, before)
        return Connection.of(await security_log.page(auth_of(info), info.context, wanted, args), SecurityEvent.of)

    @strawberry.field(
        description="What happened to your account, the newest first.", extensions=[Requires("user:read")]
    )
    async def my_activity(
        self,
        info: Info[Context],
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[Activity]:
        user_id = info.context.caller.user_id
        page = await security_log.page_of_oneself(auth_of(info), info.context, PageArgs(first, after, last, before))
        return Connection.of(page, lambda row: Activity.of(row, user_id))

    @strawberry.field(
        description="Whether the log is what was written, from its beginning or from a head that you kept; fifty "
        "thousand rows at a time.",
        extensions=[Requires(READ)],
    )
    async def verify_security_log(self, info: Info[Context], since: LogHeadInput | None = None) -> LogVerified:
        head = since.head() if since else BEGINNING
        return LogVerified.of(await security_log.verify(auth_of(info), info.context, head))
