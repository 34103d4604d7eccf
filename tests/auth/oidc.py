"""Other people's OpenID provider (`oidc-provider`, from npm) and a person at a browser, without the screen."""

import html
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx

from scripts.process import Server, free_port

PROGRAM = Path(__file__).with_name("oidc_provider.mjs")
CLIENT_ID, CLIENT_SECRET = "platform", "a-client-secret-that-is-long-enough"
REDIRECTS_MOST = 20


@contextmanager
def oidc_provider(folder: Path, redirect_uri: str, *, port: int = 0, **more: Any) -> Iterator[str]:
    """The issuer of a provider that knows our client. `more` goes to the program and to its client (`client`)."""
    port = port or free_port()
    client = {
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code"],
        "response_types": ["code"],
        **more.pop("client", {}),
    }
    issuer = f"http://127.0.0.1:{port}"
    server = Server(
        name="oidc-provider",
        command=("node", str(PROGRAM), json.dumps({"port": port, "clients": [client], **more})),
        port=port,
        url=issuer,
        log=folder / f"oidc-{port}.log",
        is_ready=lambda: _answers(f"{issuer}/.well-known/openid-configuration"),
    )
    server.start()
    try:
        yield issuer
    finally:
        server.stop()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@dataclass(slots=True)
class Browser:
    """Keeps cookies, follows redirects, and stops where the address is the client's."""

    http: httpx.AsyncClient
    visited: list[str] = field(default_factory=list)

    async def open(self, url: str, *, until: str, **request: Any) -> httpx.Response | str:
        """The address that begins with `until`, which is not opened; or the page that redirects end at."""
        response = await self.http.request(request.pop("method", "GET"), url, **request)
        self.visited.append(str(response.url))
        for _ in range(REDIRECTS_MOST):
            if not response.is_redirect:
                return response
            address = urljoin(str(response.url), response.headers["location"])
            if address.startswith(until):
                return address
            response = await self.http.get(address)
            self.visited.append(str(response.url))
        raise AssertionError(f"too many redirects: {self.visited}")

    async def log_in(self, url: str, who: str, *, until: str) -> httpx.Response | str:
        """Opens `url`, which leads to the provider, and does there what its pages ask for."""
        page = await self.open(url, until=until)
        for _ in range(5):
            if isinstance(page, str) or 'name="prompt"' not in page.text:
                return page
            form = dict(re.findall(r'name="(prompt)" value="(\w+)"', page.text))
            if form["prompt"] == "login":
                form |= {"login": who, "password": "anything"}
            action = re.search(r'action="([^"]+)"', page.text)
            assert action, page.text
            target = urljoin(str(page.url), html.unescape(action[1]))
            page = await self.open(target, until=until, method="POST", data=form)
        raise AssertionError("the provider's pages do not end")

    async def give_up(self, url: str, *, until: str) -> httpx.Response | str:
        """Opens `url`, and cancels at the provider."""
        page = await self.open(url, until=until)
        assert isinstance(page, httpx.Response)
        abort = re.search(r'href="([^"]+/abort)"', page.text)
        assert abort, page.text
        return await self.open(urljoin(str(page.url), abort[1]), until=until)


def posted_form(page: httpx.Response) -> tuple[str, dict[str, str]]:
    """Where the page's form goes, and what is in it: for `response_mode=form_post`, which scripts would send."""
    action = re.search(r'<form[^>]*action="([^"]+)"', page.text)
    assert action, page.text
    fields = re.findall(r'name="([^"]+)" value="([^"]*)"', page.text)
    return html.unescape(action[1]), {name: html.unescape(value) for name, value in fields}


def query_of(address: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(address).query))
