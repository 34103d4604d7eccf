"""Takes a ledger out of a database, to a file, and into another, which has none."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from libs.core.errors import CoreError, InvalidInput, Refusal, Unavailable
from libs.core.lock import Lease
from libs.core.mongo import Mongo
from services.payment.archive import Damaged, Reader, Writer
from services.payment.keys import JournalKeys
from services.payment.store import journal, whole
from services.payment.store.journal import Tip
from services.payment.verify import Verified, verify_all

# What was read, or written, so far: a collection's name, and how many documents more.
Tell = Callable[[str, int], None]


class NotTheLedger(CoreError):
    """What came in is not what the journal says, or does not add up."""

    code = "NOT_THE_LEDGER"


def _silent(_: str, __: int) -> None:
    pass


async def export_ledger(mongo: Mongo, path: Path, keys: JournalKeys, tell: Tell = _silent) -> dict[str, int]:
    """Everything up to a cut, which is now; payments may go on meanwhile. How many documents of each collection.

    `FileExistsError`; `Unavailable` if the journal names something that is not there.
    """
    await whole.refuse_half_imported(mongo.db)
    async with journal.snapshot(mongo) as session:
        tips = await journal.tips(mongo.db, session)
        cut = {str(tip.lane): [tip.sequence, tip.hash.hex()] for tip in tips if tip.sequence}
        with Writer(path, {"exportedAt": datetime.now(UTC).isoformat(timespec="seconds"), "cut": cut}) as writer:
            _check_ends(tips)
            async for name, documents in whole.state(mongo.db, session):
                writer.add(name, documents)
                tell(name, len(documents))
            async for name, documents in whole.history(mongo.db, tips):
                writer.add(name, documents)
                tell(name, len(documents))
            return writer.finish(keys.id, keys.sign)


def _check_ends(tips: Sequence[Tip]) -> None:
    for tip in tips:
        if tip.sequence != tip.last_block:
            raise Unavailable(
                f"lane {tip.lane} should end with block {tip.sequence}, and ends with {tip.last_block}: make verify"
            )


async def import_ledger(mongo: Mongo, path: Path, keys: JournalKeys, tell: Tell = _silent) -> Verified:
    """Into a database that has no ledger. Nothing of it stays unless all of it came in, and was verified there.

    `Refusal` if there is a ledger or payment is running, `Damaged` for a file that is not what was exported,
    `NotTheLedger` for one that does not verify. A database whose import was broken off is not started on, until the
    import is repeated.
    """
    lease = Lease(mongo.db, "ledger-import", ttl_s=30)
    if not await lease.acquire():
        raise Unavailable("another import is at work here")
    try:
        return await lease.during(_import(mongo, path, keys, tell))
    finally:
        await lease.release()


async def _import(mongo: Mongo, path: Path, keys: JournalKeys, tell: Tell) -> Verified:
    database = mongo.db
    with Reader(path, keys.signed) as reader:
        if await whole.begin_import(database):
            await whole.wipe(database)
        elif (reason := await _in_the_way(mongo)) is not None:
            await whole.end_import(database)
            raise reason
        await whole.begin_writing(database)
        try:
            for chunk in reader:
                if chunk.collection not in whole.COLLECTIONS:
                    raise Damaged(f"the file has {chunk.collection!r}, which no ledger has")
                await whole.take_in(database, chunk.collection, chunk.documents)
                tell(chunk.collection, len(chunk.documents))
            await whole.settle_import(database)
            verified = await verify_all(mongo, keys.all)
            _check_cut(reader.head, verified)
        except BaseException:
            await whole.wipe(database)
            await whole.end_import(database)
            raise
        await whole.end_import(database)
        return verified


async def _in_the_way(mongo: Mongo) -> Refusal | None:
    if await whole.lanes_in_use(mongo.db):
        return Refusal("PAYMENT_IS_RUNNING", "payment is running on this database: stop it", rule="import.stopped")
    name = await whole.first_in_the_way(mongo.db)
    if name:
        return Refusal("NOT_EMPTY", f"this database has {name}: a ledger comes into an empty one", rule="import.empty")
    return None


def _check_cut(head: dict[str, object], verified: Verified) -> None:
    if verified.divergence:
        raise NotTheLedger(f"this ledger does not verify: {verified.divergence}")
    cut = head.get("cut")
    if not isinstance(cut, dict):
        raise InvalidInput("the file does not say where it was cut")
    for lane, (sequence, _) in cut.items():
        if verified.cut.get(int(lane)) != sequence:
            raise NotTheLedger(f"lane {lane} ends with block {verified.cut.get(int(lane))}, and not with {sequence}")
