import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from structlog.testing import capture_logs

from libs.core.jobs import Job, Jobs
from libs.core.lock import Lease
from libs.core.mongo import Mongo
from libs.core.testing import eventually


class Runs:
    """Counts runs, and how many of them there were at most at the same time."""

    def __init__(self, lasting_s: float = 0.0) -> None:
        self.count = self.now = self.most = 0
        self._lasting_s = lasting_s

    async def __call__(self) -> None:
        self.count += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(self._lasting_s)
        self.now -= 1


def job(run: Callable[[], Coroutine[Any, Any, None]], every_s: float = 0.02) -> Job:
    return Job("sweep", every_s, run)


class TestJobs:
    async def test_runs_again_and_again(self, mongo: Mongo) -> None:
        runs = Runs()
        async with Jobs(mongo.db, [job(runs)]):
            await eventually(lambda: runs.count >= 3)

    async def test_never_overlaps_over_processes(self, mongo: Mongo) -> None:
        runs = Runs(lasting_s=0.02)
        async with Jobs(mongo.db, [job(runs)]), Jobs(mongo.db, [job(runs)]), Jobs(mongo.db, [job(runs)]):
            await eventually(lambda: runs.count >= 5)
        assert runs.most == 1

    async def test_not_due_after_a_restart(self, mongo: Mongo) -> None:
        first, second, other = Runs(), Runs(), Runs()
        async with Jobs(mongo.db, [job(first, every_s=3600)]):
            await eventually(lambda: first.count)
        async with Jobs(mongo.db, [job(second, every_s=3600), Job("other", 0.02, other)]):
            await eventually(lambda: other.count >= 2)
        assert (first.count, second.count) == (1, 0)

    async def test_shorter_schedule_counts_from_the_last_run(self, mongo: Mongo) -> None:
        runs = Runs()
        async with Jobs(mongo.db, [job(runs, every_s=3600)]):
            await eventually(lambda: runs.count)
        async with Jobs(mongo.db, [job(runs, every_s=0.02)]):
            await eventually(lambda: runs.count >= 2)

    async def test_process_that_died_in_the_middle(self, mongo: Mongo) -> None:
        """It left its lease to expire and its job due."""
        await Lease(mongo.db, "job:sweep", ttl_s=0.2).acquire()
        runs = Runs()
        async with Jobs(mongo.db, [job(runs)]):
            await eventually(lambda: runs.count, within_s=15)

    async def test_failed_run_is_logged_and_not_the_last(self, mongo: Mongo) -> None:
        runs = Runs()

        async def fail() -> None:
            await runs()
            raise ValueError("out of luck")

        with capture_logs() as lines:
            async with Jobs(mongo.db, [job(fail)]):
                await eventually(lambda: runs.count >= 2)
        assert {"event": "job failed", "job": "sweep", "exc_info": True, "log_level": "error"} in lines

    async def test_closing_lets_a_run_finish(self, mongo: Mongo) -> None:
        runs = Runs(lasting_s=0.2)
        async with Jobs(mongo.db, [job(runs)]):
            await eventually(lambda: runs.now)
        assert runs.now == 0
        assert await Lease(mongo.db, "job:sweep").acquire()
