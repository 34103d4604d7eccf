"""One payment process for all tests of operations, people at it, its configuration, and its money: it must add up."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from libs.core.config import Config
from libs.core.ids import new_id
from libs.core.mongo import Document, Mongo
from libs.core.redis import Redis
from libs.core.settings import DEVELOPMENT_SECRET
from libs.core.tenants import SystemWallet
from libs.core.testing import eventually
from services.payment.keys import JournalKeys
from services.payment.settings import PaymentConfig
from services.payment.verify import verify_all
from tests.live import CURRENCIES, TENANTS, Api, Live, callers, payment_process, shared_namespace
from tests.payment.operations.asking import CREATE, Player, do
from tests.web import web

As = Callable[..., Api]
USUAL: Mapping[str, Any] = {
    "rates": {"EUR/USD": {"rate": "1.1"}, "USD/EUR": {"rate": "0.9", "spread_basis_points": 100}},
    "adjustment_approval_above_default": 1000,
    "fees": [],
    "quote_s": 30.0,
    "step_up_above": {},
    "step_up_operators": False,
}
# What is written though nobody asks for anything: leases are kept, jobs run, the journal's heads are signed.
RESTLESS = {"leases", "jobs", "journal_heads", "verify_checkpoints", "verify_status", "event_sequences"}
NOT_THE_PLATFORMS: Mapping[str, Any] = {"events": {"$not": {"$regex": '"tenantid":"@platform"'}}}


@pytest.fixture(scope="package")
def live(tmp_path_factory: pytest.TempPathFactory, mongo_url: str, redis_url: str) -> Iterator[Live]:
    folder: Path = tmp_path_factory.mktemp("operations")
    with (
        shared_namespace(mongo_url, redis_url) as namespace,
        payment_process(folder, mongo_url, redis_url, namespace) as live,
    ):
        asyncio.run(_configure(live, **USUAL))
        asyncio.run(_await_system_wallets(live))
        yield live


@pytest.fixture(scope="module", autouse=True)
def _money_adds_up(live: Live) -> Iterator[None]:
    """Whatever a module's tests did: nothing came from nowhere."""
    yield
    asyncio.run(_check_sums(live))


async def _check_sums(live: Live) -> None:
    mongo = Mongo.connect(live.environment["MONGO_URL"], service="payment", namespace=live.environment["NAMESPACE"])
    sums: Counter[tuple[str, str]] = Counter()
    async for wallet in mongo.db["wallets"].find():
        sums[wallet["tenant_id"], wallet["currency"]] += sum(wallet["buckets"].values())
        assert sum(wallet["lots"].values()) == wallet["buckets"]["bonus"] or wallet["owner_id"] == "@system"
        assert wallet["owner_id"] == "@system" or wallet["buckets"]["locked"] >= 0
        held = mongo.db["holds"].find({"wallet": wallet["_id"], "status": "open"})
        rest = sum([hold["amount"] - hold["captured"] - hold["released"] async for hold in held])
        assert wallet["buckets"]["locked"] == rest
    assert set(sums.values()) <= {0}
    assert (await verify_all(mongo, JournalKeys(DEVELOPMENT_SECRET).all)).divergence is None
    await mongo.close()


async def _await_system_wallets(live: Live) -> None:
    """They are opened when payment hears of the tenant."""
    mongo = Mongo.connect(live.environment["MONGO_URL"], service="payment", namespace=live.environment["NAMESPACE"])

    async def opened() -> bool:
        expected = len(TENANTS) * len(CURRENCIES) * len(SystemWallet)
        return await mongo.db["wallets"].count_documents({"kind": {"$ne": "user"}, "is_stripe": False}) == expected

    await eventually(opened, within_s=60)
    await mongo.close()


async def _configure(live: Live, **values: Any) -> None:
    """In force in the process when this returns."""
    namespace = live.environment["NAMESPACE"]
    mongo = Mongo.connect(live.environment["MONGO_URL"], service="payment", namespace=namespace)
    redis = Redis.connect(live.environment["REDIS_URL"], namespace=namespace)
    async with Config(mongo, redis, [PaymentConfig]) as config, web() as client:

        async def changes() -> float:
            shown = (await client.get(f"{live.server.url}/metrics")).text
            found = re.search(r'^config_changes_total\{name="payment"\} (\S+)', shown, re.MULTILINE)
            return float(found[1]) if found else 0.0

        before, version = await changes(), config.version(PaymentConfig)
        old = config.get(PaymentConfig)
        new = await config.set(PaymentConfig, values, actor="test", reason="test", expected_version=version)
        if new != old:
            await eventually(lambda: _is_more(changes, before))
    await redis.close()
    await mongo.close()


async def _is_more(changes: Callable[[], Awaitable[float]], before: float) -> bool:
    return await changes() > before


@pytest.fixture
async def configure(live: Live) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """`await configure(fees=[…])`, until the test is over."""
    changed: set[str] = set()

    async def change(**values: Any) -> None:
        changed.update(values)
        await _configure(live, **values)

    yield change
    await _configure(live, **{name: value for name, value in USUAL.items() if name in changed})


@pytest.fixture
async def as_(live: Live) -> AsyncIterator[As]:
    async with callers(live) as as_:
        yield as_


@pytest.fixture
def olga(as_: As) -> Api:
    return as_("olga", "operator")


@pytest.fixture
def oscar(as_: As) -> Api:
    return as_("oscar", "operator")


@pytest.fixture
def games(as_: As) -> Api:
    """The service that lets people bet."""
    return as_("games", "service")


@pytest.fixture
def abroad(as_: As) -> Api:
    """An operator of another tenant."""
    return as_("olga", "operator", tenant="other")


@pytest.fixture
def player(as_: As, olga: Api) -> Callable[..., Awaitable[Player]]:
    """`ann = await player(100)`: somebody new, with that much."""

    async def join(real: int = 0, tenant: str = "demo") -> Player:
        name = f"p{new_id()}"
        api = as_(name, tenant=tenant)
        wallet = await api.ask(CREATE, input={"currency": "EUR"})
        if real:
            operator = as_("olga", "operator", tenant=tenant)
            assert (await do(operator, "deposit", walletId=wallet["id"], amount=real))["__typename"] == "Transfer"
        return Player(api, name, wallet["id"])

    return join


@pytest.fixture
async def database(live: Live) -> AsyncIterator[Mongo]:
    mongo = Mongo.connect(live.environment["MONGO_URL"], service="payment", namespace=live.environment["NAMESPACE"])
    yield mongo
    await mongo.close()


@pytest.fixture
def dump(database: Mongo) -> Callable[[], Awaitable[dict[str, list[Document]]]]:
    """All that is stored, in all of payment's collections, but `RESTLESS`."""

    async def everything() -> dict[str, list[Document]]:
        names = await database.db.list_collection_names()
        return {
            name: await database.db[name]
            .find(NOT_THE_PLATFORMS if name == "outbox" else {}, sort=[("_id", 1)])
            .to_list()
            for name in sorted(names)
            if name not in RESTLESS and not name.startswith("system.")
        }

    return everything


@pytest.fixture
def told(database: Mongo) -> Callable[..., Awaitable[list[Any]]]:
    """`await told(player)`: the events about them, in their order."""

    async def events(player: Player, tenant: str = "demo") -> list[Any]:
        found: list[Any] = []
        async for batch in database.db["outbox"].find(sort=[("_id", 1)]):
            events = map(json.loads, batch["events"].splitlines()[1::2])  # each is a line after its stream and type
            found += [event for event in events if event["partitionkey"] == f"{tenant}:{player.name}"]
        return found

    return events
