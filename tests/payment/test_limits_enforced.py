"""Limits, suspension and self-exclusion where they count: in the commits of the ledger."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from libs.core.clock import SystemClock
from libs.core.errors import Refusal
from libs.core.events import Outbox
from libs.core.money import Money
from libs.core.mongo import Mongo, Session
from libs.core.tenants import SystemWallet
from libs.core.testing import FrozenClock, eventually
from services.payment.domain import (
    Account,
    Bucket,
    End,
    Operation,
    Outcome,
    Place,
    Release,
    TenantRules,
    TransferKind,
    Wallet,
)
from services.payment.domain.limits import (
    AccountStatus,
    Limit,
    LimitOperation as Of,
    LimitSource as By,
    LimitWindow as Per,
    Standing,
    calendar_at,
    use,
)
from services.payment.ledger import Ledger
from services.payment.store import accounts
from tests.payment.conftest import soon, transfer

Player = Callable[..., Awaitable[Wallet]]
NOSTRO = End.of_system("demo", SystemWallet.NOSTRO, "EUR")
HOUSE = End.of_system("demo", SystemWallet.HOUSE, "EUR")
# One tenant in Malta, whose product limits single transfers to 1,000.
PRODUCT = Limit(Of.TRANSFER, Per.SINGLE, By.PRODUCT, "EUR", 1_000)
RULES = TenantRules(calendar=lambda _, at: calendar_at("Europe/Malta", at), limits=lambda _: (PRODUCT,))
BEFORE_MIDNIGHT = datetime(2026, 3, 1, 22, 59, tzinfo=UTC)  # 23:59 in Malta


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(BEFORE_MIDNIGHT)


@pytest.fixture
async def ledger(payment_db: Mongo, clock: FrozenClock) -> AsyncIterator[Ledger]:
    async with Ledger(payment_db, Outbox(payment_db.db), clock, RULES) as ledger:
        yield ledger


@pytest.fixture
def post(ledger: Ledger) -> Callable[[Operation], Awaitable[str]]:
    """`await post(operation)`: "accepted", or the code that refused it."""

    async def ask(operation: Operation) -> str:
        return said(await ledger.post(operation, soon()))

    return ask


Post = Callable[[Operation], Awaitable[str]]


def said(outcome: Outcome) -> str:
    return outcome.code if isinstance(outcome, Refusal) else "accepted"


def deposit(id: str, wallet: Wallet, amount: int) -> Operation:  # noqa: A002
    return transfer(id, wallet, wallet, kind=TransferKind.DEPOSIT, source=NOSTRO, money=Money(amount, "EUR"))


def withdrawal(id: str, wallet: Wallet, amount: int) -> Operation:  # noqa: A002
    return transfer(id, wallet, wallet, kind=TransferKind.WITHDRAWAL, destination=NOSTRO, money=Money(amount, "EUR"))


def bet(id: str, wallet: Wallet, amount: int) -> Operation:  # noqa: A002
    return transfer(id, wallet, wallet, kind=TransferKind.BET, destination=HOUSE, money=Money(amount, "EUR"))


def win(id: str, wallet: Wallet, amount: int) -> Operation:  # noqa: A002
    return transfer(id, wallet, wallet, kind=TransferKind.WIN, source=HOUSE, money=Money(amount, "EUR"))


def hold(id: str, wallet: Wallet, amount: int, until: datetime) -> Operation:  # noqa: A002
    place, locked = Place(until, TransferKind.WITHDRAWAL), End(wallet.id, Bucket.LOCKED)
    money = Money(amount, "EUR")
    return transfer(id, wallet, wallet, kind=TransferKind.HOLD, destination=locked, money=money, terms=place)


def void(id: str, wallet: Wallet, hold_id: str) -> Operation:  # noqa: A002
    locked, release = End(wallet.id, Bucket.LOCKED), Release(hold_id)
    return transfer(id, wallet, wallet, kind=TransferKind.VOID, source=locked, terms=release)


def limit(operation: Of, window: Per, amount: int) -> Limit:
    return Limit(operation, window, By.OPERATOR, "EUR", amount, since=BEFORE_MIDNIGHT)


async def hold_to(mongo: Mongo, wallet: Wallet, *limits: Limit, **changes: Any) -> Account:
    """Puts the owner's account under these. Answers what it was before, and at which instant it changed."""

    async def work(session: Session) -> Account:
        account = await accounts.load_account(mongo.db, "demo", wallet.owner_id, BEFORE_MIDNIGHT, session)
        standing = replace(Standing(limits=limits), **changes)
        await accounts.save_standing(mongo.db, session, account, standing, {})
        return account

    return await mongo.transaction(work)


def deposited(account: Account) -> int:
    return use(account.counters, Of.DEPOSIT, "main", "EUR", calendar_at("UTC", account.at)).daily


class TestWindows:
    async def test_a_day_ends_at_midnight_where_the_tenant_is(
        self, payment_db: Mongo, player: Player, ledger: Ledger, clock: FrozenClock
    ) -> None:
        ann = await player("ann")
        await hold_to(payment_db, ann, limit(Of.DEPOSIT, Per.DAILY, 100))
        assert said(await ledger.post(deposit("d1", ann, 100), soon())) == "accepted"
        refused = await ledger.post(deposit("d2", ann, 1), soon())
        assert isinstance(refused, Refusal)
        assert (refused.rule, refused.details["resetsAt"]) == (
            "limit.deposit.daily.operator",
            "2026-03-02T00:00:00+01:00",
        )
        clock.advance(minutes=1)
        assert said(await ledger.post(deposit("d2", ann, 100), soon())) == "accepted"
        assert said(await ledger.post(deposit("d3", ann, 1), soon())) == "LIMIT_REACHED"

    async def test_what_all_accounts_have(self, player: Player, post: Post) -> None:
        ann, ben = await player("ann", 2_000), await player("ben")
        assert await post(transfer("t1", ann, ben, 1_001)) == "LIMIT_REACHED"
        assert await post(transfer("t1", ann, ben, 1_000)) == "accepted"

    async def test_losses_are_made_room_for_by_wins(self, payment_db: Mongo, player: Player, post: Post) -> None:
        ann = await player("ann", 1_000)
        await hold_to(payment_db, ann, limit(Of.LOSS, Per.DAILY, 100))
        assert await post(bet("b1", ann, 100)) == "accepted"
        assert await post(bet("b2", ann, 1)) == "LIMIT_REACHED"
        assert await post(win("w1", ann, 30)) == "accepted"
        assert await post(bet("b2", ann, 30)) == "accepted"
        assert await post(bet("b3", ann, 1)) == "LIMIT_REACHED"

    async def test_a_refused_operation_uses_up_nothing(self, payment_db: Mongo, player: Player, post: Post) -> None:
        ann = await player("ann", 50)
        await hold_to(payment_db, ann, limit(Of.WITHDRAWAL, Per.DAILY, 100))
        assert await post(withdrawal("w1", ann, 100)) == "INSUFFICIENT_FUNDS"
        assert await post(withdrawal("w2", ann, 50)) == "accepted"
        assert await post(deposit("d1", ann, 100)) == "accepted"
        assert await post(withdrawal("w3", ann, 50)) == "accepted"


class TestHolds:
    async def test_count_when_placed_and_are_given_back_when_voided(
        self, payment_db: Mongo, player: Player, post: Post, clock: FrozenClock
    ) -> None:
        ann, later = await player("ann", 1_000), clock.now() + timedelta(days=3)
        await hold_to(payment_db, ann, limit(Of.WITHDRAWAL, Per.DAILY, 100))
        assert await post(hold("h1", ann, 100, later)) == "accepted"
        assert await post(withdrawal("w1", ann, 1)) == "LIMIT_REACHED"
        assert await post(void("v1", ann, "h1")) == "accepted"
        assert await post(withdrawal("w1", ann, 100)) == "accepted"

    async def test_what_is_voided_on_another_day_does_not_make_room_on_that_day(
        self, payment_db: Mongo, player: Player, post: Post, clock: FrozenClock
    ) -> None:
        ann, later = await player("ann", 1_000), clock.now() + timedelta(days=3)
        await hold_to(payment_db, ann, limit(Of.WITHDRAWAL, Per.DAILY, 100), limit(Of.WITHDRAWAL, Per.MONTHLY, 200))
        assert await post(hold("h1", ann, 100, later)) == "accepted"
        clock.advance(minutes=1)
        assert await post(withdrawal("w1", ann, 100)) == "accepted"
        assert await post(void("v1", ann, "h1")) == "accepted"
        assert await post(withdrawal("w2", ann, 1)) == "LIMIT_REACHED"
        clock.advance(days=1)
        assert await post(withdrawal("w2", ann, 100)) == "accepted"  # the month has it back


class TestAtOnce:
    @pytest.fixture
    async def processes(self, payment_db: Mongo) -> AsyncIterator[list[Ledger]]:
        async with AsyncExitStack() as stack:
            opened = [Ledger(payment_db, Outbox(payment_db.db), SystemClock()) for _ in range(2)]
            yield [await stack.enter_async_context(each) for each in opened]

    async def test_twenty_deposits_never_exceed_what_ten_reach(
        self, payment_db: Mongo, player: Player, processes: list[Ledger]
    ) -> None:
        ann = await player("ann")
        await hold_to(payment_db, ann, limit(Of.DEPOSIT, Per.DAILY, 100))
        outcomes = await asyncio.gather(*(processes[n % 2].post(deposit(f"d{n}", ann, 10), soon()) for n in range(20)))
        assert sorted(map(said, outcomes)) == ["LIMIT_REACHED"] * 10 + ["accepted"] * 10
        wallet = await payment_db.db["wallets"].find_one({"_id": ann.key})
        assert wallet
        assert wallet["buckets"]["real"] == 100

    async def test_a_limit_that_is_lowered_meanwhile_holds_from_then_on(
        self, payment_db: Mongo, player: Player, processes: list[Ledger]
    ) -> None:
        ann = await player("ann")
        await hold_to(payment_db, ann, limit(Of.DEPOSIT, Per.DAILY, 1_000_000))
        posting = eight_clients(processes, lambda name: deposit(name, ann, 10))
        await eventually(lambda: payment_db.db["transfers"].find_one({}))
        lowered = await hold_to(payment_db, ann, limit(Of.DEPOSIT, Per.DAILY, 50))
        outcomes = await posting
        assert outcomes["accepted"] * 10 == max(deposited(lowered), 50)
        assert outcomes["LIMIT_REACHED"] == 8

    async def test_nothing_leaves_after_a_suspension(
        self, payment_db: Mongo, player: Player, processes: list[Ledger]
    ) -> None:
        ann, ben = await player("ann", 1_000_000), await player("ben")
        posting = eight_clients(processes, lambda name: transfer(name, ann, ben, 1))
        await eventually(lambda: payment_db.db["transfers"].find_one({}))
        suspended = await hold_to(payment_db, ann, status=AccountStatus.SUSPENDED)
        outcomes = await posting
        newest = await payment_db.db["transfers"].find_one({}, sort=[("at", -1)])
        assert newest
        assert newest["at"] < suspended.at
        assert outcomes["ACCOUNT_SUSPENDED"] == 8


async def _until_refused(ledger: Ledger, client: str, make: Callable[[str], Operation]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    while outcomes["accepted"] == outcomes.total():
        outcomes[said(await ledger.post(make(f"{client}-{outcomes.total()}"), soon()))] += 1
    return outcomes


async def _sum(asked: Iterable[Awaitable[Counter[str]]]) -> Counter[str]:
    return sum(await asyncio.gather(*asked), Counter())


def eight_clients(processes: Sequence[Ledger], make: Callable[[str], Operation]) -> "asyncio.Task[Counter[str]]":
    """Each asks one of the processes for one operation after the other, until it is refused. What they were told."""
    return asyncio.create_task(_sum(_until_refused(processes[n % 2], f"c{n}", make) for n in range(8)))


class TestStatus:
    async def test_suspended_nothing_leaves_and_nothing_is_paid_in(
        self, payment_db: Mongo, player: Player, post: Post
    ) -> None:
        ann, ben = await player("ann", 100), await player("ben", 100)
        await hold_to(payment_db, ann, status=AccountStatus.SUSPENDED)
        for refused in (transfer("t1", ann, ben), deposit("d1", ann, 1), withdrawal("w1", ann, 1), bet("b1", ann, 1)):
            assert await post(refused) == "ACCOUNT_SUSPENDED"
        assert await post(transfer("t2", ben, ann)) == "accepted"

    async def test_self_excluded_no_deposits_and_no_wagers_until_then(
        self, payment_db: Mongo, player: Player, post: Post, clock: FrozenClock
    ) -> None:
        ann = await player("ann", 100)
        await hold_to(payment_db, ann, excluded_until=clock.now() + timedelta(days=1))
        assert await post(deposit("d1", ann, 1)) == "SELF_EXCLUDED"
        assert await post(bet("b1", ann, 1)) == "SELF_EXCLUDED"
        assert await post(withdrawal("w1", ann, 1)) == "accepted"
        clock.advance(days=1)
        assert await post(deposit("d1", ann, 1)) == "accepted"
