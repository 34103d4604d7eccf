"""Whether the ledger is what its journal says, and whether money adds up: to a stated cut, or the first divergence.

`verify_all` looks at everything: each lane's chain of blocks, signed heads, every stored byte of transfers and
transactions, every wallet rebuilt from its transactions, counts, and sums. `verify_on` goes on from where the last
call stopped, within a budget: what is new first, then some wallets, then some of the history again. So what somebody
changes in old documents is found by it too, in the end.

A ledger that is being written is verified as it stands: blocks up to a cut, which are the last ones when it begins, and
wallets as they are at one instant each.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic

from libs.core.mongo import Mongo
from services.payment.store import journal
from services.payment.store.journal import Tip
from services.payment.verify import wallets
from services.payment.verify.blocks import RANGE_TRANSFERS, Heads, Place, Spent, verify_lane
from services.payment.verify.divergence import Diverged, Divergence, Kind

__all__ = [
    "Budget",
    "Diverged",
    "Divergence",
    "Kind",
    "Progress",
    "PublishedHead",
    "Verified",
    "go_on_from",
    "verify_all",
    "verify_on",
]

# A range costs its process some milliseconds at a stretch: beside the ledger's callers, it had better be short.
_SMALL_RANGE = 250
_HISTORY_SHARE = 0.25
_WALLETS_A_RUN = 1_000


@dataclass(frozen=True, slots=True)
class PublishedHead:
    """One that was kept elsewhere: out of an event, or a log."""

    lane: int
    number: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    step: str
    done: int
    total: int
    per_second: float


@dataclass(slots=True)
class Verified:
    """What was looked at: blocks up to the `cut`, by lane. `spent` is this process' part of it alone."""

    cut: dict[int, int] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)
    seconds: float = 0.0
    lines: int = 0
    divergence: Divergence | None = None
    # Where each lane was left, and how many transfers had been seen in it.
    ends: list[tuple[Place, int]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.divergence is None


@dataclass(frozen=True, slots=True)
class Budget:
    """What one call may cost. It stops after the range that goes beyond: 250 transfers at most."""

    transfers: int = 300_000
    cpu_s: float = 2.0

    def left(self, spent: Spent, share: float = 1.0) -> bool:
        return spent.transfers < self.transfers * share and spent.cpu_s < self.cpu_s * share


class _Meter:
    """Says how far a step has come, and how fast."""

    def __init__(self, tell: Callable[[Progress], None] | None) -> None:
        self._tell = tell

    def start(self, step: str, total: int) -> None:
        self._step, self._total, self._done, self._since = step, total, 0, monotonic()

    def add(self, count: int) -> None:
        self._done += count
        if self._tell:
            per_second = self._done / max(monotonic() - self._since, 1e-3)
            self._tell(Progress(self._step, self._done, max(self._total, self._done), per_second))


async def verify_all(
    mongo: Mongo,
    keys: Mapping[str, bytes],
    *,
    published: Iterable[PublishedHead] = (),
    progress: Callable[[Progress], None] | None = None,
    range_transfers: int = RANGE_TRANSFERS,
) -> Verified:
    """Everything, and writes nothing.

    `keys` are the public keys of heads, by their ids; `published` heads must be there as they were.
    """
    verified, began, meter = Verified(), monotonic(), _Meter(progress)
    known = _by_lane(published)
    try:
        async with journal.snapshot(mongo) as session:
            tips = await journal.tips(mongo.db, session)
        tips += [Tip(lane, 0, b"", 0, 0) for lane in known if lane not in {tip.lane for tip in tips}]
        total = await journal.estimated_transfers(mongo.db)
        meter.start("transfers", total)
        for tip in tips:
            place, counted = Place(tip.lane), verified.spent.transfers
            heads = Heads(mongo.db, tip.lane, keys, known.get(tip.lane, {}))
            async for done in verify_lane(
                mongo.db, tip, place, heads, spent=verified.spent, range_transfers=range_transfers
            ):
                meter.add(done.transfers)
            verified.cut[tip.lane] = place.sequence
            verified.ends.append((place, verified.spent.transfers - counted))
        meter.start("transactions", 2 * total)
        async for lines in wallets.rebuild_wallets(mongo, verified.spent):
            verified.lines += lines
            meter.add(lines)
        await wallets.check_counts(mongo, verified.spent.transfers, verified.cut)
        await wallets.check_sums(mongo)
    except Diverged as diverged:
        verified.divergence = diverged.divergence
    verified.seconds = monotonic() - began
    return verified


async def go_on_from(mongo: Mongo, verified: Verified) -> None:
    """What `verify_all` has seen, `verify_on` need not look at as new."""
    for place, counted in verified.ends:
        await _save(mongo, "new", place, counted)


async def verify_on(mongo: Mongo, keys: Mapping[str, bytes], budget: Budget) -> Verified:
    """Goes on from where the last call stopped, within `budget`."""
    verified, began = Verified(), monotonic()
    try:
        async with journal.snapshot(mongo) as session:
            tips = await journal.tips(mongo.db, session)
        for tip in tips:
            place, counted = await _load(mongo, "new", tip.lane)
            if place.sequence < tip.last or place.sequence > tip.sequence:
                await _verify_new(mongo, keys, budget, tip, place, counted, verified.spent)
            verified.cut[tip.lane] = place.sequence
        around = await _verify_some_wallets(mongo)
        if around and all(verified.cut[tip.lane] == tip.last for tip in tips):
            await _verify_totals(mongo, verified.cut)
        await _verify_history(mongo, keys, budget, verified)
    except Diverged as diverged:
        verified.divergence = diverged.divergence
    verified.seconds = monotonic() - began
    return verified


async def _verify_new(
    mongo: Mongo, keys: Mapping[str, bytes], budget: Budget, tip: Tip, place: Place, counted: int, spent: Spent
) -> None:
    def may_go_on() -> bool:
        return budget.left(spent)

    if not may_go_on():
        return
    heads = Heads(mongo.db, tip.lane, keys, {})
    ranges = verify_lane(mongo.db, tip, place, heads, spent=spent, range_transfers=_SMALL_RANGE, may_go_on=may_go_on)
    async for done in ranges:
        await wallets.check_touched(mongo, done.lines)
        counted += done.transfers
        await _save(mongo, "new", place, counted)


async def _verify_some_wallets(mongo: Mongo) -> bool:
    """The next of all wallets; true when the last of them was reached."""
    at = await journal.checkpoint(mongo.db, "wallets")
    after = await wallets.next_wallets(mongo, at.get("after"), _WALLETS_A_RUN)
    await journal.save_checkpoint(mongo.db, "wallets", after=after)
    return after is None


async def _verify_totals(mongo: Mongo, cut: Mapping[int, int]) -> None:
    """Counts and sums cost MongoDB a look at everything, so they are taken for a hundredth of the time at most."""
    now, last = datetime.now(UTC), await journal.checkpoint(mongo.db, "totals")
    if last and (now - last["at"]).total_seconds() < 100 * last["seconds"]:
        return
    began = monotonic()
    counted = sum([(await _load(mongo, "new", lane))[1] for lane in cut])
    await wallets.check_counts(mongo, counted, cut)
    await wallets.check_sums(mongo)
    await journal.save_checkpoint(mongo.db, "totals", at=now, seconds=monotonic() - began)


async def _verify_history(mongo: Mongo, keys: Mapping[str, bytes], budget: Budget, verified: Verified) -> None:
    """Some of what was verified before, again: from the beginning, once the end was reached."""
    spent = Spent()

    def may_go_on() -> bool:
        return budget.left(spent, _HISTORY_SHARE)

    for lane, sequence in verified.cut.items():
        if not sequence or not may_go_on():
            continue
        place, _ = await _load(mongo, "again", lane)
        if place.sequence >= sequence:
            place = Place(lane)
        done, _ = await _load(mongo, "new", lane)
        tip = Tip(lane, done.sequence, done.hash, done.sequence, 0)
        heads = Heads(mongo.db, lane, keys, {})
        ranges = verify_lane(
            mongo.db, tip, place, heads, spent=spent, range_transfers=_SMALL_RANGE, may_go_on=may_go_on
        )
        async for _ in ranges:
            await _save(mongo, "again", place, counted=0)


async def _load(mongo: Mongo, name: str, lane: int) -> tuple[Place, int]:
    row = await journal.checkpoint(mongo.db, f"{name}-{lane}")
    place = Place(lane, row["sequence"], row["hash"]) if row else Place(lane)
    return place, row.get("transfers", 0)


async def _save(mongo: Mongo, name: str, place: Place, counted: int) -> None:
    await journal.save_checkpoint(
        mongo.db,
        f"{name}-{place.lane}",
        lane=place.lane,
        sequence=place.sequence,
        hash=place.hash,
        transfers=counted,
    )


def _by_lane(published: Iterable[PublishedHead]) -> dict[int, dict[int, bytes]]:
    known: dict[int, dict[int, bytes]] = {}
    for head in published:
        known.setdefault(head.lane, {})[head.number] = head.hash
    return known
