"""The limit system's rules, as plain values: calendars, counters, what refuses, what may change when."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, strategies as st

from libs.core.errors import InvalidInput
from libs.core.money import INT64_MAX
from services.payment.domain.limits import (
    ALL_WALLETS,
    Calendar,
    Counters,
    Limit,
    LimitOperation as Of,
    LimitSource as By,
    LimitWindow as Per,
    PendingChange,
    Used,
    calendar_at,
    change,
    count,
    count_win,
    effective,
    give_back,
    in_force,
    limit_refusal,
    note_balance,
    told_to_payer,
    use,
    use_of,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)  # a Monday
TODAY = calendar_at("UTC", NOON)
DAY = timedelta(days=1)


def limit(operation: Of = Of.DEPOSIT, window: Per = Per.DAILY, amount: int = 100, **changes: Any) -> Limit:
    return replace(Limit(operation, window, By.OPERATOR, "EUR", amount, since=NOON - DAY), **changes)


def refused(
    limits: list[Limit], counters: Counters, amount: int, operation: Of = Of.DEPOSIT, **more: Any
) -> dict[str, Any] | None:
    """The refusal's rule and details, of an operation on a wallet of category main."""
    asked = {"category": "main", "currency": "EUR", "balance_after": None, "calendar": TODAY} | more
    refusal = limit_refusal(limits, counters, operation, amount=amount, **asked)
    return {"code": refusal.code, "rule": refusal.rule, **refusal.details} if refusal else None


def used(amount: int, operation: Of = Of.DEPOSIT, category: str = "main") -> Counters:
    counters: Counters = {}
    count(counters, operation, category, "EUR", amount, TODAY)
    return counters


class TestLimit:
    @pytest.mark.parametrize(
        ("operation", "window"),
        [(Of.BALANCE, per) for per in Per if per is not Per.LIFETIME] + [(Of.LOSS, Per.SINGLE)],
    )
    def test_windows_that_make_no_sense(self, operation: Of, window: Per) -> None:
        with pytest.raises(InvalidInput, match="window"):
            limit(operation, window)

    @pytest.mark.parametrize("amount", [-1, INT64_MAX + 1, True, 1.5, "1"])
    def test_amounts_that_are_none(self, amount: Any) -> None:
        with pytest.raises(InvalidInput, match="whole number"):
            limit(amount=amount)

    @pytest.mark.parametrize("changes", [{"currency": "eur"}, {"scope": ""}, {"scope": "x" * 65}])
    def test_malformed(self, changes: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput):
            limit(**changes)


class TestCalendar:
    @pytest.mark.parametrize(
        ("zone", "instant", "hours"),
        [
            pytest.param("Europe/Malta", "2026-03-29T12:00Z", 23, id="the clocks go forward"),
            pytest.param("Europe/Malta", "2026-10-25T12:00Z", 25, id="and back"),
            pytest.param("America/Sao_Paulo", "2018-11-04T15:00Z", 23, id="midnight is skipped"),
            pytest.param("America/Sao_Paulo", "2018-02-17T15:00Z", 25, id="the hour before midnight comes twice"),
            pytest.param("Pacific/Apia", "2011-12-30T09:00Z", 24, id="the last before the date line moved"),
            pytest.param("Pacific/Apia", "2011-12-30T10:00Z", 24, id="the first after it, a date later"),
            pytest.param("America/St_Johns", "2010-11-07T12:00Z", 25, id="the clocks are put back at 00:01"),
        ],
    )
    def test_hours_of_a_day(self, zone: str, instant: str, hours: int) -> None:
        day = calendar_at(zone, datetime.fromisoformat(instant)).day
        assert day.ends - day.starts == timedelta(hours=hours)

    def test_a_date_that_never_was(self) -> None:
        moved = datetime(2011, 12, 30, 10, tzinfo=UTC)
        before, after = calendar_at("Pacific/Apia", moved - timedelta(seconds=1)), calendar_at("Pacific/Apia", moved)
        assert (before.day.id, after.day.id) == (date(2011, 12, 29).toordinal(), date(2011, 12, 31).toordinal())
        assert before.day.ends == after.day.starts == moved

    def test_weeks_begin_on_monday_and_months_on_the_first(self) -> None:
        calendar = calendar_at("Europe/Malta", NOON)
        zone = ZoneInfo("Europe/Malta")
        assert calendar.week.starts == datetime(2026, 11, 23, tzinfo=zone)
        assert calendar.week.ends == datetime(2026, 11, 30, tzinfo=zone)
        assert calendar.month.starts == datetime(2026, 11, 1, tzinfo=zone)
        assert calendar.month.ends == datetime(2026, 12, 1, tzinfo=zone)

    def test_resets_are_told_in_the_time_zone(self) -> None:
        resets_at = calendar_at("Europe/Malta", NOON).resets_at(Per.DAILY)
        assert resets_at
        assert resets_at.isoformat() == "2026-11-24T00:00:00+01:00"
        assert TODAY.resets_at(Per.LIFETIME) is None

    @pytest.mark.parametrize("zone", ["Europe/Malta", "America/Sao_Paulo", "Pacific/Apia", "America/St_Johns"])
    def test_windows_follow_each_other_without_gap(self, zone: str) -> None:
        hours = [datetime(2008, 1, 1, tzinfo=UTC) + timedelta(minutes=30 * n) for n in range(5 * 365 * 48)]
        found: list[Calendar] = []
        for instant in hours:
            calendar = calendar_at(zone, instant)
            assert all(span.starts <= instant < span.ends for span in (calendar.day, calendar.week, calendar.month))
            if not found or found[-1] is not calendar:
                found.append(calendar)
        for before, after in pairwise(found):
            assert before.day.ends == after.day.starts
            assert before.day.id < after.day.id
            assert (before.week == after.week) or (before.week.ends == after.week.starts)
            assert (before.month == after.month) or (before.month.ends == after.month.starts)


class TestCount:
    def test_each_window(self) -> None:
        counters = used(5)
        count(counters, Of.DEPOSIT, "main", "EUR", 7, calendar_at("UTC", NOON + DAY))
        assert use(counters, Of.DEPOSIT, "main", "EUR", calendar_at("UTC", NOON + DAY)) == Used(7, 12, 12, 12)
        assert use(counters, Of.DEPOSIT, "main", "EUR", calendar_at("UTC", NOON + 7 * DAY)) == Used(0, 0, 12, 12)
        assert use(counters, Of.DEPOSIT, "main", "EUR", calendar_at("UTC", NOON + 9 * DAY)) == Used(0, 0, 0, 12)

    def test_categories_and_currencies_are_apart_and_categories_add_up(self) -> None:
        counters = used(5) | used(7, category="casino")
        count(counters, Of.DEPOSIT, "main", "USD", 100, TODAY)
        assert use(counters, Of.DEPOSIT, "main", "EUR", TODAY).daily == 5
        assert use(counters, Of.DEPOSIT, ALL_WALLETS, "EUR", TODAY).daily == 12

    def test_losses_are_wagers_less_wins(self) -> None:
        counters = used(10, Of.WAGER)
        count_win(counters, "main", "EUR", 25, TODAY)
        assert use(counters, Of.WAGER, "main", "EUR", TODAY).daily == 10
        assert use(counters, Of.LOSS, "main", "EUR", TODAY).daily == -15

    def test_a_copy_is_a_snapshot(self) -> None:
        counters = used(5)
        before = dict(counters)
        count(counters, Of.DEPOSIT, "main", "EUR", 7, TODAY)
        give_back(counters, Of.DEPOSIT, "main", "EUR", 1, TODAY, TODAY)
        assert before == used(5)

    def test_what_64_bits_cannot_hold_is_too_much_for_good(self) -> None:
        counters = used(INT64_MAX)
        count(counters, Of.DEPOSIT, "main", "EUR", 1, TODAY)
        give_back(counters, Of.DEPOSIT, "main", "EUR", INT64_MAX, TODAY, TODAY)
        assert use(counters, Of.DEPOSIT, "main", "EUR", TODAY) == Used(*[INT64_MAX] * 4)

    def test_a_tenant_that_moves_to_the_west_gives_no_second_day(self) -> None:
        midnight = datetime(2026, 11, 23, tzinfo=UTC)
        counters: Counters = {}
        count(counters, Of.DEPOSIT, "main", "EUR", 5, calendar_at("UTC", midnight))
        moved = calendar_at("America/Sao_Paulo", midnight)
        count(counters, Of.DEPOSIT, "main", "EUR", 7, moved)
        assert use(counters, Of.DEPOSIT, "main", "EUR", moved).daily == 12


class TestGiveBack:
    def test_only_windows_that_last(self) -> None:
        tomorrow = calendar_at("UTC", NOON + DAY)
        counters = used(5)
        count(counters, Of.DEPOSIT, "main", "EUR", 7, tomorrow)
        give_back(counters, Of.DEPOSIT, "main", "EUR", 5, TODAY, tomorrow)
        assert use(counters, Of.DEPOSIT, "main", "EUR", tomorrow) == Used(7, 7, 7, 7)

    def test_never_below_zero(self) -> None:
        counters = used(5)
        give_back(counters, Of.DEPOSIT, "main", "EUR", 6, TODAY, TODAY)
        assert use(counters, Of.DEPOSIT, "main", "EUR", TODAY) == Used(0, 0, 0, 0)

    def test_a_wager_after_a_win_leaves_what_was_won(self) -> None:
        counters = used(10, Of.WAGER)
        count_win(counters, "main", "EUR", 15, TODAY)
        give_back(counters, Of.WAGER, "main", "EUR", 10, TODAY, TODAY)
        assert use(counters, Of.WAGER, "main", "EUR", TODAY).daily == 0
        assert use(counters, Of.LOSS, "main", "EUR", TODAY).daily == -15


class TestLimitRefusal:
    def test_exactly_the_rest_is_allowed(self) -> None:
        assert refused([limit()], used(60), 40) is None

    def test_one_more_is_told_with_everything(self) -> None:
        assert refused([limit()], used(60), 41) == {
            "code": "LIMIT_REACHED",
            "rule": "limit.deposit.daily.operator",
            "limitMinor": "100",
            "usedMinor": "60",
            "restMinor": "40",
            "requestedMinor": "41",
            "currency": "EUR",
            "scope": "*",
            "resetsAt": "2026-11-24T00:00:00+00:00",
        }

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"currency": "USD"}, "another currency"),
            ({"scope": "casino"}, "another category"),
            ({"operation": Of.WITHDRAWAL}, "another operation"),
        ],
    )
    def test_limits_of_something_else(self, changes: dict[str, Any], why: str) -> None:
        assert refused([limit(amount=0, **changes)], {}, 1) is None, why

    @pytest.mark.parametrize(
        ("limits", "rule"),
        [
            pytest.param(
                [limit(), limit(window=Per.MONTHLY, amount=99)], "limit.deposit.monthly.operator", id="least rest"
            ),
            pytest.param(
                [limit(source=source) for source in (By.PLAYER, By.PRODUCT, By.OPERATOR, By.KYC)],
                "limit.deposit.daily.kyc",
                id="the law's before the operator's",
            ),
            pytest.param(
                [limit(source=source) for source in (By.PLAYER, By.PRODUCT, By.OPERATOR)],
                "limit.deposit.daily.operator",
                id="the operator's before the product's",
            ),
            pytest.param(
                [limit(source=source) for source in (By.PLAYER, By.PRODUCT)],
                "limit.deposit.daily.product",
                id="the product's before the player's",
            ),
            pytest.param(
                [limit(window=window) for window in reversed(Per)], "limit.deposit.single.operator", id="narrowest"
            ),
            pytest.param(
                [limit(amount=50), limit(window=Per.MONTHLY, amount=20, source=By.KYC)],
                "limit.deposit.monthly.kyc",
                id="what was lowered below its use leaves nothing, not less than that",
            ),
        ],
    )
    def test_of_several_the_one_that_leaves_least(self, limits: list[Limit], rule: str) -> None:
        told = refused(limits, used(60) if limits[0].amount_minor == 50 else {}, 101)
        assert told
        assert told["rule"] == rule

    def test_a_wager_is_held_to_losses_which_wins_make_room_for(self) -> None:
        losses = [limit(Of.LOSS)]
        counters = used(100, Of.WAGER)
        told = refused(losses, counters, 1, Of.WAGER)
        assert told
        assert told["rule"] == "limit.loss.daily.operator"
        count_win(counters, "main", "EUR", 150, TODAY)
        assert refused(losses, counters, 150, Of.WAGER) is None
        assert refused(losses, counters, 151, Of.WAGER)

    def test_a_balance_over_all_wallets(self) -> None:
        counters: Counters = {}
        for category, balance in (("main", 30), ("casino", 50)):
            note_balance(counters, category, "EUR", balance)
        balances = [limit(Of.BALANCE, Per.LIFETIME)]
        assert refused(balances, counters, 20, balance_after=50) is None
        told = refused(balances, counters, 21, balance_after=51)
        assert told
        assert (told["rule"], told["usedMinor"], told["resetsAt"]) == ("limit.balance.lifetime.operator", "80", None)

    def test_a_balance_of_one_wallet(self) -> None:
        counters: Counters = {}
        note_balance(counters, "casino", "EUR", 50)
        balances = [limit(Of.BALANCE, Per.LIFETIME, scope="main")]
        assert refused(balances, counters, 70, Of.BALANCE, balance_after=100) is None
        assert refused(balances, counters, 71, Of.BALANCE, balance_after=101)

    def test_a_payer_hears_nothing_of_what_the_payee_holds(self) -> None:
        balances = [limit(Of.BALANCE, Per.LIFETIME)]
        refusal = limit_refusal(balances, {}, Of.BALANCE, "main", "EUR", 21, 101, TODAY)
        assert refusal
        told = told_to_payer(refusal)
        assert (told.code, told.rule) == ("LIMIT_REACHED", "limit.recipient")
        assert told.details == {"requestedMinor": "21", "currency": "EUR"}

    def test_zero_allows_nothing(self) -> None:
        assert refused([limit(amount=0)], {}, 1)


class TestChange:
    MINE = limit(source=By.PLAYER)

    def test_lower_is_at_once(self) -> None:
        assert change(self.MINE, 50, NOON, DAY) == replace(self.MINE, amount_minor=50, since=NOON)

    def test_higher_waits(self) -> None:
        changed = change(self.MINE, 200, NOON, DAY)
        assert changed == replace(self.MINE, pending=PendingChange(200, NOON + DAY))
        assert effective(changed, NOON + DAY - timedelta(milliseconds=1)) == changed
        assert effective(changed, NOON + DAY) == replace(self.MINE, amount_minor=200, since=NOON + DAY)

    def test_an_end_waits(self) -> None:
        changed = change(self.MINE, None, NOON, DAY)
        assert changed
        assert effective(changed, NOON) == changed
        assert effective(changed, NOON + DAY) is None

    @pytest.mark.parametrize("amount", [100, 99])
    def test_not_higher_ends_the_waiting(self, amount: int) -> None:
        waiting = change(self.MINE, 200, NOON, DAY)
        assert waiting
        changed = change(waiting, amount, NOON, DAY)
        assert changed
        assert (changed.amount_minor, changed.pending) == (amount, None)

    @pytest.mark.parametrize(
        ("first", "second", "waits_from"),
        [
            (200, 200, NOON),
            (200, 150, NOON),
            (None, 150, NOON),
            (200, 201, NOON + DAY / 2),
            (200, None, NOON + DAY / 2),
        ],
    )
    def test_only_for_more_the_waiting_begins_anew(
        self, first: int | None, second: int | None, waits_from: datetime
    ) -> None:
        waiting = change(self.MINE, first, NOON, DAY)
        assert waiting
        changed = change(waiting, second, NOON + DAY / 2, DAY)
        assert changed
        assert changed.pending == PendingChange(second, waits_from + DAY)

    def test_what_has_waited_long_enough_is_what_is_changed(self) -> None:
        raised = replace(self.MINE, pending=PendingChange(200, NOON))
        assert change(raised, 150, NOON, DAY) == replace(self.MINE, amount_minor=150, since=NOON)
        gone = replace(self.MINE, pending=PendingChange(None, NOON))
        assert change(gone, 500, NOON, DAY) == replace(self.MINE, amount_minor=500, since=NOON)

    @pytest.mark.parametrize("source", [By.OPERATOR, By.KYC, By.PRODUCT])
    def test_others_change_at_once(self, source: By) -> None:
        theirs = limit(source=source)
        assert change(theirs, 200, NOON, DAY) == replace(theirs, amount_minor=200, since=NOON)
        assert change(theirs, None, NOON, DAY) is None


class TestInForce:
    PRODUCTS = (limit(source=By.PRODUCT), limit(Of.WAGER, source=By.PRODUCT))

    def test_products_for_whoever_has_none(self) -> None:
        assert in_force([], self.PRODUCTS, NOON) is self.PRODUCTS

    def test_an_account_may_be_an_exception(self) -> None:
        exception, mine = limit(source=By.PRODUCT, amount=1000), limit(source=By.PLAYER)
        assert in_force([exception, mine], self.PRODUCTS, NOON) == [exception, mine, self.PRODUCTS[1]]

    def test_what_waits_and_what_has_ended(self) -> None:
        mine = limit(source=By.PLAYER, pending=PendingChange(None, NOON + DAY))
        assert in_force([mine], [], NOON) == [mine]
        assert in_force([mine], [], NOON + DAY) == []


ZONES = ("Europe/Malta", "America/Sao_Paulo", "Pacific/Apia", "UTC")
# Around the changes of the clocks, so that days of 23 and 25 hours, and Apia's lost date, come often.
TURNS = tuple(
    datetime.fromisoformat(turn)
    for turn in (
        "2018-02-18T02:00Z",
        "2018-11-04T03:00Z",
        "2026-03-29T01:00Z",
        "2026-10-25T01:00Z",
        "2011-12-30T10:00Z",
    )
)
WINDOWS = [per for per in Per if per is not Per.SINGLE]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[datetime, int]]:
    """Instants in order, and what was wagered at them, or won."""
    turn = draw(st.sampled_from(TURNS))
    minutes = draw(st.lists(st.integers(-6_000, 6_000), min_size=1, max_size=30))
    amounts = st.integers(-50, 50).filter(bool)
    return [(turn + timedelta(minutes=m), draw(amounts)) for m in sorted(minutes)]


def naively(history: list[tuple[datetime, int]], zone: str, window: Per, now: datetime) -> int:
    """What was used of `window`, by looking at everything that ever happened."""

    def label(instant: datetime) -> object:
        local = instant.astimezone(ZoneInfo(zone)).date()
        labels = {Per.DAILY: local, Per.WEEKLY: local.isocalendar()[:2], Per.MONTHLY: (local.year, local.month)}
        return labels.get(window)

    return sum(amount for instant, amount in history if label(instant) == label(now))


def counted(history: list[tuple[datetime, int]], zone: str) -> Counters:
    counters: Counters = {}
    for instant, amount in history:
        if amount > 0:
            count(counters, Of.WAGER, "main", "EUR", amount, calendar_at(zone, instant))
        else:
            count_win(counters, "main", "EUR", -amount, calendar_at(zone, instant))
    return counters


class TestAgainstLookingAtEverything:
    @given(histories(), st.sampled_from(ZONES), st.sampled_from(WINDOWS), st.integers(0, 3_000))
    def test_use(self, history: list[tuple[datetime, int]], zone: str, window: Per, later: int) -> None:
        now = history[-1][0] + timedelta(minutes=later)
        counters, calendar = counted(history, zone), calendar_at(zone, now)
        wagers = [(at, amount) for at, amount in history if amount > 0]
        for operation, part in ((Of.WAGER, wagers), (Of.LOSS, history)):
            assert getattr(use(counters, operation, "main", "EUR", calendar), window) == naively(
                part, zone, window, now
            )

    @given(
        histories(),
        st.sampled_from(ZONES),
        st.lists(st.tuples(st.sampled_from(WINDOWS), st.sampled_from([Of.WAGER, Of.LOSS]), st.integers(0, 200))),
        st.integers(1, 200),
    )
    def test_refusal(
        self, history: list[tuple[datetime, int]], zone: str, wanted: list[tuple[Per, Of, int]], amount: int
    ) -> None:
        now = history[-1][0]
        limits = [limit(operation, window, most) for window, operation, most in wanted]
        told = refused(limits, counted(history, zone), amount, Of.WAGER, calendar=calendar_at(zone, now))
        wagers = [(at, wagered) for at, wagered in history if wagered > 0]
        rests = [
            most - naively(wagers if operation is Of.WAGER else history, zone, window, now)
            for window, operation, most in wanted
        ]
        assert (told is not None) == any(rest < amount for rest in rests)
        if told:
            assert told["restMinor"] == str(max(min(rests), 0))

    @given(histories(), st.sampled_from(ZONES), st.data())
    def test_give_back_is_as_if_it_had_never_been(
        self, history: list[tuple[datetime, int]], zone: str, data: st.DataObject
    ) -> None:
        undone = data.draw(st.integers(0, len(history) - 1))
        at, amount = history[undone][0], abs(history[undone][1])
        history[undone] = (at, amount)
        now = calendar_at(zone, history[-1][0])
        counters, without = counted(history, zone), counted(history[:undone] + history[undone + 1 :], zone)
        give_back(counters, Of.WAGER, "main", "EUR", amount, calendar_at(zone, at), now)
        for operation in (Of.WAGER, Of.LOSS):
            assert use(counters, operation, "main", "EUR", now) == use(without, operation, "main", "EUR", now)


class TestUseOf:
    def test_what_is_left_is_never_less_than_nothing(self) -> None:
        left = use_of(limit(), used(130), TODAY)
        assert (left.used, left.rest) == (130, 0)

    def test_a_balance_is_the_sum_of_the_wallets(self) -> None:
        counters: Counters = {}
        for category, balance in (("main", 30), ("casino", 50)):
            note_balance(counters, category, "EUR", balance)
        assert use_of(limit(Of.BALANCE, Per.LIFETIME), counters, TODAY).used == 80
        assert use_of(limit(Of.BALANCE, Per.LIFETIME, scope="main"), counters, TODAY).used == 30
