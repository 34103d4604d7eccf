"""Demo data: a tenant, people, and wallets with money on them. Written once, however often it is run.

The tenant is written where tenants live, and people where users do, so that their ids are their names; all else goes
through the front door, as the operator olga.
"""

import asyncio
import os
import sys
import time
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
from pymongo.errors import DuplicateKeyError

from libs.core.clock import SystemClock
from libs.core.errors import CoreError, Refusal
from libs.core.events import Outbox
from libs.core.mongo import Mongo, Session
from libs.core.redis import Redis
from libs.core.tenants import Currency, Tenant, Tenants
from scripts import stack
from scripts.login import login
from scripts.process import Failure
from services.auth.domain.users import User
from services.auth.passwords import Hasher
from services.auth.store import users

CURRENCIES = (Currency("EUR", 2), Currency("USD", 2), Currency("BTC", 8))
PEOPLE = {"alice": "player", "bob": "player", "olga": "operator", "ada": "admin"}
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
    await _people(environment)
    payment = stack.server("payment", environment)
    headers = {"authorization": f"Bearer {_token('olga')}"}
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


async def _people(environment: dict[str, str]) -> None:
    mongo = Mongo.connect(environment["MONGO_URL"], service="auth", namespace=os.environ.get("NAMESPACE", ""))
    now = SystemClock().now()
    try:
        async with Hasher() as hasher:
            encoded = await hasher.hash(stack.DEMO_PASSWORD)
        for name, role in PEOPLE.items():
            person = User(stack.DEMO_TENANT, name, now, roles=(role,), username=name, email=f"{name}@example.com")
            with suppress(DuplicateKeyError):
                await mongo.transaction(partial(_insert, mongo, person.with_password(encoded, now)))
    finally:
        await mongo.close()


async def _insert(mongo: Mongo, person: User, session: Session) -> None:
    await users.insert(mongo.db, session, person)


def _token(name: str) -> str:
    return login(stack.AUTH_URL, name, stack.DEMO_PASSWORD, stack.DEMO_TENANT)


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
