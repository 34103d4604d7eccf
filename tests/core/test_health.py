import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from libs.core import health
from libs.core.health import Health


class Part:
    """Something to be asked, which counts how often it was."""

    def __init__(self) -> None:
        self.asked = 0
        self.broken = False

    async def check(self) -> Mapping[str, Any]:
        self.asked += 1
        if self.broken:
            raise ConnectionError("mongo.internal:27017 refused the password hunter2")
        return {"lag": 3}


async def test_all_well() -> None:
    part = Part()
    parts = Health()
    parts.add("relay", part.check)
    report = await parts.report()
    assert report.ready
    assert report.checks == {"relay": {"status": "ok", "lag": 3}}


async def test_one_failed_and_why_is_not_shown() -> None:
    broken, well = Part(), Part()
    broken.broken = True
    parts = Health()
    parts.add("mongo", broken.check)
    parts.add("redis", well.check)
    report = await parts.report()
    assert not report.ready
    assert report.checks == {"mongo": {"status": "failed"}, "redis": {"status": "ok", "lag": 3}}


async def test_probes_share_an_answer() -> None:
    part = Part()
    parts = Health()
    parts.add("mongo", part.check)
    await asyncio.gather(*(parts.report() for _ in range(50)))
    assert part.asked == 1


async def test_part_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "TIMEOUT_S", 0.05)
    parts = Health()
    parts.add("mongo", asyncio.Event().wait)  # type: ignore[arg-type]
    async with asyncio.timeout(2):
        assert (await parts.report()).checks == {"mongo": {"status": "failed"}}
