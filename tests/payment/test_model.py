"""Random operations, given to the ledger and to a model of it: they agree on every outcome, balance and refusal."""

import asyncio
import json
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from hypothesis import Phase, given, settings, strategies as st

from libs.access_engine import Policy
from libs.core.access import BUILT_IN, Scope
from libs.core.context import Caller
from libs.core.errors import Refusal
from libs.core.events import Outbox
from libs.core.money import INT64_MAX, Money
from libs.core.mongo import Mongo
from libs.core.tenants import SystemWallet
from libs.core.testing import FROZEN_AT, FrozenClock, scratch_mongo
from services.payment import store
from services.payment.domain import (
    Account,
    Book,
    Bucket,
    Capture,
    End,
    Hold,
    Leg,
    Operation,
    Outcome,
    Place,
    Quoted,
    Release,
    Reverse,
    TenantRules,
    Transaction,
    Transfer,
    TransferKind as K,
    Wallet,
    account_key,
    linked,
    user_wallet,
)
from services.payment.domain.limits import (
    Calendar,
    Limit,
    LimitOperation,
    LimitSource,
    LimitWindow,
    PendingChange,
    calendar_at,
    note_balance,
    use,
)
from services.payment.ledger import Ledger
from tests.payment.conftest import open_wallet, prepare, soon, transfer
from tests.payment.model import Line, Model, Move, No, Person, Player, Purse

ZONE = "Europe/Malta"  # whose clocks go forward four weeks after FROZEN_AT
DAY = timedelta(days=1)
PEOPLE = (
    Person("demo", "op", operator=True),
    Person("demo", "ann"),
    Person("demo", "ben"),
    Person("demo", "eve"),
    Person("rival", "rex", operator=True),
)
POLICY = Policy(BUILT_IN)
SCOPES = {
    p.name: {
        action: Scope(
            Caller(p.tenant, p.name, ("operator" if p.operator else "player",), "s", "user"),
            POLICY.filter(("operator" if p.operator else "player",), "transfer", action),
        )
        for action in ("create", "read")
    }
    for p in PEOPLE
}
# Few, so that operations meet. One is another tenant's, and one does not exist.
WALLETS = [
    user_wallet(tenant, owner, category, currency, FROZEN_AT)
    for tenant, owner, category, currency in (
        ("demo", "ann", "main", "EUR"),
        ("demo", "ben", "main", "EUR"),
        ("demo", "ann", "casino", "EUR"),
        ("demo", "ann", "main", "USD"),
        ("demo", "ben", "casino", "USD"),
        ("rival", "cat", "main", "EUR"),
        ("demo", "nobody", "main", "EUR"),
    )
]
THERE = WALLETS[:-1]
PRODUCT = [
    Limit(LimitOperation.BALANCE, LimitWindow.LIFETIME, LimitSource.PRODUCT, "EUR", 400),
    Limit(LimitOperation.WAGER, LimitWindow.DAILY, LimitSource.PRODUCT, "EUR", 60, scope="casino"),
]
HUGE = [Limit(LimitOperation.BALANCE, LimitWindow.LIFETIME, LimitSource.PRODUCT, "EUR", INT64_MAX)]


@dataclass(frozen=True)
class Ask:
    """Something to be done, in numbers that `Asking` makes sense of: `nth` says which hold, transfer or operation."""

    what: str
    by: str
    wallet: int
    other: int
    amount: int
    nth: int
    lot: str
    flag: bool
    seconds: int


@dataclass(frozen=True)
class Freeze:
    wallet: int
    status: str


@dataclass(frozen=True)
class Credit:
    wallet: int
    amount: int


@dataclass(frozen=True)
class Restrict:
    """`limits` replace those that the owner had."""

    owner: str
    suspended: bool
    excluded_s: int
    limits: Sequence[tuple[str, str, str, str, str, int, int | None, int]]


@dataclass(frozen=True)
class Turn:
    """After so long, this is decreed, and then all this is asked at once."""

    wait_s: int
    decree: Freeze | Credit | Restrict | None
    works: Sequence[tuple[Sequence[Ask], bool]]


WHAT = (
    ["deposit"] * 4
    + ["hold", "capture", "reverse"] * 3
    + ["transfer", "again", "bet", "win"] * 2
    + ["withdrawal", "grant", "grant", "convert", "forfeit", "split", "exchange", "void", "adjust"]
)
SECONDS = st.sampled_from([0, 0, 1, 60, 60, 3600, 3600, 6 * 3600, 6 * 3600, 86_400, 8 * 86_400, 31 * 86_400])
# Few again, so that things are used up to the last.
AMOUNTS = st.sampled_from([10, 10, 10, 20, 20, 5, 30, 7, 40])
LARGE = st.sampled_from([1, 50, 2**62, INT64_MAX - 50, INT64_MAX])


def asks(amounts: st.SearchStrategy[int]) -> st.SearchStrategy[Ask]:
    return st.builds(
        Ask,
        what=st.sampled_from(WHAT),
        by=st.sampled_from(["op"] * 15 + ["ann"] * 7 + ["ben"] * 2 + ["eve", "rex"]),
        wallet=st.sampled_from([0] * 10 + [1] * 6 + [2] * 5 + [3] * 3 + [4, 5, 6]),
        other=st.sampled_from([0] * 3 + [1] * 8 + [2] * 4 + [3] * 3 + [4, 5, 6]),
        amount=amounts,
        nth=st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4, 5]),  # the newest first; 5: one that does not exist
        lot=st.sampled_from(["l1", "l1", "l2"]),
        flag=st.booleans(),
        seconds=SECONDS,
    )


def limits() -> st.SearchStrategy[Any]:
    return st.tuples(
        st.sampled_from([*map(str, LimitOperation), "balance", "wager"]),
        st.sampled_from([str(w) for w in LimitWindow]),
        st.sampled_from([str(s) for s in LimitSource]),
        st.sampled_from(["EUR", "EUR", "EUR", "USD"]),
        st.sampled_from(["*", "*", "main", "casino"]),
        st.integers(0, 80),
        st.one_of(st.none(), st.integers(0, 80)),
        SECONDS,
    )


FREEZE = st.builds(
    Freeze, st.sampled_from([0, 0, 0, 1, 2, 3, 4]), st.sampled_from(["active", "active", "frozen", "closed"])
)
CREDIT = st.builds(Credit, st.integers(0, 4), st.sampled_from([0, 10, 50]))
RESTRICT = st.builds(
    Restrict,
    owner=st.sampled_from(["ann", "ben"]),
    suspended=st.sampled_from([False] * 7 + [True]),
    excluded_s=st.sampled_from([0, 0, 0, 60, 86_400]),
    limits=st.lists(limits(), max_size=3),
)
DECREES = st.sampled_from([st.none()] * 8 + [FREEZE, FREEZE, CREDIT, RESTRICT, RESTRICT]).flatmap(lambda it: it)


def turns(
    amounts: st.SearchStrategy[int] = AMOUNTS, *, most: int = 25, at_once: int = 3
) -> st.SearchStrategy[list[Turn]]:
    """Works are lists of what is to be done whole or not at all, most of them of one, and whether only to try it."""
    alone = asks(amounts).map(lambda ask: [ask])
    whole = st.integers(0, 7).flatmap(lambda n: alone if n else st.lists(asks(amounts), min_size=2, max_size=3))
    works = st.lists(st.tuples(whole, st.sampled_from([False] * 9 + [True])), min_size=1, max_size=at_once)
    turn = st.builds(Turn, wait_s=SECONDS, decree=DECREES, works=works)
    return st.integers(1, most).flatmap(lambda n: st.lists(turn, min_size=n, max_size=n))


# Everybody has a little to begin with.
OPENING = Turn(0, None, [([Ask("deposit", "op", number, 0, 50, 0, "l1", False, 0)], False) for number in range(5)])


class Asking:
    """Makes operations of what is asked, out of what the model knows: which holds and transfers there are."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._asked: list[list[Operation]] = []

    def operations(self, asks: Sequence[Ask], dry_run: bool, now: datetime) -> list[Operation]:
        if asks[0].what == "again" and self._asked:
            operations = self._again(asks[0])
        else:
            operations = [self._operation(ask, n, now) for n, ask in enumerate(asks)]
            if len(operations) > 1:
                operations = linked(operations)
            self._asked.append(operations)
        return [replace(o, dry_run=dry_run) for o in operations]

    def _again(self, ask: Ask) -> list[Operation]:
        """What was asked before, by whomever, and not always with the same content."""
        operations = self._asked[-1 - ask.nth % len(self._asked)]
        if ask.amount == 40:
            first = operations[0]
            legs = (replace(first.legs[0], money=Money(ask.amount, first.legs[0].money.currency)), *first.legs[1:])
            asked = first.asked and legs[0].money
            operations = [replace(first, legs=legs, asked=asked), *operations[1:]]
        if ask.flag:
            scopes = SCOPES[ask.by]
            operations = [replace(o, actor=ask.by, scope=scopes["create"], sight=scopes["read"]) for o in operations]
        return operations

    def _operation(self, ask: Ask, number: int, now: datetime) -> Operation:
        wallet, other = WALLETS[ask.wallet], WALLETS[ask.other]
        end, money = End(wallet.id), Money(ask.amount, wallet.currency)
        lot = End(wallet.id, Bucket.BONUS, ask.lot)
        nostro, house, pool = (_system(k, wallet.currency) for k in (SystemWallet.NOSTRO, SystemWallet.HOUSE,
                                                                           SystemWallet.BONUS_POOL))  # fmt: skip
        make = partial(self._make, ask, f"o{len(self._asked)}-{number}")
        match ask.what:
            case "deposit" | "again":
                return make(K.DEPOSIT, *self._with_fee(ask, K.DEPOSIT, nostro, end, money))
            case "withdrawal":
                return make(K.WITHDRAWAL, *self._with_fee(ask, K.WITHDRAWAL, end, nostro, money))
            case "transfer":
                return make(K.TRANSFER, Leg(K.TRANSFER, end, End(other.id), money))
            case "bet":
                return make(K.BET, Leg(K.BET, end, house, money))
            case "split":
                return make(K.BET, Leg(K.BET, end, house, money), Leg(K.BET, lot, house, money))
            case "win":
                return make(K.WIN, Leg(K.WIN, house, lot if ask.flag else end, money))
            case "grant":
                return make(K.BONUS_GRANT, Leg(K.BONUS_GRANT, pool, lot, money))
            case "convert":
                return make(K.BONUS_CONVERSION, Leg(K.BONUS_CONVERSION, lot, end, money))
            case "forfeit":
                return make(K.BONUS_FORFEIT, Leg(K.BONUS_FORFEIT, lot, pool, money))
            case "adjust":
                ends = (house, end) if ask.flag else (end, house)
                return make(K.ADJUSTMENT, Leg(K.ADJUSTMENT, *ends, money))
            case "exchange":
                bought, paid = Money(ask.amount, other.currency), _system(SystemWallet.NOSTRO, other.currency)
                legs = Leg(K.EXCHANGE, end, nostro, money), Leg(K.EXCHANGE, paid, End(other.id), bought)
                return make(K.EXCHANGE, *legs, terms=Quoted(now + timedelta(seconds=ask.seconds)))
            case "hold":
                lasting = timedelta(seconds=ask.seconds if ask.flag else 100 * 86_400)
                terms = Place(now + lasting, (K.WITHDRAWAL, K.BET, K.TRANSFER)[ask.nth % 3])
                return make(K.HOLD, Leg(K.HOLD, end, End(wallet.id, Bucket.LOCKED), money), terms=terms)
            case "reverse":
                return self._reversal(ask, make)
        return self._of_a_hold(ask, make)

    def _of_a_hold(self, ask: Ask, make: Any) -> Operation:
        holds = self._model.holds()
        wallet, other = WALLETS[ask.wallet], WALLETS[ask.other]
        hold_id, owner, currency, rest = "none", wallet, wallet.currency, ask.amount
        if holds and ask.nth < 5:
            hold = holds[-1 - ask.nth % len(holds)]
            owner = next(w for w in WALLETS if w.id == hold.source.wallet_id)
            hold_id, currency, rest = hold.id, hold.currency, hold.amount
        locked = End(owner.id, Bucket.LOCKED)
        if ask.what == "capture":
            end = End(other.id) if ask.lot == "l2" else _system(SystemWallet.NOSTRO, currency)
            leg = Leg(K.CAPTURE, locked, end, Money(ask.amount, currency))
            return make(K.CAPTURE, leg, terms=Capture(hold_id, ask.flag))  # type: ignore[no-any-return]
        leg = Leg(K.VOID, locked, End(owner.id), Money(rest, currency))
        return make(K.VOID, leg, terms=Release(hold_id))  # type: ignore[no-any-return]

    def _reversal(self, ask: Ask, make: Any) -> Operation:
        moves, money = self._model.moves, Money(ask.amount, "EUR")
        ends, transfer_id, hold_id = (End(WALLETS[ask.wallet].id), End(WALLETS[ask.other].id)), "none", ""
        if moves and ask.nth < 5:
            original = moves[-1 - ask.nth % len(moves)]
            ends = _unlocked(original.destination), _unlocked(original.source)
            transfer_id, hold_id, money = original.id, original.hold_id, Money(ask.amount, original.currency)
        receivable = _system(SystemWallet.RECEIVABLE, money.currency) if ask.flag else None
        leg = Leg(K.REVERSAL, *ends, money)
        return make(K.REVERSAL, leg, asked=money, terms=Reverse(transfer_id, receivable, hold_id))  # type: ignore[no-any-return]

    def _with_fee(self, ask: Ask, kind: K, source: End, destination: End, money: Money) -> tuple[Leg, ...]:
        leg = Leg(kind, source, destination, money)
        if not ask.flag:
            return (leg,)
        payer = destination if source.system else source
        fee = Money(max(1, ask.amount // 3), money.currency)
        return leg, Leg(K.FEE, payer, _system(SystemWallet.FEE, money.currency), fee)

    def _make(self, ask: Ask, id: str, kind: K, *legs: Leg, **more: Any) -> Operation:  # noqa: A002
        if kind in (K.DEPOSIT, K.WITHDRAWAL):
            more["asked"] = legs[0].money
        scopes = SCOPES[ask.by]
        return Operation(
            id=id,
            tenant_id="demo",
            kind=kind,
            legs=legs,
            actor=ask.by,
            scope=scopes["create"],
            sight=scopes["read"],
            **more,
        )


def _system(kind: SystemWallet, currency: str) -> End:
    return End.of_system("demo", kind, currency)


def _unlocked(end: End) -> End:
    return replace(end, bucket=Bucket.REAL) if end.bucket is Bucket.LOCKED else end


class Shelf:
    """What a database would hold. A book is given what the ledger would load; what it says has changed is kept."""

    def __init__(self, products: Sequence[Limit]) -> None:
        self.wallets = {w.key: w.snapshot() for w in THERE}
        self.accounts: dict[str, Account] = {}
        self.holds: dict[str, Hold] = {}
        self.transfers: dict[str, Transfer] = {}
        self.reversed: dict[str, int] = {}
        self.rules = TenantRules(calendar=lambda _, at: calendar_at(ZONE, at), limits=lambda _: products)

    def load(self, operations: Sequence[Operation], now: datetime) -> tuple[Book, datetime]:
        terms = [(o.tenant_id, o.terms) for o in operations]
        wallets = {key for o in operations for key in o.wallet_keys(0)}
        reversed_ = {f"{tenant}:{t.transfer_id}" for tenant, t in terms if isinstance(t, Reverse)}
        found = [self.wallets[key].snapshot() for key in sorted(wallets) if key in self.wallets]
        owners = {w.account_key for w in found}
        named = {f"{tenant}:{t.hold_id}" for tenant, t in terms if isinstance(t, Capture | Release | Reverse)}
        accounts = [self.accounts[key].snapshot() for key in sorted(owners) if key in self.accounts]
        at = Book(0, found, accounts=accounts).next_instant(now)
        due = {w.key for w in found if w.hold_due and w.hold_due <= at}
        holds = [
            h.snapshot() for h in self.holds.values() if h.key in named or (h.wallet_key in due and h.status == "open")
        ]
        transfers = [self.transfers[k] for k in {o.key for o in operations} | reversed_ if k in self.transfers]
        reversed_minor = {key: self.reversed[key] for key in reversed_ if key in self.reversed}
        return Book(0, found, transfers, accounts, holds, reversed_minor, self.rules), at

    def save(self, book: Book) -> None:
        changes = book.changes
        self.wallets |= {key: book.wallets[key].snapshot() for key in changes.wallets}
        self.accounts |= {key: book.accounts[key].snapshot() for key in changes.accounts}
        self.holds |= {key: book.holds[key].snapshot() for key in changes.holds}
        self.reversed |= {key: book.reversed[key] for key in changes.reversed}
        for accepted in changes.transfers:
            assert accepted.key not in self.transfers
            self.transfers[accepted.key] = accepted

    def account(self, owner: str) -> Account:
        key = account_key("demo", owner)
        return self.accounts.setdefault(key, Account(key, "demo", owner, FROZEN_AT))


def obey(decree: Freeze | Credit | Restrict | None, shelf: Shelf, model: Model, now: datetime) -> None:
    """What commands other than operations do: to the documents, and to the model."""
    match decree:
        case Freeze(number, status):
            shelf.wallets[WALLETS[number].key].status = model.purses[WALLETS[number].id].status = status
        case Credit(number, amount):
            shelf.wallets[WALLETS[number].key].credit_limit = model.purses[WALLETS[number].id].credit_limit = amount
        case Restrict(owner, suspended, seconds, limits):
            account, wallets = shelf.account(owner), shelf.wallets.values()
            player = Player(suspended, now + timedelta(seconds=seconds) if seconds else None, limits_of(limits, now))
            model.players["demo", owner] = player
            account.status = "suspended" if suspended else "active"
            account.excluded_until, account.limits = player.excluded_until, player.limits
            for wallet in wallets:
                if wallet.account_key == account.key and any(x.operation == "balance" for x in account.limits):
                    owned = wallet.buckets["real"] + wallet.buckets["locked"]
                    note_balance(account.counters, wallet.category, wallet.currency, owned)


def limits_of(described: Iterable[Any], now: datetime) -> list[Limit]:
    found: dict[str, Limit] = {}
    for operation, window, source, currency, scope, amount, then, seconds in described:
        window = "lifetime" if operation == "balance" or (operation, window) == ("loss", "single") else window
        pending = PendingChange(then, now + timedelta(seconds=seconds)) if seconds else None
        of = LimitOperation(operation), LimitWindow(window), LimitSource(source)
        limit = Limit(*of, currency, amount, now, scope, pending)
        found[limit.key] = limit
    return list(found.values())


def new_model(products: Sequence[Limit]) -> Model:
    model = Model(PEOPLE, ZONE, products)
    for wallet in THERE:
        model.purses[wallet.id] = Purse(wallet.tenant_id, wallet.owner_id, wallet.category, wallet.currency)
    return model


def told(outcome: Outcome | Move | No) -> tuple[Any, ...]:
    """An outcome, from either, in the same words."""
    match outcome:
        case Refusal():
            return outcome.code, outcome.rule, outcome.details
        case No():
            return outcome.code, outcome.rule, outcome.details
        case Transfer():
            money = outcome.money
            return outcome.id, str(outcome.kind), money.amount_minor, money.currency, outcome.at, outcome.actor
    return outcome.id, str(outcome.kind), outcome.amount, outcome.currency, outcome.at, outcome.actor


def check_wallets(model: Model, wallets: Iterable[Wallet]) -> None:
    lines = list(model.lines())
    for wallet in wallets:
        mine = [line for line in lines if line.wallet == wallet.id]
        for bucket in Bucket:
            in_it = [line.signed for line in mine if line.bucket == bucket]
            assert (wallet.buckets[bucket], wallet.sequences[bucket]) == (sum(in_it), len(in_it))
        assert wallet.position == len(mine)
        if not wallet.is_system:
            lots = {line.lot: model.lot(wallet.id, line.lot) for line in mine if line.lot}
            assert wallet.lots == {lot: amount for lot, amount in lots.items() if amount}
            assert sum(lots.values()) == wallet.buckets[Bucket.BONUS]
            open_holds = [h for h in model.holds() if h.source.wallet_id == wallet.id and model.rest(h)]
            assert wallet.buckets[Bucket.LOCKED] == sum(map(model.rest, open_holds))
            due = min((h.operation.terms.expires_at for h in open_holds if isinstance(h.operation.terms, Place)),
                      default=None)  # fmt: skip
            assert due is None or (wallet.hold_due and wallet.hold_due <= due)


def check_transfers(model: Model, transfers: Sequence[Transfer]) -> None:
    assert [told(t) for t in transfers] == [told(move) for move in model.moves]
    check_lines(model, [line for t in transfers for line in (t.debit, t.credit)])


def check_lines(model: Model, ours: Sequence[Transaction]) -> None:
    """Each tells where it stands among all lines."""
    running, counted = dict[Any, int](), dict[Any, int]()
    for line, mine in zip(model.lines(), ours, strict=True):
        key = line.wallet, line.bucket
        running[key] = running.get(key, 0) + line.signed
        for numbered in (key, line.wallet):
            counted[numbered] = counted.get(numbered, 0) + 1
        assert seen(mine) == (line, running[key], counted[key], counted[line.wallet])


def seen(line: Transaction) -> tuple[Line, int, int, int]:
    signed = line.amount_minor if line.direction == "credit" else -line.amount_minor
    return Line(line.wallet_id, line.bucket, line.lot, signed), line.balance_after, line.sequence, line.position


def check_holds(model: Model, holds: Iterable[Hold], reversed_: dict[str, int]) -> None:
    stored = {h.id: (h.amount, h.captured, h.released, str(h.status)) for h in holds}
    assert stored == {
        h.id: (h.amount, model.taken(h, "capture"), model.taken(h, "void", "expiry"), model.hold_status(h))
        for h in model.holds()
    }
    sums = {f"{m.tenant}:{m.id}": model.reversed(m) for m in model.moves}
    assert reversed_ == {key: amount for key, amount in sums.items() if amount}


def check_counters(model: Model, accounts: Iterable[Account], calendar: Calendar, now: datetime) -> None:
    for account in accounts:
        for operation in LimitOperation:
            for category, currency in (("*", "EUR"), ("main", "EUR"), ("casino", "EUR"), ("*", "USD")):
                if operation is LimitOperation.BALANCE:
                    continue
                used = use(account.counters, operation, category, currency, calendar)
                of = account.tenant_id, account.owner_id, operation
                windows = ("daily", "weekly", "monthly", "lifetime")
                expected = [model.used(*of, window, category, currency, now) for window in windows]
                assert [used.daily, used.weekly, used.monthly, used.lifetime] == expected


def check_sums(wallets: Iterable[Wallet]) -> None:
    sums: dict[tuple[str, str], int] = {}
    for wallet in wallets:
        key = wallet.tenant_id, wallet.currency
        sums[key] = sums.get(key, 0) + wallet.total
    assert not any(sums.values())


def check_storable(shelf: Shelf) -> None:
    """One number that MongoDB does not take would fail the whole group."""
    numbers = [n for w in shelf.wallets.values() for n in (*w.buckets.values(), *w.lots.values())]
    numbers += [n for a in shelf.accounts.values() for row in a.counters.values() for n in row]
    assert all(-INT64_MAX <= n <= INT64_MAX for n in numbers)


def ask(what: str, wallet: int = 0, amount: int = 10, by: str = "op", **more: Any) -> Ask:
    """Of Ann's first wallet, unless it says another."""
    return replace(Ask(what, by, wallet, 1, amount, 0, "l1", False, 0), **more)


def turn(*asked: Ask, wait_s: int = 0) -> Turn:
    return Turn(wait_s, None, [([one], False) for one in asked])


class TestDisagreed:
    """What random operations found: the ledger and the model said different things of these."""

    def test_a_reversal_of_nothing_tells_only_that(self) -> None:
        play([turn(ask("reverse", wallet=6, by="ann", nth=7))], [])

    def test_a_win_that_is_taken_back_on_another_day_is_no_loss_of_that_day(self) -> None:
        _, model = play([turn(ask("win", amount=30)), turn(ask("reverse", amount=30), wait_s=86_400)], [])
        assert [use.amount for use in model.uses if use.operation == "loss"] == [-30, 30]

    def test_what_was_held_for_a_transfer_to_oneself_is_given_back_when_its_capture_is_reversed(self) -> None:
        held, captured = ask("hold", nth=2), ask("capture", other=2, lot="l2")
        _, model = play([turn(held), turn(captured), turn(ask("reverse"))], [])
        assert [use.amount for use in model.uses if use.operation == "transfer"] == [10, -10]

    def test_overdue_holds_are_released_in_the_order_in_which_they_came_due(self) -> None:
        later, sooner = (ask("hold", flag=True, seconds=seconds) for seconds in (3600, 60))
        _, model = play([turn(later), turn(sooner), turn(ask("transfer", amount=50), wait_s=7200)], [])
        assert [move.id for move in model.moves[-3:]] == ["o6-0.expiry", "o5-0.expiry", "o7-0"]

    def test_two_buckets_that_are_full_do_not_fail_the_group(self) -> None:
        asked = [("win", INT64_MAX - 50), ("hold", INT64_MAX), ("grant", INT64_MAX), ("convert", INT64_MAX)]
        shelf, _ = play([turn(ask(what, amount=amount)) for what, amount in asked], HUGE, counters=False)
        assert shelf.wallets[WALLETS[0].key].total == 2 * INT64_MAX


class TestSeldom:
    """What random operations hardly ever come to."""

    def test_nothing_is_captured_from_a_frozen_wallet_and_what_was_held_is_given_back(self) -> None:
        asked = [([ask("capture")], False), ([ask("void")], False)]
        _, model = play([turn(ask("hold")), Turn(0, Freeze(0, "frozen"), asked)], [])
        assert [str(move.kind) for move in model.moves[-2:]] == ["hold", "void"]


class TestBook:
    @settings(max_examples=150, deadline=None)
    @given(turns())
    def test_agrees_with_the_model(self, turns: list[Turn]) -> None:
        play(turns, PRODUCT)

    @settings(max_examples=60, deadline=None)
    @given(turns(LARGE, most=15))
    def test_agrees_about_amounts_at_the_end_of_the_range(self, turns: list[Turn]) -> None:
        """With a limit on balances, so that they are noted; what is used of others may be more than can be counted."""
        unlimited = [replace(turn, decree=None) if isinstance(turn.decree, Restrict) else turn for turn in turns]
        play(unlimited, HUGE, counters=False)


def play(turns: Sequence[Turn], products: Sequence[Limit], *, counters: bool = True) -> tuple[Shelf, Model]:
    shelf, model = Shelf(products), new_model(products)
    asking, now = Asking(model), FROZEN_AT
    for turn in [OPENING, *turns]:
        now += timedelta(seconds=turn.wait_s)
        obey(turn.decree, shelf, model, now)
        works = [asking.operations(asks, dry_run, now) for asks, dry_run in turn.works]
        book, at = shelf.load([o for work in works for o in work], now)
        outcomes = [book.post(work, at) for work in works]
        expected = [model.post(work, at) for work in works]
        assert [[told(o) for o in work] for work in outcomes] == [[told(o) for o in work] for work in expected]
        shelf.save(book)
        check_wallets(model, shelf.wallets.values())
        check_holds(model, shelf.holds.values(), shelf.reversed)
        if counters:
            check_counters(model, shelf.accounts.values(), calendar_at(ZONE, at), at)
        check_storable(shelf)
    check_transfers(model, list(shelf.transfers.values()))
    check_sums(shelf.wallets.values())
    return shelf, model


class TestLedger:
    async def test_a_hold_is_due_by_the_instant_that_the_group_bears(
        self, payment_db: Mongo, clock: FrozenClock
    ) -> None:
        """Which another process's clock can put ahead of this one's."""
        ann, ben = await open_wallet(payment_db, "ann", 50), await open_wallet(payment_db, "ben")
        ahead = {"$set": {"at": clock.now() + timedelta(seconds=61)}}
        await payment_db.db["wallets"].update_one({"_id": ben.key}, ahead)
        terms, locked = Place(clock.now() + timedelta(seconds=60), K.WITHDRAWAL), End(ann.id, Bucket.LOCKED)
        async with Ledger(payment_db, Outbox(payment_db.db), clock) as ledger:
            await ledger.post(transfer("h1", ann, ann, 50, kind=K.HOLD, destination=locked, terms=terms), soon())
            assert isinstance(await ledger.post(transfer("t1", ann, ben), soon()), Transfer)

    def test_agrees_with_the_model(self, mongo_url: str) -> None:
        """Much at once, so that groups are of any size; then all that is stored is looked at."""
        with asyncio.Runner() as runner:
            stack = AsyncExitStack()
            mongo = runner.run(stack.enter_async_context(scratch_mongo(mongo_url)))
            runner.run(prepare(mongo))

            @settings(max_examples=20, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
            @given(turns(most=10, at_once=8))
            def agrees(turns: list[Turn]) -> None:
                runner.run(play_on_mongo(mongo, turns))

            try:
                agrees()
            finally:
                runner.run(stack.aclose())


async def play_on_mongo(mongo: Mongo, turns: Sequence[Turn]) -> None:
    for name in await mongo.db.list_collection_names():
        await mongo.db[name].delete_many({})
    await mongo.db["wallets"].insert_many([store.wallet_row(wallet) for wallet in THERE])
    model, clock = new_model(PRODUCT), FrozenClock()
    asking = Asking(model)
    async with Ledger(mongo, Outbox(mongo.db), clock, Shelf(PRODUCT).rules) as ledger:
        for turn in [OPENING, *turns]:
            now = clock.advance(seconds=turn.wait_s)
            await obey_on_mongo(mongo, turn.decree, model, now)
            works = [asking.operations(asks, dry_run, now) for asks, dry_run in turn.works]
            answers = await asyncio.gather(*(_post(ledger, work) for work in works))
            for work, outcomes in zip(works, answers, strict=True):
                expected = model.post(work, _happened(outcomes, now))
                assert [told(o) for o in outcomes] == [told(o) for o in expected]
    await check_stored(mongo, model, clock.now())


async def _post(ledger: Ledger, work: Sequence[Operation]) -> Sequence[Outcome]:
    return await ledger.post_all(work, soon()) if len(work) > 1 else [await ledger.post(work[0], soon())]


def _happened(outcomes: Iterable[Outcome], now: datetime) -> datetime:
    """When the group was committed: now or some milliseconds later, between which nothing comes due.

    A repetition is answered with what happened before, yet the group releases what is overdue by now.
    """
    return max([now, *(outcome.at for outcome in outcomes if isinstance(outcome, Transfer))])


async def obey_on_mongo(mongo: Mongo, decree: Freeze | Credit | Restrict | None, model: Model, now: datetime) -> None:
    """As `obey`, in the documents that commands write."""
    shelf = Shelf(PRODUCT)
    shelf.wallets = {row["_id"]: store.wallet_from(row) async for row in mongo.db["wallets"].find()}
    shelf.accounts = {row["_id"]: store.account_from(row) async for row in mongo.db["accounts"].find()}
    obey(decree, shelf, model, now)
    match decree:
        case Freeze(number) | Credit(number):
            wallet = shelf.wallets[WALLETS[number].key]
            decided = {"status": wallet.status, "credit_limit": wallet.credit_limit}
            await mongo.db["wallets"].update_one({"_id": wallet.key}, {"$set": decided})
        case Restrict(owner):
            account = shelf.account(owner)
            row = {
                "tenant_id": account.tenant_id,
                "owner_id": owner,
                "at": account.at,
                "events": account.events,
                "status": account.status,
                "excluded_until": account.excluded_until,
                "limits": [store.limit_row(limit) for limit in account.limits],
                "counters": account.counters,
            }
            await mongo.db["accounts"].update_one({"_id": account.key}, {"$set": row}, upsert=True)


async def check_stored(mongo: Mongo, model: Model, now: datetime) -> None:
    rows = await mongo.db["transfers"].find().sort([("journal.sequence", 1), ("journal.index", 1)]).to_list()
    transfers = [store.transfer_from(row) for row in rows]
    wallets = [store.wallet_from(row) async for row in mongo.db["wallets"].find()]
    accounts = [store.account_from(row) async for row in mongo.db["accounts"].find()]
    holds = [store.hold_from(row) async for row in mongo.db["holds"].find()]
    reversed_ = {row["_id"]: row["reversed"] async for row in mongo.db["reversals"].find()}
    assert [(t.key, t.money.amount_minor) for t in transfers] == [(f"{m.tenant}:{m.id}", m.amount) for m in model.moves]
    check_lines(model, [line for t in transfers for line in (t.debit, t.credit)])
    check_wallets(model, wallets)
    check_holds(model, holds, reversed_)
    check_counters(model, accounts, calendar_at(ZONE, now), now)
    check_sums(wallets)
    await check_transactions(mongo, transfers)
    await check_journal(mongo)
    await check_events(mongo, accounts)


async def check_transactions(mongo: Mongo, transfers: Sequence[Transfer]) -> None:
    """Two for each transfer, and they say what it says."""
    stored = {row["_id"]: row async for row in mongo.db["transactions"].find()}
    assert len(stored) == 2 * len(transfers)
    for moved in transfers:
        for line in (moved.debit, moved.credit):
            row = stored[line.key]
            assert row == store.transaction_row(moved, line) | {"salt": row["salt"]}


async def check_journal(mongo: Mongo) -> None:
    """Each block's hash is made anew of what is stored: see `domain/journal.py` for the formats."""
    moved, lines = await _texts(mongo, "transfers"), await _texts(mongo, "transactions")
    previous, seen, number = bytes(32), 0, 0
    async for block in mongo.db["journal"].find(sort=[("_id", 1)]):
        leaves = []
        for key in block["transfers"]:
            stored = store.transfer_from(bson.decode(moved[key], CodecOptions(tz_aware=True)))
            parts = (moved[key], lines[stored.debit.key], lines[stored.credit.key])
            leaves.append(sha256(b"\x00" + b"".join(sha256(part).digest() for part in parts)).digest())
        number, seen = number + 1, seen + len(leaves)
        at_ms = int(block["at"].timestamp() * 1000 + 0.5)
        head = b"\x02" + block["lane"].to_bytes(4, "big") + number.to_bytes(8, "big") + previous + _root(leaves)
        previous = sha256(head + len(leaves).to_bytes(4, "big") + at_ms.to_bytes(8, "big")).digest()
        assert (block["sequence"], block["leaves"], block["hash"]) == (number, b"".join(leaves), previous)
    assert seen == len(moved)


async def _texts(mongo: Mongo, collection: str) -> dict[str, bytes]:
    raw: Any = CodecOptions(document_class=RawBSONDocument)
    rows: Any = mongo.db.get_collection(collection, codec_options=raw).find()
    return {row["_id"]: row.raw async for row in rows}


def _root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word; the leaves are hashes already."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + _root(leaves[:k]) + _root(leaves[k:])).digest()


async def check_events(mongo: Mongo, accounts: Iterable[Account]) -> None:
    """Numbered without gaps, for each whom they are told of."""
    numbers: dict[str, list[int]] = {}
    async for row in mongo.db["outbox"].find(sort=[("at", 1)]):
        for line in row["events"].splitlines()[1::2]:
            event = json.loads(line)
            numbers.setdefault(event["partitionkey"], []).append(int(event["sequence"]))
    assert numbers == {a.key: list(range(1, a.events + 1)) for a in accounts if a.events}
