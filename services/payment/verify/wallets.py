"""Wallets against their transactions: each is what its lines make of it, and all of a currency sum to zero."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from struct import Struct
from time import thread_time
from typing import Any

from libs.core.mongo import Database, Document, Mongo
from services.payment.domain import Bucket, WalletKind
from services.payment.store import journal, raw
from services.payment.store.raw import Line
from services.payment.verify.blocks import Spent
from services.payment.verify.divergence import Diverged, Kind

WALLETS_AT_ONCE = 1_000
# How far back the line before one in the same bucket is looked for by position: a wallet's buckets take turns.
_STEPS_BACK = 3
_NUMBERS = Struct("<qqq")

# A wallet that was opened after the others were read, or was never there: which, shows afterwards.
_NEW: Document = {"sequences": {}, "buckets": {}}

Bucketed = tuple[bytes, bytes]  # wallet, bucket


async def rebuild_wallets(mongo: Mongo, spent: Spent) -> AsyncIterator[int]:
    """All wallets, by key: the balances that each one's transactions make are the wallet's. Yields lines read.

    What is posted meanwhile does not matter: a wallet is looked at as it was at one instant, and lines never change.
    """
    after: str | None = None
    while True:
        rows = await _whole_wallets(mongo, after=after, limit=WALLETS_AT_ONCE)
        until = rows[-1]["_id"] if len(rows) == WALLETS_AT_ONCE else None
        rebuilding = Rebuilding(rows)
        async for batch in raw.entries_of_wallets(mongo.db, after, until):
            started = thread_time()
            count = rebuilding.take(batch)
            spent.cpu_s += thread_time() - started
            yield count
        rebuilding.finish()
        await _check_newer(mongo, rebuilding.newer)
        if until is None:
            return
        after = until


class Rebuilding:
    """Of some wallets, from all of their lines: by wallet, by bucket, the newest first."""

    def __init__(self, rows: Iterable[Document]) -> None:
        self.newer: dict[str, int] = {}
        self._rows = {row["_id"].encode(): row for row in rows}
        self._lots: dict[bytes, dict[bytes, int]] = {}
        self._met: set[Bucketed] = set()
        self._at: Bucketed = (b"", b"")
        self._sequence = 0  # of the line that must come next
        self._balance = 0  # that it must leave behind

    def take(self, batch: bytes) -> int:
        """How many lines there were. Their order is that of the index, so a bucket may go on in the next batch."""
        entries, numbers_of = raw.entries_in(batch), raw.numbers_of
        for entry in entries:
            _, wallet, bucket, direction, _, lot = entry
            if bucket != self._at[1] or wallet != self._at[0]:
                self._leave()
                self._enter(wallet, bucket)
            sequence, position, amount, balance = numbers_of(entry)
            if sequence != self._sequence:
                if sequence > self._sequence:
                    self._newer(wallet, position)
                    continue
                raise _missing(wallet, bucket, self._sequence)
            if balance != self._balance:
                raise self._differs(wallet, balance)
            signed = amount if direction == b"credit" else -amount
            self._sequence = sequence - 1
            self._balance = balance - signed
            if lot:
                lots = self._lots.setdefault(wallet, {})
                lots[lot] = lots.get(lot, 0) + signed
        return len(entries)

    def finish(self) -> None:
        """After the last line: nothing is missing that a wallet tells of."""
        self._leave()
        for key, row in self._rows.items():
            for bucket, sequence in row["sequences"].items():
                if sequence and (key, bucket.encode()) not in self._met:
                    raise _missing(key, bucket.encode(), sequence)
                if not sequence and row["buckets"][bucket]:
                    raise Diverged(
                        Kind.BALANCE_DIFFERS, _bucket(key, bucket), 0, row["buckets"][bucket], row["tenant_id"]
                    )
            lots = {lot.decode(): rest for lot, rest in self._lots.get(key, {}).items() if rest}
            if lots != {lot: rest for lot, rest in row.get("lots", {}).items() if rest}:
                where = f"lots of wallet {key.decode()}"
                raise Diverged(Kind.LOTS_DIFFER, where, lots, row.get("lots", {}), row["tenant_id"])

    def _enter(self, wallet: bytes, bucket: bytes) -> None:
        row, name = self._rows.get(wallet, _NEW), bucket.decode()
        self._at = (wallet, bucket)
        self._met.add(self._at)
        self._sequence, self._balance = row["sequences"].get(name, 0), row["buckets"].get(name, 0)

    def _leave(self) -> None:
        if self._sequence:
            raise _missing(*self._at, self._sequence)
        if self._balance:
            where = f"transaction 1 of {_bucket(*self._at)}"
            raise Diverged(Kind.TRANSACTION_ALTERED, where, "to begin at 0", self._balance, _tenant(self._at[0]))

    def _newer(self, wallet: bytes, position: int) -> None:
        key = wallet.decode()
        self.newer[key] = max(self.newer.get(key, 0), position)

    def _differs(self, wallet: bytes, balance: int) -> Diverged:
        row, bucket = self._rows[wallet], self._at[1].decode()
        if self._sequence == row["sequences"][bucket]:
            return Diverged(Kind.BALANCE_DIFFERS, _bucket(*self._at), balance, self._balance, row["tenant_id"])
        where = f"transaction {self._sequence} of {_bucket(*self._at)}"
        return Diverged(Kind.TRANSACTION_ALTERED, where, self._balance, balance, row["tenant_id"])


async def check_touched(mongo: Mongo, lines: Sequence[Line]) -> None:
    """Each line follows the one before it, and each wallet among them is what its last line says."""
    await _check_links(mongo.db, lines)
    keys = sorted({line[0].decode() for line in lines})
    rows = await _whole_wallets(mongo, keys=keys)
    _check_all_there(keys, rows)
    await check_last_lines(mongo, rows)


async def next_wallets(mongo: Mongo, after: str | None, limit: int) -> str | None:
    """The next `limit` wallets after `after` are what their last lines say; the last one's key, None at the end."""
    rows = await _whole_wallets(mongo, after=after, limit=limit)
    await check_last_lines(mongo, rows)
    return rows[-1]["_id"] if len(rows) == limit else None


async def check_last_lines(mongo: Mongo, rows: Sequence[Document]) -> None:
    """Each bucket is what the last of its lines says, and no line comes after the wallet's last."""
    wanted = {
        (row["_id"].encode(), bucket.encode(), sequence): row["position"] + 1
        for row in rows
        for bucket, sequence in row["sequences"].items()
        if sequence
    }
    found, beyond = await _find_lines(mongo.db, wanted)
    for row in rows:
        key = row["_id"].encode()
        for bucket, sequence in row["sequences"].items():
            balance = 0
            if sequence:
                line = found.get((key, bucket.encode(), sequence))
                if line is None:
                    raise _missing(key, bucket.encode(), sequence)
                balance = raw.number(line[8])
            if balance != row["buckets"][bucket]:
                raise Diverged(
                    Kind.BALANCE_DIFFERS, _bucket(key, bucket), balance, row["buckets"][bucket], row["tenant_id"]
                )
    positions = {row["_id"]: row["position"] for row in rows}
    newer = {key: position for key, position in beyond.items() if position > positions.get(key, position)}
    await _check_newer(mongo, newer)


async def check_sums(mongo: Mongo) -> None:
    """All wallets of a tenant and currency sum to zero."""
    async with journal.snapshot(mongo) as session:
        wrong = await journal.unbalanced(mongo.db, session)
    if wrong:
        tenant, currency = wrong["_id"]["tenant"], wrong["_id"]["currency"]
        raise Diverged(Kind.SUM_NOT_ZERO, f"all wallets of tenant {tenant} in {currency}", 0, wrong["sum"], tenant)


async def check_counts(mongo: Mongo, verified: int, places: Mapping[int, int]) -> None:
    """No transfer and no transaction that no block tells of: `verified` up to `places`, and what came later."""
    async with journal.snapshot(mongo) as session:
        transfers = verified + await journal.transfers_in_blocks(mongo.db, session, places)
        found = await journal.count(mongo.db, session, "transfers")
        lines = await journal.count(mongo.db, session, "transactions")
    if found != transfers:
        await _name_surplus_transfer(mongo.db)
        raise Diverged(Kind.TRANSFER_SURPLUS, "all transfers", f"{transfers}, as the blocks say", found)
    if lines != 2 * transfers:
        await _name_surplus_line(mongo.db)
        raise Diverged(Kind.TRANSACTION_SURPLUS, "all transactions", f"{2 * transfers}, two a transfer", lines)


async def _name_surplus_transfer(database: Database) -> None:
    async for batch in raw.all_of(database, "transfers"):
        rows = [raw.decoded(document) for _, document in raw.documents_in(batch)]
        places = {(p.get("lane"), p.get("sequence")) for p in map(_place, rows)}
        blocks = {place: await _block(database, *place) for place in places}
        for row in rows:
            place = _place(row)
            stored, index = blocks[place.get("lane"), place.get("sequence")], place.get("index")
            told = stored and isinstance(index, int) and stored.transfers[index : index + 1] == [row["_id"]]
            if not told:
                tenant = _tenant(str(row["_id"]).encode())
                raise Diverged(Kind.TRANSFER_SURPLUS, f"transfer {row['_id']}", "in a block", "in none", tenant)


async def _block(database: Database, lane: object, sequence: object) -> journal.StoredBlock | None:
    return (
        await journal.block(database, lane, sequence) if isinstance(lane, int) and isinstance(sequence, int) else None
    )


def _place(row: Mapping[str, Any]) -> Mapping[str, Any]:
    place = row.get("journal")
    return place if isinstance(place, Mapping) else {}


async def _name_surplus_line(database: Database) -> None:
    async for batch in raw.all_of(database, "transactions"):
        lines = {key: raw.decoded(document) for key, document in raw.documents_in(batch)}
        owners = {f"{row.get('tenant_id')}:{row.get('transfer_id')}".encode() for row in lines.values()}
        transfers = await raw.by_key(database, "transfers", sorted(owners))
        told = {
            raw.line_key(end[0], raw.number(end[4]))
            for document in transfers.values()
            for end in raw.movement_of(document)[3:]
        }
        for key in lines:
            if key not in told:
                where = f"transaction {key.decode()}"
                raise Diverged(Kind.TRANSACTION_SURPLUS, where, "named by a transfer", "by none", _tenant(key))


async def _whole_wallets(
    mongo: Mongo, *, after: str | None = None, limit: int = 0, keys: Sequence[str] | None = None
) -> list[Document]:
    """Some wallets as they were at one instant, each in itself as it should be."""
    async with journal.snapshot(mongo) as session:
        rows = await journal.wallet_rows(mongo.db, session, after=after, limit=limit, keys=keys)
        held = await journal.held(mongo.db, session, [row["_id"] for row in rows])
    for row in rows:
        check_wallet(row, held.get(row["_id"], 0))
    return rows


def check_wallet(row: Document, held: int) -> None:
    """What can be told from a wallet's document alone, and from what is `held` of it."""
    key, tenant, buckets = row["_id"], row["tenant_id"], row["buckets"]
    lots = row.get("lots") or {}
    if row["position"] != sum(row["sequences"].values()):
        where = f"position of wallet {key}"
        raise Diverged(Kind.BALANCE_DIFFERS, where, sum(row["sequences"].values()), row["position"], tenant)
    if row["kind"] != WalletKind.USER:
        return
    if sum(lots.values()) != buckets[Bucket.BONUS]:
        raise Diverged(Kind.LOTS_DIFFER, f"lots of wallet {key}", buckets[Bucket.BONUS], sum(lots.values()), tenant)
    if buckets[Bucket.LOCKED] != held:
        raise Diverged(Kind.HOLDS_DIFFER, _bucket(key.encode(), Bucket.LOCKED), held, buckets[Bucket.LOCKED], tenant)
    credit = max(row.get("credit_limit", 0), row.get("credit_limit_highest", 0))
    least = {Bucket.REAL: -credit, Bucket.BONUS: 0, Bucket.LOCKED: 0}
    for bucket, limit in least.items():
        if buckets[bucket] < limit:
            raise Diverged(
                Kind.BELOW_LIMIT, _bucket(key.encode(), bucket), f"at least {limit}", buckets[bucket], tenant
            )
    for lot, rest in lots.items():
        if rest < 0:
            raise Diverged(Kind.BELOW_LIMIT, f"lot {lot} of wallet {key}", "at least 0", rest, tenant)


async def _check_links(database: Database, lines: Sequence[Line]) -> None:
    """A line's balance without its amount is the balance of the line before it, wherever that stands."""
    after = {(line[0], line[1], raw.number(line[5])): raw.number(line[8]) for line in lines}
    open_links: dict[tuple[bytes, bytes, int], tuple[int, int]] = {}
    for line in lines:
        sequence, amount, balance = _NUMBERS.unpack(line[5] + line[7] + line[8])
        before = balance - amount if line[2] == b"credit" else balance + amount
        place = (line[0], line[1], sequence - 1)
        if sequence == 1:
            _check_link(place, before, 0)
        elif place in after:
            _check_link(place, before, after[place])
        else:
            open_links[place] = raw.number(line[6]) - 1, before
    found, _ = await _find_lines(database, {place: position for place, (position, _) in open_links.items()})
    for place, (_, before) in open_links.items():
        if place not in found:
            raise _missing(*place)
        _check_link(place, before, raw.number(found[place][8]))


def _check_link(place: tuple[bytes, bytes, int], before: int, balance: int) -> None:
    if before != balance:
        wallet, bucket, sequence = place
        where = f"transaction {sequence + 1} of {_bucket(wallet, bucket)}"
        raise Diverged(Kind.TRANSACTION_ALTERED, where, f"to follow {balance}", f"to follow {before}", _tenant(wallet))


async def _find_lines(
    database: Database, wanted: Mapping[tuple[bytes, bytes, int], int]
) -> tuple[dict[tuple[bytes, bytes, int], Line], dict[str, int]]:
    """Lines by wallet, bucket and sequence, each given with the position at which, or soon before which, it stands.

    By position is quick and finds nearly all; the rest are found by what they are. Also answers the last position met
    of each wallet, for who asked beyond its end.
    """
    found: dict[tuple[bytes, bytes, int], Line] = {}
    last: dict[str, int] = {}
    for step in range(_STEPS_BACK):
        keys = {raw.line_key(place[0], position - step) for place, position in wanted.items() if place not in found}
        documents = await raw.by_key(database, "transactions", sorted(keys)) if keys else {}
        for document in documents.values():
            line = raw.line_of(document)
            place, wallet = (line[0], line[1], raw.number(line[5])), line[0].decode()
            last[wallet] = max(last.get(wallet, 0), raw.number(line[6]))
            if place in wanted:
                found[place] = line
    rest = [(wallet.decode(), bucket.decode(), n) for wallet, bucket, n in wanted if (wallet, bucket, n) not in found]
    for document in await raw.lines_at(database, rest):
        line = raw.line_of(document)
        found[line[0], line[1], raw.number(line[5])] = line
    return found, last


async def _check_newer(mongo: Mongo, newer: Mapping[str, int]) -> None:
    """Lines after a wallet's last: the wallet has moved on meanwhile, or they are nobody's."""
    if not newer:
        return
    async with journal.snapshot(mongo) as session:
        rows = await journal.wallet_rows(mongo.db, session, keys=newer)
    _check_all_there(newer, rows)
    for row in rows:
        if row["position"] < newer[row["_id"]]:
            where = f"transaction {raw.line_key(row['_id'].encode(), newer[row['_id']]).decode()}"
            last = f"{row['position']} to be the wallet's last"
            raise Diverged(Kind.TRANSACTION_SURPLUS, where, last, "one more", row["tenant_id"])


def _check_all_there(keys: Iterable[str], rows: Sequence[Document]) -> None:
    there = {row["_id"] for row in rows}
    for key in keys:
        if key not in there:
            tenant = key.partition(":")[0]
            raise Diverged(Kind.WALLET_MISSING, f"wallet {key}", "there", "only its transactions", tenant)


def _missing(wallet: bytes, bucket: bytes, sequence: int) -> Diverged:
    where = f"transaction {sequence} of {_bucket(wallet, bucket)}"
    return Diverged(Kind.TRANSACTION_MISSING, where, "there", "not there", _tenant(wallet))


def _bucket(wallet: bytes, bucket: bytes | str) -> str:
    return f"bucket {bucket.decode() if isinstance(bucket, bytes) else str(bucket)} of wallet {wallet.decode()}"


def _tenant(key: bytes) -> str:
    return key.partition(b":")[0].decode()
