"""Webhooks through payment's front door: what an admin does in GraphQL, and what a receiver then gets of a transfer."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from libs.core.errors import Misconfigured
from libs.core.events.event import partition_of
from libs.core.ids import new_id
from libs.core.mongo import Mongo
from libs.core.settings import DEVELOPMENT_SECRET
from libs.core.tenants import SystemWallet
from libs.core.testing import eventually
from services.payment.domain import SYSTEM_OWNER
from services.payment.settings import PaymentSettings
from tests.core.webhooks.receiver import Receiver, receiver
from tests.live import CURRENCIES, TENANTS, Api, Live, callers, payment_process, shared_namespace

As = Callable[..., Api]

ENDPOINT = "{ id url enabled disabledReason eventTypes secrets }"
CREATE = f"""mutation ($input: CreateWebhookEndpointInput!) {{ createWebhookEndpoint(input: $input) {{
    ... on WebhookSecret {{ secret endpoint {ENDPOINT} }} ... on Problem {{ code rule }} }} }}"""
UPDATE = f"""mutation ($input: UpdateWebhookEndpointInput!) {{ updateWebhookEndpoint(input: $input) {{
    ... on WebhookEndpoint {ENDPOINT} ... on Problem {{ code }} }} }}"""
ROTATE = "mutation ($id: ID!) { rotateWebhookSecret(id: $id, overlapHours: 1) { secret endpoint { secrets } } }"
DELETE = "mutation ($id: ID!) { deleteWebhookEndpoint(id: $id) }"
ENABLE = f"mutation ($id: ID!) {{ enableWebhookEndpoint(id: $id) {ENDPOINT} }}"
DISABLE = f"mutation ($id: ID!) {{ disableWebhookEndpoint(id: $id) {ENDPOINT} }}"
TEST = """mutation ($id: ID!) { sendTestWebhook(endpointId: $id) {
    ... on WebhookDelivery { id eventId } ... on Problem { code } } }"""
REPLAY = """mutation ($id: ID!) { replayWebhookDelivery(id: $id) {
    ... on WebhookDelivery { id status } ... on Problem { code } } }"""
REPLAY_FAILED = """mutation ($id: ID!, $since: DateTime!) { replayWebhookDeliveries(endpointId: $id, since: $since) {
    ... on WebhookReplay { replayed } ... on Problem { code } } }"""
ENDPOINTS = "{ webhookEndpoints { edges { node { id } } } }"
DELIVERIES = """query ($id: ID!, $status: WebhookDeliveryStatus) { webhookDeliveries(endpointId: $id, status: $status) {
    edges { node { id eventId eventType status error attempts { status answer } payload } } } }"""
WALLET = "mutation ($input: CreateWalletInput!) { createWallet(input: $input) { ... on Wallet { id ownerId } } }"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, mongo_url: str, redis_url: str) -> Iterator[Live]:
    folder: Path = tmp_path_factory.mktemp("payment")
    with (
        shared_namespace(mongo_url, redis_url) as namespace,
        payment_process(folder, mongo_url, redis_url, namespace) as live,
    ):
        asyncio.run(_told_of_system_wallets(live, mongo_url, namespace))
        yield live


async def _told_of_system_wallets(live: Live, mongo_url: str, namespace: str) -> None:
    """The tenants' own wallets are created at the start, and would be told to whoever subscribes in that minute. What

    follows in the same partition is told after them.
    """
    mongo = Mongo.connect(mongo_url, service="payment", namespace=namespace)
    expected = len(TENANTS) * len(CURRENCIES) * len(SystemWallet)

    async def all_there() -> bool:
        return await mongo.db["wallets"].count_documents({"owner_id": SYSTEM_OWNER, "is_stripe": False}) == expected

    await eventually(all_there, within_s=45)
    await mongo.close()
    async with callers(live) as as_, receiver() as to:
        for tenant in TENANTS:
            theirs = partition_of(f"{tenant}:{SYSTEM_OWNER}")
            user = next(f"probe{n}" for n in count() if partition_of(f"{tenant}:probe{n}") == theirs)
            admin = as_("ada", "admin", tenant=tenant)
            made = (await admin.ask(CREATE, input={"url": to.url, "eventTypes": ["wallet.created"]}))["endpoint"]
            wallet = await as_(user, tenant=tenant).ask(WALLET, input={"currency": "EUR"})
            await eventually(partial(_heard_of, to, wallet["id"]), within_s=45)
            await admin.ask(DELETE, id=made["id"])


def _heard_of(to: Receiver, wallet_id: str) -> bool:
    return any(wallet_id.encode() in got.body for got in to.got)


@pytest.fixture
async def as_(live: Live) -> AsyncIterator[As]:
    async with callers(live) as as_:
        yield as_


@pytest.fixture
async def to() -> AsyncIterator[Receiver]:
    async with receiver() as to:
        yield to


@pytest.fixture
def admin(as_: As) -> Api:
    return as_("ada", "admin")


@pytest.fixture
async def made(admin: Api, to: Receiver) -> AsyncIterator[dict[str, Any]]:
    """An endpoint for wallets, with its `secret`; deleted at the end."""
    made = await admin.ask(CREATE, input={"url": to.url, "eventTypes": ["wallet.created"]})
    yield made["endpoint"] | {"secret": made["secret"]}
    await admin.post(DELETE, id=made["endpoint"]["id"])


async def deliveries(api: Api, endpoint_id: str, **more: Any) -> list[dict[str, Any]]:
    found = await api.ask(DELIVERIES, id=endpoint_id, **more)
    return [edge["node"] for edge in found["edges"]]


class TestCreate:
    async def test_an_event_of_payment_arrives_signed(
        self, as_: As, admin: Api, to: Receiver, made: dict[str, Any]
    ) -> None:
        wallet = await as_("bob" + new_id()).ask(WALLET, input={"currency": "EUR"})

        def of_bob() -> list[Any]:
            """The tenant's own wallets are created at about the same time, and told of as well."""
            return [got for got in to.got if json.loads(got.body)["data"]["wallet_id"] == wallet["id"]]

        got = (await eventually(of_bob, within_s=45))[0]  # the service has just started
        assert json.loads(got.body)["type"] == "wallet.created"
        assert got.signed_with(made["secret"])

        async def delivered() -> list[Any]:
            return [d for d in await deliveries(admin, made["id"], status="DELIVERED") if d["eventId"] == got.id]

        delivery = await eventually(delivered)
        assert delivery[0]["payload"].encode() == got.body
        assert delivery[0]["attempts"] == [{"status": 200, "answer": "thanks"}]

    @pytest.mark.parametrize(
        "changes",
        [
            {"url": "http://10.0.0.1/"},
            {"url": "https://user:pass@example.com/"},
            {"url": "nonsense"},
            {"eventTypes": []},
            {"eventTypes": ["wallet.*"]},
            {"description": "x" * 201},
        ],
    )
    async def test_wrong_input_is_named(self, admin: Api, changes: dict[str, Any]) -> None:
        given = {"url": "http://127.0.0.1:9/", "eventTypes": ["wallet.created"]} | changes
        answer = (await admin.post(CREATE, input=given)).json()["errors"][0]["extensions"]
        assert answer["code"] == "BAD_USER_INPUT"
        assert answer["details"]["field"] == f"input.{next(iter(changes))}"

    async def test_a_second_one_of_the_same_url_is_refused(
        self, admin: Api, to: Receiver, made: dict[str, Any]
    ) -> None:
        again = await admin.ask(CREATE, input={"url": to.url, "eventTypes": ["wallet.created"]})
        assert again == {"code": "WEBHOOK_URL_TAKEN", "rule": "webhook.url_unique"}


class TestPermission:
    @pytest.mark.parametrize("role", ["player", "operator", "service"])
    async def test_admins_only(self, as_: As, role: str) -> None:
        other = as_("eve", role)
        assert await other.refused(ENDPOINTS) == "FORBIDDEN"
        given = {"url": "http://127.0.0.1:9/", "eventTypes": ["wallet.created"]}
        assert await other.refused(CREATE, input=given) == "FORBIDDEN"

    @pytest.mark.parametrize("mutation", [ROTATE, DELETE, ENABLE, DISABLE, TEST])
    async def test_another_tenants_admin_finds_nothing(self, as_: As, made: dict[str, Any], mutation: str) -> None:
        assert await as_("eve", "admin", tenant="other").refused(mutation, id=made["id"]) == "NOT_FOUND"

    async def test_nor_sees_anything(self, as_: As, admin: Api, made: dict[str, Any]) -> None:
        delivery = await admin.ask(TEST, id=made["id"])
        eve = as_("eve", "admin", tenant="other")
        assert (await eve.ask(ENDPOINTS))["edges"] == []
        assert await deliveries(eve, made["id"]) == []
        assert await eve.refused(REPLAY, id=delivery["id"]) == "NOT_FOUND"
        assert await eve.refused(UPDATE, input={"id": made["id"], "url": "http://127.0.0.1:9/"}) == "NOT_FOUND"
        assert await eve.refused(REPLAY_FAILED, id=made["id"], since="2020-01-01T00:00:00Z") == "NOT_FOUND"

    async def test_another_tenants_wallet_is_not_told_of(
        self, as_: As, admin: Api, to: Receiver, made: dict[str, Any]
    ) -> None:
        await as_("eve" + new_id(), tenant="other").ask(WALLET, input={"currency": "EUR"})
        ours = await as_("bob" + new_id()).ask(WALLET, input={"currency": "EUR"})
        await eventually(lambda: deliveries(admin, made["id"], status="DELIVERED"))
        assert [json.loads(r.body)["data"]["wallet_id"] for r in to.got] == [ours["id"]]


class TestManage:
    async def test_rotate(self, admin: Api, to: Receiver, made: dict[str, Any]) -> None:
        rotated = await admin.ask(ROTATE, id=made["id"])
        await admin.ask(TEST, id=made["id"])
        await eventually(lambda: to.got)
        assert rotated["endpoint"]["secrets"] == 2
        assert [to.got[0].signed_with(secret) for secret in (made["secret"], rotated["secret"])] == [True, True]

    async def test_disable_miss_enable_and_replay(
        self, as_: As, admin: Api, to: Receiver, made: dict[str, Any]
    ) -> None:
        assert (await admin.ask(DISABLE, id=made["id"]))["disabledReason"] == "by_hand"
        wallet = await as_("bob" + new_id()).ask(WALLET, input={"currency": "EUR"})
        await eventually(lambda: deliveries(admin, made["id"], status="FAILED"))
        since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        assert await admin.ask(REPLAY_FAILED, id=made["id"], since=since) == {"code": "WEBHOOK_DISABLED"}
        assert (await admin.ask(ENABLE, id=made["id"]))["enabled"]
        assert await admin.ask(REPLAY_FAILED, id=made["id"], since=since) == {"replayed": 1}
        await eventually(lambda: to.got)
        assert json.loads(to.got[0].body)["data"]["wallet_id"] == wallet["id"]

    async def test_update(self, admin: Api, made: dict[str, Any]) -> None:
        changed = await admin.ask(UPDATE, input={"id": made["id"], "eventTypes": ["transfer.completed"]})
        assert (changed["eventTypes"], changed["url"]) == (["transfer.completed"], made["url"])

    async def test_deleted_endpoint_is_gone_and_its_log_stays(
        self, admin: Api, to: Receiver, made: dict[str, Any]
    ) -> None:
        await admin.ask(TEST, id=made["id"])
        await eventually(lambda: deliveries(admin, made["id"], status="DELIVERED"))
        assert await admin.ask(DELETE, id=made["id"]) is True
        assert made["id"] not in [e["node"]["id"] for e in (await admin.ask(ENDPOINTS))["edges"]]
        assert [d["eventType"] for d in await deliveries(admin, made["id"])] == ["webhook.tested"]


class TestSettings:
    @pytest.mark.parametrize("key", [None, "short", DEVELOPMENT_SECRET, f"{'n' * 32},short", f"{'n' * 32},"])
    def test_production_refuses_a_weak_key(self, monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
        for name in ("CURSOR_SECRET", "JOURNAL_KEY"):
            monkeypatch.setenv(name, "s" * 32)
        monkeypatch.delenv("WEBHOOK_KEY", raising=False)
        if key:
            monkeypatch.setenv("WEBHOOK_KEY", key)
        with pytest.raises(Misconfigured, match="WEBHOOK_KEY"):
            PaymentSettings.load()
