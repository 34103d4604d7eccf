"""A wallet's past: what it held at an instant, and its lines between two instants.

In a bucket, and in a wallet, the lines' numbers are in the order of their time. So an instant is found among ten
million lines with six small questions, and needs no index of its own. A system wallet is the sum of its stripes.
"""

from collections.abc import AsyncIterator, Callable
from datetime import datetime

from libs.core.mongo import Database, Document
from services.payment.domain import Bucket, Wallet

# Lines asked for at once: with 16 the range is a 17th of what it was, at hardly more than the price of one.
_PROBES = 16
# Some milliseconds of this process' time, which it shares with those who move money.
LINES_A_PAGE = 200


async def balances_before(database: Database, wallet: Wallet, instant: datetime) -> dict[str, int]:
    """By bucket, without what happened at `instant` itself. Never changes once all before it is settled."""
    balances: dict[str, int] = dict.fromkeys(Bucket, 0)
    for part in await _parts(database, wallet):
        for bucket in Bucket:
            balances[bucket] += await _balance_before(database, part, bucket, instant)
    return balances


async def begun_at(database: Database, wallet: Wallet) -> datetime:
    """When it was created; a system wallet may have a stripe before that."""
    return min([part["created_at"] for part in await _parts(database, wallet)], default=wallet.created_at)


async def lines_between(
    database: Database, wallet: Wallet, since: datetime, until: datetime
) -> AsyncIterator[list[Document]]:
    """Pages of the lines with `since` <= at < `until`, the oldest first. No cursor is held from one to the next."""
    if wallet.is_system:
        wanted, order, after = _over_stripes(wallet, since, until), [("at", 1), ("_id", 1)], _after_line
    else:
        wanted, order, after = await _of_wallet(database, wallet, since), [("_id", 1)], _after_position
    while True:
        # A negative limit leaves no cursor behind.
        page = (
            await database["transactions"]
            .find(wanted, sort=order, limit=-LINES_A_PAGE, batch_size=LINES_A_PAGE)
            .to_list()
        )
        lines = [line for line in page if line["at"] < until]
        if lines:
            yield lines
        if len(lines) < LINES_A_PAGE:
            return
        wanted = after(wanted, lines[-1])


def _over_stripes(wallet: Wallet, since: datetime, until: datetime) -> Document:
    return {"system_wallet": wallet.key, "at": {"$gte": since, "$lt": until}}


def _after_line(wanted: Document, last: Document) -> Document:
    """One range of the index, of which only what bears the same instant as `last` is read in vain."""
    return {
        **wanted,
        "at": {**wanted["at"], "$gte": last["at"]},
        "$nor": [{"at": last["at"], "_id": {"$lte": last["_id"]}}],
    }


async def _of_wallet(database: Database, wallet: Wallet, since: datetime) -> Document:
    last = await _last_line(
        database,
        wallet.position,
        lambda positions: {"_id": {"$in": [_line_key(wallet, position) for position in positions]}},
        "position",
        before=since,
    )
    # ';' follows ':'
    keys = {"$gt": _line_key(wallet, last["position"] if last else 0), "$lt": f"{wallet.key};"}
    return {"wallet": wallet.key, "_id": keys}


def _after_position(wanted: Document, last: Document) -> Document:
    return {**wanted, "_id": {**wanted["_id"], "$gt": last["_id"]}}


def _line_key(wallet: Wallet, position: int) -> str:
    return f"{wallet.key}:{position:012d}"


async def _parts(database: Database, wallet: Wallet) -> list[Document]:
    """The wallet's document, and those of its stripes."""
    keys: list[Document] = [{"_id": wallet.key}]
    if wallet.is_system:
        keys.append({"_id": {"$gt": f"{wallet.key}:", "$lt": f"{wallet.key};"}})
    return await database["wallets"].find({"$or": keys}).to_list()


async def _balance_before(database: Database, part: Document, bucket: str, instant: datetime) -> int:
    if part["at"] < instant:
        return int(part["buckets"][bucket])
    line = await _last_line(
        database,
        part["sequences"][bucket],
        lambda sequences: {"wallet": part["_id"], "bucket": bucket, "sequence": {"$in": sequences}},
        "sequence",
        before=instant,
    )
    return int(line["balance_after"]) if line else 0


async def _last_line(
    database: Database, newest: int, numbered: Callable[[list[int]], Document], number: str, *, before: datetime
) -> Document | None:
    """The last of the lines 1 to `newest` that happened before that instant; None if none did.

    `numbered` asks for lines by their numbers, which each has in its field `number`.
    """
    found: Document | None = None
    low, high = 0, newest + 1  # the line `low` happened before, the line `high` did not
    while high - low > 1:
        probes = sorted({low + max(1, (high - low) * n // (_PROBES + 1)) for n in range(1, _PROBES + 1)})
        fields = {number: 1, "at": 1, "balance_after": 1}
        lines = await database["transactions"].find(numbered(probes), fields).to_list()
        if len(lines) < len(probes):
            raise LookupError(f"lines are missing among {numbered(probes)}")
        for line in sorted(lines, key=lambda line: int(line[number])):
            if line["at"] >= before:
                high = line[number]
                break
            low, found = line[number], line
    return found
