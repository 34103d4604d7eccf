import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client.parser import text_string_to_metric_families
from websockets import Subprotocol
from websockets.asyncio.client import connect

from libs.core.app import CORE_INDEXES
from libs.core.events import Outbox
from libs.core.migrations import migrate
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.tenants import Tenant, Tenants
from libs.core.testing import eventually, scratch_mongo, scratch_namespace, scratch_redis
from scripts import issuer
from scripts.process import Failure, Server, free_port
from tests.web import web

KEY = Ed25519PrivateKey.generate()


@dataclass
class Tiny:
    """The service of `tiny.py`, running."""

    server: Server
    client: httpx.AsyncClient

    async def ask(self, query: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post("/graphql", json={"query": query}, headers=named)

    async def ready(self) -> tuple[int, Any]:
        answer = await self.client.get("/health/ready")
        return answer.status_code, answer.json()

    def logged(self, **fields: Any) -> list[dict[str, Any]]:
        """The lines of its log that have these fields."""
        lines = [json.loads(line) for line in self.server.log.read_text().splitlines()]
        return [line for line in lines if fields.items() <= line.items()]


@dataclass
class Place:
    """Where tiny services run: their servers, their namespace, and the issuer of their tokens."""

    folder: Path
    mongo_url: str
    redis_url: str
    namespace: str = field(default_factory=scratch_namespace)
    jwks_port: int = field(default_factory=free_port)

    def server(self, **environment: str) -> Server:
        port = free_port()
        return Server(
            name="tiny",
            command=(sys.executable, "-m", "libs.core.server", "tests.core.tiny:app"),
            port=port,
            url=f"http://127.0.0.1:{port}",
            log=self.folder / "tiny.log",
            is_ready=lambda: httpx.get(f"http://127.0.0.1:{port}/health/live").is_success if _open(port) else False,
            env={
                "MODE": "production",
                "CURSOR_SECRET": "s" * 40,
                "MONGO_URL": self.mongo_url,
                "REDIS_URL": self.redis_url,
                "NAMESPACE": self.namespace,
                "PORT": str(port),
                "JWKS_URL": f"http://127.0.0.1:{self.jwks_port}/.well-known/jwks.json",
                "TOKEN_ISSUER": issuer.ISSUER,
                "LOG_LEVEL": "DEBUG",
                "SHUTDOWN_GRACE_S": "10",
                **environment,
            },
        )


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def token(tenant: str = "acme") -> str:
    return issuer.mint("alice", ["player"], tenant, key=KEY)


async def _with_tenants(place: Place) -> None:
    mongo = Mongo.connect(place.mongo_url, service="tiny", namespace=place.namespace)
    redis = Redis.connect(place.redis_url, namespace=place.namespace)
    await migrate(mongo.core, CORE_INDEXES)
    tenants = Tenants(mongo, redis, Outbox(mongo.core))
    await tenants.create(Tenant(id="acme", name="Acme", hosts=("play.example",)), actor="root")
    await tenants.create(Tenant(id="other", name="Other"), actor="root")
    await redis.close()
    await mongo.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, mongo_url: str, redis_url: str) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("tiny"), mongo_url, redis_url)
    issuer.serve(place.jwks_port, KEY)
    asyncio.run(_with_tenants(place))
    yield place
    asyncio.run(_clean(place))


async def _clean(place: Place) -> None:
    async with (
        scratch_mongo(place.mongo_url, namespace=place.namespace),
        scratch_redis(place.redis_url, namespace=place.namespace),
    ):
        pass


@pytest.fixture(scope="module")
def running(place: Place) -> Iterator[Server]:
    """One process for all tests that only ask."""
    server = place.server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def tiny(running: Server) -> AsyncIterator[Tiny]:
    async with web(base_url=running.url, timeout=20) as client:
        yield Tiny(running, client)


@pytest.fixture
async def own(place: Place, tmp_path: Path) -> AsyncIterator[Tiny]:
    """A process that one test may stop, which accepts connections for a second longer."""
    server = place.server(SHUTDOWN_DELAY_S="1")
    server.log = tmp_path / "tiny.log"
    await asyncio.to_thread(server.start)
    async with web(base_url=server.url, timeout=20) as client:
        yield Tiny(server, client)
    await asyncio.to_thread(server.stop)


class TestTenant:
    async def test_by_header(self, tiny: Tiny) -> None:
        assert (await tiny.ask("{who}", x_tenant="acme")).json() == {"data": {"who": "acme/"}}

    async def test_by_host(self, tiny: Tiny) -> None:
        assert (await tiny.ask("{who}", host="play.example:443")).json() == {"data": {"who": "acme/"}}

    async def test_by_token(self, tiny: Tiny) -> None:
        answer = await tiny.ask("{who}", authorization=f"Bearer {token()}")
        assert answer.json() == {"data": {"who": "acme/alice"}}

    @pytest.mark.parametrize("named", ["nobody", "$ne", "", "x" * 5000])
    async def test_unknown(self, tiny: Tiny, named: str) -> None:
        answer = await tiny.ask("{who}", x_tenant=named)
        assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (404, "NOT_FOUND")

    @pytest.mark.parametrize(
        ("of_token", "headers"),
        [
            pytest.param("acme", {"x-tenant": "other"}, id="a header that contradicts the token"),
            pytest.param("other", {"host": "play.example"}, id="an address that contradicts the token"),
            pytest.param("nobody", {}, id="a token of a tenant that does not exist"),
        ],
    )
    async def test_token_that_does_not_fit(self, tiny: Tiny, of_token: str, headers: dict[str, str]) -> None:
        answer = await tiny.ask("{who}", authorization=f"Bearer {token(of_token)}", **headers)
        assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (403, "FORBIDDEN")

    async def test_bad_token_is_not_taken_for_none(self, tiny: Tiny) -> None:
        assert (await tiny.ask("{who}", authorization="Bearer nonsense", x_tenant="acme")).status_code == 401


class TestRoutes:
    async def test_context_and_what_open_yielded(self, tiny: Tiny) -> None:
        answer = await tiny.client.get("/who", headers={"x-tenant": "acme"})
        assert answer.json() == {"tenant": "acme", "service": "what open yielded"}

    async def test_error_of_ours_is_shown(self, tiny: Tiny) -> None:
        answer = await tiny.client.get("/things/7")
        assert answer.status_code == 404
        assert answer.json() == {"code": "NOT_FOUND", "message": "there is no such thing", "details": {"id": 7}}

    async def test_malformed_input(self, tiny: Tiny) -> None:
        answer = await tiny.client.get("/things/seven")
        assert (answer.status_code, answer.json()["code"]) == (400, "BAD_USER_INPUT")

    async def test_surprise_is_masked_and_logged(self, tiny: Tiny) -> None:
        answer = await tiny.client.get("/things/0")
        assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL")
        assert "secret" not in answer.text
        correlation = answer.json()["correlationId"]
        (line,) = await eventually(lambda: tiny.logged(level="error", correlation_id=correlation))
        assert "a surprise with a secret in it" in line["exception"]


class TestSdl:
    """Of a service in production, which answers no introspection."""

    async def test_is_the_subgraph(self, tiny: Tiny) -> None:
        answer = await tiny.client.get("/graphql/sdl")
        assert answer.headers["content-type"].startswith("text/plain")
        assert "who: String!" in answer.text
        assert "errors" in (await tiny.ask("{ _service { sdl } }", x_tenant="acme")).json()

    @pytest.mark.parametrize("known", ["{}", "W/{}", '"another", {}', "*"])
    async def test_is_not_sent_again(self, tiny: Tiny, known: str) -> None:
        etag = (await tiny.client.get("/graphql/sdl")).headers["etag"]
        answer = await tiny.client.get("/graphql/sdl", headers={"if-none-match": known.format(etag)})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)

    async def test_is_sent_to_who_knows_another(self, tiny: Tiny) -> None:
        answer = await tiny.client.get("/graphql/sdl", headers={"if-none-match": '"another"'})
        assert answer.status_code == 200


class TestCorrelation:
    async def test_given_one_is_kept(self, tiny: Tiny) -> None:
        answer = await tiny.ask("{who}", x_tenant="acme", x_correlation_id="order-4711")
        assert answer.headers.get_list("x-correlation-id") == ["order-4711"]
        (line,) = await eventually(lambda: tiny.logged(event="request", correlation_id="order-4711"))
        assert (line["path"], line["status"], line["tenant"]) == ("/graphql", 200, "acme")

    @pytest.mark.parametrize("given", ["", "two words", "a" * 65, '"}{', "../../etc"])
    async def test_malformed_one_is_replaced(self, tiny: Tiny, given: str) -> None:
        answer = await tiny.client.get("/health/live", headers={"x-correlation-id": given})
        assert len(answer.headers["x-correlation-id"]) == 36


class TestLog:
    async def test_never_holds_the_token(self, tiny: Tiny) -> None:
        secret = token()
        await tiny.ask("{who}", authorization=f"Bearer {secret}", x_correlation_id="with-a-token")
        await tiny.ask("{who}", authorization=f"Bearer {secret}x")
        await tiny.client.get(f"/nowhere/{secret}")
        await eventually(lambda: tiny.logged(event="request", path="/nowhere/[token]"))
        (line,) = tiny.logged(event="request", correlation_id="with-a-token")
        assert line["subject"] == "alice"
        assert not any(part in tiny.server.log.read_text() for part in secret.split("."))


class TestMetrics:
    async def test_parse_and_count_by_pattern(self, tiny: Tiny) -> None:
        await tiny.client.get("/things/1")
        await tiny.client.get("/things/2")
        await tiny.client.get("/made-up-by-a-client")
        families = text_string_to_metric_families((await tiny.client.get("/metrics")).text)
        routes = {s.labels["route"] for family in families for s in family.samples if s.name == "http_requests_total"}
        assert {"/things/{thing_id}", "unmatched"} <= routes
        assert not any("made-up" in route or "things/1" in route for route in routes)


class TestHeaders:
    async def test_for_browsers(self, tiny: Tiny) -> None:
        headers = (await tiny.ask("{who}", x_tenant="acme")).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "server" not in headers

    async def test_documentation_is_for_development(self, tiny: Tiny) -> None:
        answers = [await tiny.client.get(path) for path in ("/docs", "/redoc", "/openapi.json")]
        assert [answer.status_code for answer in answers] == [404, 404, 404]


class TestSlowClients:
    async def test_endless_header(self, tiny: Tiny) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", tiny.server.port)
        writer.write(b"GET / HTTP/1.1\r\nx-endless: ")
        answer = asyncio.create_task(reader.read(200))
        while not answer.done():
            writer.write(b"a" * 65_536)
            await asyncio.wait([answer], timeout=0.01)
        assert (await answer).startswith(b"HTTP/1.1 400")
        writer.close()

    async def test_half_a_request(self, tiny: Tiny) -> None:
        """Is given up after 10 s, and meanwhile disturbs nobody."""
        reader, writer = await asyncio.open_connection("127.0.0.1", tiny.server.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n")
        started = time.monotonic()
        assert (await tiny.client.get("/health/live")).is_success
        assert await asyncio.wait_for(reader.read(), 15) == b""
        assert time.monotonic() - started > 8
        writer.close()


class TestStop:
    async def test_not_ready_first_then_finished_then_gone(self, own: Tiny) -> None:
        slow = asyncio.create_task(own.ask("{slow(seconds: 2)}", x_tenant="acme"))
        await eventually(lambda: own.ready())
        own.server.ask_to_stop()
        await eventually(lambda: _stopping(own))
        assert (await slow).json() == {"data": {"slow": "done"}}
        assert await eventually(lambda: own.server.end, within_s=12) == "exit 0"
        assert own.logged(event="stopped")

    async def test_socket_is_closed_at_once(self, own: Tiny) -> None:
        url = f"{own.server.url.replace('http', 'ws')}/graphql"
        protocol = [Subprotocol("graphql-transport-ws")]
        async with connect(url, subprotocols=protocol, additional_headers={"x-tenant": "acme"}) as socket:
            await socket.send('{"type": "connection_init"}')
            assert json.loads(await socket.recv()) == {"type": "connection_ack"}
            own.server.ask_to_stop()
            await asyncio.wait_for(socket.wait_closed(), 0.9)  # sooner than connections are refused
        assert await eventually(lambda: own.server.end, within_s=12) == "exit 0"

    async def test_request_that_takes_too_long_is_cut_off(self, own: Tiny) -> None:
        slow = asyncio.create_task(own.ask("{slow(seconds: 14)}", x_tenant="acme"))
        await eventually(lambda: own.ready())
        own.server.ask_to_stop()
        assert await eventually(lambda: own.server.end, within_s=12) == "exit 0"
        assert (await slow).status_code == 500

    def test_in_time_without_mongodb_and_redis(
        self, place: Place, tmp_path: Path, own_mongo: Server, own_redis: Server
    ) -> None:
        server = place.server(MONGO_URL=own_mongo.url, REDIS_URL=own_redis.url, SHUTDOWN_GRACE_S="2")
        server.log = tmp_path / "tiny.log"
        server.start()
        own_mongo.kill()
        own_redis.kill()
        asked_at = time.monotonic()
        server.stop()
        assert time.monotonic() - asked_at < 5  # each part that is closed waits 5 s for MongoDB by itself


async def _stopping(tiny: Tiny) -> bool:
    status, body = await tiny.ready()
    return (status, body["status"]) == (503, "stopping")


class TestStart:
    def test_server_that_is_not_there_is_named_in_one_sentence(self, place: Place, tmp_path: Path) -> None:
        server = place.server(REDIS_URL="redis://127.0.0.1:1/0", START_WITHIN_S="1")
        server.log = tmp_path / "tiny.log"
        with pytest.raises(Failure, match="exit 1"):
            server.start()
        last = json.loads(server.log.read_text().splitlines()[-1])
        assert last["event"] == "could not start"
        assert last["reason"].startswith("Redis does not answer at REDIS_URL")
        assert "Traceback" not in server.log.read_text()

    def test_wrong_environment_is_named_in_one_sentence(self, place: Place, tmp_path: Path) -> None:
        server = place.server(CURSOR_SECRET="short")
        server.log = tmp_path / "tiny.log"
        with pytest.raises(Failure, match="exit 1"):
            server.start()
        (line,) = server.log.read_text().splitlines()
        assert "CURSOR_SECRET" in line


class TestReady:
    async def test_without_redis_until_it_is_back(self, place: Place, tmp_path: Path, own_redis: Server) -> None:
        server = place.server(REDIS_URL=own_redis.url)
        server.log = tmp_path / "tiny.log"
        await asyncio.to_thread(server.start)
        try:
            async with web(base_url=server.url, timeout=20) as client:
                tiny = Tiny(server, client)
                assert (await tiny.ready())[0] == 200
                own_redis.kill()
                _, body = await eventually(lambda: _with_status(tiny, 503), within_s=15)
                assert body["checks"]["redis"] == {"status": "failed"}
                assert body["checks"]["mongo"] == {"status": "ok"}
                assert (await client.get("/health/live")).is_success
                await asyncio.to_thread(own_redis.start)
                await eventually(lambda: _with_status(tiny, 200), within_s=15)
        finally:
            await asyncio.to_thread(server.stop)


async def _with_status(tiny: Tiny, wanted: int) -> tuple[int, Any] | None:
    status, body = await tiny.ready()
    return (status, body) if status == wanted else None
