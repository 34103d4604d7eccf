"""The one limit system: how much of what, over which calendar window, set by whom, and what of it is used.

What an account has used is kept in `Counters`, in the account's own document, which every operation that counts
writes. So a limit holds under any concurrency: of two operations that would both fit alone, one sees the other.

    calendar = calendar_at("Europe/Malta", at)
    limits = in_force(account.limits, product_limits, at)
    refusal = limit_refusal(limits, account.counters, LimitOperation.DEPOSIT, "main", "EUR", 500, None, calendar)
    if not refusal:
        count(account.counters, LimitOperation.DEPOSIT, "main", "EUR", 500, calendar)

Days, weeks (from Monday) and months are those of the tenant's time zone. `Counters` are never changed in place but row
by row replaced: `dict(counters)` is a snapshot.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from libs.core.errors import InvalidInput, NotFound, Refusal
from libs.core.money import CURRENCY_PATTERN, INT64_MAX

ALL_WALLETS: Final = "*"  # the scope of a limit over all of an owner's wallets in its currency
CATEGORY_LIMIT = 64
LIMITS_PER_ACCOUNT = 100  # each is looked at by every operation: 1.5 µs


class LimitOperation(StrEnum):
    """What is limited. A loss is what was wagered less what was won; a balance, what a wallet holds after a credit."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    WAGER = "wager"
    LOSS = "loss"
    BALANCE = "balance"
    TRANSFER = "transfer"


class LimitWindow(StrEnum):
    """In the order in which equals are told: the narrowest first."""

    SINGLE = "single"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    LIFETIME = "lifetime"


class LimitSource(StrEnum):
    """Who set it, in the order in which equals are told: the law's reason before the player's own."""

    KYC = "kyc"
    OPERATOR = "operator"
    PRODUCT = "product"
    PLAYER = "player"


class AccountStatus(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"


_OPERATIONS, _WINDOWS, _SOURCES = (
    {member: place for place, member in enumerate(kind)} for kind in (LimitOperation, LimitWindow, LimitSource)
)
_NARROWER: Final[Mapping[LimitOperation, frozenset[LimitWindow]]] = {
    # A single loss would need to know the win that is yet to come; what one may lose at once is what one may wager.
    LimitOperation.LOSS: frozenset(LimitWindow) - {LimitWindow.SINGLE},
    # A balance does not begin anew at midnight.
    LimitOperation.BALANCE: frozenset({LimitWindow.LIFETIME}),
}
# What an operation uses up, and is held to.
_COUNTS: Final[Mapping[LimitOperation, tuple[LimitOperation, ...]]] = {
    **{operation: (operation,) for operation in LimitOperation},
    LimitOperation.WAGER: (LimitOperation.WAGER, LimitOperation.LOSS),
}
_HELD_TO: Final[Mapping[LimitOperation, frozenset[LimitOperation]]] = {
    **{operation: frozenset(counted) for operation, counted in _COUNTS.items()},
    LimitOperation.DEPOSIT: frozenset({LimitOperation.DEPOSIT, LimitOperation.BALANCE}),
}


@dataclass(frozen=True, slots=True)
class PendingChange:
    """A change that waits for its time: to another amount, or with None the end of the limit."""

    amount_minor: int | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount_minor` of `currency` in each `window`; 0 allows nothing.

    In force since `since`; None for a product's, which are configuration.
    """

    operation: LimitOperation
    window: LimitWindow
    source: LimitSource
    currency: str
    amount_minor: int
    since: datetime | None = None
    scope: str = ALL_WALLETS
    pending: PendingChange | None = None

    def __post_init__(self) -> None:
        check_amount(self.amount_minor)
        if not CURRENCY_PATTERN.fullmatch(self.currency):
            raise InvalidInput("a currency is 3 to 12 upper-case letters or digits, such as EUR", field="currency")
        if not 0 < len(self.scope) <= CATEGORY_LIMIT:
            raise InvalidInput("a scope is a category of wallets, or * for all of them", field="scope")
        allowed = _NARROWER.get(self.operation)
        if allowed and self.window not in allowed:
            windows = ", ".join(window for window in LimitWindow if window in allowed)
            raise InvalidInput(f"the window of a {self.operation} limit is one of: {windows}", field="window")

    @property
    def key(self) -> str:
        """What there is one limit for."""
        return f"{self.operation}:{self.window}:{self.source}:{self.currency}:{self.scope}"

    @property
    def rule(self) -> str:
        return f"limit.{self.operation}.{self.window}.{self.source}"

    def covers(self, category: str, currency: str) -> bool:
        return self.currency == currency and self.scope in (ALL_WALLETS, category)


def check_amount(amount_minor: int) -> None:
    if type(amount_minor) is not int or not 0 <= amount_minor <= INT64_MAX:
        raise InvalidInput("a limit is a whole number of minor units from 0 to 2^63-1", field="amount")


def effective(limit: Limit, now: datetime) -> Limit | None:
    """The limit with its pending change applied, once its time has come; None if that was its end."""
    pending = limit.pending
    if pending is None or now < pending.at:
        return limit
    if pending.amount_minor is None:
        return None
    return replace(limit, amount_minor=pending.amount_minor, since=pending.at, pending=None)


def change(limit: Limit, new_amount: int | None, now: datetime, cooling_off: timedelta) -> Limit | None:
    """`limit` with another amount, or with None as removed; the answer is None if nothing is left of it.

    A player's own limit gets stricter at once and laxer only after `cooling_off`; whoever gets stricter meanwhile has
    changed their mind. Anybody else's changes at once.
    """
    current = effective(limit, now)
    if new_amount is not None:
        check_amount(new_amount)
    if current and current.amount_minor == new_amount and not current.pending:
        return current
    if limit.source is not LimitSource.PLAYER or current is None:
        return None if new_amount is None else replace(limit, amount_minor=new_amount, since=now, pending=None)
    if new_amount is not None and new_amount <= current.amount_minor:
        since = current.since if new_amount == current.amount_minor else now
        return replace(current, amount_minor=new_amount, since=since, pending=None)
    return replace(current, pending=_postponed(current.pending, new_amount, now + cooling_off))


def _postponed(before: PendingChange | None, amount: int | None, at: datetime) -> PendingChange:
    """Whoever waits for as much or more already has waited for this too: asking again costs no time."""
    waited = before and (before.amount_minor is None or (amount is not None and amount <= before.amount_minor))
    return PendingChange(amount, min(at, before.at) if before and waited else at)


@dataclass(frozen=True, slots=True)
class Standing:
    """What an account is held to, and may only be told by a command. What it has used is not part of it."""

    status: AccountStatus = AccountStatus.ACTIVE
    excluded_until: datetime | None = None
    limits: tuple[Limit, ...] = ()

    def limit(self, key: str) -> Limit | None:
        return next((limit for limit in self.limits if limit.key == key), None)


def with_limit(standing: Standing, wanted: Limit, now: datetime, cooling_off: timedelta) -> Standing:
    """`wanted`, new or in place of what there is of its key: see `change`. `Refusal` TOO_MANY_LIMITS."""
    there = standing.limit(wanted.key)
    if there:
        return _with(standing, there, change(there, wanted.amount_minor, now, cooling_off))
    alive = [limit for limit in standing.limits if effective(limit, now)]
    if len(alive) >= LIMITS_PER_ACCOUNT:
        raise Refusal("TOO_MANY_LIMITS", f"an account has at most {LIMITS_PER_ACCOUNT} limits", rule="account.limits")
    return replace(standing, limits=(*alive, wanted))


def without_limit(standing: Standing, key: str, now: datetime, cooling_off: timedelta) -> Standing:
    """`NotFound` if there is none of that key."""
    there = standing.limit(key)
    if there is None:
        raise NotFound("there is no such limit", limit=key)
    return _with(standing, there, change(there, None, now, cooling_off))


def _with(standing: Standing, there: Limit, changed: Limit | None) -> Standing:
    """In its place: the order of limits is that in which they were made."""
    limits = (changed if limit is there else limit for limit in standing.limits)
    return replace(standing, limits=tuple(limit for limit in limits if limit))


def excluded(standing: Standing, until: datetime, now: datetime) -> Standing:
    """Self-excluded until then. `InvalidInput` for the past; `Refusal` if that is sooner than what was said before."""
    if until <= now:
        raise InvalidInput("an exclusion ends in the future", field="until")
    before = standing.excluded_until
    if before and until < before and now < before:
        raise Refusal(
            "EXCLUSION_IS_LONGER",
            "a self-exclusion cannot be shortened",
            rule="account.exclusion",
            until=before.isoformat(),
        )
    return replace(standing, excluded_until=until)


def in_force(own: Sequence[Limit], products: Sequence[Limit], now: datetime) -> Sequence[Limit]:
    """What an account is held to: its own limits, and the product's where it has no product limit of its own."""
    if not own:
        return products
    current = [kept for kept in (effective(limit, now) for limit in own) if kept]
    exceptions = {limit.key for limit in current if limit.source is LimitSource.PRODUCT}
    return [*current, *(limit for limit in products if limit.key not in exceptions)]


@dataclass(frozen=True, slots=True)
class Span:
    """A day, week or month: `starts` is in it, `ends` is not. Both in UTC. Later ones have higher ids."""

    id: int
    starts: datetime
    ends: datetime


@dataclass(frozen=True, slots=True)
class Calendar:
    """The day, week and month that an instant is in."""

    time_zone: str
    day: Span
    week: Span
    month: Span

    def resets_at(self, window: LimitWindow) -> datetime | None:
        """When `window` begins anew, in the time zone's own time; None for those that never do."""
        span = {LimitWindow.DAILY: self.day, LimitWindow.WEEKLY: self.week, LimitWindow.MONTHLY: self.month}.get(window)
        return span.ends.astimezone(ZoneInfo(self.time_zone)) if span else None


_newest: dict[str, Calendar] = {}


def calendar_at(time_zone: str, instant: datetime) -> Calendar:
    """Of an IANA time zone. Costs a look at the calendar that was asked for last, as long as that is the right one."""
    newest = _newest.get(time_zone)
    if newest is not None and newest.day.starts <= instant < newest.day.ends:
        return newest
    found = _newest[time_zone] = _calendar_of(time_zone, _day_of(time_zone, instant))
    return found


def _day_of(time_zone: str, instant: datetime) -> date:
    """The date on the calendar, in such a way that dates never run backwards: clocks that are put back across midnight

    (St. John's did so at 00:01) do not bring yesterday back.
    """
    day = instant.astimezone(ZoneInfo(time_zone)).date()
    if instant < _midnight(time_zone, day):
        return day - timedelta(days=1)
    following = day + timedelta(days=1)
    return following if instant >= _midnight(time_zone, following) else day


def _midnight(time_zone: str, day: date) -> datetime:
    """When a day begins. Where the clocks skip midnight, that is when they do."""
    return datetime.combine(day, time.min, ZoneInfo(time_zone)).astimezone(UTC)


@lru_cache(maxsize=4096)
def _calendar_of(time_zone: str, day: date) -> Calendar:
    monday, first = day - timedelta(days=day.weekday()), day.replace(day=1)
    next_first = (first + timedelta(days=31)).replace(day=1)

    def span(number: int, begin: date, end: date) -> Span:
        return Span(number, _midnight(time_zone, begin), _midnight(time_zone, end))

    return Calendar(
        time_zone,
        day=span(day.toordinal(), day, day + timedelta(days=1)),
        week=span(monday.toordinal() // 7, monday, monday + timedelta(days=7)),
        month=span(day.year * 12 + day.month - 1, first, next_first),
    )


# What is stored, by "operation:category:currency": day's id, used; week's id, used; month's id, used; used in all.
Counters = dict[str, list[int]]


# Where a row has a window's id; what is used of it comes next.
_PLACES: Final = {LimitWindow.DAILY: 0, LimitWindow.WEEKLY: 2, LimitWindow.MONTHLY: 4}


@dataclass(frozen=True, slots=True)
class Used:
    """What was used of each window. Of a loss it can be negative: won."""

    daily: int
    weekly: int
    monthly: int
    lifetime: int


def use(
    counters: Mapping[str, Sequence[int]], operation: LimitOperation, category: str, currency: str, calendar: Calendar
) -> Used:
    """What is used by now, in wallets of `category` or with `ALL_WALLETS` in all of that currency."""
    rows = _rows(counters, operation, category, currency)
    daily = sum(row[1] for row in rows if row[0] >= calendar.day.id)
    weekly = sum(row[3] for row in rows if row[2] >= calendar.week.id)
    monthly = sum(row[5] for row in rows if row[4] >= calendar.month.id)
    return Used(daily, weekly, monthly, sum(row[6] for row in rows))


def _rows(
    counters: Mapping[str, Sequence[int]], operation: LimitOperation, category: str, currency: str
) -> list[Sequence[int]]:
    if category != ALL_WALLETS:
        row = counters.get(f"{operation}:{category}:{currency}")
        return [] if row is None else [row]
    before, after = f"{operation}:", f":{currency}"
    return [row for key, row in counters.items() if key.startswith(before) and key.endswith(after)]


def count(
    counters: Counters, operation: LimitOperation, category: str, currency: str, amount: int, calendar: Calendar
) -> None:
    """`amount` minor units of it were done. A wager counts as a loss too, until `count_win`."""
    for counted in _COUNTS[operation]:
        _add(counters, counted, category, currency, amount, calendar)


def count_win(counters: Counters, category: str, currency: str, amount: int, calendar: Calendar) -> None:
    _add(counters, LimitOperation.LOSS, category, currency, -amount, calendar)


def note_balance(counters: Counters, category: str, currency: str, balance: int) -> None:
    """What an owner's wallet of that category holds now, so that a limit over all of their wallets can be held.

    `balance` is money that is theirs: real, and held; not bonus. Two full buckets are more than can be stored.
    """
    counters[f"{LimitOperation.BALANCE}:{category}:{currency}"] = [0, 0, 0, 0, 0, 0, min(balance, INT64_MAX)]


def give_back(
    counters: Counters,
    operation: LimitOperation,
    category: str,
    currency: str,
    amount: int,
    counted_at: Calendar,
    now: Calendar,
) -> None:
    """`amount` of what was counted at `counted_at` did not happen after all. Windows that are over are left alone."""
    for counted in _COUNTS[operation]:
        key = f"{counted}:{category}:{currency}"
        day, daily, week, weekly, month, monthly, lifetime = _current(counters.get(key), now)
        least = -INT64_MAX if counted is LimitOperation.LOSS else 0
        counters[key] = [
            day,
            _sum(daily, -amount, least) if counted_at.day.id == day else daily,
            week,
            _sum(weekly, -amount, least) if counted_at.week.id == week else weekly,
            month,
            _sum(monthly, -amount, least) if counted_at.month.id == month else monthly,
            _sum(lifetime, -amount, least),
        ]


def _add(
    counters: Counters, counted: LimitOperation, category: str, currency: str, amount: int, calendar: Calendar
) -> None:
    key = f"{counted}:{category}:{currency}"
    day, daily, week, weekly, month, monthly, lifetime = _current(counters.get(key), calendar)
    counters[key] = [
        day,
        _sum(daily, amount),
        week,
        _sum(weekly, amount),
        month,
        _sum(monthly, amount),
        _sum(lifetime, amount),
    ]


def _current(row: Sequence[int] | None, calendar: Calendar) -> Sequence[int]:
    """`row` with new windows where the old ones are over. A row ahead of the calendar (the tenant moved to the west)

    stays where it is: a limit is not to be had twice.
    """
    day, week, month = calendar.day.id, calendar.week.id, calendar.month.id
    if row is None:
        return (day, 0, week, 0, month, 0, 0)
    if row[0] >= day:
        return row
    return (
        day,
        0,
        *((row[2], row[3]) if row[2] >= week else (week, 0)),
        *((row[4], row[5]) if row[4] >= month else (month, 0)),
        row[6],
    )


def _sum(used: int, amount: int, least: int = -INT64_MAX) -> int:
    """Within 64 bits, because one counter that cannot be stored would fail a whole group. A lifetime's wagers in a coin

    of 18 decimals get there; from then on nothing is known but that it is too much, so it stays there.
    """
    total = used + amount
    if least <= total < INT64_MAX and used < INT64_MAX:
        return total
    return least if total < least and used < INT64_MAX else INT64_MAX


@dataclass(frozen=True, slots=True)
class LimitUse:
    """A limit, and what is left of it. `resets_at` is in the tenant's time zone; None if it never resets."""

    limit: Limit
    used: int
    rest: int
    resets_at: datetime | None


def use_of(limit: Limit, counters: Mapping[str, Sequence[int]], calendar: Calendar) -> LimitUse:
    return _use_of(limit, _used(limit, counters, calendar), calendar)


def _use_of(limit: Limit, used: int, calendar: Calendar) -> LimitUse:
    return LimitUse(limit, used, max(limit.amount_minor - used, 0), calendar.resets_at(limit.window))


def _used(limit: Limit, counters: Mapping[str, Sequence[int]], calendar: Calendar) -> int:
    return _used_of(limit.window, _rows(counters, limit.operation, limit.scope, limit.currency), calendar)


def _used_of(window: LimitWindow, rows: Iterable[Sequence[int]], calendar: Calendar) -> int:
    if window is LimitWindow.SINGLE:
        return 0
    if window is LimitWindow.LIFETIME:
        return sum([row[6] for row in rows])
    place = _PLACES[window]
    current = (calendar.day, calendar.week, calendar.month)[place // 2].id
    return sum([row[place + 1] for row in rows if row[place] >= current])


def limit_refusal(
    limits: Iterable[Limit],
    counters: Mapping[str, Sequence[int]],
    operation: LimitOperation,
    category: str,
    currency: str,
    amount: int,
    balance_after: int | None,
    calendar: Calendar,
) -> Refusal | None:
    """LIMIT_REACHED if one of `limits` (see `in_force`) leaves less than `amount`; told is the one that leaves least.

    A deposit is held to the limits of deposits and of the balance, a wager to those of wagers and losses, anything else
    to its own. `balance_after` is what the wallet would then hold (see `note_balance`); None: no credit is asked for.
    """
    if not limits:
        return None
    kinds = _HELD_TO[operation]
    least: tuple[tuple[int, int, int, int, str], Limit, int] | None = None
    found: dict[tuple[LimitOperation, str], list[Sequence[int]]] = {}  # most limits differ in their window alone
    for limit in limits:
        if limit.operation not in kinds or not limit.covers(category, currency):
            continue
        if limit.operation is not LimitOperation.BALANCE:
            of = limit.operation, limit.scope
            if of not in found:
                found[of] = _rows(counters, limit.operation, limit.scope, currency)
            used = _used_of(limit.window, found[of], calendar)
        elif balance_after is not None:
            used = _balance_before(limit, counters, category, balance_after - amount)
        else:
            continue
        precedence = _precedence(limit, max(limit.amount_minor - used, 0))
        if least is None or precedence < least[0]:
            least = precedence, limit, used
    if least is None or least[0][0] >= amount:
        return None
    return _reached(_use_of(least[1], least[2], calendar), amount)


def _balance_before(limit: Limit, counters: Mapping[str, Sequence[int]], category: str, this_wallet: int) -> int:
    if limit.scope != ALL_WALLETS:
        return this_wallet
    noted = sum(row[6] for row in _rows(counters, LimitOperation.BALANCE, ALL_WALLETS, limit.currency))
    noted_of_this = sum(row[6] for row in _rows(counters, LimitOperation.BALANCE, category, limit.currency))
    return noted - noted_of_this + this_wallet


def _precedence(limit: Limit, rest: int) -> tuple[int, int, int, int, str]:
    return rest, _SOURCES[limit.source], _WINDOWS[limit.window], _OPERATIONS[limit.operation], limit.scope


def told_to_payer(refusal: Refusal) -> Refusal:
    """What somebody who pays may hear of the payee's limit: its figures would tell them what a stranger holds."""
    return Refusal(
        "LIMIT_REACHED",
        "a limit of the recipient leaves less than that",
        rule="limit.recipient",
        requestedMinor=refusal.details["requestedMinor"],
        currency=refusal.details["currency"],
    )


def _reached(left: LimitUse, amount: int) -> Refusal:
    limit = left.limit
    return Refusal(
        "LIMIT_REACHED",
        f"the {limit.window} {limit.operation} limit leaves {left.rest} {limit.currency} (minor units)",
        rule=limit.rule,
        limitMinor=str(limit.amount_minor),
        usedMinor=str(left.used),
        restMinor=str(left.rest),
        requestedMinor=str(amount),
        currency=limit.currency,
        scope=limit.scope,
        resetsAt=left.resets_at.isoformat() if left.resets_at else None,
    )
