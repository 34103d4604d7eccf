"""Auth without its server: what commands work with, on scratch databases and a clock that stands still."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from libs.core.access import Access
from libs.core.app import CORE_INDEXES, SERVICE_INDEXES, Platform
from libs.core.audit import INDEXES as AUDIT_INDEXES
from libs.core.cache import Cache
from libs.core.config import Config
from libs.core.context import Caller, Client, Context, Deadline
from libs.core.crypto import SecretBox
from libs.core.events import Event, LiveListener, Outbox
from libs.core.health import Health
from libs.core.identity import Identity
from libs.core.migrations import Index, migrate
from libs.core.mongo import Mongo
from libs.core.pagination import Paginator
from libs.core.redis import Redis
from libs.core.revocations import Revocations, RevokedTokens
from libs.core.tenants import Tenant, Tenants
from libs.core.testing import FrozenClock, scratch_namespace, scratch_redis
from services.auth import store
from services.auth.breaches import PasswordRules
from services.auth.commands.auth import Auth
from services.auth.commands.tokens import SignedIn
from services.auth.domain.messages import Message
from services.auth.domain.users import User
from services.auth.groups import Groups
from services.auth.keys import SigningKeys
from services.auth.messages import Messages
from services.auth.passwords import Hasher
from services.auth.places import Places
from services.auth.providers import Providers
from services.auth.settings import AuthConfig, AuthSettings
from services.auth.store import users
from services.auth.throttle import Throttle

PASSWORD = "several plain words"
SETTINGS = AuthSettings(mode="development", default_tenant="demo")

# Redis counts by its own clock, which does not stand still.
LAX = {"sends_per_recipient": [{"messages": 100, "per_s": 60}], "sends_per_address": [{"messages": 1000, "per_s": 60}]}


@dataclass
class House:
    """One process of auth, and what it wrote. Hashing is as cheap as argon2 lets it be."""

    auth: Auth
    clock: FrozenClock
    revoked: list[str]

    def context(
        self, user: User | None = None, *, address: str = "192.0.2.1", tenant: str = "demo", **caller: Any
    ) -> Context:
        """Of nobody, or of a user who has signed in just now."""
        who = Caller(tenant)
        if user:
            fields: dict[str, Any] = {
                "level": 1,
                "authenticated_at": self.clock.now(),
                "session_id": "s1",
                "roles": user.roles,
            }
            who = Caller(user.tenant_id, user.id, kind=user.kind, **(fields | caller))
        client = Client(address, "a browser")
        return Context(who, "c1", Deadline.after(30), self.auth.platform, self.auth, client)

    async def of_token(self, signed_in: SignedIn) -> Context:
        """Of whom the token speaks for, as the service would make it."""
        identity = self.auth.platform.identity
        caller = await identity.authenticate(f"Bearer {signed_in.access_token}")
        return replace(self.context(), caller=caller)

    async def user(self, who: str = "ann", /, *, password: str = PASSWORD, tenant: str = "demo", **fields: Any) -> User:
        """There already, with an e-mail address and a username."""
        encoded = await self.auth.hasher.hash(password) if password else ""
        known: dict[str, Any] = {"roles": ("player",), "username": who, "email": f"{who}@example.com"}
        user = User(tenant, f"{who}-id", self.clock.now(), password=encoded, **(known | fields))
        await self.auth.platform.mongo.transaction(lambda session: users.insert(self.auth.database, session, user))
        return user

    async def rows(self, action: str = "", tenant: str = "demo") -> list[dict[str, Any]]:
        """Of the security log."""
        wanted = {"log": f"auth.{tenant}"} | ({"action": action} if action else {})
        return await self.auth.database["audit_log"].find(wanted).sort("sequence", 1).to_list()

    async def events(self, type_: str = "") -> list[Event]:
        """What everybody is told, in the order in which it was written."""
        rows = await self.auth.database["outbox"].find().sort([("_id", 1)]).to_list()
        told = [Event.from_json(line) for row in rows for line in row["events"].split("\n") if line.startswith("{")]
        return [event for event in told if type_ in ("", event.type)]

    async def sent(self) -> list[Message]:
        """The messages that were queued, opened: the newest last."""
        return [self.auth.messages.opened(event) for event in await self.events("message.requested")]

    async def code(self) -> str:
        """The one that was sent last."""
        return str((await self.sent())[-1].params["code"])


@pytest.fixture(scope="session")
def shared_namespace(mongo_url: str) -> Iterator[str]:
    """MongoDB's databases are made once and emptied for each test: they have some thirty collections, whose making
    takes most of a test's time, and whose files MongoDB keeps open for minutes after they were dropped."""
    namespace = scratch_namespace()
    asyncio.run(_prepare(mongo_url, namespace))
    yield namespace
    with MongoClient[dict[str, Any]](mongo_url) as client:
        for name in client.list_database_names():
            if name.startswith(f"{namespace}_"):
                client.drop_database(name)


async def _prepare(mongo_url: str, namespace: str) -> None:
    mongo = Mongo.connect(mongo_url, service="auth", namespace=namespace)
    await migrate(mongo.core, _lasting(CORE_INDEXES))
    await migrate(mongo.db, _lasting((*SERVICE_INDEXES, *store.INDEXES, *AUDIT_INDEXES)))
    await mongo.close()


def _lasting(indexes: Iterable[Index]) -> list[Index]:
    """MongoDB's clock does not stand still with ours: once a minute it would delete what is long over by its own."""
    return [replace(index, ttl_s=None) for index in indexes]


@pytest.fixture
async def new_house(
    mongo_url: str, redis_url: str, shared_namespace: str, namespace: str, clock: FrozenClock
) -> AsyncIterator[Callable[..., Awaitable[House]]]:
    """`await new_house()`: each is a process of its own on the same databases."""
    async with AsyncExitStack() as stack:
        mongo = Mongo.connect(mongo_url, service="auth", namespace=shared_namespace)
        stack.push_async_callback(mongo.close)
        for database in (mongo.db, mongo.core):
            for name in await database.list_collection_names():
                await database[name].delete_many({})

        async def make(**config: Any) -> House:
            redis = await stack.enter_async_context(scratch_redis(redis_url, namespace=namespace))
            return await _house(stack, mongo, redis, clock, config)

        yield make


@pytest.fixture
async def house(new_house: Callable[..., Awaitable[House]]) -> House:
    return await new_house()


async def _house(
    stack: AsyncExitStack, mongo: Mongo, redis: Redis, clock: FrozenClock, config: dict[str, Any]
) -> House:
    box = SecretBox("a key of tests", purpose="auth secrets")
    keys = await stack.enter_async_context(SigningKeys(mongo.db, redis, clock, box))
    platform, revoked = await _platform(stack, mongo, redis, clock, keys)
    if not platform.config.version(AuthConfig):
        await platform.config.set(AuthConfig, LAX | config, actor="test", reason="test", expected_version=0)
    auth = Auth(
        platform=platform,
        settings=SETTINGS,
        paginator=Paginator("a secret of tests"),
        box=box,
        hasher=await stack.enter_async_context(Hasher(memory_kib=8, iterations=1)),
        rules=stack.enter_context(PasswordRules("")),
        keys=keys,
        throttle=Throttle(redis, platform.config),
        messages=Messages(platform.outbox, clock, "a key of messages"),
        places=stack.enter_context(Places("")),
        groups=Groups(mongo),
        providers=await stack.enter_async_context(Providers("a key of tests", clock, development=True)),
    )
    return House(auth, clock, revoked)


async def _platform(
    stack: AsyncExitStack, mongo: Mongo, redis: Redis, clock: FrozenClock, keys: SigningKeys
) -> tuple[Platform, list[str]]:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=httpx.ByteStream(json.dumps(keys.jwks()).encode()))

    revoked: list[str] = []
    web = await stack.enter_async_context(httpx.AsyncClient(transport=httpx.MockTransport(answer)))
    identity = Identity(
        web,
        clock,
        jwks_url=SETTINGS.jwks_url,
        issuer=SETTINGS.token_issuer,
        audience=SETTINGS.token_audience,
        fetch_at_most_every_s=0,
    )

    def on_session(session_id: str, until: datetime) -> None:
        revoked.append(session_id)
        identity.revoke_session(session_id, until)

    def on_tokens(tokens: RevokedTokens) -> None:
        identity.revoke_subject(tokens.tenant_id, tokens.subject, issued_until=tokens.issued_until, until=tokens.until)

    revocations = Revocations(
        mongo.core, redis, clock, on_session=on_session, on_tokens=on_tokens, on_key=identity.withdraw_key
    )
    await stack.enter_async_context(revocations)
    outbox = Outbox(mongo.db, clock)
    tenants = Tenants(mongo, redis, Outbox(mongo.core, clock), clock=clock, default="demo")
    for name in ("demo", "other"):
        if not await mongo.core["tenants"].count_documents({"_id": name}):
            await tenants.create(Tenant(id=name, name=name), actor="test")
    return Platform(
        settings=SETTINGS,
        clock=clock,
        mongo=mongo,
        redis=redis,
        cache=await stack.enter_async_context(Cache(redis)),
        config=await stack.enter_async_context(Config(mongo, redis, [AuthConfig], clock=clock)),
        tenants=await stack.enter_async_context(tenants),
        access=await stack.enter_async_context(Access(mongo.core, redis, clock, platform_tenant="demo")),
        identity=identity,
        revocations=revocations,
        outbox=outbox,
        live=LiveListener(redis),
        health=Health(),
        stopping=asyncio.Event(),
    ), revoked
