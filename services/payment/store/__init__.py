"""Payment's documents, and every query for them. No query without a tenant.

wallets        {_id: tenant:id, …}          a wallet's state; a system wallet has a stripe per lane: …:lane
transfers      {_id: tenant:id, …}          an accepted operation and its outcome: the id is the caller's
transactions   {_id: wallet key:position}   the ledger's lines; position and sequence are gapless and unique
accounts       {_id: tenant:owner}          what is per owner: the number of its last event
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from pymongo.errors import DuplicateKeyError, OperationFailure, WriteError

from libs.core.access import Scope
from libs.core.migrations import Index
from libs.core.money import Money
from libs.core.mongo import Database, Document, Session
from libs.core.pagination import Page, PageArgs, Paginator
from services.payment.domain import Account, Book, Direction, Transaction, Transfer, Wallet, wallet_key

INDEXES = (
    Index("wallets", (("tenant_id", 1), ("is_stripe", 1), ("created_at", -1), ("_id", -1))),
    Index("wallets", (("tenant_id", 1), ("owner_id", 1), ("created_at", -1), ("_id", -1))),
    Index("transfers", (("tenant_id", 1), ("parties", 1), ("at", -1), ("_id", -1))),
    Index("transfers", (("tenant_id", 1), ("at", -1), ("_id", -1))),
    Index("transactions", (("wallet", 1), ("bucket", 1), ("sequence", -1)), unique=True),
    # A system wallet's lines are spread over its stripes, so that they need an order of their own: time.
    Index(
        "transactions", (("system_wallet", 1), ("at", -1), ("_id", -1)), partial={"system_wallet": {"$exists": True}}
    ),
    Index("accounts"),
)


# MongoDB's error codes, and its label for what may be tried again.
DUPLICATE_KEY, WRITE_CONFLICT = 11000, 112
_TRANSIENT = {"errorLabels": ["TransientTransactionError"]}


def wallet_from(row: Mapping[str, Any]) -> Wallet:
    return Wallet(
        key=row["_id"],
        id=row["id"],
        tenant_id=row["tenant_id"],
        owner_id=row["owner_id"],
        kind=row["kind"],
        category=row["category"],
        currency=row["currency"],
        created_at=row["created_at"],
        at=row["at"],
        status=row["status"],
        buckets=row["buckets"],
        sequences=row["sequences"],
        position=row["position"],
    )


def wallet_row(wallet: Wallet) -> Document:
    return {
        "_id": wallet.key,
        "id": wallet.id,
        "tenant_id": wallet.tenant_id,
        "owner_id": wallet.owner_id,
        "kind": wallet.kind,
        "category": wallet.category,
        "currency": wallet.currency,
        "is_stripe": wallet.key != wallet_key(wallet.tenant_id, wallet.id),
        "created_at": wallet.created_at,
        **wallet_state(wallet),
    }


def wallet_state(wallet: Wallet) -> Document:
    """The part of a wallet's document that changes."""
    return {
        "at": wallet.at,
        "status": wallet.status,
        "buckets": wallet.buckets,
        "sequences": wallet.sequences,
        "position": wallet.position,
    }


def account_row(account: Account) -> Document:
    return {
        "_id": account.key,
        "tenant_id": account.tenant_id,
        "owner_id": account.owner_id,
        "events": account.events,
        "at": account.at,
    }


def transaction_row(transfer: Transfer, line: Transaction) -> Document:
    row = {
        "_id": line.key,
        "tenant_id": transfer.tenant_id,
        "wallet": line.wallet_key,
        "wallet_id": line.wallet_id,
        "owner_id": line.owner_id,
        "bucket": line.bucket,
        "sequence": line.sequence,
        "position": line.position,
        "direction": line.direction,
        "amount": line.amount_minor,
        "currency": transfer.money.currency,
        "balance_after": line.balance_after,
        "transfer_id": transfer.id,
        "kind": transfer.kind,
        "reference": transfer.reference,
        "at": transfer.at,
    }
    if line.is_system:
        row["system_wallet"] = wallet_key(transfer.tenant_id, line.wallet_id)
    return row


def transfer_row(transfer: Transfer) -> Document:
    """Holds both lines too, so that asking again for an id is one read."""
    lines = (transfer.debit, transfer.credit)
    return {
        "_id": transfer.key,
        "id": transfer.id,
        "tenant_id": transfer.tenant_id,
        "kind": transfer.kind,
        "amount": transfer.money.amount_minor,
        "currency": transfer.money.currency,
        "debit": _line_row(transfer.debit),
        "credit": _line_row(transfer.credit),
        "parties": sorted({line.owner_id for line in lines if not line.is_system}),
        "at": transfer.at,
        "actor": transfer.actor,
        "reference": transfer.reference,
        "metadata": orjson.dumps(transfer.metadata).decode(),  # a text: its names mean nothing to MongoDB
        "fingerprint": transfer.fingerprint,
    }


def transfer_from(row: Mapping[str, Any]) -> Transfer:
    return Transfer(
        key=row["_id"],
        id=row["id"],
        tenant_id=row["tenant_id"],
        kind=row["kind"],
        money=Money(row["amount"], row["currency"]),
        debit=_line_from(row, Direction.DEBIT),
        credit=_line_from(row, Direction.CREDIT),
        at=row["at"],
        actor=row["actor"],
        reference=row["reference"],
        metadata=orjson.loads(row["metadata"]),
        fingerprint=row["fingerprint"],
    )


def _line_row(line: Transaction) -> Document:
    return {
        "wallet": line.wallet_key,
        "wallet_id": line.wallet_id,
        "owner_id": line.owner_id,
        "is_system": line.is_system,
        "bucket": line.bucket,
        "sequence": line.sequence,
        "position": line.position,
        "balance_after": line.balance_after,
    }


def _line_from(row: Mapping[str, Any], direction: Direction) -> Transaction:
    line = row[direction]
    return Transaction(
        wallet_key=line["wallet"],
        wallet_id=line["wallet_id"],
        owner_id=line["owner_id"],
        is_system=line["is_system"],
        bucket=line["bucket"],
        direction=direction,
        amount_minor=row["amount"],
        balance_after=line["balance_after"],
        sequence=line["sequence"],
        position=line["position"],
    )


async def wallets_by_id(database: Database, tenant_id: str, ids: Iterable[str]) -> list[Wallet]:
    return await wallets_by_key(database, [wallet_key(tenant_id, i) for i in ids])


async def wallets_by_key(database: Database, keys: Iterable[str]) -> list[Wallet]:
    """A key carries its tenant."""
    rows = await database["wallets"].find({"_id": {"$in": list(keys)}}).to_list()
    return await _whole(database, [wallet_from(row) for row in rows])


async def wallets_of(database: Database, scope: Scope, owner_id: str) -> list[Wallet]:
    """All that one owner has and `scope` reaches: few, one per category and currency."""
    wanted = {"$and": [{"owner_id": owner_id, "is_stripe": False}, scope.query(id="id")]}
    rows = await database["wallets"].find(wanted, sort=[("created_at", 1)]).to_list()
    return await _whole(database, [wallet_from(row) for row in rows])


async def wallets(
    database: Database, paginator: Paginator, scope: Scope, wanted: Mapping[str, str | None], args: PageArgs
) -> Page[Wallet]:
    """`wanted` names fields and the values they must have; None does not narrow."""
    chosen = {field: value for field, value in wanted.items() if value is not None}
    where = {"$and": [{"is_stripe": False, **chosen}, scope.query(id="id")]}
    page = await paginator.page(database["wallets"], where, args, order=[("created_at", -1), ("_id", -1)])
    whole = await _whole(database, [wallet_from(row) for row in page.items])
    return page.with_items(whole)


async def _whole(database: Database, found: Sequence[Wallet]) -> list[Wallet]:
    """What a system wallet holds is spread over its stripes."""
    spread = [wallet for wallet in found if wallet.is_system]
    if spread:
        by_key = {wallet.key: wallet for wallet in spread}
        ranges = [{"_id": {"$gt": f"{key}:", "$lt": f"{key};"}} for key in by_key]  # ';' follows ':'
        async for row in database["wallets"].find({"$or": ranges}):
            wallet = by_key[wallet_key(row["tenant_id"], row["id"])]
            wallet.at = max(wallet.at, row["at"])
            for bucket, amount in row["buckets"].items():
                wallet.buckets[bucket] += amount
    return list(found)


async def transactions(
    database: Database, paginator: Paginator, wallet: Wallet, bucket: str | None, args: PageArgs
) -> Page[Document]:
    """Newest first, by what numbers them: position in the wallet, or sequence in the bucket. A system wallet's lines,

    spread over its stripes, are in the order of time.
    """
    lines = database["transactions"]
    if wallet.is_system:
        where: Document = {"system_wallet": wallet.key} | ({"bucket": bucket} if bucket else {})
        return await paginator.page(lines, where, args, order=[("at", -1), ("_id", -1)])
    if bucket:
        where = {"wallet": wallet.key, "bucket": bucket}
        return await paginator.page(lines, where, args, order=[("sequence", -1)])
    where = {"wallet": wallet.key, "_id": {"$gt": f"{wallet.key}:", "$lt": f"{wallet.key};"}}
    return await paginator.page(lines, where, args, order=[("_id", -1)])


async def transfers_by_id(database: Database, tenant_id: str, ids: Iterable[str]) -> dict[str, Transfer]:
    keys = [f"{tenant_id}:{i}" for i in ids]
    rows = await database["transfers"].find({"_id": {"$in": keys}, "tenant_id": tenant_id}).to_list()
    return {row["id"]: transfer_from(row) for row in rows}


async def transfer_history(
    database: Database,
    paginator: Paginator,
    scope: Scope,
    owner_id: str | None,
    span: tuple[datetime | None, datetime | None],
    args: PageArgs,
) -> Page[Transfer]:
    """Newest first: transfers that `owner_id`, or without one anybody that `scope` reaches, is a party of."""
    since, until = span
    time = {operator: at for operator, at in (("$gte", since), ("$lt", until)) if at}
    chosen: Document = ({"parties": owner_id} if owner_id else {}) | ({"at": time} if time else {})
    where = {"$and": [chosen, scope.query(owner="parties", id="id")]}
    page = await paginator.page(database["transfers"], where, args, order=[("at", -1), ("_id", -1)])
    return page.map(transfer_from)


async def load_wallets(database: Database, session: Session, keys: Iterable[str]) -> list[Wallet]:
    return [wallet_from(row) for row in await _by_keys(database, session, "wallets", keys)]


async def load_transfers(database: Database, session: Session, keys: Iterable[str]) -> list[Transfer]:
    return [transfer_from(row) for row in await _by_keys(database, session, "transfers", keys)]


async def load_accounts(database: Database, session: Session, keys: Iterable[str]) -> list[Account]:
    rows = await _by_keys(database, session, "accounts", keys)
    return [Account(r["_id"], r["tenant_id"], r["owner_id"], r["at"], r["events"]) for r in rows]


async def _by_keys(database: Database, session: Session, collection: str, keys: Iterable[str]) -> list[Document]:
    rows = database[collection].find({"_id": {"$in": list(keys)}}, session=session, batch_size=10_000)
    return await rows.to_list()


async def next_event(database: Database, session: Session, wallet: Wallet, now: datetime) -> tuple[datetime, int]:
    """When, and under which number, an event outside a group tells `wallet`'s owner of something."""
    book = Book(0, [], [], await load_accounts(database, session, [wallet.account_key]))
    at = book.next_instant(now)
    number = book.next_event(wallet.tenant_id, wallet.owner_id, at)
    await save(database, session, book)
    return at, number


async def insert_wallet(database: Database, session: Session, wallet: Wallet) -> None:
    await _insert(database, session, "wallets", [wallet_row(wallet)])


async def save(database: Database, session: Session, book: Book) -> None:
    """Writes what the book says has changed. Wallets are updated by `_id` alone, which is twice as fast as with a guard

    in the filter: that nobody else wrote them meanwhile is what the transaction's own conflict detection sees to.
    """
    lines = [transaction_row(t, line) for t in book.accepted for line in (t.debit, t.credit)]
    await _insert(database, session, "transfers", [transfer_row(t) for t in book.accepted])
    await _insert(database, session, "transactions", lines)
    await _update(database, session, "wallets", {key: wallet_row(book.wallets[key]) for key in book.touched})
    await _update(database, session, "accounts", {key: account_row(book.accounts[key]) for key in book.told})


async def _insert(database: Database, session: Session, collection: str, rows: list[Document]) -> None:
    if rows:
        await _write(database, session, {"insert": collection, "documents": rows})


async def _update(database: Database, session: Session, collection: str, rows: Mapping[str, Document]) -> None:
    if rows:
        updates = [{"q": {"_id": key}, "u": row, "upsert": True} for key, row in rows.items()]
        await _write(database, session, {"update": collection, "updates": updates})


async def _write(database: Database, session: Session, command: Document) -> None:
    """The driver's `insert_many` and `bulk_write` spend more time on each document than MongoDB does."""
    answer = await database.command(command, session=session)
    for error in answer.get("writeErrors", ()):
        if error["code"] == DUPLICATE_KEY and "update" in command:
            raise OperationFailure("another transaction was the first to write this", WRITE_CONFLICT, _TRANSIENT)
        if error["code"] == DUPLICATE_KEY:
            raise DuplicateKeyError(error["errmsg"], DUPLICATE_KEY, error)
        raise WriteError(error["errmsg"], error["code"], error)
