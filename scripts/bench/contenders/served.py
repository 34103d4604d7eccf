"""Ours over HTTP: a payment process as `make up` runs it, with relay and subscribers, and players with money."""

import asyncio
import json
import secrets
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scripts import issuer, stack
from scripts.bench.contenders.load import Load
from scripts.bench.contenders.tenant import create_tenant
from scripts.process import Server, free_port
from scripts.seed import CREATE_WALLET, DEPOSIT
from services.payment.keys import JournalKeys

TENANT, OPENING = "demo", 10**9
JOURNAL_KEY = secrets.token_hex(32)
# What the heads of the process' journal are verified with.
KEYS = JournalKeys(JOURNAL_KEY).all
AUTOCANNON = Path(__file__).with_name("transfers.mjs")


@dataclass(frozen=True, slots=True)
class Payment:
    """A running process and its environment, a token for its operator, and the ids of its players' wallets."""

    server: Server
    environment: Mapping[str, str]
    token: str
    wallets: Sequence[str]

    @property
    def resident_mb(self) -> float:
        """As the kernel counts it, which only Linux does in this place."""
        status = Path(f"/proc/{self.server.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    async def loaded(self, *, bulk: int, connections: int, seconds: float = 0, requests: int = 0) -> Load:
        """By autocannon, for that long or with that many requests; every one must be done."""
        wanted = {
            "url": f"{self.server.url}/graphql",
            "token": self.token,
            "wallets": list(self.wallets),
            "bulk": bulk,
            "connections": connections,
            "seconds": seconds,
            "amount": requests,
        }
        node = await asyncio.create_subprocess_exec(
            "node", str(AUTOCANNON), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        answer, _ = await node.communicate(json.dumps(wanted).encode())
        measured = json.loads(answer)
        assert measured["failed"] == 0 < measured["requests"], measured
        return Load(measured["perSecond"], measured["p50Ms"], measured["p99Ms"])


@asynccontextmanager
async def payment(
    mongo_url: str, redis_url: str, namespace: str, scratch: Path, *, players: int
) -> AsyncIterator[Payment]:
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
        "DEFAULT_TENANT": TENANT,
        "JOURNAL_KEY": JOURNAL_KEY,
    }
    await create_tenant(TENANT, environment)
    server = stack.server("payment", environment, port=free_port())
    server = replace(server, log=scratch / "payment.log")
    await asyncio.to_thread(server.start)
    try:
        token = issuer.mint("olga", ["operator"], TENANT, ttl_s=24 * 3600, key=key)
        yield Payment(server, environment, token, await _open_wallets(server.url, token, players))
    finally:
        await asyncio.to_thread(server.stop)


async def _open_wallets(url: str, token: str, players: int) -> list[str]:
    """Through the front door, 64 at a time."""
    turn = asyncio.Semaphore(64)
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:

        async def open_wallet(number: int) -> str:
            async with turn:
                wallet = await _done(client, CREATE_WALLET, owner=f"player-{number}")
                await _done(client, DEPOSIT, id=f"opening-{number}", wallet=wallet["id"], amount=str(OPENING))
                return str(wallet["id"])

        return await asyncio.gather(*map(open_wallet, range(players)))


async def _done(client: httpx.AsyncClient, document: str, **variables: str) -> dict[str, Any]:
    answer = (await client.post("/graphql", json={"query": document, "variables": variables})).json()
    assert "errors" not in answer, answer
    result: dict[str, Any] = next(iter(answer["data"].values()))
    assert "id" in result, result
    return result
