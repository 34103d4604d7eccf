"""What the soak runs: a MongoDB, a Redis, several payment processes, a service that listens to them, and clients."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.core.config import Config
from libs.core.events import Outbox
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.tenants import Currency, Tenant, Tenants
from scripts import embedded, issuer, stack
from scripts.process import Failure, Server, free_port, spawn
from services.payment.keys import JournalKeys
from services.payment.settings import PaymentConfig
from services.payment.verify import verify_all
from tests.soak.client import Task
from tests.soak.operations import CURRENCY, OTHER_CURRENCY, RATE_PER_MILLE, TENANT, WITHDRAWAL_FEE

A_DAY_S = 86_400
JOURNAL_KEY = "the key of this soak"
KEYS = JournalKeys(JOURNAL_KEY)
CONFIG = {
    "rates": {f"{CURRENCY}/{OTHER_CURRENCY}": {"rate": str(RATE_PER_MILLE / 1000)}},
    "fees": [{"kind": "withdrawal", "currency": CURRENCY, "flat_minor": WITHDRAWAL_FEE, "payer": "added"}],
}
UP_WITHIN_S = 90.0


@dataclass
class Stack:
    folder: Path
    mongo: Server
    redis: Server
    payments: Sequence[Server]
    counter: Server
    token: str
    clients: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _tasks: dict[int, Task] = field(default_factory=dict)  # by the client's process id

    @property
    def servers(self) -> Sequence[Server]:
        """In the order in which they need each other."""
        return (self.mongo, self.redis, *self.payments, self.counter)

    def up(self, *, ready: bool = True) -> list[str]:
        """Everything runs again, as a supervisor sees to, and with `ready`, is ready. What did not start at once, and

        why, is returned.
        """
        failures: list[str] = []
        for server in self.servers:
            if server.running:
                os.kill(server.pid, signal.SIGCONT)
        deadline = time.monotonic() + UP_WITHIN_S
        while True:
            try:
                for server in (self.mongo, self.redis):
                    if not server.running:
                        server.start()
                for server in (*self.payments, self.counter):
                    if not server.running:
                        server.begin()
                for server in self.servers if ready else ():
                    server.wait_until_ready()
            except Failure as failure:
                failures.append(str(failure))
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return failures

    def start_client(self, task: Task) -> None:
        path = self.folder / f"{task.name}.json"
        path.write_bytes(orjson.dumps(asdict(task)))
        command = (sys.executable, "-m", "tests.soak.client", str(path))
        client = spawn(command, log=self.folder / f"{task.name}.log")
        self.clients.append(client)
        self._tasks[client.pid] = task

    def replace_client(self, client: subprocess.Popen[bytes]) -> None:
        """Kills it, whatever it waits for, and starts another."""
        client.kill()
        client.wait()
        self.clients.remove(client)
        task = self._tasks.pop(client.pid)
        self.start_client(named(task, f"{task.name}x", self.folder))

    async def diverged(self) -> str:
        """What `verify` finds wrong with the ledger, if anything."""
        mongo = Mongo.connect(self.mongo.url, service="payment")
        verified = await verify_all(mongo, KEYS.all)
        await mongo.close()
        return str(verified.divergence or "")

    def stop(self) -> None:
        for server in (self.counter, *self.payments):
            server.ask_to_stop()
        for server in (self.counter, *self.payments):
            server.stop()


@contextmanager
def running(folder: Path, clocks_ahead_s: Sequence[float], **environment: str) -> Iterator[Stack]:
    """All of it, ready, with the tenant `demo`, and a payment process for each clock. It ends with the `with`, or

    with this process.
    """
    key, jwks_port = Ed25519PrivateKey.generate(), free_port()
    issuer.serve(jwks_port, key)
    with ExitStack() as ending:
        mongo = embedded.mongo(folder / "mongo")
        ending.callback(mongo.kill)
        redis = embedded.redis(folder / "redis")
        ending.callback(redis.kill)
        shared = {
            "MODE": "development",
            "MONGO_URL": mongo.url,
            "REDIS_URL": redis.url,
            "NAMESPACE": "",
            "JWKS_URL": f"http://127.0.0.1:{jwks_port}/.well-known/jwks.json",
            "TOKEN_ISSUER": issuer.ISSUER,
            "TOKEN_AUDIENCE": issuer.AUDIENCE,
            "DEFAULT_TENANT": TENANT,
            "JOURNAL_KEY": JOURNAL_KEY,
            **environment,
        }
        payments = [_payment(folder, n, shared) for n in range(len(clocks_ahead_s))]
        for server, ahead_s in zip(payments, clocks_ahead_s, strict=True):
            set_clock(server, ahead_s)
        made = Stack(folder, mongo, redis, payments, _counter(folder, shared), _token(key))
        for server in (*payments, made.counter):
            ending.callback(server.kill)
        made.up()
        asyncio.run(_create_tenant(shared))
        yield made


def _payment(folder: Path, number: int, environment: dict[str, str]) -> Server:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    return Server(
        name=f"payment-{number}",
        command=(sys.executable, "-m", "tests.soak.skewed", "services.payment.app:app"),
        port=port,
        url=url,
        log=folder / f"payment-{number}.log",
        is_ready=partial(_is_ready, url),
        env={**environment, "PORT": str(port)},
    )


def _is_ready(url: str) -> bool:
    return stack.readiness(url)[0] == HTTPStatus.OK


def _counter(folder: Path, environment: dict[str, str]) -> Server:
    """It listens to events and to no port, so that it is ready once it runs."""
    return Server(
        name="counter",
        command=(sys.executable, "-m", "tests.soak.counter"),
        port=free_port(),
        url="",
        log=folder / "counter.log",
        is_ready=lambda: True,
        env=environment,
    )


def _token(key: Ed25519PrivateKey) -> str:
    """Valid from yesterday until tomorrow, so that it is also by a clock that is hours off."""
    now = int(time.time())
    claims = {
        "iss": issuer.ISSUER,
        "aud": issuer.AUDIENCE,
        "sub": "olga",
        "tenant": TENANT,
        "roles": ["operator", "service"],
        "sid": "soak",
        "iat": now - A_DAY_S,
        "exp": now + A_DAY_S,
    }
    headers = {"typ": "at+jwt", "kid": issuer.public_jwk(key)["kid"]}
    return jwt.encode(claims, key, algorithm="EdDSA", headers=headers)


async def _create_tenant(environment: dict[str, str]) -> None:
    mongo = Mongo.connect(environment["MONGO_URL"], service="test")
    redis = Redis.connect(environment["REDIS_URL"])
    currencies = {code: Currency(code, 2) for code in (CURRENCY, OTHER_CURRENCY)}
    tenant = Tenant(id=TENANT, name=TENANT, currencies=currencies)
    await Tenants(mongo, redis, Outbox(mongo.core)).create(tenant, actor="test")
    async with Config(mongo, redis, [PaymentConfig]) as config:
        await config.set(PaymentConfig, CONFIG, actor="test", reason="soak", expected_version=0)
    await redis.close()
    await mongo.close()


def set_clock(server: Server, ahead_s: float) -> None:
    """From its next start on."""
    server.env = {**server.env, "CLOCK_AHEAD_S": str(ahead_s)}


def named(task: Task, name: str, folder: Path) -> Task:
    return replace(task, name=name, history=str(folder / f"{name}.jsonl"))
