"""Demo data: a tenant, two players with wallets, and money on them. Written once, however often it is run.

The tenant is written where tenants live; all else goes through the front door, as the operator olga.
"""

import asyncio
import os
import sys
import time
from typing import Any

import httpx

from libs.core.clock import SystemClock
from libs.core.errors import CoreError, Refusal
from libs.core.events import Outbox
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.tenants import Currency, Tenant, Tenants
from scripts import issuer, stack
from scripts.process import Failure

CURRENCIES = (Currency("EUR", 2), Currency("USD", 2), Currency("BTC", 8))
PLAYERS = {"alice": 100_00, "bob": 50_00}  # what they are given, in cents
WITHIN_S = 30.0

CREATE_WALLET = """
mutation ($owner: ID!) {
  createWallet(input: {ownerId: $owner, currency: "EUR"}) {
    ... on Wallet { id }
    ... on Problem { code message }
  }
}
"""
DEPOSIT = """
mutation ($id: ID!, $wallet: ID!, $amount: BigInt!) {
  deposit(input: {id: $id, walletId: $wallet, amount: $amount, currency: "EUR", reference: "a welcome"}) {
    ... on Transfer { id }
    ... on Problem { code message }
  }
}
"""


async def main() -> None:
    environment = stack.environment()
    await _tenant(environment)
    if "payment" not in stack.services():
        return
    payment = stack.server("payment", environment)
    headers = {"authorization": f"Bearer {issuer.mint('olga', ['operator'], stack.DEMO_TENANT)}"}
    async with httpx.AsyncClient(base_url=payment.url, headers=headers, timeout=15) as client:
        for player, amount in PLAYERS.items():
            wallet = await _done(client, CREATE_WALLET, owner=player)
            await _done(client, DEPOSIT, id=f"demo-welcome-{player}", wallet=wallet["id"], amount=str(amount))


async def _tenant(environment: dict[str, str]) -> None:
    namespace = os.environ.get("NAMESPACE", "")
    mongo = Mongo.connect(environment["MONGO_URL"], service="core", namespace=namespace)
    redis = Redis.connect(environment["REDIS_URL"], namespace=namespace)
    clock = SystemClock()
    tenants = Tenants(mongo, redis, Outbox(mongo.core, clock), clock=clock)
    try:
        currencies = {currency.code: currency for currency in CURRENCIES}
        await tenants.create(Tenant(stack.DEMO_TENANT, "Demo", currencies=currencies), actor="seed")
    except Refusal as refusal:
        if refusal.code != "TENANT_EXISTS":
            raise
    finally:
        await redis.close()
        await mongo.close()


async def _done(client: httpx.AsyncClient, document: str, **variables: str) -> dict[str, Any]:
    """The mutation's answer, asked for until it is not refused: payment hears of a new tenant a moment later."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        answer = (await client.post("/graphql", json={"query": document, "variables": variables})).json()
        results: dict[str, Any] = answer.get("data") or {}
        for result in results.values():
            if result and "id" in result:
                return dict(result)
        if time.monotonic() > deadline:
            raise Failure(f"payment answered {answer}")
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (Failure, CoreError) as error:
        sys.exit(str(error))
