"""What a careful team writes without groups: one PyMongo transaction for each transfer.

Two wallet updates, one transfer, two transactions: the documents and indexes of our ledger, at the same durability. No
account, no event, no journal, no look at the id: a second transfer with it would fail on the unique key.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from random import sample

from pymongo import ReturnDocument
from pymongo.read_concern import ReadConcern

from libs.core.ids import new_id
from libs.core.migrations import migrate
from libs.core.money import Money
from libs.core.mongo import DURABLE, Document, Mongo, Session
from scripts.bench.contenders.load import Ask
from services.payment import store
from services.payment.domain import Bucket, Direction, Transaction, Transfer, TransferKind, Wallet

OPENING = 10**9


async def prepare(mongo: Mongo, wallets: Sequence[Wallet]) -> None:
    await migrate(mongo.db, store.INDEXES)
    rows = [store.wallet_row(wallet) for wallet in wallets]
    for row in rows:
        row["buckets"] = {**row["buckets"], Bucket.REAL: OPENING}
    await mongo.db["wallets"].insert_many(rows)


def spread(mongo: Mongo, wallets: Sequence[Wallet]) -> Ask:
    async def ask() -> None:
        payer, payee = sample(wallets, 2)
        await transfer(mongo, payer.key, payee.key)

    return ask


def hot(mongo: Mongo, wallets: Sequence[Wallet], house: Wallet) -> Ask:
    async def ask() -> None:
        (payer,) = sample(wallets, 1)
        await transfer(mongo, payer.key, house.key)

    return ask


async def transfer(mongo: Mongo, payer_key: str, payee_key: str, amount: int = 1) -> None:
    transfer_id = new_id()

    async def work(session: Session) -> None:
        at = datetime.now(UTC)
        payer = await _move(mongo, session, payer_key, -amount, at)
        payee = await _move(mongo, session, payee_key, amount, at)
        made = _transfer(transfer_id, _line(payer, Direction.DEBIT, amount), _line(payee, Direction.CREDIT, amount), at)
        await mongo.db["transfers"].insert_one(store.transfer_row(made), session=session)
        lines = [store.transaction_row(made, line) for line in (made.debit, made.credit)]
        await mongo.db["transactions"].insert_many(lines, session=session)

    async with mongo.client.start_session() as session:
        await session.with_transaction(work, read_concern=ReadConcern("snapshot"), write_concern=DURABLE)


async def _move(mongo: Mongo, session: Session, key: str, amount: int, at: datetime) -> Wallet:
    """The wallet as it is afterwards."""
    real = f"buckets.{Bucket.REAL}"
    funds: Document = {real: {"$gte": -amount}} if amount < 0 else {}
    row = await mongo.db["wallets"].find_one_and_update(
        {"_id": key, "status": "active", **funds},
        {"$inc": {real: amount, f"sequences.{Bucket.REAL}": 1, "position": 1}, "$set": {"at": at}},
        session=session,
        return_document=ReturnDocument.AFTER,
    )
    assert row is not None, f"{key} has less than {amount}"
    return store.wallet_from(row)


def _line(wallet: Wallet, direction: Direction, amount: int) -> Transaction:
    return Transaction(
        wallet_key=wallet.key,
        wallet_id=wallet.id,
        owner_id=wallet.owner_id,
        is_system=wallet.is_system,
        bucket=Bucket.REAL,
        lot="",
        direction=direction,
        amount_minor=amount,
        balance_after=wallet.buckets[Bucket.REAL],
        sequence=wallet.sequences[Bucket.REAL],
        position=wallet.position,
    )


def _transfer(transfer_id: str, debit: Transaction, credit: Transaction, at: datetime) -> Transfer:
    return Transfer(
        key=f"demo:{transfer_id}",
        id=transfer_id,
        tenant_id="demo",
        kind=TransferKind.TRANSFER,
        money=Money(debit.amount_minor, "EUR"),
        debit=debit,
        credit=credit,
        at=at,
        actor="operator",
        reference="",
        metadata={},
        fingerprint=bytes(16),
        operation_id=transfer_id,
    )


async def prepare_minimal(mongo: Mongo, wallets: Sequence[Wallet]) -> None:
    await mongo.db["transactions"].create_index([("wallet", 1), ("sequence", 1)], unique=True)
    await mongo.db.create_collection("transfers")
    await mongo.db["wallets"].insert_many([{"_id": w.key, "balance": OPENING, "sequence": 0} for w in wallets])


def minimal(mongo: Mongo, wallets: Sequence[Wallet]) -> Ask:
    """The same five writes with the least that a ledger can store: what larger documents cost the baseline."""
    db = mongo.db

    async def ask() -> None:
        (payer, payee), transfer_id = sample(wallets, 2), new_id()

        async def work(session: Session) -> None:
            lines = []
            for key, amount in ((payer.key, -1), (payee.key, 1)):
                after = await db["wallets"].find_one_and_update(
                    {"_id": key, "balance": {"$gte": -amount}},
                    {"$inc": {"balance": amount, "sequence": 1}},
                    session=session,
                    return_document=ReturnDocument.AFTER,
                )
                assert after is not None
                lines.append(
                    {
                        "_id": f"{key}:{after['sequence']}",
                        "wallet": key,
                        "sequence": after["sequence"],
                        "amount": amount,
                        "balance_after": after["balance"],
                        "transfer": transfer_id,
                    }
                )
            row = {"_id": transfer_id, "from": payer.key, "to": payee.key, "amount": 1, "at": time.time()}
            await db["transfers"].insert_one(row, session=session)
            await db["transactions"].insert_many(lines, session=session)

        async with mongo.client.start_session() as session:
            await session.with_transaction(work, read_concern=ReadConcern("snapshot"), write_concern=DURABLE)

    return ask
