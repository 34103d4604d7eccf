"""Runs a service whose clock is wrong: `CLOCK_AHEAD_S=-7200 python -m tests.soak.skewed services.payment.app:app`.

Everything in the process that asks for the time of day gets it shifted. The monotonic clock is as it was: a machine
whose clock is set wrong still measures durations right.
"""

import os
import sys
import time
from datetime import UTC, datetime, timedelta, tzinfo
from types import ModuleType
from typing import Any

from uvicorn.importer import import_from_string

from libs.core import clock, server

AHEAD = timedelta(seconds=float(os.environ.get("CLOCK_AHEAD_S") or 0))

_true_time = time.time


class _AnyInstant(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)


class SkewedDatetime(datetime, metaclass=_AnyInstant):
    """Stands in for `datetime` in modules that ask it for the time. What it makes are plain instants."""

    def __new__(cls, *args: Any, **named: Any) -> datetime:  # type: ignore[misc]
        return datetime(*args, **named)  # noqa: DTZ001  whatever was asked for

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + AHEAD


def _skewed_now(self: clock.SystemClock) -> datetime:
    now = datetime.now(UTC) + AHEAD
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _ours(module: ModuleType) -> bool:
    return module.__name__.startswith(("libs.", "services."))


def skew(target: str) -> None:
    """Once all modules of the service at `target` are there, so that none is missed."""
    import_from_string(target)
    clock.SystemClock.now = _skewed_now  # type: ignore[method-assign]
    time.time = lambda: _true_time() + AHEAD.total_seconds()
    for module in filter(_ours, list(sys.modules.values())):
        if vars(module).get("datetime") is datetime:
            vars(module)["datetime"] = SkewedDatetime


if __name__ == "__main__":
    skew(sys.argv[1])
    sys.exit(server.main(sys.argv[1]))
