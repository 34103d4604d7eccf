"""The committer: operations that wait at the same time are decided together and written in one MongoDB transaction.

One transaction per transfer spends most of its time on round trips and on the disk's fsync, and where all touch one
wallet, on write conflicts. A group shares all of that: it takes what has queued, without an artificial delay (while one
group commits, the next gathers), reads what its operations name, lets `domain.Book` decide them in order, and writes
the whole group at once. One refused operation never fails its neighbours.

What must not go wrong, and what sees to it:

- Two processes write the same wallet: MongoDB's write conflict aborts one group, which reads again and decides again.
  Nothing that was read or decided survives from one attempt to the next.
- Two processes accept the same id: the second insert is a duplicate key, which also means read again, decide again.
- A process that was thought dead comes back: each group writes its lane's lease with the token in the filter.
- Two processes meet on the same wallets again and again: they take turns (`turns`).
- The answer to a commit is lost: the commit is sent again until MongoDB says what became of it. Only if time runs out
  before that is the answer `UNKNOWN`: ask again with the same id.
- One operation that cannot be written fails every group it is in: the group is halved until it fails alone.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import count
from math import inf
from random import random
from time import monotonic
from typing import Any, Self

import pymongo
import structlog
from pymongo.errors import ConfigurationError, ConnectionFailure, DuplicateKeyError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from libs.core.clock import Clock
from libs.core.context import Deadline
from libs.core.errors import CoreError, DeadlineExceeded, InvalidInput, LeaseLost, OutcomeUnknown, Refusal, Unavailable
from libs.core.events import Event, Outbox
from libs.core.lock import Lease
from libs.core.mongo import DURABLE, Database, Mongo, Session
from libs.core.tasks import ended
from libs.core.telemetry import span
from services.payment import facts, store
from services.payment.domain import (
    Book,
    Operation,
    Outcome,
    Reverse,
    TenantRules,
    linked,
)
from services.payment.domain.book import TICK
from services.payment.domain.operations import Capture, Release
from services.payment.turns import Turns

log = structlog.get_logger(__name__)

# A group's writes and its outbox document stay far below MongoDB's 16 MB, even at 4 KB of metadata each.
GROUP_LIMIT = 512
# About two seconds' work: what waits longer than that had better be told to come back.
QUEUE_LIMIT = 8192
# What waits is held in memory: this much of references and metadata, beside about 1 KB that each operation takes.
QUEUE_LIMIT_BYTES = 16 * 1024 * 1024
SET_LIMIT = 1000
# Whose wallet it is never changes, so it need not be asked again; with 100 bytes each, 20 MB.
OWNERS_KEPT = 200_000
# How long a group may fight conflicts or wait for MongoDB to come back, before its callers are told.
GROUP_PATIENCE_S = 10.0
# A wallet that stays locked for longer is held by the transaction of a process that died, which is ended once its lease
# has expired. Until then only those who need that wallet should wait.
CONTENTION_PATIENCE_S = 2.0
LANE_TTL_S = 10.0
# How often the lanes of processes that died are looked for.
BURIED_EVERY_S = 2.0
SETTLED_ASKED_EVERY_S = 0.02
# How often an idle lane promises that it will not go back in time: by so much lists over many wallets may lag.
PROMISE_EVERY_S = 0.5
LANE_ANSWERS_WITHIN_S = 1.0
READ_SNAPSHOT = ReadConcern("snapshot")
# MongoDB's labels: nothing was written, try all of it again; and: the commit was sent, send it again.
TRANSIENT, UNKNOWN_COMMIT = "TransientTransactionError", "UnknownTransactionCommitResult"
# Its code for what another process ended, because it took this one for dead.
INTERRUPTED = 11601


@dataclass(eq=False, slots=True)
class Work:
    """A set of operations that waits for its outcomes, and the context it was asked for in."""

    operations: Sequence[Operation]
    size_bytes: int
    deadline: Deadline
    answer: asyncio.Future[list[Outcome]]
    context: Context

    @property
    def wanted(self) -> bool:
        return not self.answer.done()

    def tell(self, verdict: list[Outcome] | Exception) -> None:
        if not self.wanted:
            return
        if isinstance(verdict, Exception):
            self.answer.set_exception(verdict)
        else:
            self.answer.set_result(verdict)


Verdict = tuple[Work, list[Outcome] | Exception]


@dataclass(slots=True)
class Struggle:
    """What is known of a group while it is being written. In doubt: a commit was sent, and its answer never came."""

    patience: Deadline
    in_doubt: bool = False

    def given_up(self) -> CoreError:
        if self.in_doubt:
            return OutcomeUnknown("it is not known whether this was done: ask again with the same id")
        return Unavailable("the database did not take this in time: nothing was done")


class Ledger:
    """Where money moves. One per process; use as `async with Ledger(mongo, outbox, clock) as ledger`."""

    def __init__(
        self,
        mongo: Mongo,
        outbox: Outbox,
        clock: Clock,
        rules: TenantRules | None = None,
        turns: Turns | None = None,
    ) -> None:
        """Without `turns`, a process that shares wallets with another may starve."""
        self._mongo = mongo
        self._turns = turns
        self._rules = rules or TenantRules()
        self._outbox = outbox
        self._clock = clock
        self._lane = Lane(mongo, clock)
        self._queue: deque[Work] = deque()
        self._queued_operations = 0
        self._queued_bytes = 0
        self._owners: dict[str, str] = {}
        self._arrival = asyncio.Event()
        self._closing = False
        self._committing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._lane.take()
        try:
            await store.refuse_half_imported(self._mongo.db)
        except Unavailable:
            await self._lane.release()
            raise
        self._committing = asyncio.create_task(self._commit_groups(), name="ledger")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finishes what was accepted, then lets go of the lane."""
        self._closing = True
        self._arrival.set()
        if self._committing:
            await self._committing
        await self._lane.release()

    @property
    def _at_work(self) -> bool:
        return self._committing is not None and not self._committing.done()

    async def health(self) -> dict[str, Any]:
        """For readiness. `Unavailable` while this process may not commit."""
        if not self._at_work:
            raise Unavailable("the ledger has stopped working, and only a restart of the process helps")
        if not self._lane.held:
            raise Unavailable("the ledger holds no lane")
        return {"lane": self._lane.number, "queued": self._queued_operations}

    async def settled(self, at: datetime, deadline: Deadline) -> bool:
        """Waits until nothing can happen any more at `at` or before; false if that takes too long."""
        while await store.settled_until(self._mongo.db) < at:
            if deadline.remaining_s <= 0:
                return False
            self._lane.keep_soon()
            self._arrival.set()
            await asyncio.sleep(SETTLED_ASKED_EVERY_S)
        return True

    async def post(self, operation: Operation, deadline: Deadline) -> Outcome:
        """Decides and, if it is accepted, durably commits one operation.

        A business rule's no is returned, as a `Refusal`. Raised are `Unavailable` and `DeadlineExceeded` (nothing was
        done) and `OutcomeUnknown` (ask again with the same id).
        """
        return (await self._enqueue([operation], deadline))[0]

    async def post_all(self, operations: Sequence[Operation], deadline: Deadline) -> list[Outcome]:
        """The same for 1 to 1,000 operations of which either all are accepted or none; outcomes in their order."""
        if not 0 < len(operations) <= SET_LIMIT:
            raise InvalidInput(f"a set has 1 to {SET_LIMIT} operations", field="transfers")
        return await self._enqueue(linked(operations), deadline)

    async def _enqueue(self, operations: Sequence[Operation], deadline: Deadline) -> list[Outcome]:
        size = sum(operation.size_bytes for operation in operations)
        if self._closing or not self._at_work:
            raise Unavailable("this process takes no more operations: nothing was done")
        too_many = self._queued_operations + len(operations) > QUEUE_LIMIT
        if too_many or self._queued_bytes + size > QUEUE_LIMIT_BYTES:
            raise Unavailable("too many operations are waiting: nothing was done, try again in a moment")
        work = Work(operations, size, deadline, asyncio.get_running_loop().create_future(), copy_context())
        self._queue.append(work)
        self._queued_operations += len(operations)
        self._queued_bytes += size
        self._arrival.set()
        return await work.answer

    async def _commit_groups(self) -> None:
        while True:
            if self._lane.due:
                await self._lane.keep()
            if not self._queue:
                if self._closing:
                    return
                await self._wait_for_work()
                continue
            async with self._turns.turn() if self._turns else nullcontext():
                group = self._gather()  # now, and not before the turn: who waits for it gathers
                verdicts = await self._settle(group) if group else []
            for work, verdict in verdicts:  # after it: what callers do with their answers keeps nobody waiting
                work.tell(verdict)

    async def _wait_for_work(self) -> None:
        self._arrival.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._arrival.wait(), PROMISE_EVERY_S)

    def _gather(self) -> list[Work]:
        """The next group: oldest first, without those that nobody waits for. A large set is a group of its own."""
        group: list[Work] = []
        size = 0
        while self._queue and size + len(self._queue[0].operations) <= max(GROUP_LIMIT, len(self._queue[0].operations)):
            work = self._queue.popleft()
            self._queued_operations -= len(work.operations)
            self._queued_bytes -= work.size_bytes
            if work.deadline.remaining_s <= 0:
                work.tell(DeadlineExceeded("this waited too long to be begun: nothing was done"))
            if work.wanted:
                group.append(work)
                size += len(work.operations)
        return group

    async def _settle(self, group: Sequence[Work], contention_s: float = CONTENTION_PATIENCE_S) -> list[Verdict]:
        """What is to be told to everybody in `group` who was not told yet."""
        try:
            with span("ledger.group", operations=sum(len(work.operations) for work in group)):
                outcomes = await self._persist(group, Deadline.after(contention_s))
        except CoreError as error:
            return [(work, error) for work in group]
        except Exception as error:
            return await self._halve(group, error)
        return list(zip(group, outcomes, strict=True))

    async def _halve(self, group: Sequence[Work], error: Exception) -> list[Verdict]:
        """Something in `group` cannot be written: the others must not fail with it, nor wait until it is found."""
        if len(group) == 1:
            log.error("operation cannot be written", operation=group[0].operations[0].key, exc_info=error)
            return [(group[0], error)]
        middle = len(group) // 2
        for half in (group[:middle], group[middle:]):
            for work, verdict in await self._settle(half, contention_s=CONTENTION_PATIENCE_S / 10):
                work.tell(verdict)
        return []

    async def _persist(self, group: Sequence[Work], contention: Deadline) -> list[list[Outcome]]:
        """Tries until the group is committed; raises a `CoreError` that is true for each, or what is lasting."""
        struggle, clashes = Struggle(Deadline.after(GROUP_PATIENCE_S)), 0
        for attempt in count():
            try:
                with pymongo.timeout(max(struggle.patience.remaining_s, 1.0)):
                    return await self._attempt(group, struggle)
            except LeaseLost:
                await self._lane.keep()
                contended = False
            except DuplicateKeyError:  # another process was first, with an id or a wallet's next line: read again
                clashes += 1
                if clashes > 3:
                    raise
                contended = False
            except PyMongoError as error:
                if _is_conflict(error) and self._turns:
                    await self._turns.conflicted()
                contended = _is_conflict(error) and contention.remaining_s <= 0
                if not _worth_retrying(error) or (contended and len(group) > 1):
                    raise
                log.info("group is tried again", operations=len(group), error=str(error)[:200])
            if contended or struggle.patience.remaining_s <= 0:
                raise struggle.given_up()
            await asyncio.sleep(min(0.25, 0.002 * 2 ** min(attempt, 7)) * random())
        raise AssertionError("unreachable")

    async def _attempt(self, group: Sequence[Work], struggle: Struggle) -> list[list[Outcome]]:
        session = self._lane.session
        async with await session.start_transaction(READ_SNAPSHOT, write_concern=DURABLE):
            book, found, at = await self._load(session, group)
            outcomes = [book.post(work.operations, at) for work in group]
            if not _anything_new(book, group, outcomes):
                return outcomes  # it is committed too: what was read must be durable to be told
            await self._save(session, book, found, partial(_news, book, group, outcomes, at), at)
            await _commit(session, struggle)
        self._outbox.kick()
        return outcomes

    async def _load(self, session: Session, group: Sequence[Work]) -> tuple[Book, store.Found, datetime]:
        """All that the group's operations name, and the instant that it will bear."""
        lane, database = self._lane.number, self._mongo.db
        operations = [operation for work in group for operation in work.operations]
        wallets = {key for o in operations for key in o.wallet_keys(lane)}
        owners = {self._owners[key] for key in wallets if key in self._owners}
        terms = [(o.tenant_id, o.terms) for o in operations if o.terms]
        reversed_ = {f"{tenant}:{t.transfer_id}" for tenant, t in terms if isinstance(t, Reverse)}
        wanted = store.Wanted(
            wallets=wallets,
            transfers={o.key for o in operations} | reversed_,
            accounts=owners,
            holds={f"{tenant}:{t.hold_id}" for tenant, t in terms if isinstance(t, Capture | Release | Reverse)},
            reversals=reversed_,
        )
        found = await store.load(database, session, lane, wanted)
        await self._load_strangers(session, found, owners)
        book = Book(
            lane, found.wallets, found.transfers, found.accounts, found.holds, found.reversed_minor, self._rules
        )
        at = book.next_instant(self._lane.next_instant())
        due = [wallet.key for wallet in found.wallets if wallet.hold_due and wallet.hold_due <= at]
        if due:
            for hold in await store.load_open_holds(database, session, due):
                book.holds.setdefault(hold.key, hold)
        return book, found, at

    async def _load_strangers(self, session: Session, found: store.Found, known: set[str]) -> None:
        """The accounts of owners whose wallets this process has not met before."""
        if len(self._owners) > OWNERS_KEPT:
            self._owners.clear()
        strangers = set()
        for wallet in found.wallets:
            if not wallet.is_system and wallet.account_key not in known:
                strangers.add(wallet.account_key)
                self._owners[wallet.key] = wallet.account_key
        if strangers:
            found.accounts += await store.load_accounts(self._mongo.db, session, strangers)

    async def _save(
        self, session: Session, book: Book, found: store.Found, news: Callable[[], Iterator[Event]], at: datetime
    ) -> None:
        """While MongoDB writes the one thing, the next is made: a fifth of a large group's time."""
        database, transfers = self._mongo.db, book.changes.transfers
        async with _meanwhile(store.save_wallets(database, session, book)):
            page = store.page_of(transfers, book.lane, found, at) if transfers else None
        async with _meanwhile(store.save_lines(database, session, page) if page else None):
            events = list(news())  # numbers them in their accounts, which can be saved now
        if page:
            await store.save_transfers(database, session, page)
            await store.save_terms(database, session, book)
        await store.save_accounts(database, session, book)
        await self._outbox.append(session, events, at=at)
        # Last: what a killed process leaves locked should not be its lane.
        ends = {"journal_sequence": page.block.sequence, "journal_hash": page.block.hash} if page else {}
        await self._lane.guard(session, at=at, **ends)


class Lane:
    """This process's place among those that commit: a leased number, the lowest that is free.

    System wallets have a stripe per lane, so low numbers keep stripes few. While the lease is held no other process
    writes these stripes, and one that lost it cannot commit.
    """

    def __init__(self, mongo: Mongo, clock: Clock) -> None:
        self._database = mongo.db
        self._clock = clock
        # One session for all groups, named in the lease: of a process that died, its transaction can be ended.
        self.session = mongo.client.start_session()
        self._buried_at_s = -inf
        self._lease: Lease | None = None
        self._promised = clock.now() - TICK
        self._kept_at_s = -inf
        self.number = -1

    @property
    def held(self) -> bool:
        return self._lease is not None and self._lease.held

    @property
    def due(self) -> bool:
        """Groups renew the lease too. But there may be none, and none of them looks what the other lanes are at."""
        return monotonic() - self._kept_at_s >= PROMISE_EVERY_S

    def keep_soon(self) -> None:
        self._kept_at_s = -inf

    def next_instant(self) -> datetime:
        """Now, or just after what this process has promised to stay behind of: see `store/settled.py`."""
        return max(self._clock.now(), self._promised + TICK)

    async def take(self) -> None:
        for number in count():
            lease = Lease(self._database, store.lease_name(number), ttl_s=LANE_TTL_S)
            if await _acquire(lease, self._database):
                await store.adopt_journal(self._database, number)
                promised = await store.first_promise(self._database, self._clock.now())
                await lease.renew(at=promised, session=self.session.session_id["id"])
                self._lease, self.number = lease, number
                self._promised, self._kept_at_s = max(promised, self._promised), monotonic()
                log.info("lane taken", lane=number)
                return

    async def keep(self) -> None:
        """Renews the lease of an idle lane, or takes another lane if it was lost. Survives a database that is away."""
        self._kept_at_s = monotonic()
        try:
            with pymongo.timeout(LANE_TTL_S):
                passed = await store.passed_by_others(self._database)
                # Before it is written, for that may take effect late.
                self._promised = max(self._promised, self._clock.now(), passed)
                if self._lease is None or not await self._lease.renew(at={"$max": ["$at", self._promised]}):
                    await self.take()
                if monotonic() - self._buried_at_s > BURIED_EVERY_S:
                    self._buried_at_s = monotonic()
                    await store.end_dead_lanes(self._database)
        except PyMongoError as error:
            log.warning("lane not renewed", lane=self.number, error=str(error))

    async def guard(self, session: Session, at: datetime, **fields: Any) -> None:
        if self._lease is None:
            raise LeaseLost("no lane is held")
        self._promised = at
        await self._lease.guard(session, at=at, **fields)

    async def release(self) -> None:
        if self._lease:
            await self._lease.release()
        await self.session.end_session()


async def _acquire(lease: Lease, database: Database) -> bool:
    """False too for a lease that is locked, by the transaction of a process that died."""
    try:
        with pymongo.timeout(LANE_ANSWERS_WITHIN_S):
            return await lease.acquire(**store.TAKING)
    except PyMongoError as error:
        if not error.timeout:
            raise
    with pymongo.timeout(LANE_ANSWERS_WITHIN_S):
        await database.client.admin.command("ping")  # if all of MongoDB hangs, the next lane is no better
    return False


@asynccontextmanager
async def _meanwhile(sending: Coroutine[Any, Any, None] | None) -> AsyncIterator[None]:
    """Sends something to MongoDB, and has its answer when the block is left. Only one at a time, in a session."""
    if sending is None:
        yield
        return
    task = asyncio.create_task(sending)
    await asyncio.sleep(0)  # now it is on its way
    try:
        yield
    except BaseException:
        await ended(task)
        raise
    await task


async def _commit(session: Session, struggle: Struggle) -> None:
    """Sends the commit until MongoDB says what became of it: a repeated commit is answered with its outcome."""
    while True:
        struggle.in_doubt = True
        try:
            return await session.commit_transaction()
        except PyMongoError as error:
            if not error.has_error_label(UNKNOWN_COMMIT):
                struggle.in_doubt = not error.has_error_label(TRANSIENT)  # which says: it was not committed
                raise
            if struggle.patience.remaining_s <= 0:
                raise struggle.given_up() from error
            log.warning("commit is sent again", error=str(error)[:200])
        await asyncio.sleep(0.1 * random())


def _worth_retrying(error: PyMongoError) -> bool:
    """Whether the attempt certainly wrote nothing, for a reason that passes: a conflict, an election, a restart.

    A server that is still starting is taken by the driver for one without sessions: a `ConfigurationError`.
    """
    passing = isinstance(error, ConnectionFailure | ConfigurationError) or getattr(error, "code", None) == INTERRUPTED
    return passing or error.has_error_label(TRANSIENT) or error.timeout


def _is_conflict(error: PyMongoError) -> bool:
    return isinstance(error, OperationFailure) and error.code == store.WRITE_CONFLICT


def _anything_new(book: Book, group: Sequence[Work], outcomes: Sequence[Sequence[Outcome]]) -> bool:
    return bool(book.changes.transfers) or any(
        isinstance(outcome, Refusal) and facts.is_told(book, operation, outcome)
        for work, answers in zip(group, outcomes, strict=True)
        for operation, outcome in zip(work.operations, answers, strict=True)
    )


def _news(book: Book, group: Sequence[Work], outcomes: Sequence[Sequence[Outcome]], at: datetime) -> Iterator[Event]:
    """Told in the context of who asked. What nobody asked for, the end of an overdue hold, belongs to no request."""
    contexts = {operation.key: work.context for work in reversed(group) for operation in work.operations}
    for transfer in book.changes.transfers:
        context = contexts.get(f"{transfer.tenant_id}:{transfer.operation_id}") or copy_context()
        yield from context.run(facts.of_transfer, book, transfer)
    for work, answers in zip(group, outcomes, strict=True):
        for operation, outcome in zip(work.operations, answers, strict=True):
            if isinstance(outcome, Refusal):
                yield from work.context.run(facts.of_refusal, book, operation, outcome, at)
