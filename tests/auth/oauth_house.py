"""A running auth, two providers of other people's that it trusts, and apps of ours."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libs.core.config import Config
from libs.core.crypto import SecretBox
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.settings import DEVELOPMENT_SECRET
from libs.core.testing import eventually
from services.auth.domain.providers import secret_owner
from services.auth.providers import PURPOSE
from services.auth.settings import AuthConfig
from tests.auth.oauth_client import RETURN_URL, App
from tests.auth.oidc import CLIENT_ID, CLIENT_SECRET, oidc_provider
from tests.live import LiveAuth, auth_process
from tests.web import web


@dataclass(frozen=True, slots=True)
class House:
    """`issuers` by the id of the provider: `one` and `two`, and `post`, which is `one` answering by form."""

    live: LiveAuth
    issuers: Mapping[str, str]

    @property
    def url(self) -> str:
        return self.live.server.url

    @asynccontextmanager
    async def app(self, tenant: str = "demo") -> AsyncIterator[App]:
        """In a browser of its own."""
        async with web(timeout=30) as http:
            yield App(self.url, http, tenant)

    @asynccontextmanager
    async def mongo(self) -> AsyncIterator[Mongo]:
        environment = self.live.environment
        mongo = Mongo.connect(environment["MONGO_URL"], service="auth", namespace=environment["NAMESPACE"])
        try:
            yield mongo
        finally:
            await mongo.close()

    async def configure(self, *more: dict[str, Any], tenant: str = "demo", **changes: Any) -> None:
        """The two providers, and more; in force when this returns."""
        known = [
            provider_row("one", self.issuers["one"]),
            provider_row("two", self.issuers["two"]),
            provider_row("post", self.issuers["post"], response_mode="form_post"),
        ]
        values = {"identity_providers": [*known, *more], "return_urls": [RETURN_URL], **changes}
        environment = self.live.environment
        redis = Redis.connect(environment["REDIS_URL"], namespace=environment["NAMESPACE"])
        async with self.mongo() as mongo, Config(mongo, redis, [AuthConfig]) as config:
            version = config.version(AuthConfig, tenant)
            await config.set(
                AuthConfig, values, tenant_id=tenant, actor="test", reason="a test", expected_version=version
            )
        await redis.close()
        wanted = [provider["id"] for provider in values["identity_providers"]]
        async with self.app(tenant) as app:
            await eventually(lambda: _has(app, wanted))


async def _has(app: App, wanted: list[str]) -> bool:
    answer = await app.http.post(
        f"{app.url}/graphql", json={"query": "{ identityProviders { id } }"}, headers={"x-tenant": app.tenant}
    )
    return [provider["id"] for provider in answer.json()["data"]["identityProviders"]] == wanted


def provider_row(id: str, issuer: str, **more: Any) -> dict[str, Any]:  # noqa: A002
    box = SecretBox(DEVELOPMENT_SECRET, purpose=PURPOSE)
    sealed = box.seal(CLIENT_SECRET, owner=secret_owner(issuer, CLIENT_ID)).decode()
    return {"id": id, "issuer": issuer, "client_id": CLIENT_ID, "client_secret": sealed, **more}


@contextmanager
def open_house(folder: Path, mongo_url: str, redis_url: str, namespace: str) -> Iterator[House]:
    with ExitStack() as stack:
        live = stack.enter_context(auth_process(folder, mongo_url, redis_url, namespace))
        back = f"{live.server.url}/oauth/callback"
        one = stack.enter_context(
            oidc_provider(folder, f"{back}/one", client={"redirect_uris": [f"{back}/one", f"{back}/post"]})
        )
        two = stack.enter_context(oidc_provider(folder, f"{back}/two", conformIdTokenClaims=False))
        house = House(live, {"one": one, "two": two, "post": one})
        asyncio.run(house.configure())
        yield house
