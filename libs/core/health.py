"""Readiness: whether this process can do its work now, asked of every part it needs.

    health.add("mongo", mongo.ping)

A check returns details worth showing to an operator, or raises. What it raised is logged and not shown: the endpoint
needs no token.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

log = structlog.get_logger(__name__)

Check = Callable[[], Awaitable[Mapping[str, Any] | None]]

# Probes come from several sides at once: they share one answer, at most this old.
FRESH_S = 1.0
TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Report:
    """`checks` by name: `{"status": "ok" | "failed", **details}`."""

    ready: bool
    checks: Mapping[str, Mapping[str, Any]]


class Health:
    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._lock = asyncio.Lock()
        self._report = Report(ready=False, checks={})
        self._at = float("-inf")

    def add(self, name: str, check: Check) -> None:
        """From now on this process is ready only while `check` returns within 2 s."""
        self._checks[name] = check
        self._at = float("-inf")

    async def report(self) -> Report:
        async with self._lock:
            if time.monotonic() - self._at > FRESH_S:
                results = await asyncio.gather(*(self._run(name, check) for name, check in self._checks.items()))
                self._report = Report(all(ok for _, ok, _ in results), {name: shown for name, _, shown in results})
                self._at = time.monotonic()
            return self._report

    async def _run(self, name: str, check: Check) -> tuple[str, bool, Mapping[str, Any]]:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                details = await check()
        except Exception as error:
            log.warning("health check failed", check=name, error=f"{type(error).__name__}: {error}")
            return name, False, {"status": "failed"}
        return name, True, {"status": "ok", **(details or {})}
