"""Keeps an eye on the ledger: a little every minute, all of it when an operator asks, and an alarm if it diverges.

The alarm is a document that every payment process' readiness reads. It goes off with the first divergence, and only a
verification of everything that finds none turns it off again.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any, Self

import structlog

from libs.core.clock import Clock
from libs.core.errors import Refusal, Unavailable
from libs.core.events import Event, Outbox
from libs.core.lock import Lease
from libs.core.mongo import Document, Mongo, Session
from libs.core.tasks import ended
from services.payment.events import PLATFORM, LedgerDiverged
from services.payment.keys import JournalKeys
from services.payment.store import journal
from services.payment.verify import Budget, Progress, PublishedHead, Verified, go_on_from, verify_all, verify_on
from services.payment.verify.divergence import Divergence

log = structlog.get_logger(__name__)

# A range in the process that answers callers takes this long at a stretch: some ten milliseconds.
RANGE_BESIDE_CALLERS = 500
_TELL_EVERY_S = 1.0


class Watch:
    def __init__(self, mongo: Mongo, outbox: Outbox, clock: Clock, keys: JournalKeys) -> None:
        self._mongo = mongo
        self._outbox = outbox
        self._clock = clock
        self._keys = keys
        self._asked: asyncio.Task[Verified] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._asked:
            await ended(self._asked)

    async def health(self) -> dict[str, Any]:
        """For readiness: one small document. `Unavailable` while money does not add up."""
        status = await journal.status(self._mongo.db)
        if status.get("divergence"):
            raise Unavailable("the ledger has diverged: see docs/howto/verify-the-ledger.md")
        return {"verifiedAt": status["verified_at"].isoformat()} if "verified_at" in status else {}

    async def status(self) -> Document:
        """What is known: `divergence` (None, or its fields), `verified_at`, and `full`, how the last one went."""
        return await journal.status(self._mongo.db)

    async def go_on(self, budget: Budget) -> Verified | None:
        """What the job does. Nothing while the alarm is on: what it would find first is known."""
        if await self._is_alarmed():
            return None
        verified = await verify_on(self._mongo, self._keys.all, budget)
        if verified.divergence:
            await self.alarm(verified.divergence)
        else:
            await journal.set_status(self._mongo.db, {"verified_at": self._clock.now()})
        return verified

    async def verify_everything(
        self,
        *,
        published: Iterable[PublishedHead] = (),
        progress: Callable[[Progress], None] | None = None,
        range_transfers: int = RANGE_BESIDE_CALLERS,
    ) -> Verified:
        """One at a time, or a `Refusal`. Turns the alarm on, or off."""
        lease = Lease(self._mongo.db, "verify", ttl_s=15)
        if not await lease.acquire():
            raise Refusal(
                "VERIFICATION_UNDER_WAY", "the ledger is being verified already: see ledgerStatus", rule="verify.lease"
            )
        try:
            return await lease.during(self._verify_everything(published, progress, range_transfers))
        finally:
            await lease.release()

    async def ask_for_everything(self, *, answer_within_s: float) -> None:
        """Has it verified in the background, unless that is being done. Waits some time for its end."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.create_task(self.verify_everything(), name="verify everything")
        await asyncio.wait({self._asked}, timeout=answer_within_s)
        error = self._asked.exception() if self._asked.done() and not self._asked.cancelled() else None
        if error and not isinstance(error, Refusal):
            raise error

    async def _verify_everything(
        self, published: Iterable[PublishedHead], progress: Callable[[Progress], None] | None, range_transfers: int
    ) -> Verified:
        began, latest = self._clock.now(), _Latest(progress)
        await journal.set_status(self._mongo.db, {"full": {"state": "running", "began_at": began}})
        telling = asyncio.create_task(self._keep_telling(latest))
        try:
            verified = await verify_all(
                self._mongo, self._keys.all, published=published, progress=latest.take, range_transfers=range_transfers
            )
        except BaseException:
            await ended(telling)
            await journal.set_status(self._mongo.db, {"full.state": "failed", "full.ended_at": self._clock.now()})
            raise
        await ended(telling)
        await self._conclude(verified, began)
        return verified

    async def _keep_telling(self, latest: "_Latest") -> None:
        while True:
            await asyncio.sleep(_TELL_EVERY_S)
            if latest.progress:
                await journal.set_status(self._mongo.db, {"full.progress": asdict(latest.progress)})

    async def _conclude(self, verified: Verified, began: datetime) -> None:
        now = self._clock.now()
        outcome: Document = {"full.state": "diverged" if verified.divergence else "ok", "full.ended_at": now}
        if verified.divergence:
            await self.alarm(verified.divergence)
        else:
            await go_on_from(self._mongo, verified)
            alarm = (await self.status()).get("divergence")
            outcome["verified_at"] = now
            if alarm and alarm["at"] < began:  # what was found since may be in what had been looked at before
                log.warning("the ledger is as it should be again")
                outcome["divergence"] = None
        await journal.set_status(self._mongo.db, outcome)

    async def alarm(self, divergence: Divergence) -> None:
        """Says so in the log, to whoever hears events, and to every process' readiness; once for the same one."""
        now = self._clock.now()
        told = {**asdict(divergence), "kind": divergence.kind.value}
        event = Event.new(
            LedgerDiverged(
                kind=divergence.kind.value,
                where=divergence.where,
                expected=divergence.expected,
                found=divergence.found,
                tenant_id=divergence.tenant_id,
                found_at=now,
            ),
            source="payment",
            subject=divergence.kind.value,
            tenant_id=PLATFORM,
            partition_key=f"{PLATFORM}:journal",
        )

        async def note(session: Session) -> bool:
            before = (await journal.status(self._mongo.db, session)).get("divergence") or {}
            if {name: before.get(name) for name in told} == told:
                return False
            await journal.set_status(self._mongo.db, {"divergence": {**told, "at": now}}, session)
            await self._outbox.append(session, [event])
            return True

        log.error("the ledger has diverged", **told)
        if await self._mongo.transaction(note):
            self._outbox.kick()

    async def _is_alarmed(self) -> bool:
        return bool((await self.status()).get("divergence"))


class _Latest:
    """The last word on how far it has come, for who asks now and then; and for `also` every one of them."""

    def __init__(self, also: Callable[[Progress], None] | None) -> None:
        self.progress: Progress | None = None
        self._also = also

    def take(self, progress: Progress) -> None:
        self.progress = progress
        if self._also:
            self._also(progress)
