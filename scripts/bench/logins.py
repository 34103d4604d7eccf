"""Logins into one auth process against bare argon2, and what everybody else feels. `python -m scripts.bench.logins`

    BENCH_SECONDS=3 BENCH_ROUNDS=1 …     # a quick look

The process is one of `make up`: throttle, sessions, audit log, outbox, relay. 100 clients log in again and again, each
time as somebody else, while another one asks for `me` every few milliseconds. Clients, MongoDB and Redis share the
machine with it, which bare argon2 has for itself. So the target is for as many threads that hash as leave a core to all
those; with one for each core is measured beside it. The two, and bare argon2 with as many, take turns.
"""

import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import structlog
import uvloop

from libs.core.clock import SystemClock
from libs.core.config import Config
from libs.core.events import Outbox
from libs.core.mongo import Mongo, Session
from libs.core.redis import Redis
from libs.core.tenants import Currency, Tenant, Tenants
from libs.core.testing import scratch_mongo, scratch_namespace, scratch_redis
from scripts import stack
from scripts.bench.contenders.load import Load, Rounds, Targets, load_of, loaded
from scripts.login import LOGIN
from scripts.process import free_port
from services.auth.domain.users import User
from services.auth.passwords import Hasher
from services.auth.settings import AuthConfig
from services.auth.store import users

SECONDS, ROUNDS = float(os.environ.get("BENCH_SECONDS", "6")), int(os.environ.get("BENCH_ROUNDS", "3"))
OF_BARE_ARGON2, OTHERS_P99_MS, OF_TRIVIAL = 0.90, 50.0, 0.70
CORES = len(os.sched_getaffinity(0))
FEWER = max(1, CORES - 1)
USERS, LOGGING_IN, CONNECTIONS = 1_000, 100, 64
ASKED_EVERY_S = 0.005
TENANT, PASSWORD = "bench", "four words by dice"
ME, TRIVIAL = "{ me { id } }", "{ __typename }"
AUTOCANNON = stack.ROOT / "tests" / "node_modules" / ".bin" / "autocannon"


class Connection:
    """HTTP/1.1 kept alive, with nothing that costs: a client library takes a millisecond of the machine per request."""

    def __init__(self, url: str, token: str = "") -> None:
        self._host, self._port = urlsplit(url).hostname or "", urlsplit(url).port or 80
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        self._head = (
            f"POST /graphql HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nContent-Type: application/json\r\n"
            f"{authorization}X-Tenant: {TENANT}\r\nContent-Length: "
        )

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, query: str, **variables: str) -> Any:
        body = json.dumps({"query": query, "variables": variables})
        self._writer.write(f"{self._head}{len(body)}\r\n\r\n{body}".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        answer = json.loads(await self._reader.readexactly(int(length.partition(b":")[2])))
        assert "errors" not in answer, answer
        return answer["data"]


@dataclass(frozen=True, slots=True)
class Auth:
    url: str
    names: Iterator[str]

    async def log_in(self, connection: Connection) -> str:
        outcome = (await connection.ask(LOGIN, identifier=next(self.names), password=PASSWORD))["login"]
        return str(outcome["accessToken"])


async def main() -> bool:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    rounds, targets, namespace = Rounds(), Targets(), scratch_namespace()
    mongo_url, redis_url = os.environ["MONGO_URL"], os.environ["REDIS_URL"]
    with tempfile.TemporaryDirectory(prefix="payments-logins-") as scratch:
        async with (
            scratch_mongo(mongo_url, service="auth", namespace=namespace) as mongo,
            scratch_redis(redis_url, namespace=namespace) as redis,
            _prepared(mongo, redis) as names,
        ):
            for workers in dict.fromkeys((FEWER, CORES)):
                async with _running(mongo_url, redis_url, namespace, Path(scratch), workers, names) as auth:
                    async with Connection(auth.url) as connection:
                        token = await auth.log_in(connection)
                    for _ in range(ROUNDS):
                        rounds.add(f"bare argon2, {workers}", await bare(workers))
                        logins, others = await logging_in(auth, token)
                        rounds.add(f"logins, {workers}", logins)
                        rounds.add(f"me meanwhile, {workers}", others)
                    me, trivial = await in_turns(auth, token)
            rounds.show(f"by threads that hash, of {CORES} cores; {LOGGING_IN} clients")
            print(f"\n{CONNECTIONS} connections, requests a second: me {me:,.0f}, trivial {trivial:,.0f}")
    share = rounds.median(f"logins, {FEWER}").per_second / rounds.median(f"bare argon2, {FEWER}").per_second
    others_ms = rounds.median(f"me meanwhile, {CORES}").p99_ms
    targets.at_least(f"logins, of bare argon2 on {FEWER} threads", share, OF_BARE_ARGON2)
    targets.at_most("p99 of other requests while logins queue, ms", others_ms, OTHERS_P99_MS)
    targets.at_least("me, of the trivial query", me / trivial, OF_TRIVIAL)
    return not targets.missed


async def bare(workers: int) -> Load:
    async with Hasher(workers=workers) as hasher:
        encoded = await hasher.hash(PASSWORD)

        async def verify() -> None:
            assert (await hasher.verify(encoded, PASSWORD)).ok

        return await loaded(verify, LOGGING_IN, SECONDS)


async def logging_in(auth: Auth, token: str) -> tuple[Load, Load]:
    """Logins, and requests for `me` as long as they are queueing."""
    others_s: list[float] = []
    connections = [Connection(auth.url) for _ in range(LOGGING_IN)]

    async def ask_now_and_then() -> None:
        async with Connection(auth.url, token) as connection:
            while True:
                asked = time.perf_counter()
                await connection.ask(ME)
                others_s.append(time.perf_counter() - asked)
                await asyncio.sleep(ASKED_EVERY_S)

    async def client(connection: Connection, until: float, took_s: list[float]) -> None:
        async with connection:
            while (asked := time.perf_counter()) < until:
                await auth.log_in(connection)
                took_s.append(time.perf_counter() - asked)

    took_s: list[float] = []
    began = time.perf_counter()
    asking = asyncio.create_task(ask_now_and_then())
    await asyncio.gather(*(client(connection, began + SECONDS, took_s) for connection in connections))
    took = time.perf_counter() - began
    asking.cancel()
    return load_of(took_s, took), load_of(others_s, took)


async def in_turns(auth: Auth, token: str) -> tuple[float, float]:
    """Requests a second of `me` and of the trivial query, by autocannon."""
    rates: dict[str, list[float]] = {ME: [], TRIVIAL: []}
    for _ in range(ROUNDS + 1):
        for query, measured in rates.items():
            measured.append(await _autocannon(auth.url, token, query))
    me, trivial = (statistics.median(measured[1:]) for measured in rates.values())  # the first warms up
    return me, trivial


async def _autocannon(url: str, token: str, query: str) -> float:
    headers = ("content-type=application/json", f"authorization=Bearer {token}", f"x-tenant={TENANT}")
    process = await asyncio.create_subprocess_exec(
        str(AUTOCANNON), "-j", "-m", "POST", "-c", str(CONNECTIONS), "-d", str(max(1, int(SECONDS / 2))),
        *(part for header in headers for part in ("-H", header)), "-b", json.dumps({"query": query}), f"{url}/graphql",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    report = json.loads((await process.communicate())[0])
    assert not report["non2xx"], report
    return float(report["requests"]["average"])


@asynccontextmanager
async def _prepared(mongo: Mongo, redis: Redis) -> AsyncIterator[Sequence[str]]:
    """The names of users, and limits for an address that 100 people share."""
    tenant = Tenant(TENANT, "Bench", currencies={"EUR": Currency("EUR", 2)})
    await Tenants(mongo, redis, Outbox(mongo.core)).create(tenant, actor="bench")
    limits: Mapping[str, Any] = {"address_free_tries": 10_000, "address_accounts": 1000}
    async with Config(mongo, redis, [AuthConfig]) as config:
        await config.set(AuthConfig, limits, actor="bench", reason="one address", expected_version=0)
    names = [f"user-{number}" for number in range(USERS)]
    await _create_users(mongo, names)
    yield names


@asynccontextmanager
async def _running(
    mongo_url: str, redis_url: str, namespace: str, scratch: Path, workers: int, names: Sequence[str]
) -> AsyncIterator[Auth]:
    port = free_port()
    environment = {
        "MODE": "development",
        "MONGO_URL": mongo_url,
        "REDIS_URL": redis_url,
        "NAMESPACE": namespace,
        "JWKS_URL": f"http://127.0.0.1:{port}/.well-known/jwks.json",
        "HASH_WORKERS": str(workers),
        "LOG_LEVEL": "WARNING",
        "REQUEST_TIMEOUT_S": "60",  # on a machine that is busy with something else, too
    }
    server = replace(stack.server("auth", environment, port=port), log=scratch / "auth.log")
    await asyncio.to_thread(server.start)
    try:
        yield Auth(server.url, itertools.cycle(names))
    finally:
        await asyncio.to_thread(server.stop)


async def _create_users(mongo: Mongo, names: Sequence[str]) -> None:
    now = SystemClock().now()
    async with Hasher() as hasher:
        encoded = await hasher.hash(PASSWORD)
    rows = [User(TENANT, name, now, roles=("player",), username=name, password=encoded) for name in names]
    await mongo.transaction(partial(_insert, mongo, rows))


async def _insert(mongo: Mongo, rows: Sequence[User], session: Session) -> None:
    for row in rows:
        await users.insert(mongo.db, session, row)


if __name__ == "__main__":
    sys.exit(0 if uvloop.run(main()) else 1)
