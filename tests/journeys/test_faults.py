"""The service, MongoDB and Redis are killed under load: what was acknowledged is there, nothing is half there, and

every event has its effect once.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from libs.core.events import SUBSCRIBER_INDEXES, Event, Subscriber
from libs.core.ids import new_id
from libs.core.migrations import Index, migrate
from libs.core.mongo import Mongo, Session
from libs.core.redis import Redis
from libs.core.testing import eventually
from scripts.process import Server
from tests.live import Api, Live, callers, payment_process

CREATE = 'mutation { createWallet(input: {currency: "EUR"}) { ... on Wallet { id } } }'
DEPOSIT = "mutation ($input: DepositInput!) { deposit(input: $input) { __typename } }"
TRANSFER = """mutation ($input: TransferInput!) { transfer(input: $input) {
    ... on Transfer { id } ... on Problem { code } } }"""
PLAYERS, OPENING, PAYERS = 6, 1_000_000, 12


@pytest.fixture
def live(tmp_path: Path, own_mongo: Server, own_redis: Server) -> Iterator[Live]:
    with payment_process(tmp_path, own_mongo.url, own_redis.url) as live:
        yield live


@pytest.fixture
async def load(live: Live) -> AsyncIterator["Load"]:
    async with callers(live) as as_, Effects.of(live) as effects:
        load = Load(as_("olga", "operator"), effects)
        await load.prepare(as_)
        yield load


class Load:
    """Clients that pay each other and, like all who move money, ask again with the same id until they are answered."""

    def __init__(self, operator: Api, effects: "Effects") -> None:
        self.operator = operator
        self.effects = effects
        self.wallets: list[str] = []
        self.acknowledged: set[str] = set()
        self._stop = asyncio.Event()

    async def prepare(self, as_: Callable[..., Api]) -> None:
        for n in range(PLAYERS):
            wallet = await as_(f"p{n}").ask(CREATE)
            given = {"id": f"d{n}", "walletId": wallet["id"], "amount": str(OPENING), "currency": "EUR"}
            await self.operator.ask(DEPOSIT, input=given)
            self.wallets.append(wallet["id"])
            self.acknowledged.add(f"d{n}")

    async def while_it_runs(self, *faults: Callable[[], Any]) -> None:
        """Each fault strikes a system that is at work; after the last one it is at work again."""
        payers = [asyncio.create_task(self._pay(n)) for n in range(PAYERS)]
        try:
            for fault in faults:
                await self._progress(payers)
                await asyncio.to_thread(fault)
            await self._progress(payers)
        finally:
            self._stop.set()
            await asyncio.gather(*payers)

    async def _progress(self, payers: Sequence[asyncio.Task[None]], by: int = 100) -> None:
        wanted = len(self.acknowledged) + by

        def made() -> bool:
            for payer in payers:
                if payer.done():
                    payer.result()  # one that gave up says why
            return len(self.acknowledged) >= wanted

        await eventually(made, within_s=60)

    async def _pay(self, name: int) -> None:
        n = 0
        while not self._stop.is_set():
            n += 1
            source, destination = self.wallets[(name + n) % PLAYERS], self.wallets[(name + 2 * n + 1) % PLAYERS]
            if source == destination:
                continue
            ends = {"sourceWalletId": source, "destinationWalletId": destination}
            await self._until_answered({"id": f"t{name}-{n}", **ends, "amount": "1", "currency": "EUR"})

    async def _until_answered(self, order: dict[str, Any]) -> None:
        for _ in range(600):
            try:
                answer = (await self.operator.post(TRANSFER, input=order)).json()
            except httpx.TransportError:
                answer = {"errors": [{"extensions": {"code": "UNAVAILABLE"}}]}
            if "errors" not in answer:
                assert answer["data"]["transfer"] == {"id": order["id"]}, answer
                self.acknowledged.add(order["id"])
                return
            assert answer["errors"][0]["extensions"]["code"] in ("UNAVAILABLE", "UNKNOWN", "DEADLINE_EXCEEDED"), answer
            await asyncio.sleep(0.05)  # a polite client's back-off
        raise AssertionError(f"{order['id']} was never answered")


class Effects:
    """Another service: a durable subscriber that counts, in its own database, what it was told of each transfer."""

    def __init__(self, mongo: Mongo) -> None:
        self.mongo = mongo

    @classmethod
    @asynccontextmanager
    async def of(cls, live: Live) -> AsyncIterator["Effects"]:
        mongo = Mongo.connect(live.environment["MONGO_URL"], service="counter")
        client = Redis.connect(live.environment["REDIS_URL"])
        await migrate(mongo.db, (*SUBSCRIBER_INDEXES, Index("leases"), Index("effects")))
        effects = cls(mongo)
        handlers = {"transfer.completed": effects.count}
        async with Subscriber(mongo, client, group="counter", source="payment", handlers=handlers):
            yield effects
        await client.close()
        await mongo.close()

    async def count(self, events: Sequence[Event], session: Session) -> None:
        told = [{"_id": new_id(), "transfer_id": event.data["transfer_id"]} for event in events]
        await self.mongo.db["effects"].insert_many(told, session=session)

    async def all_counted(self) -> Counter[str]:
        return Counter([row["transfer_id"] async for row in self.mongo.db["effects"].find()])


async def check(live: Live, load: Load) -> None:
    mongo = Mongo.connect(live.environment["MONGO_URL"], service="payment")
    transfers = {row["id"] async for row in mongo.db["transfers"].find()}
    assert transfers == load.acknowledged

    lines = await mongo.db["transactions"].find({}, sort=[("wallet", 1), ("position", 1)]).to_list()
    assert Counter(line["transfer_id"] for line in lines) == dict.fromkeys(transfers, 2)
    held: dict[str, int] = {}
    numbers: Counter[str] = Counter()
    for line in lines:
        change = line["amount"] if line["direction"] == "credit" else -line["amount"]
        held[line["wallet"]] = held.get(line["wallet"], 0) + change
        numbers[line["wallet"]] += 1
        assert (line["position"], line["balance_after"]) == (numbers[line["wallet"]], held[line["wallet"]])
    wallets = {row["_id"]: row["buckets"]["real"] async for row in mongo.db["wallets"].find({"position": {"$gt": 0}})}
    assert wallets == held
    assert sum(held.values()) == 0
    await mongo.close()

    async def told() -> bool:
        return (await load.effects.all_counted()).keys() >= transfers

    await eventually(told, within_s=60)
    assert await load.effects.all_counted() == dict.fromkeys(transfers, 1)


def again(server: Server) -> None:
    server.kill()
    server.start()


class TestKilledUnderLoad:
    async def test_the_service(self, live: Live, load: Load) -> None:
        await load.while_it_runs(partial(again, live.server), partial(again, live.server))
        await check(live, load)

    async def test_mongodb(self, live: Live, load: Load, own_mongo: Server) -> None:
        await load.while_it_runs(partial(again, own_mongo), partial(again, own_mongo))
        await check(live, load)

    async def test_redis(self, live: Live, load: Load, own_redis: Server) -> None:
        await load.while_it_runs(partial(again, own_redis), partial(again, own_redis))
        await check(live, load)


class TestRedisThatForgets:
    async def test_a_flush(self, live: Live, load: Load, own_redis: Server) -> None:
        with redis.Redis.from_url(own_redis.url) as client:
            await load.while_it_runs(client.flushall, client.flushall)
        await check(live, load)

    async def test_a_restart_with_nothing(self, live: Live, load: Load, own_redis: Server) -> None:
        await load.while_it_runs(partial(own_redis.restart, empty=True))
        await check(live, load)


class TestRollingRestart:
    async def test_an_orderly_stop_answers_what_it_took(self, live: Live, load: Load) -> None:
        await load.while_it_runs(live.server.restart)
        await check(live, load)
