"""What the gateway does when schemas, addresses and configuration change while it runs."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from gateway.federation import Subgraph
from gateway.federation.compose import compose
from gateway.settings import Address, GatewayConfig, GatewaySettings
from libs.core.config import Config
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.testing import eventually, scratch_namespace
from scripts.process import free_port
from tests.gateway.foreign import Foreign, serving
from tests.live import Live, Surroundings, callers, gateway_process, shared_namespace
from tests.web import web


@dataclass
class House:
    """A gateway in front of two foreign subgraphs."""

    gateway: Live
    cities: Foreign
    words: Foreign
    client: httpx.AsyncClient

    async def ask(self, query: str, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.client.post(f"{self.gateway.server.url}/graphql", json={"query": query}, headers=named)
        return answer.json()

    async def answers(self, query: str, data: Any) -> bool:
        return bool(await self.ask(query) == {"data": data})

    async def check(self) -> Any:
        return (await self.client.get(f"{self.gateway.server.url}/health/ready")).json()["checks"]["supergraph"]

    async def metric(self, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
        text = (await self.client.get(f"{self.gateway.server.url}/metrics")).text
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples if s.name == name]
        return [(s.labels, s.value) for s in samples if labels.items() <= s.labels.items()]


@pytest.fixture(scope="module")
def cities() -> Iterator[Foreign]:
    with serving(Foreign("type Query { city: String }", {"city": "Riga"})) as cities:
        yield cities


@pytest.fixture(scope="module")
def words() -> Iterator[Foreign]:
    """It has no route for its schema."""
    with serving(Foreign(LESS, {"word": "yes", "more": "no"}, route=False)) as words:
        yield words


@pytest.fixture(scope="module")
def on(mongo_url: str, redis_url: str) -> Iterator[Surroundings]:
    with shared_namespace(mongo_url, redis_url) as namespace:
        yield Surroundings.new(mongo_url, redis_url, namespace)


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, on: Surroundings, cities: Foreign, words: Foreign
) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("gateway")
    subgraphs = {"cities": cities.url, "words": f"{words.url}/graphql"}
    asyncio.run(_look_often(on))
    with gateway_process(folder, on, subgraphs=subgraphs, MODE="production", CURSOR_SECRET="s" * 40) as gateway:
        yield gateway


async def _look_often(on: Surroundings) -> None:
    async with _config(on) as config:
        await config.set(GatewayConfig, {"poll_s": 0.1}, actor="test", reason="test", expected_version=0)


@asynccontextmanager
async def _config(on: Surroundings) -> AsyncIterator[Config]:
    namespace = on.environment["NAMESPACE"]
    mongo = Mongo.connect(on.environment["MONGO_URL"], service="test", namespace=namespace)
    redis = Redis.connect(on.environment["REDIS_URL"], namespace=namespace)
    async with Config(mongo, redis, [GatewayConfig]) as config:
        yield config
    await redis.close()
    await mongo.close()


@pytest.fixture
async def house(gateway: Live, cities: Foreign, words: Foreign) -> AsyncIterator[House]:
    async with web(timeout=20) as client:
        house = House(gateway, cities, words, client)
        yield house
        words.sdl = LESS
        await eventually(lambda: _unknown(house, "{ more }"))


LESS = "type Query { word: String }"
MORE = "type Query { word: String more: String }"
CLASH = "type Query { word: String city: Int }"


class TestChangedSchema:
    async def test_is_served_without_a_request_lost(self, house: House) -> None:
        """Eight callers ask all the time; after that many changes none has heard of one."""
        stop, answers = asyncio.Event(), 0

        async def call() -> None:
            nonlocal answers
            while not stop.is_set():
                assert await house.ask("{ city word }") == {"data": {"city": "Riga", "word": "yes"}}
                answers += 1

        callers = [asyncio.create_task(call()) for _ in range(8)]
        try:
            for _ in range(3):
                house.words.sdl = MORE
                await eventually(lambda: house.answers("{ more }", {"more": "no"}))
                house.words.sdl = LESS
                await eventually(lambda: _unknown(house, "{ more }"))
        finally:
            stop.set()
            await asyncio.gather(*callers)
        assert answers > 20

    async def test_that_does_not_compose_is_refused_and_the_one_before_serves_on(self, house: House) -> None:
        house.words.sdl = CLASH
        await eventually(lambda: _refused(house))
        assert "Query.city" in (await house.check())["refused"]
        assert await house.metric("gateway_supergraph_refused") == [({}, 1)]
        assert await house.ask("{ city word }") == {"data": {"city": "Riga", "word": "yes"}}
        house.words.sdl = MORE
        await eventually(lambda: house.answers("{ more }", {"more": "no"}))
        await eventually(lambda: _not_refused(house))

    async def test_is_not_sent_again_if_it_is_known(self, house: House) -> None:
        told, words = house.cities.told, house.words.told
        await eventually(lambda: house.words.told > words + 2)  # whose schema has no ETag
        assert house.cities.told == told


async def _unknown(house: House, query: str) -> bool:
    answer = await house.ask(query)
    codes = [error.get("extensions", {}).get("code") for error in answer.get("errors", ())]
    return codes == ["GRAPHQL_VALIDATION_FAILED"]  # the gateway's own: that of the subgraph comes without a code


async def _not_refused(house: House) -> bool:
    return not await _refused(house)


async def _refused(house: House) -> bool:
    return "refused" in await house.check()


class TestConfiguration:
    async def test_decides_which_subgraphs_there_are(self, house: House, on: Surroundings) -> None:
        async with _config(on) as config:
            changes = {"subgraphs": {"cities": house.cities.url}}
            await config.set(GatewayConfig, changes, actor="test", reason="test", expected_version=1)
            await eventually(lambda: _unknown(house, "{ word }"))
            assert await house.ask("{ city }") == {"data": {"city": "Riga"}}
            await config.set(GatewayConfig, {}, unset=["subgraphs"], actor="test", reason="test", expected_version=2)
            await eventually(lambda: house.answers("{ word }", {"word": "yes"}))

    @pytest.mark.parametrize(
        "subgraphs",
        [
            pytest.param("Words=http://a", id="a name in upper case"),
            pytest.param("gateway=http://a", id="the gateway's own"),
            pytest.param("a=http://a,a=http://b", id="one name twice"),
            pytest.param("a=ftp://a", id="another protocol"),
            pytest.param("a=a:9001", id="no protocol"),
            pytest.param("a=http://user:secret@a", id="a password"),
            pytest.param("a=http://a:99999", id="a port that there cannot be"),
        ],
    )
    def test_wrong_subgraphs(self, subgraphs: str) -> None:
        with pytest.raises(ValidationError, match=r"1 validation error for GatewaySettings\nsubgraphs"):
            GatewaySettings(mode="development", subgraphs=subgraphs)

    def test_addresses(self) -> None:
        settings = GatewaySettings(mode="development", subgraphs="a=http://a:1, b=https://b/api/graph/")
        assert settings.addresses == {
            "a": Address("a", "http://a:1/graphql"),
            "b": Address("b", "https://b/api/graph"),
        }
        assert settings.addresses["b"].ready_url == "https://b/health/ready"


class TestWhatSubgraphsAreTold:
    async def test_of_a_caller(self, house: House) -> None:
        token = f"Bearer {house.gateway.token('alice')}"
        await house.ask("{ word }", authorization=token, x_correlation_id="order-4711", user_agent="curl", x_evil="1")
        headers = house.words.asked[-1]
        assert (headers["authorization"], headers["x-tenant"]) == (token, "demo")
        assert (headers["x-correlation-id"], headers["x-forwarded-for"]) == ("order-4711", "127.0.0.1")
        assert headers["user-agent"] == "curl"
        assert "x-evil" not in headers

    async def test_a_client_does_not_choose_its_address(self, house: House) -> None:
        await house.ask("{ word }", x_forwarded_for="6.6.6.6")
        assert house.words.asked[-1]["x-forwarded-for"] == "127.0.0.1"

    async def test_nothing_of_who_is_refused(self, house: House) -> None:
        asked = len(house.words.asked)
        answer = await house.ask("{ word }", authorization=f"Bearer {house.gateway.token('alice', ttl_s=-60)}")
        assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
        assert len(house.words.asked) == asked


class TestProduction:
    @pytest.mark.parametrize("query", ["{ __schema { queryType { name } } }", "{ _service { sdl } }"])
    async def test_has_no_introspection(self, house: House, query: str) -> None:
        assert "data" not in await house.ask(query)

    async def test_has_no_page_for_browsers_nor_a_schema(self, house: House) -> None:
        page = await house.client.get(f"{house.gateway.server.url}/graphql", headers={"accept": "text/html"})
        assert page.status_code == 406
        assert (await house.client.get(f"{house.gateway.server.url}/graphql/sdl")).status_code == 404


class TestMetrics:
    async def test_names_that_clients_make_up_are_bounded(self, house: House) -> None:
        token = f"Bearer {house.gateway.token('alice')}"
        for n in range(250):
            await house.ask(f"query Q{n} {{ city }}", authorization=token)
        await house.ask("query Stranger { city }")
        labels = {of["operation"] for of, _ in await house.metric("gateway_operations_total")}
        assert {"Q0", "other"} <= labels
        assert len(labels) <= 202
        assert "Stranger" not in labels

    async def test_of_subgraphs(self, house: House) -> None:
        await house.ask("{ city }")
        (counted,) = await house.metric("gateway_subgraph_requests_total", subgraph="cities", outcome="ok")
        assert counted[1] >= 1


@pytest.fixture
def file(tmp_path: Path, cities: Foreign) -> Path:
    path = tmp_path / "supergraph.graphql"
    _write(path, cities)
    return path


def _write(path: Path, cities: Foreign) -> None:
    path.write_text(compose([Subgraph("cities", f"{cities.url}/graphql", cities.sdl)]))


async def test_a_file_takes_the_place_of_composing(
    file: Path, tmp_path: Path, on: Surroundings, cities: Foreign
) -> None:
    cities.told = 0
    process = gateway_process(
        tmp_path, on, subgraphs={}, SUPERGRAPH_FILE=str(file), PORT=str(free_port()), NAMESPACE=scratch_namespace()
    )
    live = await asyncio.to_thread(process.__enter__)
    try:
        async with callers(live) as as_:
            assert await as_("").ask("{ city }") == "Riga"
            assert cities.told == 0
            cities.sdl = "type Query { city: String town: String }"
            _write(file, cities)
            await eventually(lambda: _asks(as_("").post("{ town }")))
    finally:
        await asyncio.to_thread(process.__exit__, None, None, None)


async def _asks(answer: Any) -> bool:
    return "errors" not in (await answer).json()
