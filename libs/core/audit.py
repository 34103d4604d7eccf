"""An append-only log that shows when it was tampered with: each row carries the hash of the row before.

    audit = AuditLog(mongo.core, "config")
    await mongo.transaction(lambda session: audit.append(session, actor=user_id, action="config.set", resource=...))
    assert await audit.verify() is None

A log is one chain: its appends are serialised by its head document, which every append updates in the transaction of
the change that it tells of. So what is written often has a log for each tenant (`AuditLog(db, f"auth.{tenant_id}")`).

The chain finds rows that were edited, removed, cut off or added by hand. Who can write to the database can also make a
whole new chain, head included: against that, keep a `head()` somewhere else now and then, and `verify(since=...)` it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any, Final, Literal

from libs.core.clock import Clock, SystemClock
from libs.core.context import correlation_id
from libs.core.migrations import Index
from libs.core.mongo import Database, Document, Session

COLLECTION, HEADS = "audit_log", "audit_heads"
INDEXES = (
    Index(COLLECTION, (("log", 1), ("sequence", 1)), unique=True),
    Index(COLLECTION, (("log", 1), ("resource", 1), ("sequence", 1))),
    Index(HEADS),
)


@dataclass(frozen=True, slots=True)
class Head:
    """Where a log ends: the number of its last row, and that row's hash."""

    sequence: int
    hash: str


BEGINNING: Final = Head(0, "")


@dataclass(frozen=True, slots=True)
class AuditRow:
    """`sequence` counts from 1 without a gap; `previous` and `hash` are SHA-256, in hex."""

    log: str
    sequence: int
    at: datetime
    actor: str
    on_behalf_of: str | None
    action: str
    resource: str
    tenant_id: str | None
    before: Any
    after: Any
    reason: str
    origin: str
    correlation_id: str
    previous: str
    hash: str = ""


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first row that is not what was appended.

    - edited: its content is not what its hash says
    - unlinked: it does not follow the row before, which was rewritten together with its hash
    - missing: rows after it are there, it is not
    - cut: it and everything after it are gone
    - rewritten: it is the last row, and not the one that the head knows
    - unrecorded: it is there, and the head does not know it
    """

    sequence: int
    problem: Literal["edited", "unlinked", "missing", "cut", "rewritten", "unrecorded"]


@dataclass(frozen=True, slots=True)
class Checked:
    """All rows up to `head` are what was appended. `complete`: they are all that there are."""

    head: Head
    divergence: Divergence | None
    complete: bool = False


class AuditLog:
    """One log by its name, which several processes may append to at once. `INDEXES` belong to its database."""

    def __init__(self, database: Database, log: str, *, clock: Clock | None = None) -> None:
        self._log = log
        self._rows = database[COLLECTION]
        self._heads = database[HEADS]
        self._clock = clock or SystemClock()

    async def append(
        self,
        session: Session,
        *,
        actor: str,
        action: str,
        resource: str,
        on_behalf_of: str | None = None,
        tenant_id: str | None = None,
        before: Any = None,
        after: Any = None,
        reason: str = "",
        origin: str = "",
    ) -> AuditRow:
        """Writes a row in the caller's transaction: there if and only if the change that it tells of is.

        `before` and `after` have the shapes of JSON, ints of 64 bits at most; `origin` is where the request came from,
        such as an address. Of two concurrent appends, one makes its transaction run again.
        """
        # The head first: of two that append at once, one fails here with a conflict that `Mongo.transaction` retries.
        head = await self._heads.find_one_and_update(
            {"_id": self._log}, {"$inc": {"sequence": 1}}, upsert=True, session=session
        )
        previous = Head(head["sequence"], head["hash"]) if head else BEGINNING
        row = AuditRow(
            log=self._log,
            sequence=previous.sequence + 1,
            at=self._clock.now(),
            actor=actor,
            on_behalf_of=on_behalf_of,
            action=action,
            resource=resource,
            tenant_id=tenant_id,
            before=_as_json(before),
            after=_as_json(after),
            reason=reason,
            origin=origin,
            correlation_id=correlation_id.get(),
            previous=previous.hash,
        )
        row = replace(row, hash=row_hash(asdict(row)))
        await self._rows.insert_one(asdict(row), session=session)
        await self._heads.update_one({"_id": self._log}, {"$set": {"hash": row.hash}}, session=session)
        return row

    async def read(self, *, after: int = 0, limit: int = 100, resource: str | None = None) -> list[AuditRow]:
        """The next `limit` rows after the sequence `after`, oldest first."""
        wanted: Document = {"log": self._log, "sequence": {"$gt": after}}
        if resource is not None:
            wanted["resource"] = resource
        cursor = self._rows.find(wanted).sort("sequence", 1).limit(limit)
        return [row_of(document) async for document in cursor]

    async def head(self) -> Head:
        head = await self._heads.find_one({"_id": self._log})
        return Head(head["sequence"], head["hash"]) if head else BEGINNING

    async def verify(self, since: Head = BEGINNING) -> Divergence | None:
        """The first divergence, or None. Reads the rows after `since`, a head that was kept, as a stream.

        Appends may go on: it verifies up to the head that it finds at its start.
        """
        return (await self.check(since)).divergence

    async def check(self, since: Head = BEGINNING, *, at_most: int | None = None) -> Checked:
        """The same, of so many rows `at_most`, and where it ended: from there it can be gone on with."""
        newest = await self._rows.find_one({"log": self._log}, sort=[("sequence", -1)])
        head = await self.head()  # read second: an honest row that was seen is known to it
        if newest and newest["sequence"] > head.sequence:
            return Checked(since, Divergence(head.sequence + 1, "unrecorded"))
        if head.sequence < since.sequence:
            return Checked(since, Divergence(head.sequence + 1, "cut"))
        until = head.sequence if at_most is None else min(head.sequence, since.sequence + at_most)
        previous = since
        wanted = {"log": self._log, "sequence": {"$gt": since.sequence, "$lte": until}}
        async for document in self._rows.find(wanted).sort("sequence", 1):
            problem = _problem(document, previous)
            if problem:
                return Checked(previous, problem)
            previous = Head(document["sequence"], document["hash"])
        if previous.sequence < until:
            return Checked(previous, Divergence(previous.sequence + 1, "cut"))
        if until == head.sequence and previous != head:
            return Checked(previous, Divergence(head.sequence, "rewritten"))
        return Checked(previous, None, complete=until == head.sequence)


def _problem(document: Document, previous: Head) -> Divergence | None:
    expected = previous.sequence + 1
    if document["sequence"] != expected:
        return Divergence(expected, "missing")
    if document.get("hash") != row_hash(document):
        return Divergence(expected, "edited")
    return None if document["previous"] == previous.hash else Divergence(expected, "unlinked")


def row_hash(document: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of all but `_id` and `hash`: keys sorted, no blanks, instants in ISO 8601."""
    told = {name: value for name, value in document.items() if name not in ("_id", "hash")}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), default=_canonical)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: object) -> str:
    """What JSON has no shape for: `at`, and whatever a hand may have put into a row that is being verified."""
    return value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else repr(value)


def _as_json(value: Any) -> Any:
    """As it will come back from the database, so that its hash will be the same: no tuples, no keys but strings."""
    return json.loads(json.dumps(value, allow_nan=False))


def row_of(document: Document) -> AuditRow:
    return AuditRow(**{field.name: document[field.name] for field in fields(AuditRow)})
