"""An app whose people sign in with an identity provider: what a client does, and its browser."""

import secrets
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlencode

import httpx
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from tests.auth.oidc import Browser, posted_form, query_of
from tests.live import Api

RETURN_URL = "https://app.example/signed-in"

SIGN_IN = """
    __typename
    ... on SignedIn { accessToken refreshToken user { id name email } }
    ... on SecondFactorRequired { flowId methods }
    ... on Problem { code rule details }
"""
FINISH = f"mutation ($input: FinishOAuthInput!) {{ finishOAuth(input: $input) {{ {SIGN_IN} }} }}"
START_LINK = """mutation ($input: StartIdentityLinkInput!) {
    startIdentityLink(input: $input) { __typename ... on IdentityLinkStarted { url } ... on Problem { code } }
}"""
LINKED = "__typename ... on LinkedIdentity { id issuer providerId label } ... on Problem { code }"
FINISH_LINK = f"mutation ($input: FinishIdentityLinkInput!) {{ finishIdentityLink(input: $input) {{ {LINKED} }} }}"
UNLINK = f"mutation ($id: ID!) {{ unlinkIdentity(id: $id) {{ {LINKED} }} }}"
MINE = "{ myIdentities { id issuer providerId label } }"


@dataclass(slots=True)
class App:
    """One attempt to sign in: `verifier` is its secret. `token`, once there is one, is sent along."""

    url: str
    http: httpx.AsyncClient
    tenant: str = "demo"
    token: str = ""
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def browser(self) -> Browser:
        return Browser(self.http)

    @property
    def challenge(self) -> str:
        return str(create_s256_code_challenge(self.verifier))

    def start_url(self, provider: str, **changes: str) -> str:
        query = {"tenant": self.tenant, "return_url": RETURN_URL, "challenge": self.challenge, "state": "mine"}
        return f"{self.url}/oauth/{provider}/start?{urlencode({**query, **changes})}"

    async def visit(self, provider: str, who: str, url: str = "") -> dict[str, str]:
        """To the provider and back: what the app is told in its address."""
        back = await self.browser.log_in(url or self.start_url(provider), who, until=RETURN_URL)
        return query_of(back if isinstance(back, str) else await self.submit(back))

    async def submit(self, page: httpx.Response, **more: str) -> str:
        """The form that a provider answers with."""
        action, form = posted_form(page)
        back = await self.browser.open(action, until=RETURN_URL, method="POST", data={**form, **more})
        assert isinstance(back, str), back.text
        return back

    async def way_back(self, provider: str, who: str) -> str:
        """Only as far as our callback, which is not opened: its address, with state and code."""
        callback = f"{self.url}/oauth/callback/"
        back = await self.browser.log_in(self.start_url(provider), who, until=callback)
        assert isinstance(back, str), back.text
        return back

    async def open(self, callback: str) -> dict[str, str]:
        back = await self.browser.open(callback, until=RETURN_URL)
        assert isinstance(back, str), back.text
        return query_of(back)

    async def ask(self, query: str, **variables: Any) -> Any:
        self.http.headers["x-tenant"] = self.tenant
        return await Api(self.url, self.token, self.http).ask(query, **variables)

    async def finish(self, told: dict[str, str], **changes: str) -> dict[str, Any]:
        given = {"code": told["code"], "verifier": self.verifier, **changes}
        answer: dict[str, Any] = await self.ask(FINISH, input=given)
        return answer

    async def sign_in(self, provider: str, who: str) -> dict[str, Any]:
        """All of it. Whoever is signed in stays so."""
        answer = await self.finish(await self.visit(provider, who))
        self.token = answer.get("accessToken", self.token)
        return answer

    async def link(self, provider: str, who: str) -> dict[str, Any]:
        answer: dict[str, Any] = await self.finish_link(await self.visit(provider, who, await self.link_url(provider)))
        return answer

    async def link_url(self, provider: str) -> str:
        given = {"providerId": provider, "returnUrl": RETURN_URL, "challenge": self.challenge}
        return str((await self.ask(START_LINK, input=given))["url"])

    async def finish_link(self, told: dict[str, str], **changes: str) -> dict[str, Any]:
        given = {"code": told["code"], "verifier": self.verifier, **changes}
        answer: dict[str, Any] = await self.ask(FINISH_LINK, input=given)
        return answer

    def again(self) -> Self:
        """The same browser and session, and another attempt."""
        return type(self)(self.url, self.http, self.tenant, self.token)
