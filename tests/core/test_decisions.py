from typing import Any

import pytest
from structlog.testing import capture_logs

from libs.core import decisions
from libs.core.context import Caller
from libs.core.decisions import DIFFERENT, LINES_AT_ONCE, SAMPLE, SUM_UP_EVERY_S, Decisions

ANNA = Caller("acme", "anna", ("player",), "s1", "user")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def times(lines: list[Any]) -> int:
    return sum(line.get("times", 1) for line in lines)


class TestDenied:
    def test_a_few_are_all_written(self, clock: Clock) -> None:
        log = Decisions(clock)
        with capture_logs() as lines:
            log.denied(ANNA, "wallet:read", "w1")
        assert [(line["event"], line["subject"], line["action"], line["target"]) for line in lines] == [
            ("denied", "anna", "wallet:read", "w1")
        ]

    def test_of_a_flood_each_is_counted_and_few_are_written(self, clock: Clock) -> None:
        log, before = Decisions(clock), decisions.counts.denied.get("flood:read", 0)
        with capture_logs() as lines:
            for n in range(100_000):
                clock.now += 0.000_1
                log.denied(Caller("acme", f"u{n % 500}"), "flood:read")
            log.sum_up()
        assert times(lines) == 100_000
        assert len(lines) <= LINES_AT_ONCE + 10 * 5 + 2 * (DIFFERENT + 1)
        assert decisions.counts.denied["flood:read"] - before == 100_000

    def test_what_was_only_counted_is_written_with_the_next(self, clock: Clock) -> None:
        log = Decisions(clock)
        with capture_logs() as lines:
            for _ in range(LINES_AT_ONCE + 7):
                log.denied(ANNA, "wallet:read")
            assert times(lines) == LINES_AT_ONCE
            clock.now += SUM_UP_EVERY_S
            log.denied(ANNA, "wallet:read")
        assert times(lines) == LINES_AT_ONCE + 8
        assert lines[-1]["times"] == 7


class TestAllowed:
    def test_about_one_in_so_many_is_written(self, clock: Clock) -> None:
        log = Decisions(clock)
        with capture_logs() as lines:
            for _ in range(50 * SAMPLE):
                log.allowed(ANNA, "wallet:read")
        assert 15 < len(lines) < 150
        assert lines[0]["one_in"] == SAMPLE


def test_the_metric_has_both() -> None:
    log = Decisions()
    log.allowed(ANNA, "metric:read")
    log.denied(ANNA, "metric:read")
    [family] = decisions.counts.collect()
    found = {tuple(s.labels.values()): s.value for s in family.samples if s.labels["action"] == "metric:read"}
    assert found == {("metric:read", "allow"): 1, ("metric:read", "deny"): 1}
