"""Time, as something that can be handed in. Instants are UTC and have whole milliseconds, as MongoDB stores them."""

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The current instant: timezone-aware, UTC, whole milliseconds."""
        ...


class SystemClock:
    def now(self) -> datetime:
        now = datetime.now(UTC)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)
