"""A live auth, people who use it, and whoever is up to something: each at an address of their own."""

import asyncio
import secrets
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Self

import httpx
import orjson
import pyotp
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from libs.core.config import Config
from libs.core.crypto import SecretBox
from libs.core.ids import new_id
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.settings import DEVELOPMENT_SECRET
from libs.core.testing import eventually
from services.auth.domain.users import User
from services.auth.passwords import ITERATIONS, MEMORY_KIB
from services.auth.settings import AuthConfig
from services.auth.store import users
from tests.live import LiveAuth

PASSWORD = "several plain words"
SIGN_IN = """
    __typename
    ... on SignedIn { accessToken refreshToken deviceToken sessionId user { id roles } }
    ... on SecondFactorRequired { flowId methods }
    ... on Problem { code rule }
"""
STARTED = "__typename ... on FlowStarted { flowId expiresAt resendAt } ... on Problem { code }"
USER = "__typename ... on User { id name username email phone roles status } ... on Problem { code }"
REGISTER = f"mutation ($input: RegisterInput!) {{ register(input: $input) {{ {STARTED} }} }}"
VERIFY = f"mutation ($input: VerifyRegistrationInput!) {{ verifyRegistration(input: $input) {{ {SIGN_IN} }} }}"
LOGIN = f"mutation ($input: LoginInput!) {{ login(input: $input) {{ {SIGN_IN} }} }}"
REQUEST_CODE = f"mutation ($input: RecipientInput!) {{ requestLoginCode(input: $input) {{ {STARTED} }} }}"
LOGIN_WITH_CODE = f"mutation ($input: CodeInput!) {{ loginWithCode(input: $input) {{ {SIGN_IN} }} }}"
REQUEST_RESET = f"mutation ($input: RecipientInput!) {{ requestPasswordReset(input: $input) {{ {STARTED} }} }}"
RESET = f"mutation ($input: ResetPasswordInput!) {{ resetPassword(input: $input) {{ {SIGN_IN} }} }}"
RESEND = (
    f"mutation ($flow: String!, $purpose: String!) {{ resendCode(flowId: $flow, purpose: $purpose) {{ {STARTED} }} }}"
)
REFRESH = f"mutation ($token: String!) {{ refreshSession(refreshToken: $token) {{ {SIGN_IN} }} }}"
ADD_IDENTIFIER = f"mutation ($input: IdentifierInput!) {{ addIdentifier(input: $input) {{ {STARTED} }} }}"
VERIFY_IDENTIFIER = f"mutation ($input: VerifyIdentifierInput!) {{ verifyIdentifier(input: $input) {{ {USER} }} }}"
SECOND_FACTOR = (
    f"mutation ($input: CompleteSecondFactorInput!) {{ completeSecondFactor(input: $input) {{ {SIGN_IN} }} }}"
)
UPDATE_PROFILE = f"mutation ($input: ProfileInput!) {{ updateProfile(input: $input) {{ {USER} }} }}"
START_TOTP = "mutation { startTotp { ... on TotpSetup { flowId secret } ... on Problem { code } } }"
CONFIRM_TOTP = """mutation ($input: ConfirmTotpInput!) {
    confirmTotp(input: $input) { __typename ... on FactorsChanged { newRecoveryCodes } ... on Problem { code } }
}"""
ME = "{ me { id roles } }"
LOGOUT = "mutation { logout }"

# Generous with messages, which tests ask for by the dozen; less so with tries, each of which costs a hash.
ADDRESS_TRIES = 20
LAX = {
    "tries_delay_s": 60,  # a slow machine must not wait long enough to be let in again
    "address_free_tries": ADDRESS_TRIES,
    "address_accounts": ADDRESS_TRIES,
    "sends_per_recipient": [{"messages": 100, "per_s": 60}],
    "sends_per_address": [{"messages": 500, "per_s": 60}],
}


def new_address() -> str:
    """Nobody else's."""
    return f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.{secrets.randbelow(254) + 1}"


def code_of(answer: Mapping[str, Any]) -> str:
    """What went wrong: the code of the first error, or of the `Problem`; "" if nothing did."""
    if "errors" in answer:
        return str(answer["errors"][0]["extensions"]["code"])
    data = next(iter(answer["data"].values()))
    return str(data.get("code", "")) if isinstance(data, dict) else ""


@dataclass
class Visitor:
    """An app somewhere. `token`, once there is one, is sent along."""

    http: httpx.AsyncClient
    url: str
    address: str = field(default_factory=new_address)
    tenant: str = "demo"
    token: str = ""

    async def post(self, body: Any, **headers: str) -> httpx.Response:
        usual = {"x-forwarded-for": self.address}
        usual |= {"authorization": f"Bearer {self.token}"} if self.token else {"x-tenant": self.tenant}
        return await self.http.post(f"{self.url}/graphql", json=body, headers=usual | headers)

    async def answer(self, query: str, **variables: Any) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.post({"query": query, "variables": variables})).json()
        return answer

    async def ask(self, query: str, **variables: Any) -> Any:
        """What the one root field gives; there must be no errors."""
        answer = await self.answer(query, **variables)
        assert "errors" not in answer, answer
        return next(iter(answer["data"].values()))

    async def refused(self, query: str, **variables: Any) -> str:
        return code_of(await self.answer(query, **variables))

    async def login(self, identifier: str, password: str = PASSWORD, device: str = "") -> dict[str, Any]:
        given = {"identifier": identifier, "password": password, "device": {"token": device}}
        return await self.answer(LOGIN, input=given)

    async def messages(self, recipient: str) -> list[dict[str, Any]]:
        """The newest first."""
        query = {"recipient": recipient}
        headers = {"x-tenant": self.tenant}
        answer = await self.http.get(f"{self.url}/development/messages", params=query, headers=headers)
        found: list[dict[str, Any]] = answer.json()
        return found

    async def code(self, recipient: str, count: int = 1) -> str:
        """The one that was sent last, of so many."""
        found = await eventually(lambda: self._at_least(recipient, count))
        return str(found[0]["params"]["code"])

    async def notice(self, recipient: str) -> dict[str, Any]:
        """What was sent last, code or none."""
        found: list[dict[str, Any]] = await eventually(lambda: self._at_least(recipient, 1))
        return found[0]

    async def _at_least(self, recipient: str, count: int) -> list[dict[str, Any]]:
        found = await self.messages(recipient)
        return found if len(found) >= count else []

    def elsewhere(self, **changes: Any) -> Self:
        """The same app at another address."""
        return replace(self, **{"address": new_address(), **changes})


@dataclass
class Person(Visitor):
    """Somebody with an account, signed in by their password."""

    id: str = ""
    email: str = ""
    session: Mapping[str, Any] = field(default_factory=dict)
    secret: str = ""  # of their authenticator app
    recovery_codes: Sequence[str] = ()

    async def add_totp(self) -> None:
        setup = await self.ask(START_TOTP)
        self.secret = setup["secret"]
        # The step before now: the one of now is left for what a test does with it.
        given = {"flowId": setup["flowId"], "code": self.totp(-1)}
        self.recovery_codes = (await self.ask(CONFIRM_TOTP, input=given))["newRecoveryCodes"]

    def totp(self, offset: int = 0) -> str:
        return pyotp.TOTP(self.secret).at(datetime.now(UTC), counter_offset=offset)


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


@dataclass
class Scene:
    """A live auth that believes what is in front of it about addresses."""

    live: LiveAuth
    http: httpx.AsyncClient

    @property
    def url(self) -> str:
        return self.live.server.url

    def visitor(self, tenant: str = "demo") -> Visitor:
        return Visitor(self.http, self.url, tenant=tenant)

    async def person(self, tenant: str = "demo", *, signed_in: bool = True, **fields: Any) -> Person:
        """Somebody who has been here for long."""
        name = f"p{new_id().replace('-', '')[:26]}"
        email = f"{name}@example.com"
        known = {"roles": ("player",), "email": email, "username": name, "password": _encoded()}
        user = User(tenant, new_id(), datetime.now(UTC), **(known | fields))
        async with self.mongo() as mongo:
            await mongo.transaction(lambda session: users.insert(mongo.db, session, user))
        person = Person(self.http, self.url, tenant=tenant, id=user.id, email=email)
        if signed_in:
            person.session = (await person.login(email))["data"]["login"]
            person.token = person.session["accessToken"]
        return person

    @asynccontextmanager
    async def mongo(self) -> AsyncIterator[Mongo]:
        mongo = Mongo.connect(self._at("MONGO_URL"), service="auth", namespace=self._at("NAMESPACE"))
        try:
            yield mongo
        finally:
            await mongo.close()

    @asynccontextmanager
    async def redis(self) -> AsyncIterator[Redis]:
        redis = Redis.connect(self._at("REDIS_URL"), namespace=self._at("NAMESPACE"))
        try:
            yield redis
        finally:
            await redis.close()

    async def configure(self, tenant: str, **values: Any) -> None:
        async with self.mongo() as mongo, self.redis() as redis, Config(mongo, redis, [AuthConfig]) as config:
            version = config.version(AuthConfig, tenant)
            await config.set(
                AuthConfig, values, tenant_id=tenant, actor="test", reason="a test", expected_version=version
            )

    async def signing_key(self) -> tuple[str, Ed25519PrivateKey]:
        """What a thief of the database and of AUTH_KEY would have."""
        async with self.mongo() as mongo:
            row = await mongo.db["signing_keys"].find_one({"withdrawn_at": None}, sort=[("number", -1)])
        assert row
        opened = SecretBox(DEVELOPMENT_SECRET, purpose="auth secrets").open(row["sealed"], owner=row["_id"])
        return row["_id"], Ed25519PrivateKey.from_private_bytes(b64decode(opened))

    async def rows(self, action: str, tenant: str = "demo", **wanted: Any) -> list[dict[str, Any]]:
        """Of the security log."""
        async with self.mongo() as mongo:
            found = mongo.db["audit_log"].find({"log": f"auth.{tenant}", "action": action, **wanted})
            return await found.sort("sequence", 1).to_list()

    def _at(self, name: str) -> str:
        return self.live.environment[name]


@cache
def _encoded() -> str:
    return PasswordHasher(time_cost=ITERATIONS, memory_cost=MEMORY_KIB, parallelism=1).hash(PASSWORD)


@asynccontextmanager
async def socket(visitor: Visitor, payload: dict[str, Any]) -> AsyncIterator[ClientConnection]:
    url = visitor.url.replace("http", "ws") + "/graphql"
    async with connect(url, subprotocols=["graphql-transport-ws"]) as ws:  # type: ignore[list-item]
        await ws.send(orjson.dumps({"type": "connection_init", "payload": payload}).decode())
        yield ws


async def heard(ws: ClientConnection, query: str) -> str:
    """The code of what went wrong, "" if nothing did. ConnectionClosed if that is the answer."""
    await ws.send(orjson.dumps({"type": "subscribe", "id": "1", "payload": {"query": query}}).decode())
    while True:
        message = orjson.loads(await asyncio.wait_for(ws.recv(), 5))
        if message["type"] == "next":
            return code_of(message["payload"])
        if message["type"] == "error":
            return str(message["payload"][0]["extensions"]["code"])


async def closed(ws: ClientConnection) -> int | None:
    """The code that the server closes with, whatever it says before."""
    with suppress(ConnectionClosed):
        async with asyncio.timeout(5):
            while True:
                await ws.recv()
    return ws.close_code
