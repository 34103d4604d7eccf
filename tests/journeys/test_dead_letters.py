"""A fact that payment cannot understand: an operator finds it, and lets what waits behind it go on."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.core.events import Event, EventData, Outbox
from libs.core.mongo import Mongo, Session
from libs.core.redis import Redis
from libs.core.tenants import Currency, Tenants
from libs.core.testing import eventually
from tests.live import Live, payment_process


class NoCurrency(EventData, type="tenant.currency_added"):
    """What a faulty release may have said."""


@pytest.fixture
def live(tmp_path: Path, mongo_url: str, redis_url: str, namespace: str) -> Iterator[Live]:
    with payment_process(tmp_path, mongo_url, redis_url, namespace) as live:
        yield live


async def dead_letters(live: Live, **decision: str) -> str:
    """What `make dead-letters` prints."""
    script = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts.dead_letters"),
        env={**live.environment, **decision},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await script.communicate()
    return output.decode()


async def say_nonsense(mongo: Mongo) -> None:
    outbox = Outbox(mongo.core)
    nonsense = Event.new(NoCurrency(), source="core", subject="demo", tenant_id="demo", partition_key="demo")

    async def work(session: Session) -> None:
        await outbox.append(session, [nonsense])

    await mongo.transaction(work)


async def test_are_listed_with_the_reason_and_skipped(live: Live, mongo: Mongo, redis: Redis, namespace: str) -> None:
    await say_nonsense(mongo)
    tenants = Tenants(mongo, redis, Outbox(mongo.core))
    await tenants.add_currency("demo", Currency("GBP", 2), actor="test")
    wallets = mongo.client[f"{namespace}_payment_service"]["wallets"]

    async def waits() -> str:
        listed = await dead_letters(live)
        return listed if "1 more events wait behind it" in listed else ""

    listed = await eventually(waits, within_s=30)
    assert "code" in listed
    assert await wallets.count_documents({"currency": "GBP"}) == 0

    assert not await dead_letters(live, SKIP=listed.split()[0])
    await eventually(lambda: wallets.count_documents({"currency": "GBP"}), within_s=15)
    assert not await dead_letters(live)
    assert "there is no dead letter x" in await dead_letters(live, REPLAY="x")
