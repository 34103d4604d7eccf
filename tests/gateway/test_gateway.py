"""The gateway in front of real services: what callers see through it, also when a service is away."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets

from libs.core.ids import new_id
from libs.core.testing import eventually
from scripts import stack
from tests.collector import Collector, collector
from tests.live import Api, Live, callers, gateway_process, payment_process, shared_namespace
from tests.web import web

ROOT = Path(__file__).parents[2]
As = Callable[..., Api]

CREATE = """mutation ($input: CreateWalletInput!) { createWallet(input: $input) {
    ... on Wallet { id ownerId owner { id balances { currency } } } ... on Problem { code } } }"""
DEPOSIT = """mutation ($input: DepositInput!) { deposit(input: $input) { __typename ... on Problem { code } } }"""
WALLET = "query ($id: ID!) { wallet(id: $id) { id balance { available } owner { id balances { currency } } } }"


@pytest.fixture(scope="module")
def payment(tmp_path_factory: pytest.TempPathFactory, mongo_url: str, redis_url: str) -> Iterator[Live]:
    """Its spans, and those of the gateways in front of it, are collected."""
    folder = tmp_path_factory.mktemp("payment")
    with (
        shared_namespace(mongo_url, redis_url) as namespace,
        collector() as endpoint,
        payment_process(folder, mongo_url, redis_url, namespace, OTEL_ENDPOINT=endpoint) as live,
    ):
        yield live


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, payment: Live) -> Iterator[Live]:
    subgraphs = {"payment": payment.server.url}
    with gateway_process(tmp_path_factory.mktemp("gateway"), payment, subgraphs=subgraphs) as live:
        yield live


@pytest.fixture
async def as_(gateway: Live) -> AsyncIterator[As]:
    async with callers(gateway) as as_:
        yield as_


@pytest.fixture
async def direct(payment: Live) -> AsyncIterator[As]:
    async with callers(payment) as as_:
        yield as_


async def joined(as_: As, tenant: str = "demo") -> tuple[Api, str]:
    """Somebody new, and their wallet with 100 in it."""
    api = as_(f"p{new_id()}", tenant=tenant)
    wallet = await api.ask(CREATE, input={"currency": "EUR"})
    given = {"id": new_id(), "walletId": wallet["id"], "amount": "100", "currency": "EUR"}
    assert (await as_("olga", "operator", tenant=tenant).ask(DEPOSIT, input=given))["__typename"] == "Transfer"
    return api, wallet["id"]


class TestThroughTheGateway:
    async def test_an_owner_sees_what_the_service_shows(self, as_: As, payment: Live) -> None:
        api, wallet_id = await joined(as_)
        through = await api.ask(WALLET, id=wallet_id)
        assert through["balance"] == {"available": "100"}
        assert through == await Api(payment.server.url, api.token, api.client).ask(WALLET, id=wallet_id)

    async def test_a_stranger_sees_nothing(self, as_: As) -> None:
        _, wallet_id = await joined(as_)
        assert await as_(f"p{new_id()}").ask(WALLET, id=wallet_id) is None
        assert await as_("olga", "operator", tenant="other").ask(WALLET, id=wallet_id) is None

    async def test_refusals_are_those_of_the_service(self, as_: As, direct: As) -> None:
        query = "query ($id: ID!) { wallet(id: $id) { id } }"
        for token, id_ in (("", "x"), ("p", "no id!")):
            through, there = as_(token), direct(token)
            assert await through.refused(query, id=id_) == await there.refused(query, id=id_)

    async def test_a_token_that_is_none(self, gateway: Live, as_: As) -> None:
        api = as_("p")
        assert await Api(api.url, "forged", api.client).refused("{ userBalances { currency } }") == "UNAUTHENTICATED"
        late = gateway.token("p", ttl_s=-60)
        assert await Api(api.url, late, api.client).refused("{ userBalances { currency } }") == "UNAUTHENTICATED"

    @pytest.mark.parametrize("field", ["_entities(representations: []) { __typename }", "_service { sdl }"])
    async def test_what_subgraphs_are_asked_by_is_out_of_reach(self, as_: As, field: str) -> None:
        assert await as_("p").refused(f"{{ {field} }}") == "GRAPHQL_VALIDATION_FAILED"

    async def test_a_mutation_twenty_times_at_once_is_one(self, as_: As) -> None:
        api, wallet_id = await joined(as_)
        given = {"id": new_id(), "walletId": wallet_id, "amount": "5", "currency": "EUR"}
        olga = as_("olga", "operator")
        await asyncio.gather(*(olga.ask(DEPOSIT, input=given) for _ in range(20)))
        assert (await api.ask(WALLET, id=wallet_id))["balance"] == {"available": "105"}

    async def test_hostile_documents(self, as_: As) -> None:
        many = " ".join(f"a{n}: userBalances {{ currency }}" for n in range(10_000))
        assert await as_("p").refused(f"{{ {many} }}") == "LIMIT_EXCEEDED"
        spreads = " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(50))
        deep = f"{{ ...F0 }} {spreads} fragment F50 on Query {{ userBalances {{ currency }} }}"
        async with asyncio.timeout(5):
            await as_("p").post(deep)
        assert await as_("p").refused("{ ...A } fragment A on Query { ...A }") in (
            "LIMIT_EXCEEDED",
            "GRAPHQL_VALIDATION_FAILED",
        )

    async def test_its_own_fields_are_not_for_everyone(self, as_: As) -> None:
        assert await as_("p").refused("{ platformHealth { ready } }") == "FORBIDDEN"

    async def test_health_of_all(self, gateway: Live) -> None:
        async with web() as client:
            answer = await client.get(f"{gateway.server.url}/health")
        assert answer.status_code == 200
        assert answer.json()["services"].keys() == {"gateway", "payment"}


class TestSubscriptions:
    async def test_over_a_websocket(self, gateway: Live, as_: As) -> None:
        api, wallet_id = await joined(as_)
        url = gateway.server.url.replace("http", "ws") + "/graphql"
        async with websockets.connect(url, subprotocols=[websockets.Subprotocol("graphql-transport-ws")]) as socket:
            init = {"type": "connection_init", "payload": {"authorization": f"Bearer {api.token}"}}
            await socket.send(json.dumps(init))
            assert json.loads(await socket.recv()) == {"type": "connection_ack"}
            query = "subscription { balanceChanged { id owner { id balances { balance { available } } } } }"
            await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": query}}))
            heard = await _heard_of_deposits(_heard(socket), as_, wallet_id)
            changed = heard["payload"]["data"]["balanceChanged"]
        assert changed["id"] == wallet_id
        assert changed["owner"]["balances"][0]["balance"]["available"]

    async def test_over_server_sent_events(self, gateway: Live, as_: As) -> None:
        api, wallet_id = await joined(as_)
        async with _events(gateway, api) as events:
            heard = await _heard_of_deposits(_next(events), as_, wallet_id)
        assert heard == {"data": {"balanceChanged": {"id": wallet_id}}}

    async def test_of_nobody_is_refused(self, gateway: Live, as_: As) -> None:
        async with _events(gateway, as_("")) as events:
            assert (await _next(events))["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"

    async def test_whose_token_expires_says_so(self, gateway: Live, as_: As) -> None:
        api = as_("p")
        async with _events(gateway, Api(api.url, gateway.token("p", ttl_s=1), api.client)) as events:
            assert (await _next(events))["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def _heard_of_deposits(waiting: Coroutine[Any, Any, Any], as_: As, wallet_id: str) -> Any:
    """What comes of `waiting` while money comes in: what happens before a stream is subscribed is not told."""
    heard = asyncio.create_task(waiting)
    while not heard.done():
        given = {"id": new_id(), "walletId": wallet_id, "amount": "1", "currency": "EUR"}
        await as_("olga", "operator").ask(DEPOSIT, input=given)
        await asyncio.wait([heard], timeout=0.1)
    return heard.result()


@asynccontextmanager
async def _events(gateway: Live, api: Api) -> AsyncIterator[AsyncIterator[str]]:
    """The lines of a stream of `balanceChanged`."""
    headers = {"accept": "text/event-stream"} | ({"authorization": f"Bearer {api.token}"} if api.token else {})
    body = {"query": "subscription { balanceChanged { id } }"}
    async with api.client.stream("POST", f"{gateway.server.url}/graphql", json=body, headers=headers) as answer:
        assert answer.status_code == 200
        yield answer.aiter_lines()


async def _next(events: AsyncIterator[str]) -> Any:
    """What the next event brings."""
    async for line in events:
        if line.startswith("data: {"):
            return json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream ended")


async def _heard(socket: Any) -> Any:
    while True:
        message = json.loads(await socket.recv())
        if message["type"] != "ping":
            return message


@pytest.fixture
def mortal(payment: Live) -> Iterator[Live]:
    """For who ends it: afterwards it is there again."""
    yield payment
    if stack.readiness(payment.server.url)[0] != 200:
        payment.server.start()


@pytest.fixture
def front_of_the_dead(tmp_path: Path, gateway: Live, mortal: Live) -> Iterator[Live]:
    """A gateway that begins when payment is gone, which the one before it has seen."""
    mortal.server.kill()
    with gateway_process(tmp_path, mortal, subgraphs={"payment": mortal.server.url}) as live:
        yield live


class TestServicesComeAndGo:
    async def test_one_that_is_killed_costs_its_fields_and_comes_back(self, mortal: Live, gateway: Live) -> None:
        async with callers(gateway) as as_:
            api = as_(f"p{new_id()}")
            assert await api.ask("{ userBalances { currency } }") == []
            mortal.server.kill()
            answer = (await api.post('{ __typename wallet(id: "a") { id } }')).json()
            assert answer["data"] == {"__typename": "Query", "wallet": None}
            assert answer["errors"][0]["extensions"] == {"code": "SUBGRAPH_UNREACHABLE", "service": "payment"}
            assert await api.refused(CREATE, input={"currency": "EUR"}) == "UNKNOWN"
            await asyncio.to_thread(mortal.server.start)
            assert await api.ask("{ userBalances { currency } }") == []

    async def test_one_that_is_stopped_ends_its_streams_with_a_reason(self, mortal: Live, gateway: Live) -> None:
        async with callers(gateway) as as_:
            api, wallet_id = await joined(as_)
            async with _events(gateway, api) as events:
                assert "data" in await _heard_of_deposits(_next(events), as_, wallet_id)
                await asyncio.to_thread(mortal.server.stop)
                while "errors" not in (last := await _next(events)):
                    pass  # what the deposits before it did
        assert last["errors"][0]["extensions"]["code"] == "UNAVAILABLE"

    async def test_a_gateway_that_begins_while_a_service_is_away_knows_it(self, front_of_the_dead: Live) -> None:
        async with callers(front_of_the_dead) as as_:
            assert await as_("p").refused("{ userBalances { currency } }") == "SUBGRAPH_UNREACHABLE"


async def test_a_trace_goes_through_the_gateway_into_the_service(as_: As) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    ann = as_("ann")
    ann.client.headers["traceparent"] = f"00-{trace_id}-00f067aa0ba902b7-01"
    await ann.ask("{ userBalances { currency __typename } }")  # which nobody has asked for before
    for span, by in ((b"graphql.plan", b""), (b"query payment", b""), (b"POST /graphql", b"payment")):
        await eventually(lambda: _exported(bytes.fromhex(trace_id), span, by=by), within_s=15)  # noqa: B023


def _exported(trace_id: bytes, span: bytes, *, by: bytes = b"") -> bool:
    """What services export begins with their `service.name`."""
    return any(trace_id in body and span in body and by in body[:500] for _, body in Collector.received)


async def test_all_audits_of_graphql_http(gateway: Live) -> None:
    command = ["node", str(ROOT / "tests/core/graphql/audits.mjs"), f"{gateway.server.url}/graphql"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    printed, _ = await process.communicate()
    assert printed.decode() == "61 of 61\n"
