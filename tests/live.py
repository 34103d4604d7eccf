"""A service as its users meet it: a process of its own, tokens of an issuer, and GraphQL over HTTP."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.core.errors import Refusal
from libs.core.events import Outbox
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.tenants import Currency, Tenant, Tenants
from libs.core.testing import scratch_mongo, scratch_namespace, scratch_redis
from scripts import issuer, stack
from scripts.process import Server, free_port
from tests.web import web

TENANTS = ("demo", "other")
CURRENCIES = {code: Currency(code, 2) for code in ("EUR", "USD")}


@dataclass
class Api:
    """One caller's view of a service."""

    url: str
    token: str
    client: httpx.AsyncClient

    async def post(self, query: str, **variables: Any) -> httpx.Response:
        headers = {"accept": "application/graphql-response+json"}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        body = {"query": query, "variables": variables}
        return await self.client.post(f"{self.url}/graphql", json=body, headers=headers)

    async def ask(self, query: str, **variables: Any) -> Any:
        """The answer's `data`, which must come without errors; of one root field, that field's value."""
        answer = (await self.post(query, **variables)).json()
        assert "errors" not in answer, answer
        data = answer["data"]
        return next(iter(data.values())) if len(data) == 1 else data

    async def refused(self, query: str, **variables: Any) -> str:
        """The code of the first error of an answer that must have one."""
        code: str = (await self.post(query, **variables)).json()["errors"][0]["extensions"]["code"]
        return code


@dataclass
class Live:
    """A running service, and tokens for it."""

    server: Server
    environment: Mapping[str, str]
    key: Ed25519PrivateKey

    def token(self, user: str, *roles: str, tenant: str = "demo", ttl_s: int = 3600) -> str:
        return issuer.mint(user, list(roles or ("player",)), tenant, ttl_s=ttl_s, key=self.key)


@dataclass
class Surroundings:
    """What a service runs on: servers, and an issuer whose tokens it believes."""

    environment: Mapping[str, str]
    key: Ed25519PrivateKey

    @classmethod
    def new(cls, mongo_url: str, redis_url: str, namespace: str = "", **more: str) -> "Surroundings":
        key, jwks_port = Ed25519PrivateKey.generate(), free_port()
        issuer.serve(jwks_port, key)
        environment = {
            "MODE": "development",
            "MONGO_URL": mongo_url,
            "REDIS_URL": redis_url,
            "NAMESPACE": namespace,
            "JWKS_URL": f"http://127.0.0.1:{jwks_port}/.well-known/jwks.json",
            "TOKEN_ISSUER": issuer.ISSUER,
            "TOKEN_AUDIENCE": issuer.AUDIENCE,
            "DEFAULT_TENANT": "demo",
            "PORT": str(free_port()),
            **more,
        }
        return cls(environment, key)


@contextmanager
def shared_namespace(mongo_url: str, redis_url: str) -> Iterator[str]:
    """For processes that several tests share: everything in it is dropped once they have ended."""
    namespace = scratch_namespace()
    yield namespace

    async def drop() -> None:
        async with scratch_mongo(mongo_url, namespace=namespace), scratch_redis(redis_url, namespace=namespace):
            pass

    asyncio.run(drop())


@contextmanager
def payment_process(folder: Path, mongo_url: str, redis_url: str, namespace: str = "", **more: str) -> Iterator[Live]:
    """Payment on these servers, with the tenants of `TENANTS`."""
    on = Surroundings.new(mongo_url, redis_url, namespace, **more)
    with _process("payment", folder, on.environment) as server:
        yield Live(server, on.environment, on.key)


@contextmanager
def auth_process(
    folder: Path, mongo_url: str, redis_url: str, namespace: str = "", **more: str
) -> Iterator["LiveAuth"]:
    """Auth on these servers, with the tenants of `TENANTS`; it issues its own tokens."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "MODE": "development",
        "MONGO_URL": mongo_url,
        "REDIS_URL": redis_url,
        "NAMESPACE": namespace,
        "JWKS_URL": f"{url}/.well-known/jwks.json",
        "TOKEN_ISSUER": url,
        "PUBLIC_URL": url,
        "DEFAULT_TENANT": "demo",
        "PORT": str(port),
        **more,
    }
    with _process("auth", folder, environment) as server:
        yield LiveAuth(server, environment)


@dataclass
class LiveAuth:
    """Auth, running. `for_services` is what another service needs to believe its tokens."""

    server: Server
    environment: Mapping[str, str]

    @property
    def for_services(self) -> dict[str, str]:
        return {name: self.environment[name] for name in ("JWKS_URL", "TOKEN_ISSUER")}


@contextmanager
def gateway_process(
    folder: Path, live: Live | Surroundings, *, subgraphs: Mapping[str, str], **more: str
) -> Iterator[Live]:
    """The gateway in front of `subgraphs`, on the servers of `live`, whose tokens it believes."""
    named = ",".join(f"{name}={url}" for name, url in subgraphs.items())
    environment = {**live.environment, "PORT": str(free_port()), "SUBGRAPHS": named, **more}
    with _process("gateway", folder, environment) as server:
        yield Live(server, environment, live.key)


@contextmanager
def _process(name: str, folder: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    port = int(environment["PORT"])
    url = f"http://127.0.0.1:{port}"
    server = Server(
        name=name,
        command=(sys.executable, "-m", "libs.core.server", f"{stack.package(name)}.app:app"),
        port=port,
        url=url,
        log=folder / f"{name}.log",
        is_ready=lambda: stack.readiness(url)[0] == HTTPStatus.OK,
        env=environment,
    )
    server.start()
    try:
        asyncio.run(_create_tenants(environment))
        yield server
    finally:
        server.stop()


@asynccontextmanager
async def callers(live: Live) -> AsyncIterator[Callable[..., Api]]:
    """`as_("alice")`, `as_("olga", "operator", tenant="other")`, and `as_("")` for nobody."""
    async with web(timeout=30, limits=httpx.Limits(max_connections=200)) as client:

        def as_(user: str, *roles: str, tenant: str = "demo") -> Api:
            return Api(live.server.url, live.token(user, *roles, tenant=tenant) if user else "", client)

        yield as_


async def _create_tenants(environment: Mapping[str, str]) -> None:
    mongo = Mongo.connect(environment["MONGO_URL"], service="test", namespace=environment["NAMESPACE"])
    redis = Redis.connect(environment["REDIS_URL"], namespace=environment["NAMESPACE"])
    tenants = Tenants(mongo, redis, Outbox(mongo.core))
    for tenant_id in TENANTS:
        with suppress(Refusal):  # two services on one database: they are there
            await tenants.create(Tenant(id=tenant_id, name=tenant_id, currencies=CURRENCIES), actor="test")
    await redis.close()
    await mongo.close()
