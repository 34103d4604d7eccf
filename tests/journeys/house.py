"""Auth and payment as they run beside each other, and people who use both."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyotp
import websockets

from libs.core.config import Config
from libs.core.ids import new_id
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.stepup import SensitiveOperation
from services.auth.domain.users import User
from services.auth.passwords import Hasher
from services.auth.store import users
from services.payment.settings import PaymentConfig
from tests.live import Api, Live, LiveAuth, auth_process, payment_process
from tests.web import web

PASSWORD = "several plain words"

LOGIN = """mutation ($name: String!, $password: String!) { login(input: {identifier: $name, password: $password}) {
    ... on SignedIn { accessToken sessionId refreshToken user { id } } ... on Problem { code } } }"""
START_TOTP = "mutation { startTotp { ... on TotpSetup { flowId secret } ... on Problem { code } } }"
CONFIRM_TOTP = """mutation ($flow: ID!, $code: String!) { confirmTotp(input: {flowId: $flow, code: $code}) {
    __typename ... on Problem { code } } }"""
START_STEP_UP = """mutation ($operation: SensitiveOperationInput) { startStepUp(input: {operation: $operation}) {
    ... on StepUpStarted { flowId methods operation { action id amount currency source payee digest } }
    ... on Problem { code } } }"""
COMPLETE_STEP_UP = """mutation ($input: CompleteStepUpInput!) { completeStepUp(input: $input) { __typename
    ... on SessionSteppedUp { accessToken level } ... on OperationConfirmed { stepUpToken }
    ... on Problem { code } } }"""
CREATE = 'mutation { createWallet(input: {currency: "EUR"}) { ... on Wallet { id } } }'
DEPOSIT = "mutation ($input: DepositInput!) { deposit(input: $input) { ... on Transfer { id } } }"
TRANSFER = """mutation ($input: TransferInput!) { transfer(input: $input) { __typename
    ... on Transfer { id amount } ... on Problem { code rule details } } }"""
BALANCES = "subscription { balanceChanged { id } }"


@dataclass
class Person:
    """Signed in, with an access token for both services."""

    name: str
    auth: Api
    payment: Api
    session_id: str
    wallet: str = ""
    secret: str = ""

    async def set_up_totp(self) -> None:
        setup = await self.auth.ask(START_TOTP)
        self.secret = setup["secret"]
        done = await self.auth.ask(CONFIRM_TOTP, flow=setup["flowId"], code=self.totp())
        assert done["__typename"] == "FactorsChanged", done

    def totp(self, *, ahead: int = 0) -> str:
        """A code of so many steps of 30 s from now: each is good once, and one ahead is taken."""
        return pyotp.TOTP(self.secret).at(datetime.now(UTC), counter_offset=ahead)

    async def step_up(self, operation: dict[str, str] | None, **shown: str) -> Any:
        started = await self.auth.ask(START_STEP_UP, operation=operation)
        if operation:
            assert started["operation"]["digest"] == SensitiveOperation.of(operation).digest
        return await self.auth.ask(COMPLETE_STEP_UP, input={"flowId": started["flowId"], **shown})

    async def pay(self, **given: Any) -> Any:
        order = {"id": new_id(), "sourceWalletId": self.wallet, "currency": "EUR"} | given
        return await self.payment.ask(TRANSFER, input=order)


@dataclass
class House:
    """`password` is everybody's, encoded: once for all, for that is slow on purpose."""

    auth: LiveAuth
    payment: Live
    password: str

    @asynccontextmanager
    async def doors(self) -> AsyncIterator["Doors"]:
        environment = self.auth.environment
        mongo = Mongo.connect(environment["MONGO_URL"], service="auth", namespace=environment["NAMESPACE"])
        async with web(timeout=30, limits=httpx.Limits(max_connections=200)) as client:
            yield Doors(self, mongo, client)
        await mongo.close()


@dataclass
class Doors:
    """How people come in."""

    house: House
    mongo: Mongo
    client: httpx.AsyncClient

    async def person(self, name: str = "", *roles: str, real: int = 0) -> Person:
        """Somebody new who signs in; with `real`, they have a wallet with that much."""
        name = name or f"p{new_id()[-12:]}"
        now = datetime.now(UTC)
        email, granted = f"{name}@example.com", roles or ("player",)
        user = User("demo", f"{name}-id", now, roles=granted, username=name, email=email, password=self.house.password)
        await self.mongo.transaction(lambda session: users.insert(self.mongo.db, session, user))
        person = await self.sign_in(name)
        if real:
            person.wallet = (await person.payment.ask(CREATE))["id"]
            olga = await self.person("", "operator")
            given = {"id": new_id(), "walletId": person.wallet, "amount": str(real), "currency": "EUR"}
            await olga.payment.ask(DEPOSIT, input=given)
        return person

    async def sign_in(self, name: str, password: str = PASSWORD) -> Person:
        """In a session of its own."""
        auth = Api(self.house.auth.server.url, "", self.client)
        signed_in = await auth.ask(LOGIN, name=name, password=password)
        auth.token = signed_in["accessToken"]
        payment = Api(self.house.payment.server.url, auth.token, self.client)
        return Person(name, auth, payment, signed_in["sessionId"])

    @asynccontextmanager
    async def listening(self, person: Person) -> AsyncIterator["Listening"]:
        """On two streams of payment, a WebSocket and server-sent events, both open when this begins."""
        url = f"{self.house.payment.server.url}/graphql"
        protocol = websockets.Subprotocol("graphql-transport-ws")
        headers = {"authorization": f"Bearer {person.payment.token}", "accept": "text/event-stream"}
        async with (
            websockets.connect(url.replace("http", "ws"), subprotocols=[protocol]) as socket,
            self.client.stream("POST", url, json={"query": BALANCES}, headers=headers) as events,
        ):
            assert events.status_code == 200
            payload = {"authorization": headers["authorization"]}
            await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
            assert json.loads(await socket.recv())["type"] == "connection_ack"
            await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": BALANCES}}))
            yield Listening(socket, events)


@dataclass
class Listening:
    socket: websockets.ClientConnection
    events: httpx.Response

    async def closed(self) -> tuple[int | None, str]:
        """Once both have been closed: why, as the socket says."""
        await asyncio.gather(self.socket.wait_closed(), self.events.aread())
        return self.socket.close_code, self.socket.close_reason or ""


@contextmanager
def house(folder: Path, mongo_url: str, redis_url: str, namespace: str = "", **payment_config: Any) -> Iterator[House]:
    with auth_process(folder, mongo_url, redis_url, namespace) as auth:
        if payment_config:
            asyncio.run(_configure(mongo_url, redis_url, namespace, payment_config))
        with payment_process(folder, mongo_url, redis_url, namespace, **auth.for_services) as payment:
            yield House(auth, payment, asyncio.run(_encoded()))


async def _encoded() -> str:
    async with Hasher() as hasher:
        return await hasher.hash(PASSWORD)


async def _configure(mongo_url: str, redis_url: str, namespace: str, values: dict[str, Any]) -> None:
    mongo = Mongo.connect(mongo_url, service="payment", namespace=namespace)
    redis = Redis.connect(redis_url, namespace=namespace)
    async with Config(mongo, redis, [PaymentConfig]) as config:
        await config.set(PaymentConfig, values, actor="test", reason="test", expected_version=0)
    await redis.close()
    await mongo.close()
