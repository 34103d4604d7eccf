"""How long a session that was revoked is good for something yet. `python -m scripts.bench.revocation`

    BENCH_SESSIONS=20 …     # a quick look

One auth and two payment processes. Each session has a WebSocket and an event stream open at both of payment. Another
session of the same user revokes it; from when that is answered, every process is asked with the revoked token again and
again until it refuses, and the streams are watched until they are closed. So what is shown holds one request at least.

Told: as it is. Without Redis: it was killed, and everybody has to look. Redis hangs: it takes connections and answers
nothing, so that nobody is sure that nothing was said.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import structlog
import uvloop
import websockets

from libs.core.clock import SystemClock
from libs.core.config import Config
from libs.core.events import Outbox
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.tenants import Currency, Tenant, Tenants
from libs.core.testing import scratch_mongo, scratch_namespace
from scripts import embedded, stack
from scripts.bench.contenders.load import Targets
from scripts.login import LOGIN
from scripts.process import Server, free_port
from services.auth.domain.users import User
from services.auth.passwords import Hasher
from services.auth.settings import AuthConfig
from services.auth.store import users

SESSIONS = int(os.environ.get("BENCH_SESSIONS", "100"))
WITHIN_S, ASKED_EVERY_S = 2.0, 0.002
TENANT, USER, PASSWORD = "bench", "ann", "four words by dice"
SIGNED_IN = LOGIN.replace("accessToken", "accessToken sessionId")
REVOKE = "mutation ($id: ID!) { revokeSession(id: $id) }"
ME, WALLETS = "{ me { id } }", "{ wallets { edges { node { id } } } }"
BALANCES = "subscription { balanceChanged { id } }"


@dataclass(frozen=True, slots=True)
class House:
    client: httpx.AsyncClient
    auth: Server
    payments: Sequence[Server]
    redis: Server

    async def ask(self, server: Server, token: str, query: str, **variables: str) -> Any:
        headers = {"x-tenant": TENANT} | ({"authorization": f"Bearer {token}"} if token else {})
        body = {"query": query, "variables": variables}
        return (await self.client.post(f"{server.url}/graphql", json=body, headers=headers)).json()

    async def sign_in(self) -> tuple[str, str]:
        """A token, and the session's id."""
        answer = await self.ask(self.auth, "", SIGNED_IN, identifier=USER, password=PASSWORD)
        opened = answer["data"]["login"]
        return opened["accessToken"], opened["sessionId"]

    async def refused(self, server: Server, token: str, query: str) -> None:
        while "errors" not in await self.ask(server, token, query):  # noqa: ASYNC110  it is another process
            await asyncio.sleep(ASKED_EVERY_S)

    @asynccontextmanager
    async def streams(self, token: str) -> AsyncIterator[list[Awaitable[Any]]]:
        """What ends when each of the streams does. All are open by now."""
        ends: list[Awaitable[Any]] = []
        async with AsyncExitStack() as stack:
            for payment in self.payments:
                ends.append(await stack.enter_async_context(self._socket(payment, token)))
                ends.append(await stack.enter_async_context(self._events(payment, token)))
            yield ends

    @asynccontextmanager
    async def _socket(self, payment: Server, token: str) -> AsyncIterator[Awaitable[Any]]:
        url, protocol = payment.url.replace("http", "ws"), websockets.Subprotocol("graphql-transport-ws")
        async with websockets.connect(f"{url}/graphql", subprotocols=[protocol]) as socket:
            payload = {"authorization": f"Bearer {token}"}
            await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
            assert json.loads(await socket.recv())["type"] == "connection_ack"
            await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": BALANCES}}))
            yield socket.wait_closed()

    @asynccontextmanager
    async def _events(self, payment: Server, token: str) -> AsyncIterator[Awaitable[Any]]:
        headers = {"authorization": f"Bearer {token}", "accept": "text/event-stream"}
        url = f"{payment.url}/graphql"
        async with self.client.stream("POST", url, json={"query": BALANCES}, headers=headers) as events:
            assert events.status_code == 200
            yield events.aread()


@dataclass(slots=True)
class Measured:
    """Seconds from the answer until all processes refused, and until all streams were closed; and to the answer."""

    refused_s: list[float]
    closed_s: list[float]
    answered_s: list[float]

    def __str__(self) -> str:
        return "   ".join(
            f"{name} p50 {_share(took, 0.5):7.1f} ms  p99 {_share(took, 0.99):7.1f} ms"
            for name, took in (("refused", self.refused_s), ("closed", self.closed_s), ("answered", self.answered_s))
        )

    @property
    def worst_s(self) -> float:
        return max(*self.refused_s, *self.closed_s)


async def main() -> bool:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    targets, namespace = Targets(), scratch_namespace()
    with tempfile.TemporaryDirectory(prefix="payments-revocation-") as scratch:
        redis = embedded.redis(Path(scratch, "redis"))
        try:
            async with (
                scratch_mongo(os.environ["MONGO_URL"], service="auth", namespace=namespace) as mongo,
                _running(mongo, redis, namespace, Path(scratch)) as house,
            ):
                for name, measured in [pair async for pair in _all(house)]:
                    print(f"  {name:14} {len(measured.refused_s):4}   {measured}", flush=True)
                    targets.at_most(f"{name}, the last of all, s", measured.worst_s, WITHIN_S)
        finally:
            with suppress(ProcessLookupError):
                os.kill(redis.pid, signal.SIGCONT)
            redis.kill()
    return not targets.missed


async def _all(house: House) -> AsyncIterator[tuple[str, Measured]]:
    """Without Redis nobody can sign in, for nobody could count the tries at a password: so those are there before."""
    keeper, _ = await house.sign_in()
    some = max(1, min(SESSIONS // 4, 40))  # a user has a hundred sessions, and the oldest would go
    told = Measured([], [], [])
    for _ in range(SESSIONS):
        await _revoke(house, keeper, await house.sign_in(), told)
    yield "told", told
    before = [await house.sign_in() for _ in range(2 * some)]
    os.kill(house.redis.pid, signal.SIGSTOP)
    yield "redis hangs", await _revoked(house, keeper, before[:some])
    os.kill(house.redis.pid, signal.SIGCONT)
    house.redis.kill()
    yield "without redis", await _revoked(house, keeper, before[some:])


async def _revoked(house: House, keeper: str, signed_in: Sequence[tuple[str, str]]) -> Measured:
    """One after the other."""
    measured = Measured([], [], [])
    for one in signed_in:
        await _revoke(house, keeper, one, measured)
    return measured


async def _revoke(house: House, keeper: str, signed_in: tuple[str, str], measured: Measured) -> None:
    token, session_id = signed_in
    async with house.streams(token) as ends:
        for server, query in _doors(house):
            assert "errors" not in await house.ask(server, token, query)
        asked = time.perf_counter()
        closed = [asyncio.ensure_future(_after(end)) for end in ends]
        answer = await house.ask(house.auth, keeper, REVOKE, id=session_id)
        assert answer.get("data", {}).get("revokeSession"), answer
        answered = time.perf_counter()
        refused = [_after(house.refused(server, token, query)) for server, query in _doors(house)]
        measured.refused_s.append(max(await asyncio.gather(*refused)) - answered)
        measured.closed_s.append(max(0.0, max(await asyncio.gather(*closed)) - answered))
        measured.answered_s.append(answered - asked)


def _doors(house: House) -> list[tuple[Server, str]]:
    return [(house.auth, ME), *((payment, WALLETS) for payment in house.payments)]


async def _after(what: Awaitable[Any]) -> float:
    """When it was over."""
    await what
    return time.perf_counter()


def _share(took_s: list[float], share: float) -> float:
    ordered = sorted(took_s)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


@asynccontextmanager
async def _running(mongo: Mongo, redis: Server, namespace: str, scratch: Path) -> AsyncIterator[House]:
    await _prepare(mongo, redis, namespace)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "MODE": "development",
        "MONGO_URL": os.environ["MONGO_URL"],
        "REDIS_URL": redis.url,
        "NAMESPACE": namespace,
        "JWKS_URL": f"{url}/.well-known/jwks.json",
        "TOKEN_ISSUER": url,
        "DEFAULT_TENANT": TENANT,
        "LOG_LEVEL": "ERROR",
    }
    auth = _server("auth", environment, scratch, port)
    payments = [_server("payment", environment, scratch, free_port()) for _ in range(2)]
    started: list[Server] = []
    try:
        for server in (auth, *payments):
            started.append(server)
            await asyncio.to_thread(server.start)
        async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=100)) as client:
            yield House(client, auth, payments, redis)
    finally:
        for server in started:
            await asyncio.to_thread(server.kill)


def _server(name: str, environment: Mapping[str, str], scratch: Path, port: int) -> Server:
    return replace(stack.server(name, environment, port=port), log=scratch / f"{name}-{port}.log")


async def _prepare(mongo: Mongo, server: Server, namespace: str) -> None:
    """A tenant, somebody in it, and tokens that outlive the benchmark."""
    redis = Redis.connect(server.url, namespace=namespace)
    tenant = Tenant(TENANT, "Bench", currencies={"EUR": Currency("EUR", 2)})
    await Tenants(mongo, redis, Outbox(mongo.core)).create(tenant, actor="bench")
    async with Config(mongo, redis, [AuthConfig]) as config:
        await config.set(AuthConfig, {"access_token_s": 600}, actor="bench", reason="bench", expected_version=0)
    async with Hasher() as hasher:
        encoded = await hasher.hash(PASSWORD)
    user = User(TENANT, f"{USER}-id", SystemClock().now(), roles=("player",), username=USER, password=encoded)
    insert: Callable[[Any], Awaitable[None]] = partial(_insert, mongo, user)
    await mongo.transaction(insert)
    await redis.close()


async def _insert(mongo: Mongo, user: User, session: Any) -> None:
    await users.insert(mongo.db, session, user)


if __name__ == "__main__":
    sys.exit(0 if uvloop.run(main()) else 1)
