"""The ledger once more, as plainly as it can be said: a list of movements, and whatever one asks is added up from it.

There are no balances here, no counters and no open holds: each is a sum over all that was ever accepted. To take
something back is to cut the list. It is slow, and there is little in it that could be wrong; `test_model.py` holds the
real ledger against it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from libs.core.money import INT64_MAX, Money
from services.payment.domain import Capture, End, Leg, Operation, Place, Quoted, Release, Reverse, TransferKind
from services.payment.domain.limits import Limit

# What counts as what, for limits.
LIMITED_AS = {"deposit": "deposit", "withdrawal": "withdrawal", "bet": "wager", "transfer": "transfer"}
HELD_TO = {"deposit": {"deposit", "balance"}, "wager": {"wager", "loss"}}
REFUSED_TO_SUSPENDED = {"transfer", "deposit", "withdrawal", "bet", "hold", "exchange"}
REFUSED_TO_EXCLUDED = {"deposit", "bet"}
DONE_WHERE_FROZEN = {"void", "expiry", "reversal", "adjustment"}
REVERSIBLE = {"transfer", "deposit", "withdrawal", "bet", "win", "capture", "fee", "adjustment"}
# In the order in which equals are told.
SOURCES = ["kyc", "operator", "product", "player"]
WINDOWS = ["single", "daily", "weekly", "monthly", "lifetime"]
OPERATIONS = ["deposit", "withdrawal", "wager", "loss", "balance", "transfer"]


@dataclass(frozen=True)
class Person:
    """Operators may act on all of their tenant's wallets and see them, players on and only their own."""

    tenant: str
    name: str
    operator: bool = False

    def has_a_say(self, tenant: str, owner: str) -> bool:
        return tenant == self.tenant and (self.operator or owner == self.name)


@dataclass
class Purse:
    """A player's wallet: what is known of it without looking at any money."""

    tenant: str
    owner: str
    category: str
    currency: str
    status: str = "active"
    credit_limit: int = 0


@dataclass
class Player:
    suspended: bool = False
    excluded_until: datetime | None = None
    limits: list[Limit] = field(default_factory=list)


@dataclass(frozen=True)
class Move:
    """An amount that went from one end to another."""

    tenant: str
    id: str
    kind: str
    source: End
    destination: End
    amount: int
    currency: str
    at: datetime
    actor: str
    operation: Operation
    leg: int
    legs: int

    @property
    def hold_id(self) -> str:
        return self.operation.terms.hold_id if isinstance(self.operation.terms, Capture | Release) else ""

    @property
    def reverses(self) -> str:
        return self.operation.terms.transfer_id if isinstance(self.operation.terms, Reverse) else ""


@dataclass(frozen=True)
class No:
    code: str
    rule: str
    details: dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One side of a move."""

    wallet: str
    bucket: str
    lot: str
    signed: int


@dataclass(frozen=True)
class Use:
    """So much was done at that time, of what a limit may be about. Negative: it was given back, or won."""

    tenant: str
    owner: str
    operation: str
    category: str
    currency: str
    amount: int
    at: datetime


class Model:
    def __init__(self, people: Iterable[Person], zone: str, products: Sequence[Limit] = ()) -> None:
        self.people = {person.name: person for person in people}
        self.purses: dict[str, Purse] = {}
        self.players: dict[tuple[str, str], Player] = {}
        self.zone = ZoneInfo(zone)
        self.products = products
        self.moves: list[Move] = []
        self.uses: list[Use] = []

    # What can be added up.

    def lines(self) -> Iterator[Line]:
        for move in self.moves:
            yield Line(move.source.wallet_id, move.source.bucket, move.source.lot, -move.amount)
            yield Line(move.destination.wallet_id, move.destination.bucket, move.destination.lot, move.amount)

    def balance(self, wallet: str, bucket: str) -> int:
        return sum(line.signed for line in self.lines() if (line.wallet, line.bucket) == (wallet, bucket))

    def lot(self, wallet: str, lot: str) -> int:
        return sum(line.signed for line in self.lines() if line.lot and (line.wallet, line.lot) == (wallet, lot))

    def owned(self, wallet: str) -> int:
        return self.balance(wallet, "real") + self.balance(wallet, "locked")

    def there(self, end: End) -> int:
        return self.lot(end.wallet_id, end.lot) if end.lot else self.balance(end.wallet_id, end.bucket)

    def move(self, tenant: str, id: str) -> Move | None:  # noqa: A002
        return next((move for move in self.moves if (move.tenant, move.id) == (tenant, id)), None)

    def hold(self, tenant: str, id: str) -> Move | None:  # noqa: A002
        return next((move for move in self.holds() if (move.tenant, move.id) == (tenant, id)), None)

    def holds(self) -> list[Move]:
        return [move for move in self.moves if isinstance(move.operation.terms, Place)]

    def taken(self, hold: Move, *kinds: str) -> int:
        """Of what was held, how much was captured, or given back."""
        return sum(m.amount for m in self.moves if (m.tenant, m.hold_id) == (hold.tenant, hold.id) and m.kind in kinds)

    def rest(self, hold: Move) -> int:
        return hold.amount - self.taken(hold, "capture", "void", "expiry")

    def hold_status(self, hold: Move) -> str:
        if self.rest(hold):
            return "open"
        last = [m for m in self.moves if (m.tenant, m.hold_id) == (hold.tenant, hold.id)][-1]
        return {"capture": "captured", "void": "voided", "expiry": "expired"}[last.operation.kind]

    def reversed(self, original: Move) -> int:
        return sum(m.amount for m in self.moves if (m.tenant, m.reverses) == (original.tenant, original.id))

    def used(
        self, tenant: str, owner: str, operation: str, window: str, scope: str, currency: str, now: datetime
    ) -> int:
        return sum(
            use.amount
            for use in self.uses
            if (use.tenant, use.owner, use.operation, use.currency) == (tenant, owner, operation, currency)
            and scope in ("*", use.category)
            and self._same_window(window, use.at, now)
        )

    def _same_window(self, window: str, one: datetime, other: datetime) -> bool:
        a, b = (at.astimezone(self.zone).date() for at in (one, other))
        return {
            "single": False,
            "daily": a == b,
            "weekly": a.isocalendar()[:2] == b.isocalendar()[:2],
            "monthly": (a.year, a.month) == (b.year, b.month),
            "lifetime": True,
        }[window]

    def _resets_at(self, window: str, now: datetime) -> str | None:
        day = now.astimezone(self.zone).date() + timedelta(days=1)
        while window == "weekly" and day.weekday() != 0:
            day += timedelta(days=1)
        while window == "monthly" and day.day != 1:
            day += timedelta(days=1)
        never = window in ("single", "lifetime")
        return None if never else datetime.combine(day, time.min, self.zone).isoformat()

    # What is done.

    def post(self, operations: Sequence[Operation], at: datetime) -> list[Move | No]:
        """All of them or none. Holds that are overdue are released even if all else is refused."""
        before = self._mark()
        for operation in operations:
            self._release_overdue(operation, at)
        answers = self._all_or_none(operations, at)
        if operations[0].dry_run:
            self._cut(before)
        return answers

    def _mark(self) -> tuple[int, int]:
        return len(self.moves), len(self.uses)

    def _cut(self, mark: tuple[int, int]) -> None:
        del self.moves[mark[0] :], self.uses[mark[1] :]

    def _all_or_none(self, operations: Sequence[Operation], at: datetime) -> list[Move | No]:
        before, answers = self._mark(), list[Move | No]()
        for operation in operations:
            answer = self._decide(operation, at)
            answers.append(answer)
            if isinstance(answer, No):
                self._cut(before)
                linked = No("LINKED_OPERATION_REFUSED", answer.rule, {"id": operation.id, "refusal": answer.code})
                return [answer if other is operation else linked for other in operations]
        return answers

    def _release_overdue(self, operation: Operation, at: datetime) -> None:
        for wallet in dict.fromkeys(leg.source.wallet_id for leg in operation.legs):
            purse = self._purse(operation.tenant_id, wallet)
            if purse is None or purse.status == "closed":
                continue
            mine = [h for h in self.holds() if (h.tenant, h.source.wallet_id) == (purse.tenant, wallet)]
            overdue = [hold for hold in mine if self.rest(hold) and _expires_at(hold) <= at]
            for hold in sorted(overdue, key=lambda hold: (_expires_at(hold), hold.id)):
                self._expire(hold, at)

    def _expire(self, hold: Move, at: datetime) -> None:
        rest, name, by = self.rest(hold), f"{hold.id}.expiry", "payment"
        leg = _leg("expiry", hold.destination, hold.source, rest, hold.currency)
        release = replace(
            hold.operation, id=name, kind=TransferKind.EXPIRY, legs=(leg,), actor=by, terms=Release(hold.id)
        )
        if not self._funds(release, leg, at):  # a real bucket that is full has no room for it
            self._record(release, [leg], 0, at)

    def _decide(self, operation: Operation, at: datetime) -> Move | No:
        before = self.move(operation.tenant_id, operation.id)
        if before:
            same = before.leg == 0 and _content(operation) == _content(before.operation)
            if same and (operation.actor == before.actor or self._sees(operation.actor, before)):
                return before
            return No("IDEMPOTENCY_MISMATCH", "operation.id", {"id": operation.id})
        for rule in (self._not_found, self._terms_broken):
            if no := rule(operation, at):
                return no
        return self._move_all(operation, self._legs(operation), at)

    def _move_all(self, operation: Operation, legs: Sequence[Leg], at: datetime) -> Move | No:
        before = self._mark()
        for number, leg in enumerate(legs):
            for rule in (self._same_bucket, self._currency, self._status, self._account, self._limits, self._funds):
                if no := rule(operation, leg, at):
                    self._cut(before)
                    return no
            self._record(operation, legs, number, at)
        self._count_reversal(operation)
        return self.moves[before[0]]

    def _record(self, operation: Operation, legs: Sequence[Leg], number: int, at: datetime) -> None:
        leg = legs[number]
        move = Move(
            tenant=operation.tenant_id,
            id=f"{operation.id}.{number}" if number else operation.id,
            kind=leg.kind,
            source=leg.source,
            destination=leg.destination,
            amount=leg.money.amount_minor,
            currency=leg.money.currency,
            at=at,
            actor=operation.actor,
            operation=operation,
            leg=number,
            legs=len(legs),
        )
        self.moves.append(move)
        if number == 0 and self._counts(operation, leg):
            self._use(_acting(leg), _purpose(operation, leg), _counted(operation), at)
        if leg.kind in ("void", "expiry"):
            hold = self.hold(move.tenant, move.hold_id)
            assert hold
            self._give_hold_back(hold, move.amount)

    def _counts(self, operation: Operation, leg: Leg) -> bool:
        """What is moved between one's own wallets is not parted with."""
        ends = leg.source, leg.destination
        if _purpose(operation, leg) != "transfer" or any(end.system for end in ends):
            return True
        return leg.kind == "hold" or self._owner(ends[0]) != self._owner(ends[1])

    def _use(self, end: End, kind: str, amount: int, at: datetime) -> None:
        """An amount below zero is given back: to the time at which it was counted, so what is over stays as it was."""
        counted = {"bet": {"wager": 1, "loss": 1}, "win": {"loss": -1}}
        plainly = {LIMITED_AS[kind]: 1} if kind in LIMITED_AS else {}
        purse = None if end.system else self.purses[end.wallet_id]
        if purse:
            for operation, sign in counted.get(kind, plainly).items():
                self.uses.append(
                    Use(purse.tenant, purse.owner, operation, purse.category, purse.currency, sign * amount, at)
                )

    def _give_hold_back(self, hold: Move, amount: int) -> None:
        self._use(hold.source, _purpose(hold.operation, hold.operation.legs[0]), -amount, hold.at)

    def _count_reversal(self, operation: Operation) -> None:
        """Of what was counted: bonus money was not; what was captured was when it was held."""
        if isinstance(operation.terms, Reverse):
            original, amount = self.move(operation.tenant_id, operation.terms.transfer_id), operation.money.amount_minor
            assert original
            hold = self.hold(original.tenant, original.hold_id)
            end = original.destination if original.source.system else original.source
            if hold:
                self._give_hold_back(hold, amount)
            elif end.bucket != "bonus" and self._counts(original.operation, original.operation.legs[original.leg]):
                self._use(end, original.kind, -amount, original.at)

    def _legs(self, operation: Operation) -> Sequence[Leg]:
        """What was asked for, with what only the ledger knows: how much is left, and what is missing."""
        leg, terms = operation.legs[0], operation.terms
        if isinstance(terms, Release | Capture):
            hold = self.hold(operation.tenant_id, terms.hold_id)
            assert hold
            if isinstance(terms, Release):
                return [_leg(leg.kind, hold.destination, hold.source, self.rest(hold), hold.currency)]
            left = self.rest(hold) - leg.money.amount_minor
            if terms.final and left:
                return [leg, _leg("void", hold.destination, hold.source, left, hold.currency)]
        if isinstance(terms, Reverse) and terms.receivable and not leg.source.system:
            closed = self.purses[leg.source.wallet_id].status == "closed"
            there = 0 if closed else max(0, min(self.there(leg.source), leg.money.amount_minor))
            owed = leg.money.amount_minor - there
            parts = [(leg.source, there), (terms.receivable, owed)]
            return [_leg(leg.kind, end, leg.destination, part, leg.money.currency) for end, part in parts if part]
        return operation.legs

    # Why not, in the order of `domain/refusals.py`.

    def _not_found(self, operation: Operation, _: datetime) -> No | None:
        tenant, terms = operation.tenant_id, operation.terms
        usable = all(self._may(operation, leg) for leg in operation.legs)
        if isinstance(terms, Capture | Release) and not (usable and self.hold(tenant, terms.hold_id)):
            return No("HOLD_NOT_FOUND", "hold.access", {"holdId": terms.hold_id})
        if isinstance(terms, Reverse) and not self.move(tenant, terms.transfer_id):
            return No("TRANSFER_NOT_FOUND", "transfer.access", {"transferId": terms.transfer_id})
        if not usable:
            ids = [operation.legs[0].source.wallet_id, operation.legs[0].destination.wallet_id]
            return No("WALLET_NOT_FOUND", "wallet.access", {"walletIds": ids})
        return None

    def _terms_broken(self, operation: Operation, at: datetime) -> No | None:
        tenant, terms, asked = operation.tenant_id, operation.terms, operation.legs[0].money.amount_minor
        if isinstance(terms, Reverse):
            original = self.move(tenant, terms.transfer_id)
            assert original
            if original.kind not in REVERSIBLE:
                return No("NOT_REVERSIBLE", "reversal.kind", {"kind": original.kind})
            if self.reversed(original) + asked > original.amount:
                details = {
                    "transferId": original.id,
                    "amountMinor": str(original.amount),
                    "reversedMinor": str(self.reversed(original)),
                    "requestedMinor": str(asked),
                }
                return No("REVERSAL_EXCEEDED", "reversal.amount", details)
        if isinstance(terms, Capture | Release):
            hold = self.hold(tenant, terms.hold_id)
            assert hold
            if self.hold_status(hold) != "open":
                return No("HOLD_CLOSED", "hold.status", {"holdId": hold.id, "status": self.hold_status(hold)})
            if isinstance(terms, Capture) and asked > self.rest(hold):
                details = {"holdId": hold.id, "restMinor": str(self.rest(hold)), "requestedMinor": str(asked)}
                return No("HOLD_EXCEEDED", "hold.amount", details)
        if isinstance(terms, Place) and terms.expires_at <= at:
            return No("HOLD_OVERDUE", "hold.expiry", {"expiresAt": terms.expires_at.isoformat()})
        if isinstance(terms, Quoted) and terms.expires_at <= at:
            return No("QUOTE_EXPIRED", "quote.expiry", {"expiredAt": terms.expires_at.isoformat()})
        return None

    def _same_bucket(self, _: Operation, leg: Leg, __: datetime) -> No | None:
        if leg.source != leg.destination:
            return None
        return No("SAME_BUCKET", "transfer.ends", {"walletId": leg.source.wallet_id})

    def _currency(self, _: Operation, leg: Leg, __: datetime) -> No | None:
        for end in (leg.source, leg.destination):
            if not end.system and self.purses[end.wallet_id].currency != leg.money.currency:
                details = {"walletId": end.wallet_id, "currency": self.purses[end.wallet_id].currency}
                return No("CURRENCY_MISMATCH", "wallet.currency", details)
        return None

    def _status(self, _: Operation, leg: Leg, __: datetime) -> No | None:
        for end in (leg.source, leg.destination):
            status = "active" if end.system else self.purses[end.wallet_id].status
            if status == "closed" or (status == "frozen" and leg.kind not in DONE_WHERE_FROZEN):
                return No("WALLET_NOT_ACTIVE", "wallet.status", {"walletId": end.wallet_id, "status": status})
        return None

    def _account(self, operation: Operation, leg: Leg, at: datetime) -> No | None:
        acting = _acting(leg)
        if acting.system:
            return None
        purse = self.purses[acting.wallet_id]
        player = self._player(purse)
        if player.suspended and leg.kind in REFUSED_TO_SUSPENDED:
            return No("ACCOUNT_SUSPENDED", "account.status", {"ownerId": purse.owner})
        until = player.excluded_until
        if until and until > at and _purpose(operation, leg) in REFUSED_TO_EXCLUDED:
            details = {"ownerId": purse.owner, "until": until.isoformat()}
            return No("SELF_EXCLUDED", "account.exclusion", details)
        return None

    def _limits(self, operation: Operation, leg: Leg, at: datetime) -> No | None:
        """Who pays, or is paid from outside, is held to their limits; so is the balance of who is paid by another."""
        acting, payee = _acting(leg), leg.destination
        limited = LIMITED_AS.get(_purpose(operation, leg))
        counted = _counted(operation) if leg is operation.legs[0] and self._counts(operation, leg) else 0
        if limited and counted and not acting.system:
            no = self._limit_reached(acting, HELD_TO.get(limited, {limited}), leg, counted, at)
            if no:
                return no
        if acting == payee or payee.system:
            return None
        if not leg.source.system and self._owner(leg.source) == self._owner(payee):
            return None
        no = self._limit_reached(payee, {"balance"}, leg, leg.money.amount_minor, at)
        if no and not self._has_a_say(operation.actor, payee):  # whose figures are not theirs to hear
            told = {name: no.details[name] for name in ("requestedMinor", "currency")}
            return No(no.code, "limit.recipient", told)
        return no

    def _limit_reached(self, end: End, kinds: set[str], leg: Leg, asked: int, at: datetime) -> No | None:
        purse = self.purses[end.wallet_id]
        found = []
        for limit, most in self._in_force(purse, at):
            about_balance = limit.operation == "balance"
            applies = limit.operation in kinds and limit.scope in ("*", purse.category)
            if not applies or limit.currency != purse.currency or (about_balance and leg.destination.bucket == "bonus"):
                continue
            used = self._balances(purse, limit) if about_balance else self._used(purse, limit, at)
            rest = max(0, most - used)
            order = SOURCES.index(limit.source), WINDOWS.index(limit.window), OPERATIONS.index(limit.operation)
            found.append(((rest, *order, limit.scope), limit, most, used))
        if not found:
            return None
        (rest, *_), limit, most, used = min(found, key=lambda entry: entry[0])
        if rest >= asked:
            return None
        details = {
            "limitMinor": str(most),
            "usedMinor": str(used),
            "restMinor": str(rest),
            "requestedMinor": str(asked),
            "currency": limit.currency,
            "scope": limit.scope,
            "resetsAt": self._resets_at(limit.window, at),
        }
        return No("LIMIT_REACHED", f"limit.{limit.operation}.{limit.window}.{limit.source}", details)

    def _used(self, purse: Purse, limit: Limit, at: datetime) -> int:
        return self.used(purse.tenant, purse.owner, limit.operation, limit.window, limit.scope, limit.currency, at)

    def _balances(self, purse: Purse, limit: Limit) -> int:
        mine = (purse.tenant, purse.owner, purse.currency)
        return sum(
            self.owned(id)
            for id, other in self.purses.items()  # noqa: A001
            if (other.tenant, other.owner, other.currency) == mine and limit.scope in ("*", other.category)
        )

    def _in_force(self, purse: Purse, at: datetime) -> list[tuple[Limit, int]]:
        """With what each allows now. One of source `product` is an exception from the product's."""
        own = []
        for limit in self._player(purse).limits:
            amount: int | None = limit.amount_minor
            if limit.pending and limit.pending.at <= at:
                amount = limit.pending.amount_minor
            if amount is not None:
                own.append((limit, amount))
        exceptions = {limit.key for limit, _ in own}
        return own + [(limit, limit.amount_minor) for limit in self.products if limit.key not in exceptions]

    def _funds(self, operation: Operation, leg: Leg, _: datetime) -> No | None:
        source, asked = leg.source, leg.money.amount_minor
        credit = 0 if source.system or source.bucket != "real" else self.purses[source.wallet_id].credit_limit
        available = self.there(source) + credit
        of_deposit = operation.kind == "deposit" and leg.kind == "fee"
        if not source.system and not of_deposit and asked > available:
            details = {
                "walletId": source.wallet_id,
                "bucket": str(source.bucket),
                "availableMinor": str(max(0, available)),
                "requestedMinor": str(asked),
            }
            return No("INSUFFICIENT_FUNDS", "wallet.balance", details)
        lowest = self.balance(source.wallet_id, source.bucket) - asked
        highest = self.balance(leg.destination.wallet_id, leg.destination.bucket) + asked
        if lowest < -INT64_MAX or highest > INT64_MAX:
            return No("BALANCE_LIMIT", "wallet.range", {})
        return None

    # Who is who.

    def _purse(self, tenant: str, wallet: str) -> Purse | None:
        purse = self.purses.get(wallet)
        return purse if purse and purse.tenant == tenant else None

    def _player(self, purse: Purse) -> Player:
        return self.players.setdefault((purse.tenant, purse.owner), Player())

    def _owner(self, end: End) -> tuple[str, str]:
        purse = self.purses[end.wallet_id]
        return purse.tenant, purse.owner

    def _may(self, operation: Operation, leg: Leg) -> bool:
        """All ends exist; and who asks has a say over the wallet that pays, or that the system pays into."""
        purses = [self._purse(operation.tenant_id, e.wallet_id) for e in (leg.source, leg.destination) if not e.system]
        if None in purses:
            return False
        if not purses:
            return True
        return self._has_a_say(operation.actor, _acting(leg))

    def _has_a_say(self, actor: str, end: End) -> bool:
        return self.people[actor].has_a_say(*self._owner(end))

    def _sees(self, actor: str, move: Move) -> bool:
        """Whoever has a say over one of the two wallets; over a system wallet operators have."""
        owners = ["@system" if e.system else self._owner(e)[1] for e in (move.source, move.destination)]
        return any(self.people[actor].has_a_say(move.tenant, owner) for owner in owners)


def _leg(kind: str, source: End, destination: End, amount: int, currency: str) -> Leg:
    return Leg(kind, source, destination, Money(amount, currency))  # type: ignore[arg-type]


def _acting(leg: Leg) -> End:
    return leg.destination if leg.source.system else leg.source


def _purpose(operation: Operation, leg: Leg) -> str:
    return operation.terms.purpose if isinstance(operation.terms, Place) else leg.kind


def _counted(operation: Operation) -> int:
    """What was asked for, whatever a fee makes of it; else the whole stake, as far as it is not bonus money."""
    if operation.asked:
        return operation.asked.amount_minor
    return sum(
        leg.money.amount_minor
        for leg in operation.legs
        if leg.kind == operation.legs[0].kind and "bonus" not in (leg.source.bucket, leg.destination.bucket)
    )


def _expires_at(hold: Move) -> datetime:
    assert isinstance(hold.operation.terms, Place)
    return hold.operation.terms.expires_at


def _content(operation: Operation) -> tuple[object, ...]:
    """What the caller asked for, which a retry repeats."""
    movements: object = operation.legs
    if isinstance(operation.terms, Release):
        movements = None  # all there is
    elif operation.asked:
        movements = operation.source, operation.destination, operation.asked
    terms: object = operation.terms
    if isinstance(operation.terms, Reverse):
        terms = operation.terms.transfer_id, operation.terms.receivable is not None
    return operation.kind, movements, operation.reference, operation.metadata, operation.set_id, terms
