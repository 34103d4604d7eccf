"""Grants as they are stored: one rule for one subject of one tenant each, in `core_service.grants`.

Each writing takes the next revision in its transaction, and has it alone: whoever has read up to a revision needs to
read only what is beyond. A grant that is over stays for a while, so that it can be said what was.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Self

import structlog
from pymongo import ReturnDocument

from libs.access_engine import Effect, Grant, Rule
from libs.core.clock import Clock
from libs.core.errors import Refusal
from libs.core.ids import new_id
from libs.core.migrations import Index
from libs.core.mongo import Database, Document, Session
from libs.core.pagination import Page, PageArgs, Paginator

COLLECTION, REVISIONS = "grants", "grant_revisions"
KEEP_ENDED = timedelta(days=90)
# In force or to come: more for one subject would be a role's work, and slow to compile.
MAX_OF_A_SUBJECT = 200
INDEXES = (
    Index(COLLECTION, (("tenant_id", 1), ("subject_id", 1), ("_id", 1))),
    Index(COLLECTION, (("tenant_id", 1), ("_id", 1))),
    Index(COLLECTION, (("revision", 1),), unique=True),
    Index(COLLECTION, (("ended_at", 1),), ttl_s=int(KEEP_ENDED.total_seconds())),
    Index(REVISIONS),
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StoredGrant:
    """`rule` says what, and until when; `author` and `revoked_by` are subjects of the same tenant."""

    id: str
    tenant_id: str
    subject_id: str
    rule: Rule
    author: str
    reason: str
    created_at: datetime
    revision: int = 0
    revoked_at: datetime | None = None
    revoked_by: str = ""

    @property
    def permission(self) -> str:
        return str(self.rule.permission)

    @property
    def effect(self) -> Literal["allow", "deny"]:
        return "allow" if self.rule.effect is Effect.ALLOW else "deny"

    @property
    def ended_at(self) -> datetime | None:
        """When it was over, or will be."""
        ends = [at for at in (self.revoked_at, self.rule.bounds.until) if at is not None]
        return min(ends) if ends else None

    @classmethod
    def of(cls, row: Document) -> Self:
        """`ValueError` if it is none: what this release does not understand may be a bound."""
        effect = Effect(row["effect"])
        return cls(
            id=row["_id"],
            tenant_id=row["tenant_id"],
            subject_id=row["subject_id"],
            rule=rule_of(row["rule"], effect),
            author=row["author"],
            reason=row["reason"],
            created_at=row["created_at"],
            revision=row["revision"],
            revoked_at=row["revoked_at"],
            revoked_by=row["revoked_by"],
        )

    def engine(self) -> Grant:
        return Grant(self.id, self.tenant_id, self.subject_id, self.rule, self.author)


def rule_text(rule: Rule) -> str:
    """A bare permission, or a mapping with one as JSON: a condition's keys would not do as names of fields."""
    data = rule.dump()
    return data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))


def rule_of(text: str, effect: Effect) -> Rule:
    """What `rule_text` wrote. Raises `ValueError`."""
    try:
        return Rule.of(json.loads(text) if text.startswith("{") else text, effect)
    except RecursionError:
        raise ValueError("the rule is nested too deep") from None


class Grants:
    """Reads and writes them. Who may is not asked here: `libs.core.access` does."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._grants = database[COLLECTION]
        self._revisions = database[REVISIONS]
        self._clock = clock

    async def insert(
        self, session: Session, tenant_id: str, subject_id: str, rule: Rule, *, author: str, reason: str
    ) -> StoredGrant:
        """`Refusal` with the code `TOO_MANY_GRANTS` at `MAX_OF_A_SUBJECT`."""
        revision = await self._next_revision(session)
        theirs = self._where(tenant_id, subject_id, ended=False)
        if await self._grants.count_documents(theirs, session=session) >= MAX_OF_A_SUBJECT:
            raise Refusal("TOO_MANY_GRANTS", "that is what a role is for", rule="grant.count", most=MAX_OF_A_SUBJECT)
        now = self._clock.now()
        grant = StoredGrant(new_id(), tenant_id, subject_id, rule, author, reason, now, revision)
        await self._grants.insert_one(_row(grant), session=session)
        return grant

    async def load(self, tenant_id: str, grant_id: str, session: Session | None = None) -> StoredGrant | None:
        row = await self._grants.find_one({"_id": grant_id, "tenant_id": tenant_id}, session=session)
        return StoredGrant.of(row) if row else None

    async def end(self, session: Session, grant: StoredGrant, *, revoker: str, reason: str) -> StoredGrant:
        """Does nothing to one that was revoked before."""
        now = self._clock.now()
        until = grant.rule.bounds.until
        change = {
            "revoked_at": now,
            "revoked_by": revoker,
            "revoke_reason": reason,
            "ended_at": min(now, until) if until else now,
            "revision": await self._next_revision(session),
        }
        one = {"_id": grant.id, "tenant_id": grant.tenant_id}
        row = await self._grants.find_one_and_update(
            {**one, "revoked_at": None}, {"$set": change}, return_document=ReturnDocument.AFTER, session=session
        )
        row = row or await self._grants.find_one(one, session=session)
        return StoredGrant.of(row) if row else grant

    async def of(self, tenant_id: str, subject_id: str, *, ended: bool = False) -> list[StoredGrant]:
        rows = self._grants.find(self._where(tenant_id, subject_id, ended=ended), sort=[("_id", 1)])
        return [grant async for row in rows if (grant := readable(row))]

    async def page(
        self, paginator: Paginator, tenant_id: str, args: PageArgs, *, subject_id: str = "", ended: bool = False
    ) -> Page[StoredGrant]:
        """The newest first."""
        fixed = {"tenant_id": tenant_id, **({"subject_id": subject_id} if subject_id else {})}
        also = {} if ended else self._in_force()
        page = await paginator.page(self._grants, fixed, args, order=[("_id", -1)], also=also)
        return page.map(StoredGrant.of)

    async def newest_revision(self) -> int:
        row = await self._revisions.find_one({"_id": COLLECTION})
        return int(row["value"]) if row else 0

    async def all_in_force(self) -> list[StoredGrant]:
        return [grant async for row in self._grants.find(self._in_force()) if (grant := readable(row))]

    async def changed_holders(self, since: int) -> tuple[int, set[tuple[str, str]]]:
        """Whose grants were written after that revision, and up to which that is known."""
        newest, holders = since, set()
        wanted = {"tenant_id": 1, "subject_id": 1, "revision": 1}
        async for row in self._grants.find({"revision": {"$gt": since}}, wanted, sort=[("revision", 1)]):
            newest = row["revision"]
            holders.add((row["tenant_id"], row["subject_id"]))
        return newest, holders

    def _where(self, tenant_id: str, subject_id: str, *, ended: bool) -> Document:
        where = {"tenant_id": tenant_id, "subject_id": subject_id}
        return where if ended else {**where, **self._in_force()}

    def _in_force(self) -> Document:
        """Or to come."""
        return {"$or": [{"ended_at": None}, {"ended_at": {"$gt": self._clock.now()}}]}

    async def _next_revision(self, session: Session) -> int:
        """In the transaction that writes: two that do are one after the other, in the order of their revisions."""
        row = await self._revisions.find_one_and_update(
            {"_id": COLLECTION},
            {"$inc": {"value": 1}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        assert row is not None  # it was made, if need be
        return int(row["value"])


def readable(row: Document) -> StoredGrant | None:
    """One that is not, because a later release wrote it or a hand did, is left out, with a line in the log.

    If it allowed something, it allows nothing; if not, it denies everything: who knows what it was to keep from whom.
    """
    try:
        return StoredGrant.of(row)
    except (ValueError, KeyError, TypeError) as error:
        log.error("grant cannot be read", grant=str(row.get("_id")), error=str(error)[:200])
        if row.get("effect") == Effect.ALLOW:
            return None
        everything = Rule.of("*:*:all", Effect.DENY)
        at = row.get("created_at", datetime.min.replace(tzinfo=UTC))
        return StoredGrant(str(row["_id"]), str(row["tenant_id"]), str(row["subject_id"]), everything, "", "", at)


def _row(grant: StoredGrant) -> Document:
    return {
        "_id": grant.id,
        "tenant_id": grant.tenant_id,
        "subject_id": grant.subject_id,
        "effect": grant.effect,
        "permission": grant.permission,
        "rule": rule_text(grant.rule),
        "author": grant.author,
        "reason": grant.reason,
        "created_at": grant.created_at,
        "revision": grant.revision,
        "revoked_at": None,
        "revoked_by": "",
        "ended_at": grant.ended_at,
    }
