"""Ours: `Ledger.post` in process, with all that a payment process keeps on.

Run as a program it is one of several processes on the same players: `grouped NAMESPACE PLAYERS CALLERS SECONDS` says
`ready`, waits for a line on its standard input, posts, and prints what it measured.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from random import choice, sample

import structlog
import uvloop

from libs.access_engine import Policy
from libs.core.access import BUILT_IN, Scope
from libs.core.clock import SystemClock
from libs.core.context import Caller, Deadline
from libs.core.events import OUTBOX_INDEXES, Outbox
from libs.core.ids import new_id
from libs.core.migrations import migrate
from libs.core.money import Money
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.server import collect_rarely
from libs.core.tenants import SystemWallet
from scripts.bench.contenders.load import Ask, loaded
from services.payment import store
from services.payment.domain import End, Operation, Transfer, TransferKind, Wallet, system_wallet, user_wallet
from services.payment.domain.limits import Limit, LimitOperation, LimitSource, LimitWindow
from services.payment.ledger import Ledger
from services.payment.store.documents import limit_row
from services.payment.turns import Turns

TENANT, CURRENCY, OPENING = "demo", "EUR", 10**9
OPENED_AT = datetime(2026, 1, 1, tzinfo=UTC)
HOUSE = system_wallet(TENANT, SystemWallet.HOUSE, CURRENCY, OPENED_AT)
LIMITS = (
    Limit(LimitOperation.TRANSFER, LimitWindow.DAILY, LimitSource.PLAYER, CURRENCY, OPENING),
    Limit(LimitOperation.TRANSFER, LimitWindow.MONTHLY, LimitSource.OPERATOR, CURRENCY, OPENING),
)
WARM_UP_S = 1.0

_operator = Caller(TENANT, "operator", ("operator",), "session", "user")
_policy = Policy(BUILT_IN)
_SIGHT = Scope(_operator, _policy.filter(_operator.roles, "transfer", "read"))
_TRANSFERS = Scope(_operator, _policy.filter(_operator.roles, "transfer", "create"))
_DEPOSITS = Scope(_operator, _policy.filter(_operator.roles, "deposit", "create"))


def players(count: int) -> list[Wallet]:
    """Wallets whose ids follow from their numbers, so that every process knows them."""
    return [user_wallet(TENANT, f"player-{n}", "main", CURRENCY, OPENED_AT) for n in range(count)]


@asynccontextmanager
async def open_ledger(mongo: Mongo) -> AsyncIterator[Ledger]:
    """As a service opens it: with turns, and with a collector that looks rarely."""
    redis = Redis.connect(os.environ["REDIS_URL"], namespace=mongo.db.name)
    async with Turns(redis) as turns, Ledger(mongo, Outbox(mongo.db), SystemClock(), turns=turns) as ledger:
        collect_rarely()
        yield ledger
    await redis.close()


async def prepare(mongo: Mongo, wallets: Sequence[Wallet]) -> None:
    """The wallets, with money that was paid in through the ledger, for all must add up from the first unit on.

    Their owners have limits that every transfer is held against and counts for, and never reaches.
    """
    await migrate(mongo.db, (*store.INDEXES, *OUTBOX_INDEXES))
    await mongo.db["wallets"].insert_many([store.wallet_row(wallet) for wallet in wallets])
    nostro = End.of_system(TENANT, SystemWallet.NOSTRO, CURRENCY)
    async with open_ledger(mongo) as ledger:
        for start in range(0, len(wallets), 1000):
            deposits = (
                _post(ledger, _operation(TransferKind.DEPOSIT, nostro, End(wallet.id), OPENING))
                for wallet in wallets[start : start + 1000]
            )
            await asyncio.gather(*deposits)
    await mongo.db["accounts"].update_many({}, {"$set": {"limits": [limit_row(limit) for limit in LIMITS]}})


async def fill(mongo: Mongo, ledger: Ledger, wallets: Sequence[Wallet], transfers: int, within_s: float) -> int:
    """How many transfers there are now, at most `transfers`: posted by 512 callers, with no list of what they measured.

    What no relay would send is not kept, as a retention would see to.
    """
    ask, deadline = spread(ledger, wallets), Deadline.after(within_s)
    posted = await mongo.db["transfers"].estimated_document_count()

    async def caller(until: int) -> None:
        nonlocal posted
        while posted < until:
            posted += 1
            await ask()

    while posted < transfers and deadline.remaining_s > 0:
        until = min(transfers, posted + 25_000)
        await asyncio.gather(*(caller(until) for _ in range(512)))
        await mongo.db["outbox"].delete_many({})
    return posted


def spread(ledger: Ledger, wallets: Sequence[Wallet]) -> Ask:
    async def ask() -> None:
        payer, payee = sample(wallets, 2)
        await _post(ledger, _operation(TransferKind.TRANSFER, End(payer.id), End(payee.id), 1))

    return ask


def hot(ledger: Ledger, wallets: Sequence[Wallet]) -> Ask:
    house = End.of_system(TENANT, SystemWallet.HOUSE, CURRENCY)

    async def ask() -> None:
        await _post(ledger, _operation(TransferKind.TRANSFER, End(choice(wallets).id), house, 1))

    return ask


def _operation(kind: TransferKind, source: End, destination: End, amount: int) -> Operation:
    return Operation.of(
        kind,
        source,
        destination,
        Money(amount, CURRENCY),
        id=new_id(),
        tenant_id=TENANT,
        actor=_operator.user_id,
        scope=_DEPOSITS if kind is TransferKind.DEPOSIT else _TRANSFERS,
        sight=_SIGHT,
    )


async def _post(ledger: Ledger, operation: Operation) -> None:
    outcome = await ledger.post(operation, Deadline.after(30))
    assert isinstance(outcome, Transfer), outcome


async def main(namespace: str, players_: str, callers: str, seconds: str) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    mongo = Mongo.connect(os.environ["MONGO_URL"], service="payment", namespace=namespace)
    async with open_ledger(mongo) as ledger:
        ask = spread(ledger, players(int(players_)))
        await loaded(ask, int(callers), WARM_UP_S)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(json.dumps(asdict(await loaded(ask, int(callers), float(seconds)))), flush=True)
    await mongo.close()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
