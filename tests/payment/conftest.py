"""A payment database with a ledger on it, players with money, and what to ask of them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from libs.access_engine import Policy
from libs.core.access import BUILT_IN, Scope
from libs.core.clock import SystemClock
from libs.core.context import Caller, Deadline
from libs.core.events import OUTBOX_INDEXES, Outbox
from libs.core.migrations import migrate
from libs.core.money import Money
from libs.core.mongo import Mongo
from libs.core.testing import FROZEN_AT
from services.payment import store
from services.payment.domain import Bucket, End, Operation, TransferKind, Wallet, user_wallet
from services.payment.ledger import Ledger

OPERATOR = Caller("demo", "op", ("operator",), "s", "user")
SIGHT = Scope(OPERATOR, Policy(BUILT_IN).filter(OPERATOR.roles, "transfer", "read"))
SCOPE = Scope(OPERATOR, Policy(BUILT_IN).filter(OPERATOR.roles, "transfer", "create"))


def open_ledger(mongo: Mongo) -> AbstractAsyncContextManager[Ledger]:
    """As a process of its own would: another lane, nothing shared but the database."""
    return Ledger(mongo, Outbox(mongo.db), SystemClock())


def soon() -> Deadline:
    return Deadline.after(30)


def transfer(id: str, payer: Wallet, payee: Wallet, amount: int = 10, **changes: Any) -> Operation:  # noqa: A002
    operation = Operation.of(
        changes.pop("kind", TransferKind.TRANSFER),
        changes.pop("source", End(payer.id)),
        changes.pop("destination", End(payee.id)),
        changes.pop("money", Money(amount, "EUR")),
        id=id,
        tenant_id="demo",
        actor="op",
        scope=SCOPE,
        sight=SIGHT,
    )
    return replace(operation, **changes)


async def prepare(mongo: Mongo) -> None:
    await migrate(mongo.db, (*store.INDEXES, *OUTBOX_INDEXES))


async def open_wallet(mongo: Mongo, owner_id: str, real: int = 0) -> Wallet:
    """With that much in it, as if it had been paid in."""
    wallet = user_wallet("demo", owner_id, "main", "EUR", FROZEN_AT)
    wallet.buckets[Bucket.REAL] = real
    await mongo.db["wallets"].insert_one(store.wallet_row(wallet))
    return wallet


@pytest.fixture
async def payment_db(mongo: Mongo) -> Mongo:
    await prepare(mongo)
    return mongo


@pytest.fixture
async def ledger(payment_db: Mongo) -> AsyncIterator[Ledger]:
    async with open_ledger(payment_db) as ledger:
        yield ledger


@pytest.fixture
def player(payment_db: Mongo) -> Callable[..., Awaitable[Wallet]]:
    """`await player("ann", 100)`"""
    return partial(open_wallet, payment_db)
