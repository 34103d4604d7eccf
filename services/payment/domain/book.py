"""The rules of money, applied: a `Book` is what one group commit has loaded, and what its operations make of it.

`Book.post(operations, at)` decides them in order against each other's effects; the ledger then writes exactly what the
book says has changed. Why something is refused stands in `refusals`, in order of precedence.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from libs.access_engine import Policy
from libs.core.access import Scope
from libs.core.context import Caller
from libs.core.errors import Refusal
from libs.core.money import INT64_MAX, Money
from services.payment.domain import refusals
from services.payment.domain.limits import (
    AccountStatus,
    Calendar,
    Limit,
    LimitOperation,
    calendar_at,
    count,
    count_win,
    give_back,
    in_force,
    limit_refusal,
    note_balance,
    told_to_payer,
)
from services.payment.domain.operations import (
    Capture,
    Direction,
    End,
    Hold,
    HoldStatus,
    Leg,
    Operation,
    Outcome,
    Place,
    Quoted,
    Release,
    Reverse,
    Transaction,
    Transfer,
    TransferKind,
    expiry_id,
)
from services.payment.domain.wallets import (
    Account,
    Bucket,
    Wallet,
    WalletStatus,
    account_key,
    system_wallet,
)

TICK = timedelta(milliseconds=1)
EXPIRED_BY = "payment"  # the actor of what nobody asked for

# For what needs no say of anybody's.
NOTHING = Scope(Caller("", EXPIRED_BY, kind="service"), Policy(()).filter((), "hold", "expire"))

K = TransferKind
# What counts against which limit, and what a suspended or self-excluded owner is refused.
LIMITED: Mapping[str, LimitOperation] = {
    K.DEPOSIT: LimitOperation.DEPOSIT,
    K.WITHDRAWAL: LimitOperation.WITHDRAWAL,
    K.BET: LimitOperation.WAGER,
    K.TRANSFER: LimitOperation.TRANSFER,
}
SUSPENDED = frozenset({K.TRANSFER, K.DEPOSIT, K.WITHDRAWAL, K.BET, K.HOLD, K.EXCHANGE})
EXCLUDED = frozenset({K.DEPOSIT, K.BET})
# An operator's corrections, and what gives a player's own money back, work on a frozen wallet too.
THAWED = frozenset({K.VOID, K.EXPIRY, K.REVERSAL, K.ADJUSTMENT})
REVERSIBLE = frozenset({K.TRANSFER, K.DEPOSIT, K.WITHDRAWAL, K.BET, K.WIN, K.CAPTURE, K.FEE, K.ADJUSTMENT})


def _in_utc(_: str, at: datetime) -> Calendar:
    return calendar_at("UTC", at)


def _none(_: str) -> Sequence[Limit]:
    return ()


@dataclass(frozen=True, slots=True)
class TenantRules:
    """What depends on the tenant: its calendar at an instant, and the limits that all of its accounts have."""

    calendar: Callable[[str, datetime], Calendar] = _in_utc
    limits: Callable[[str], Sequence[Limit]] = _none


@dataclass(slots=True)
class Changes:
    """The keys of what has to be written, and the transfers that were accepted, in their order."""

    wallets: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)
    holds: set[str] = field(default_factory=set)
    reversed: set[str] = field(default_factory=set)
    transfers: list[Transfer] = field(default_factory=list)

    def copy(self) -> "Changes":
        return Changes(set(self.wallets), set(self.accounts), set(self.holds), set(self.reversed), list(self.transfers))


class Book:
    """What one transaction has read, changed by every operation that is accepted.

    It must have been given whatever the operations name and the database has: wallets, transfers of these ids and those
    that are to be reversed with what is `reversed` of them, holds (all open ones, of a wallet whose `hold_due` has
    come), and the wallets' accounts.
    """

    def __init__(
        self,
        lane: int,
        wallets: Iterable[Wallet],
        transfers: Iterable[Transfer] = (),
        accounts: Iterable[Account] = (),
        holds: Iterable[Hold] = (),
        reversed_minor: Mapping[str, int] | None = None,
        rules: TenantRules | None = None,
    ) -> None:
        self.lane = lane
        self.wallets = {wallet.key: wallet for wallet in wallets}
        self.transfers = {transfer.key: transfer for transfer in transfers}
        self.accounts = {account.key: account for account in accounts}
        self.holds = {hold.key: hold for hold in holds}
        self.reversed = dict(reversed_minor or {})
        self.changes = Changes()
        self._rules = rules or TenantRules()

    def next_instant(self, now: datetime) -> datetime:
        """Now, or just after the last thing that happened to anything in here: no wallet's time runs backwards."""
        last = max((it.at for group in (self.wallets, self.accounts) for it in group.values()), default=now - TICK)
        return max(now, last + TICK)

    def account_of(self, tenant_id: str, owner_id: str, at: datetime) -> Account:
        key = account_key(tenant_id, owner_id)
        if key not in self.accounts:
            self.accounts[key] = Account(key, tenant_id, owner_id, at)
        return self.accounts[key]

    def next_event(self, tenant_id: str, owner_id: str, at: datetime) -> int:
        """The number of the event that tells `owner_id` of something: gapless, in the order of their commits."""
        account = self.account_of(tenant_id, owner_id, at)
        account.events += 1
        account.at = at
        self.changes.accounts.add(account.key)
        return account.events

    def owner_of(self, operation: Operation) -> str | None:
        """The player whose wallet an operation would have moved money of, or to."""
        for end in (operation.source, operation.destination):
            wallet = self.wallets.get(end.key(operation.tenant_id, self.lane))
            if wallet and not wallet.is_system:
                return wallet.owner_id
        return None

    def post(self, operations: Sequence[Operation], at: datetime) -> list[Outcome]:
        """Decides a set of operations that stand or fall together; one that stands alone is a set of one.

        If it is a dry run, the outcomes are what they would be, and the book is as it was.
        """
        if operations[0].dry_run:
            before = _Before(self, operations)
            outcomes = self._post(operations, at)
            before.restore()
            return outcomes
        return self._post(operations, at)

    def _post(self, operations: Sequence[Operation], at: datetime) -> list[Outcome]:
        for operation in operations:
            self._release_due(operation, at)
        if len(operations) == 1:
            return [self._decide(operations[0], at)]
        before = _Before(self, operations)
        for culprit in operations:
            refusal = self._decide(culprit, at)
            if isinstance(refusal, Refusal):
                before.restore()
                return [refusal if o is culprit else refusals.linked_to(culprit, refusal) for o in operations]
        return [self.transfers[o.key] for o in operations]

    def _release_due(self, operation: Operation, at: datetime) -> None:
        """Holds that are overdue give way to the first debit that might want their money."""
        for leg in operation.legs:
            wallet = self.wallets.get(leg.source.key(operation.tenant_id, self.lane))
            if wallet is None or wallet.hold_due is None or wallet.hold_due > at:
                continue
            still_open = [h for h in self.holds.values() if h.wallet_key == wallet.key and h.status == HoldStatus.OPEN]
            for hold in sorted(still_open, key=lambda hold: (hold.expires_at, hold.id)):
                if hold.expires_at <= at:
                    self._decide(expiry(hold), at)
            left = [hold for hold in still_open if hold.status == HoldStatus.OPEN]
            # What came due only by a clock that is ahead was not loaded: it must not be forgotten.
            if sum(hold.rest for hold in left) == wallet.buckets[Bucket.LOCKED]:
                wallet.hold_due = min((hold.expires_at for hold in left), default=None)
                self.changes.wallets.add(wallet.key)

    def _decide(self, operation: Operation, at: datetime) -> Outcome:
        stored = self.transfers.get(operation.key)
        if stored:
            return _replay(operation, stored)
        refusal = self._access_refusal(operation, at) or self._terms_refusal(operation, at)
        if refusal:
            return refusal
        legs = self._legs(operation)
        if len(legs) == 1:
            return self._move(operation, legs, 0, at)
        before = _Before(self, [operation])
        outcomes: list[Outcome] = []
        for number in range(len(legs)):
            outcome = self._move(operation, legs, number, at)
            if isinstance(outcome, Refusal):
                before.restore()
                return outcome
            outcomes.append(outcome)
        return outcomes[0]

    def _access_refusal(self, operation: Operation, at: datetime) -> Refusal | None:
        terms = operation.terms
        if isinstance(terms, Reverse) and f"{operation.tenant_id}:{terms.transfer_id}" not in self.transfers:
            return refusals.transfer_not_found(terms.transfer_id)
        for leg in operation.legs:
            source, destination = (self._wallet(operation, leg, end, at) for end in (leg.source, leg.destination))
            if source is None or destination is None or not _may_act(operation, leg, source, destination):
                if isinstance(terms, Capture | Release):
                    return refusals.hold_not_found(terms.hold_id)
                return refusals.wallet_not_found(operation)
        return None

    def _terms_refusal(self, operation: Operation, at: datetime) -> Refusal | None:
        match operation.terms:
            case None:
                return None
            case Place(expires_at):
                return refusals.hold_overdue(expires_at) if expires_at <= at else None
            case Quoted(expires_at):
                return refusals.quote_expired(expires_at) if expires_at <= at else None
            case Capture(hold_id) | Release(hold_id):
                return self._hold_refusal(operation, self.holds.get(f"{operation.tenant_id}:{hold_id}"))
            case Reverse(transfer_id):
                return self._reversal_refusal(operation, self.transfers[f"{operation.tenant_id}:{transfer_id}"])

    def _hold_refusal(self, operation: Operation, hold: Hold | None) -> Refusal | None:
        assert isinstance(operation.terms, Capture | Release)
        if hold is None:
            return refusals.hold_not_found(operation.terms.hold_id)
        if hold.status != HoldStatus.OPEN:
            return refusals.hold_closed(hold)
        if isinstance(operation.terms, Capture) and operation.money.amount_minor > hold.rest:
            return refusals.hold_exceeded(hold, operation.money)
        return None

    def _reversal_refusal(self, operation: Operation, original: Transfer) -> Refusal | None:
        if original.kind not in REVERSIBLE:
            return refusals.not_reversible(original)
        already = self.reversed.get(original.key, 0)
        if already + operation.money.amount_minor > original.money.amount_minor:
            return refusals.reversal_exceeded(original, already, operation.money)
        return None

    def _legs(self, operation: Operation) -> Sequence[Leg]:
        """As asked for, with the amounts that only what was loaded can tell."""
        match operation.terms:
            case Release(hold_id):
                rest = self.holds[f"{operation.tenant_id}:{hold_id}"].rest
                return [replace(operation.legs[0], money=Money(rest, operation.money.currency))]
            case Capture(hold_id, final=True):
                hold = self.holds[f"{operation.tenant_id}:{hold_id}"]
                rest = hold.rest - operation.money.amount_minor
                return [*operation.legs, _release_leg(hold, K.VOID, rest)] if rest else operation.legs
            case Reverse(_, receivable) if receivable:
                return self._with_shortfall(operation, operation.legs[0], receivable)
        return operation.legs

    def _with_shortfall(self, operation: Operation, leg: Leg, receivable: End) -> Sequence[Leg]:
        """What is not there any more is owed: by the `receivable` wallet, for the operator to collect."""
        wallet = self.wallets[leg.source.key(operation.tenant_id, self.lane)]
        there = 0 if wallet.status == WalletStatus.CLOSED else max(0, _held(wallet, leg.source))
        missing = leg.money.amount_minor - there
        if wallet.is_system or missing <= 0:
            return [leg]
        owed = replace(leg, source=receivable, money=Money(missing, leg.money.currency))
        return [replace(leg, money=Money(there, leg.money.currency)), owed] if there else [owed]

    def _move(self, operation: Operation, legs: Sequence[Leg], number: int, at: datetime) -> Outcome:
        leg = legs[number]
        source = self._wallet(operation, leg, leg.source, at)
        destination = self._wallet(operation, leg, leg.destination, at)
        assert source is not None
        assert destination is not None
        refusal = (
            _wallets_refusal(leg, source, destination)
            or self._account_refusal(operation, number, leg, source, destination, at)
            or _funds_refusal(operation, leg, source, destination)
            or _proof_refusal(operation, number, source, destination)
        )
        if refusal:
            return refusal
        transfer = self._accept(operation, legs, number, source, destination, at)
        self._count(operation, number, leg, source, destination, at)
        if number == 0:
            self._apply_terms(operation, leg, source, at)
        elif leg.kind is K.VOID:  # what a final capture leaves
            self._give_hold_back(operation, leg.money.amount_minor, HoldStatus.CAPTURED, at)
        return transfer

    def _account_refusal(
        self, operation: Operation, number: int, leg: Leg, source: Wallet, destination: Wallet, at: datetime
    ) -> Refusal | None:
        """What the owner's account says: of who pays; of who is paid, for money from outside; and balance limits."""
        kind = operation.terms.purpose if isinstance(operation.terms, Place) else leg.kind
        acting = destination if source.is_system else source
        if not acting.is_system:
            account = self.account_of(acting.tenant_id, acting.owner_id, at)
            if account.status == AccountStatus.SUSPENDED and (leg.kind in SUSPENDED):
                return refusals.account_suspended(account)
            if account.excluded_until and account.excluded_until > at and kind in EXCLUDED:
                return refusals.self_excluded(account, account.excluded_until)
            limited = LIMITED.get(kind)
            amount = _counted(operation) if limited and number == 0 else 0
            if limited and amount and not _among_own(kind, source, destination):
                refusal = self._limit_refusal(account, acting, limited, amount, leg, destination, at)
                if refusal:
                    return refusal
        if destination.is_system or destination is acting or destination.owner_id == source.owner_id:
            return None
        payee = self.account_of(destination.tenant_id, destination.owner_id, at)
        amount = leg.money.amount_minor
        refusal = self._limit_refusal(payee, destination, LimitOperation.BALANCE, amount, leg, destination, at)
        if refusal and not _permits(operation.sight, destination):
            return told_to_payer(refusal)
        return refusal

    def _limit_refusal(
        self,
        account: Account,
        wallet: Wallet,
        limited: LimitOperation,
        amount: int,
        leg: Leg,
        destination: Wallet,
        at: datetime,
    ) -> Refusal | None:
        limits = in_force(account.limits, self._rules.limits(wallet.tenant_id), at)
        if not limits:
            return None
        calendar = self._rules.calendar(wallet.tenant_id, at)
        credited = wallet is destination and leg.destination.bucket is not Bucket.BONUS
        after = _owned(wallet) + amount if credited else None
        return limit_refusal(
            limits, account.counters, limited, wallet.category, wallet.currency, amount, after, calendar
        )

    def _count(
        self, operation: Operation, number: int, leg: Leg, source: Wallet, destination: Wallet, at: datetime
    ) -> None:
        """What this uses up of the owner's limits; whoever counts is written."""
        acting = destination if source.is_system else source
        kind = operation.terms.purpose if isinstance(operation.terms, Place) else leg.kind
        amount = _counted(operation) if number == 0 and not acting.is_system else 0
        if amount and not _among_own(kind, source, destination):
            account = self.account_of(acting.tenant_id, acting.owner_id, at)
            calendar = self._rules.calendar(acting.tenant_id, at)
            what = acting.category, acting.currency, amount, calendar
            if limited := LIMITED.get(kind):
                count(account.counters, limited, *what)
                self.changes.accounts.add(account.key)
            elif kind is K.WIN:
                count_win(account.counters, *what)
                self.changes.accounts.add(account.key)
        for wallet in (source, destination):
            if not wallet.is_system:
                self._note_balance(wallet, at)

    def _note_balance(self, wallet: Wallet, at: datetime) -> None:
        """Only for who has a limit on it: all others' accounts would be written for nothing."""
        account = self.account_of(wallet.tenant_id, wallet.owner_id, at)
        limits = in_force(account.limits, self._rules.limits(wallet.tenant_id), at)
        if any(limit.operation is LimitOperation.BALANCE for limit in limits):
            note_balance(account.counters, wallet.category, wallet.currency, _owned(wallet))
            self.changes.accounts.add(account.key)

    def _apply_terms(self, operation: Operation, leg: Leg, source: Wallet, at: datetime) -> None:
        amount = leg.money.amount_minor
        match operation.terms:
            case Place(expires_at, purpose):
                self._place(operation, source, expires_at, purpose, at)
            case Capture(hold_id):
                hold = self.holds[f"{operation.tenant_id}:{hold_id}"]
                hold.captured += amount
                hold.status = HoldStatus.OPEN if hold.rest else HoldStatus.CAPTURED
                self.changes.holds.add(hold.key)
            case Release():
                status = HoldStatus.EXPIRED if operation.kind is K.EXPIRY else HoldStatus.VOIDED
                self._give_hold_back(operation, amount, status, at)
            case Reverse(transfer_id):
                self._reverse(operation, self.transfers[f"{operation.tenant_id}:{transfer_id}"], at)

    def _place(
        self, operation: Operation, wallet: Wallet, expires_at: datetime, purpose: TransferKind, at: datetime
    ) -> None:
        self.holds[operation.key] = Hold(
            key=operation.key,
            id=operation.id,
            tenant_id=operation.tenant_id,
            wallet_key=wallet.key,
            wallet_id=wallet.id,
            owner_id=wallet.owner_id,
            currency=wallet.currency,
            amount=operation.money.amount_minor,
            purpose=purpose,
            expires_at=expires_at,
            placed_at=at,
        )
        self.changes.holds.add(operation.key)
        wallet.hold_due = min(wallet.hold_due or expires_at, expires_at)

    def _give_hold_back(self, operation: Operation, amount: int, status: HoldStatus, at: datetime) -> None:
        assert isinstance(operation.terms, Capture | Release)
        hold = self.holds[f"{operation.tenant_id}:{operation.terms.hold_id}"]
        hold.released += amount
        hold.status = status
        self.changes.holds.add(hold.key)
        wallet = self.wallets[hold.wallet_key]
        self._give_back(wallet, hold.purpose, amount, hold.placed_at, at)

    def _reverse(self, operation: Operation, original: Transfer, at: datetime) -> None:
        """All that was asked for counts as reversed, also what is only owed."""
        amount = operation.money.amount_minor
        self.reversed[original.key] = self.reversed.get(original.key, 0) + amount
        self.changes.reversed.add(original.key)
        line = original.credit if original.debit.is_system else original.debit
        wallet = self.wallets.get(line.wallet_key)
        if wallet and not wallet.is_system and line.bucket != Bucket.BONUS:
            hold = self.holds.get(f"{original.tenant_id}:{original.hold_id}")
            if hold:
                self._give_back(wallet, hold.purpose, amount, hold.placed_at, at)
            elif original.kind != K.TRANSFER or original.credit.owner_id != original.debit.owner_id:
                self._give_back(wallet, original.kind, amount, original.at, at)

    def _give_back(self, wallet: Wallet, kind: str, amount: int, counted_at: datetime, at: datetime) -> None:
        account = self.account_of(wallet.tenant_id, wallet.owner_id, at)
        then, now = (self._rules.calendar(wallet.tenant_id, instant) for instant in (counted_at, at))
        # A win that is taken back is a loss again.
        limited, amount = (LimitOperation.LOSS, -amount) if kind == K.WIN else (LIMITED.get(kind), amount)
        if limited:
            give_back(account.counters, limited, wallet.category, wallet.currency, amount, then, now)
            self.changes.accounts.add(account.key)

    def _wallet(self, operation: Operation, leg: Leg, end: End, at: datetime) -> Wallet | None:
        key = end.key(operation.tenant_id, self.lane)
        wallet = self.wallets.get(key)
        if wallet is None and end.system:  # this lane's stripe, used for the first time
            wallet = system_wallet(operation.tenant_id, end.system, leg.money.currency, at)
            wallet.key = key
            self.wallets[key] = wallet
        return wallet

    def _accept(
        self,
        operation: Operation,
        legs: Sequence[Leg],
        number: int,
        source: Wallet,
        destination: Wallet,
        at: datetime,
    ) -> Transfer:
        leg, terms, leg_id = legs[number], operation.terms, operation.leg_id(number)
        amount = leg.money.amount_minor
        transfer = Transfer(
            key=f"{operation.tenant_id}:{leg_id}",
            id=leg_id,
            tenant_id=operation.tenant_id,
            kind=leg.kind,
            money=leg.money,
            debit=self._enter(source, leg.source, Direction.DEBIT, amount, at),
            credit=self._enter(destination, leg.destination, Direction.CREDIT, amount, at),
            at=at,
            actor=operation.actor,
            reference=operation.reference,
            metadata=operation.metadata,
            fingerprint=operation.fingerprint,
            operation_id=operation.id,
            leg=number,
            legs=len(legs),
            hold_id=terms.hold_id if isinstance(terms, Capture | Release) else "",
            reverses=terms.transfer_id if isinstance(terms, Reverse) else "",
        )
        self.transfers[transfer.key] = transfer
        self.changes.transfers.append(transfer)
        return transfer

    def _enter(self, wallet: Wallet, end: End, direction: Direction, amount: int, at: datetime) -> Transaction:
        bucket, signed = end.bucket, amount if direction is Direction.CREDIT else -amount
        wallet.buckets[bucket] += signed
        wallet.sequences[bucket] += 1
        wallet.position += 1
        wallet.at = at
        if end.lot:
            wallet.lots[end.lot] = wallet.lots.get(end.lot, 0) + signed
            if not wallet.lots[end.lot]:
                del wallet.lots[end.lot]
        self.changes.wallets.add(wallet.key)
        return Transaction(
            wallet_key=wallet.key,
            wallet_id=wallet.id,
            owner_id=wallet.owner_id,
            is_system=wallet.is_system,
            bucket=bucket,
            lot=end.lot,
            direction=direction,
            amount_minor=amount,
            balance_after=wallet.buckets[bucket],
            sequence=wallet.sequences[bucket],
            position=wallet.position,
        )


class _Before:
    """What a book was before it was given these operations."""

    def __init__(self, book: Book, operations: Sequence[Operation]) -> None:
        self._book = book
        ends = {key for operation in operations for key in operation.wallet_keys(book.lane)}
        self._wallets = {key: book.wallets[key].snapshot() for key in ends if key in book.wallets}
        self._new_wallets = ends - self._wallets.keys()
        owners = {wallet.account_key for wallet in self._wallets.values()}
        self._accounts = {key: book.accounts[key].snapshot() for key in owners if key in book.accounts}
        self._new_accounts = owners - self._accounts.keys()
        self._holds = {key: hold.snapshot() for key, hold in book.holds.items()}
        self._reversed = dict(book.reversed)
        self._changes = book.changes.copy()

    def restore(self) -> None:
        book = self._book
        for key in self._new_wallets:
            book.wallets.pop(key, None)
        for key in self._new_accounts:
            book.accounts.pop(key, None)
        for transfer in book.changes.transfers[len(self._changes.transfers) :]:
            with suppress(KeyError):
                del book.transfers[transfer.key]
        book.wallets.update(self._wallets)
        book.accounts.update(self._accounts)
        book.holds, book.reversed, book.changes = self._holds, self._reversed, self._changes


def expiry(hold: Hold) -> Operation:
    """The release of an overdue hold, which nobody needs to ask for: its id follows from the hold's."""
    return Operation(
        id=expiry_id(hold.id),
        tenant_id=hold.tenant_id,
        kind=K.EXPIRY,
        legs=(_release_leg(hold, K.EXPIRY, hold.rest),),
        actor=EXPIRED_BY,
        scope=NOTHING,
        sight=NOTHING,
        terms=Release(hold.id),
    )


def _counted(operation: Operation) -> int:
    """What counts against limits: what was asked for before a fee, or all of a stake that is not bonus money."""
    if operation.asked:
        return operation.asked.amount_minor
    first, *others = operation.legs
    return _real(first) + sum(_real(leg) for leg in others if leg.kind is first.kind) if others else _real(first)


def _real(leg: Leg) -> int:
    bonus = leg.source.bucket is Bucket.BONUS or leg.destination.bucket is Bucket.BONUS
    return 0 if bonus else leg.money.amount_minor


def _among_own(kind: str, source: Wallet, destination: Wallet) -> bool:
    """Who moves money between their own wallets has not parted with it."""
    return kind == K.TRANSFER and source.owner_id == destination.owner_id and source is not destination


def _permits(scope: Scope, wallet: Wallet) -> bool:
    return scope.permits(owner_id=wallet.owner_id, tenant_id=wallet.tenant_id, id=wallet.id)


def _release_leg(hold: Hold, kind: TransferKind, amount: int) -> Leg:
    locked, real = End(hold.wallet_id, Bucket.LOCKED), End(hold.wallet_id)
    return Leg(kind, locked, real, Money(amount, hold.currency))


def _may_act(operation: Operation, leg: Leg, source: Wallet, destination: Wallet) -> bool:
    """The caller needs a say over the wallet whose money leaves; where the system pays, over who is paid.

    Nobody names a system wallet by its id: commands do, by its kind.
    """
    for wallet, end in ((source, leg.source), (destination, leg.destination)):
        if wallet.is_system != (end.system is not None):
            return False
    acting = destination if source.is_system else source
    if acting.is_system or operation.kind is K.EXPIRY:
        return True
    return _permits(operation.scope, acting)


def _wallets_refusal(leg: Leg, source: Wallet, destination: Wallet) -> Refusal | None:
    if leg.source == leg.destination:
        return refusals.same_bucket(leg)
    for wallet in (source, destination):
        if wallet.currency != leg.money.currency:
            return refusals.currency_mismatch(wallet, leg.money)
    for wallet in (source, destination):
        thawed = wallet.status == WalletStatus.FROZEN and leg.kind in THAWED
        if wallet.status != WalletStatus.ACTIVE and not thawed:
            return refusals.wallet_not_active(wallet)
    return None


def _funds_refusal(operation: Operation, leg: Leg, source: Wallet, destination: Wallet) -> Refusal | None:
    amount, there = leg.money.amount_minor, _held(source, leg.source)
    credit = source.credit_limit if leg.source.bucket is Bucket.REAL else 0
    # A deposit's fee is less than the deposit: who is in debt is less so after both, and must not be kept from paying.
    guarded = not source.is_system and not (operation.kind is K.DEPOSIT and leg.kind is K.FEE)
    if guarded and amount > there + credit:
        return refusals.insufficient_funds(source, leg, max(0, there + credit))
    if source.buckets[leg.source.bucket] - amount < -INT64_MAX:
        return refusals.balance_limit()
    if destination.buckets[leg.destination.bucket] + amount > INT64_MAX:
        return refusals.balance_limit()
    return None


def _proof_refusal(operation: Operation, number: int, source: Wallet, destination: Wallet) -> Refusal | None:
    """Last of all, so that nobody is asked for a code for what would be refused anyway."""
    missing = operation.unproven
    if missing is None or number > 0:
        return None
    if source.owner_id != operation.actor and not missing.operators:
        return None
    return None if _among_own(operation.kind, source, destination) else missing.refusal


def _held(wallet: Wallet, end: End) -> int:
    return wallet.lots.get(end.lot, 0) if end.lot else wallet.buckets[end.bucket]


def _owned(wallet: Wallet) -> int:
    """What is its owner's: bonus money is not, until it is converted."""
    return wallet.buckets[Bucket.REAL] + wallet.buckets[Bucket.LOCKED]


def _replay(operation: Operation, stored: Transfer) -> Outcome:
    """The stored outcome for the same content; to a caller who may not see the original, the id is simply taken."""
    same = operation.fingerprint == stored.fingerprint and stored.leg == 0
    if same and (operation.actor == stored.actor or stored.visible_to(operation.sight)):
        return stored
    return refusals.idempotency_mismatch(operation.id)
