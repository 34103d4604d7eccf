"""Callers in a closed loop, each asking again as soon as it is answered, and what they measured."""

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Ask = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Load:
    """`per_second` counts transfers, the latencies are those of a call."""

    per_second: float
    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return f"{self.per_second:8,.0f}/s   p50 {self.p50_ms:7.1f} ms   p99 {self.p99_ms:7.1f} ms"


async def loaded(ask: Ask, callers: int, seconds: float) -> Load:
    """Ends when the last call begun within `seconds` is answered."""
    began = time.perf_counter()
    took_s: list[float] = []

    async def caller() -> None:
        while (asked := time.perf_counter()) < began + seconds:
            await ask()
            took_s.append(time.perf_counter() - asked)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return load_of(took_s, time.perf_counter() - began)


def load_of(took_s: list[float], seconds: float) -> Load:
    took_s.sort()
    p50, p99 = (took_s[int(len(took_s) * share)] * 1000 for share in (0.5, 0.99))
    return Load(len(took_s) / seconds, p50, p99)


@dataclass(slots=True)
class Rounds:
    """What contenders did in turns, so that what else the machine does hits them alike."""

    _loads: dict[str, list[Load]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, load: Load) -> None:
        self._loads[name].append(load)

    def median(self, name: str) -> Load:
        loads = self._loads[name]
        return Load(
            statistics.median(load.per_second for load in loads),
            statistics.median(load.p50_ms for load in loads),
            statistics.median(load.p99_ms for load in loads),
        )

    def best(self, prefix: str) -> Load:
        """The fastest by its median, of those whose names begin so."""
        return max((self.median(name) for name in self._loads if name.startswith(prefix)), key=lambda it: it.per_second)

    def show(self, title: str) -> None:
        print(f"\n{title}: medians of {max(map(len, self._loads.values()))} rounds", flush=True)
        for name in self._loads:
            print(f"  {name:28} {self.median(name)}", flush=True)


class Targets:
    """Says of each target whether it holds, and remembers whether one was missed."""

    def __init__(self) -> None:
        self.missed = False

    def at_least(self, what: str, measured: float, target: float) -> None:
        self._say(measured >= target, f"{what}: {measured:,.2f}, target at least {target:,g}")

    def at_most(self, what: str, measured: float, target: float) -> None:
        self._say(measured <= target, f"{what}: {measured:,.2f}, target at most {target:,g}")

    def _say(self, held: bool, text: str) -> None:
        self.missed |= not held
        print(f"    {'holds' if held else 'MISSED'}  {text}", flush=True)
