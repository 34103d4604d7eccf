"""What runs on a schedule: each job in one process at a time, whichever it is.

    Job("release overdue holds", every_s=30, run=release_overdue)

When a job last ran stands in MongoDB, by its clock, so that a job is due `every_s` later whatever was restarted or
changed meanwhile. Whoever then takes the job's lease runs it. A process that dies in the middle leaves it due, and
another one runs it once the lease has expired: so a run may be repeated, but never overlaps another, and is cancelled
when its lease is lost. One that fails is logged, counted, and due again `every_s` later like any other.
"""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import structlog
from prometheus_client import Counter, Histogram
from pymongo.errors import PyMongoError

from libs.core.errors import LeaseLost
from libs.core.lock import Lease
from libs.core.migrations import Index
from libs.core.mongo import Database
from libs.core.tasks import ended

COLLECTION = "jobs"
INDEXES = (Index(COLLECTION),)

# A dead process's job waits this long for another one.
LEASE_TTL_S = 10.0
# Nobody sleeps longer: the row may have been deleted to have the job run now.
_LOOK_EVERY_S = 60.0
_AFTER_TROUBLE_S = 2.0
# How long a run under way may take to finish when the process stops, before it is cancelled.
_FINISH_WITHIN_S = 5.0

log = structlog.get_logger(__name__)

_RUNS = Counter("job_runs", "Runs of scheduled jobs, by outcome (ok, error)", ("job", "outcome"))
_SECONDS = Histogram("job_seconds", "How long runs of scheduled jobs took", ("job",))


@dataclass(frozen=True, slots=True)
class Job:
    """`run` every `every_s` seconds, counted from the end of the run before, or up to a tenth later."""

    name: str
    every_s: float
    run: Callable[[], Coroutine[Any, Any, None]]


class Jobs:
    """Runs `jobs` while it is open: `async with Jobs(mongo.db, jobs):`. Closing lets runs under way finish."""

    def __init__(self, database: Database, jobs: Iterable[Job]) -> None:
        self._database = database
        self._documents = database[COLLECTION]
        self._jobs = tuple(jobs)
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._keep(job), name=f"job {job.name}") for job in self._jobs]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_FINISH_WITHIN_S)
        await ended(*self._tasks)

    async def _keep(self, job: Job) -> None:
        lease = Lease(self._database, f"job:{job.name}", ttl_s=LEASE_TTL_S)
        while not self._stopping.is_set():
            try:
                wait_s = await self._turn(job, lease)
            except (PyMongoError, LeaseLost) as error:
                log.warning("job interrupted", job=job.name, error=repr(error))
                wait_s = _AFTER_TROUBLE_S
            with suppress(TimeoutError):
                # Jitter, so that the processes that wait for one job do not all ask at the same instant.
                await asyncio.wait_for(self._stopping.wait(), min(wait_s, _LOOK_EVERY_S) * random.uniform(1.0, 1.1))

    async def _turn(self, job: Job, lease: Lease) -> float:
        """Runs `job` if it is due and free; how many seconds to wait before looking again."""
        left_s = await self._left_s(job)
        if left_s > 0:
            return left_s
        if not await lease.acquire():
            return min(job.every_s, LEASE_TTL_S / 2)
        try:
            if await self._left_s(job) <= 0:  # still: the holder before may just have run it
                await lease.during(_run(job))
                await self._documents.update_one({"_id": job.name}, [{"$set": {"ran_at": "$$NOW"}}], upsert=True)
        finally:
            await lease.release()
        return await self._left_s(job)

    async def _left_s(self, job: Job) -> float:
        row = await self._documents.find_one({"_id": job.name}, {"ago_ms": {"$subtract": ["$$NOW", "$ran_at"]}})
        return job.every_s - row["ago_ms"] / 1000 if row else 0.0


async def _run(job: Job) -> None:
    started = time.monotonic()
    try:
        await job.run()
    except Exception:
        log.exception("job failed", job=job.name)
        _RUNS.labels(job.name, "error").inc()
    else:
        _RUNS.labels(job.name, "ok").inc()
    _SECONDS.labels(job.name).observe(time.monotonic() - started)
