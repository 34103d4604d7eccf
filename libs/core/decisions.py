"""What was decided about access, as an operator sees it: every denial, and one allowance in a thousand.

A line for each denial would let whoever is denied fill the log. So a burst is written out line by line; what is beyond
is counted by who and what, and written as one line each, with `times`, when it is the time for that. None is lost from
the count, and none from `access_decisions_total`.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator

import structlog
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from libs.core.context import Caller

SAMPLE = 1_000  # of so many allowances, about one is written
LINES_AT_ONCE = 50
LINES_A_SECOND = 5.0
SUM_UP_EVERY_S = 10.0
DIFFERENT = 200  # what is summed up apart, of those who are denied often; beyond, they are one line

log = structlog.get_logger(__name__)

_Key = tuple[str, str, str]
_OTHERS: _Key = ("", "", "")


class _Counts(Collector):
    """For `access_decisions_total`. Adding costs 50 ns: a `Counter` takes 400, as much as the decision itself."""

    def __init__(self) -> None:
        self.allowed: dict[str, int] = {}
        self.denied: dict[str, int] = {}

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily("access_decisions", "Decisions about access", labels=["action", "decision"])
        for decision, counts in (("allow", self.allowed), ("deny", self.denied)):
            for action, times in list(counts.items()):
                family.add_metric([action, decision], times)
        yield family


counts = _Counts()
REGISTRY.register(counts)


class Decisions:
    """One a process. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens = float(LINES_AT_ONCE)
        self._filled_at = self._summed_at = clock()
        self._untold: Counter[_Key] = Counter()
        self._until_sample = random.randint(1, 2 * SAMPLE)

    def allowed(self, caller: Caller, action: str, target: str | None = None) -> None:
        counts.allowed[action] = counts.allowed.get(action, 0) + 1
        self._until_sample -= 1
        if self._until_sample <= 0:
            # At random, so that nobody can place theirs between two that are written.
            self._until_sample = random.randint(1, 2 * SAMPLE)
            log.info("allowed", **_who(caller), action=action, target=target, one_in=SAMPLE)

    def denied(self, caller: Caller, action: str, target: str | None = None) -> None:
        counts.denied[action] = counts.denied.get(action, 0) + 1
        now = self._clock()
        self._tokens = min(float(LINES_AT_ONCE), self._tokens + (now - self._filled_at) * LINES_A_SECOND)
        self._filled_at = now
        if self._tokens >= 1:
            self._tokens -= 1
            log.info("denied", **_who(caller), action=action, target=target)
        else:
            key = (caller.tenant_id, caller.subject, action)
            self._untold[key if key in self._untold or len(self._untold) < DIFFERENT else _OTHERS] += 1
        if self._untold and now - self._summed_at >= SUM_UP_EVERY_S:
            self.sum_up()

    def sum_up(self) -> None:
        """Writes what was only counted so far."""
        untold, self._untold, self._summed_at = self._untold, Counter(), self._clock()
        for (tenant, subject, action), times in untold.most_common():
            log.info("denied", tenant=tenant, subject=subject, action=action or "several", times=times)


def _who(caller: Caller) -> dict[str, str | int]:
    who: dict[str, str | int] = {"tenant": caller.tenant_id, "subject": caller.subject, "kind": caller.kind}
    return {**who, "session": caller.session_id, "level": caller.level}
