"""Sends what is due, in every process: who claims a delivery sends it.

**When it fails** it is tried again after 5 s, 30 s, 2 min, 10 min, 30 min, 1 h, 2 h, 3 h, 4 h, 5 h and 6 h, each of
these up to a tenth more or less: 12 attempts in 21 hours and 43 minutes, 23 hours and 53 minutes at the most. A
`Retry-After` of up to an hour is waited for if it is later than that. After a day a delivery has failed for good, and
if nothing else reached its endpoint in that day, the endpoint is disabled. 410 disables it at once.

**Nobody waits for somebody else's receiver.** Each endpoint is sent to by itself, one at first, twice as many at once
with each success, up to 8 in a process; one again after a failure, and none for up to a minute after several in a row.
All share 100 slots, given in the order of asking, so that an endpoint with much to send is served in turns.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

import structlog
from prometheus_client import Counter, Histogram
from pymongo.errors import PyMongoError

from libs.core.clock import Clock
from libs.core.errors import Misconfigured
from libs.core.tasks import ended
from libs.core.webhooks.deliveries import DISABLED, Attempt, Claimed, Deliveries, DeliveryStatus
from libs.core.webhooks.endpoints import DisabledReason, Endpoint, Endpoints
from libs.core.webhooks.sending import Answer, Sender
from libs.core.webhooks.signing import signed_headers

RETRY_AFTER_S = (5, 30, 120, 600, 1_800, 3_600, 7_200, 10_800, 14_400, 18_000, 21_600)
JITTER = 0.1
DAY = timedelta(days=1)
LONGEST_ASKED_FOR_S = 3_600.0

SLOTS = 100
SLOTS_PER_ENDPOINT = 8
POLL_S = 2.0
# More than this, and a receiver is too slow for what it subscribed to; at 1 KB each it is 100 MB.
BACKLOG_LIMIT = 100_000

_GONE = 410
_FAILURES_BEFORE_REST = 3
_LONGEST_REST_S = 60.0
_LOOK_AFTER_EVERY = timedelta(minutes=1)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_OUR_FAULT_S = 60.0
_FINISH_WITHIN_S = 5.0
_AFTER_TROUBLE_S = 2.0

ATTEMPTS = Counter("webhook_attempts_total", "Attempts to deliver a webhook, by outcome (ok, failed)", ["outcome"])
SECONDS = Histogram(
    "webhook_attempt_seconds", "How long receivers took", buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)
)
DISABLED_ENDPOINTS = Counter("webhook_endpoints_disabled_total", "Endpoints disabled without a hand", ["reason"])

log = structlog.get_logger(__name__)


def next_attempt_at(now: datetime, tries: int, started_at: datetime, asked_for_s: float | None) -> datetime | None:
    """When to try again after `tries` attempts, the last of them now; None if that was the last one."""
    if tries > len(RETRY_AFTER_S) or now - started_at >= DAY:
        return None
    wait_s = RETRY_AFTER_S[tries - 1] * random.uniform(1 - JITTER, 1 + JITTER)
    return now + timedelta(seconds=max(wait_s, min(asked_for_s or 0.0, LONGEST_ASKED_FOR_S)))


@dataclass(slots=True)
class _Line:
    """What this process knows of one endpoint. `width`: how many to send at once. `again`: more came meanwhile."""

    busy: bool = False
    again: bool = False
    width: int = 1
    failures: int = 0
    rests_until: datetime = _LONG_AGO
    success_noted_at: datetime = _LONG_AGO
    backlog_counted_at: datetime = _LONG_AGO

    def resting(self, now: datetime) -> bool:
        return now < self.rests_until

    def forgettable(self, now: datetime) -> bool:
        return not self.busy and now > max(self.rests_until, self.backlog_counted_at + _LOOK_AFTER_EVERY)

    def learn(self, arrived: Sequence[bool], now: datetime) -> None:
        """From what was sent at once. A rest is for a receiver that takes nothing, and not for one bad event."""
        self.width = min(SLOTS_PER_ENDPOINT, 2 * self.width) if all(arrived) else 1
        self.failures = 0 if any(arrived) else self.failures + 1
        if self.failures >= _FAILURES_BEFORE_REST:
            rest_s = min(_LONGEST_REST_S, 2.0 ** min(self.failures - _FAILURES_BEFORE_REST, 10))
            self.rests_until = now + timedelta(seconds=rest_s)


class Worker:
    """`async with Worker(…)`. At the end it sends what it has in hand, and puts back what takes longer than 5 s."""

    def __init__(
        self, endpoints: Endpoints, deliveries: Deliveries, sender: Sender, clock: Clock, *, poll_s: float = POLL_S
    ) -> None:
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._sender = sender
        self._clock = clock
        self._poll_s = poll_s
        self._kicked = asyncio.Event()
        self._stopping = False
        self._slots = asyncio.Semaphore(SLOTS)
        self._lines: dict[str, _Line] = {}
        self._sending: set[asyncio.Task[None]] = set()

    def kick(self) -> None:
        """There is something to send."""
        self._kicked.set()

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run(), name="webhooks")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        self._kicked.set()
        await asyncio.wait([self._running, *self._sending], timeout=_FINISH_WITHIN_S)
        await ended(self._running, *self._sending)

    async def _run(self) -> None:
        while not self._stopping:
            self._kicked.clear()
            wait_s = self._poll_s
            try:
                await self._start_due()
            except Exception as error:  # whatever it is, sending must go on once it is over
                log.warning("webhooks wait", error=repr(error)[:200])
                wait_s = _AFTER_TROUBLE_S
            with suppress(TimeoutError):
                # Jitter: idle processes should not all ask at the same instant.
                await asyncio.wait_for(self._kicked.wait(), wait_s * random.uniform(0.8, 1.0))

    async def _start_due(self) -> None:
        now = self._clock.now()
        for key in [key for key, line in self._lines.items() if line.forgettable(now)]:
            del self._lines[key]
        due = await self._deliveries.endpoints_due(but=[k for k, line in self._lines.items() if line.resting(now)])
        random.shuffle(due)
        for key in due:
            self._start(key)

    def _start(self, key: str) -> None:
        line = self._lines.setdefault(key, _Line())
        if line.busy or self._stopping:
            line.again = True
            return
        line.busy = True
        sending = asyncio.create_task(self._send_all(key, line), name="webhooks of an endpoint")
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _send_all(self, key: str, line: _Line) -> None:
        """Until nothing is due, or the endpoint has to rest."""
        try:
            while not (self._stopping or line.resting(self._clock.now())):
                line.again = False
                if not await self._send_some(key, line) and not line.again:
                    return
        except PyMongoError as error:
            log.warning("webhooks of an endpoint wait", endpoint=key, error=repr(error)[:200])
        except Exception:  # a document that a hand has broken: it is claimed again later, and others until then
            log.exception("a webhook cannot be sent", endpoint=key)
        finally:
            line.busy = False

    async def _send_some(self, key: str, line: _Line) -> int:
        """As many at once as the endpoint has shown to bear, and as there are slots for; how many that were."""
        async with self._some_slots(line.width) as slots:
            claimed = await self._deliveries.claim(key, slots)
            endpoint = await self._endpoints.by_key(key) if claimed else None
            sending = (self._deliver(endpoint, one, line) for one in claimed)
            results = await asyncio.gather(*sending, return_exceptions=True)
            if arrived := [result for result in results if isinstance(result, bool)]:
                line.learn(arrived, self._clock.now())
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            return len(claimed)

    @asynccontextmanager
    async def _some_slots(self, wanted: int) -> AsyncIterator[int]:
        """Waits for one, in its turn, and takes more if they are free. Slots come first, because a claim runs out."""
        await self._slots.acquire()
        taken = 1
        try:
            while taken < wanted and not self._slots.locked():
                await self._slots.acquire()
                taken += 1
            yield taken
        finally:
            for _ in range(taken):
                self._slots.release()

    async def _deliver(self, endpoint: Endpoint | None, claimed: Claimed, line: _Line) -> bool | None:
        """Whether it arrived; None if it was not sent."""
        try:
            if endpoint is None or not endpoint.enabled:
                await self._deliveries.give_up(claimed, DISABLED if endpoint else "the endpoint was deleted")
                return None
            return await self._attempt(endpoint, claimed, line)
        except Misconfigured as error:  # ours, and not the receiver's: it costs none of the attempts
            log.error("webhook cannot be signed", endpoint=claimed.delivery.endpoint_key, error=error.message)
            await self._deliveries.put_back(claimed, after_s=_OUR_FAULT_S)
            return None
        except asyncio.CancelledError:
            await self._deliveries.put_back(claimed)
            raise

    async def _attempt(self, endpoint: Endpoint, claimed: Claimed, line: _Line) -> bool:
        at = self._clock.now()
        headers = signed_headers(self._endpoints.keys_of(endpoint), claimed.delivery.event_id, at, claimed.body)
        answer = await self._sender.post(endpoint.url, headers, claimed.body)
        ATTEMPTS.labels("ok" if answer.ok else "failed").inc()
        SECONDS.observe(answer.took_ms / 1000)
        attempt = Attempt(at, answer.took_ms, answer.status, answer.error, answer.body)
        await self._record(endpoint, claimed, answer, attempt)
        await self._look_after(endpoint, answer, line)
        return answer.ok

    async def _record(self, endpoint: Endpoint, claimed: Claimed, answer: Answer, attempt: Attempt) -> None:
        if answer.ok:
            await self._deliveries.record(claimed, attempt, DeliveryStatus.DELIVERED)
            return
        delivery, now = claimed.delivery, self._clock.now()
        again_at = next_attempt_at(now, delivery.tries + 1, delivery.started_at, answer.retry_after_s)
        if answer.status == _GONE:
            again_at = None
        status = DeliveryStatus.PENDING if again_at else DeliveryStatus.FAILED
        recorded = await self._deliveries.record(claimed, attempt, status, again_at)
        if again_at or not recorded:
            return
        log.warning("webhook failed for good", endpoint=endpoint.key, delivery=delivery.id, error=attempt.error)
        if answer.status == _GONE:
            await self._disable(endpoint, "gone")
        elif await self._nothing_since(endpoint, delivery.started_at):
            await self._disable(endpoint, "failing")

    async def _nothing_since(self, endpoint: Endpoint, started_at: datetime) -> bool:
        """Read again: another delivery may have arrived while this one waited for its answer."""
        now = await self._endpoints.by_key(endpoint.key)
        succeeded_at = now.last_success_at if now else None
        # Successes are noted once a minute.
        return succeeded_at is None or succeeded_at < started_at - _LOOK_AFTER_EVERY

    async def _look_after(self, endpoint: Endpoint, answer: Answer, line: _Line) -> None:
        """Once a minute: what costs too much for every delivery."""
        now = self._clock.now()
        if answer.ok and now >= line.success_noted_at + _LOOK_AFTER_EVERY:
            line.success_noted_at = now
            await self._endpoints.succeeded(endpoint.key, now)
        if now < line.backlog_counted_at + _LOOK_AFTER_EVERY:
            return
        line.backlog_counted_at = now
        if await self._deliveries.waiting(endpoint.key, limit=BACKLOG_LIMIT + 1) > BACKLOG_LIMIT:
            await self._disable(endpoint, "backlog")

    async def _disable(self, endpoint: Endpoint, reason: DisabledReason) -> None:
        if await self._endpoints.disable(endpoint.tenant_id, endpoint.id, reason=reason, actor="webhooks"):
            DISABLED_ENDPOINTS.labels(reason).inc()
            log.error("webhook endpoint disabled", endpoint=endpoint.key, reason=reason)
        await self._deliveries.abandon(endpoint.key, DISABLED)
