"""Two processes of auth are one: what was begun, counted or ended at one is so at the other.

The other stands in front of no proxy, and asks for the issuer's keys where we count how often.
"""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.core.testing import eventually
from tests.auth.attacks.scene import (
    LOGIN,
    LOGIN_WITH_CODE,
    LOGOUT,
    ME,
    REFRESH,
    REQUEST_CODE,
    RESEND,
    Person,
    Visitor,
    code_of,
    wrong,
)
from tests.live import LiveAuth, auth_process


@dataclass
class Beside:
    """The other process. `fetches`: how often it asked for the keys."""

    url: str
    fetches: list[str] = field(default_factory=list)

    def at(self, person: Person) -> Person:
        return replace(person, url=self.url)


@pytest.fixture(scope="module")
def beside(attacked: LiveAuth, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    beside = Beside("")

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            beside.fetches.append(self.path)
            body = httpx.get(f"{attacked.server.url}/.well-known/jwks.json").content
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    keys = ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    threading.Thread(target=keys.serve_forever, daemon=True).start()
    at = attacked.environment
    more = {"TOKEN_ISSUER": at["TOKEN_ISSUER"], "JWKS_URL": f"http://127.0.0.1:{keys.server_port}/jwks.json"}
    folder = tmp_path_factory.mktemp("beside")
    with auth_process(folder, at["MONGO_URL"], at["REDIS_URL"], at["NAMESPACE"], **more) as live:
        beside.url = live.server.url
        yield beside
    keys.shutdown()
    keys.server_close()


class TestCodes:
    async def test_asked_for_at_one_and_entered_at_the_other(self, ann: Person, beside: Beside) -> None:
        flow = (await ann.elsewhere(token="").ask(REQUEST_CODE, input={"email": ann.email}))["flowId"]
        given = {"flowId": flow, "code": await ann.code(ann.email)}
        there = beside.at(ann).elsewhere(token="")
        assert (await there.ask(LOGIN_WITH_CODE, input=given))["__typename"] == "SignedIn"
        assert await ann.elsewhere(token="").refused(LOGIN_WITH_CODE, input=given) == "FLOW_OVER"

    async def test_tries_are_counted_together(self, visitor: Visitor, ann: Person, beside: Beside) -> None:
        flow = (await visitor.ask(REQUEST_CODE, input={"email": ann.email}))["flowId"]
        code = await visitor.code(ann.email)
        both = [visitor, replace(visitor, url=beside.url)]
        tries = [both[n % 2].refused(LOGIN_WITH_CODE, input={"flowId": flow, "code": wrong(code)}) for n in range(20)]
        outcomes = await asyncio.gather(*tries)
        assert (outcomes.count("CODE_WRONG"), outcomes.count("FLOW_OVER")) == (5, 15)

    async def test_messages_are_counted_together(self, beside: Beside, visitor: Visitor) -> None:
        here = replace(visitor, tenant="other")
        email = f"p{visitor.address}@example.com"
        flow = (await here.ask(REQUEST_CODE, input={"email": email}))["flowId"]
        there = replace(here, url=beside.url)
        assert await there.refused(REQUEST_CODE, input={"email": email}) == "RATE_LIMITED"
        assert await there.refused(RESEND, flow=flow, purpose="login_code") == "RATE_LIMITED"


class TestPasswords:
    async def test_tries_are_counted_together(self, visitor: Visitor, ann: Person, beside: Beside) -> None:
        both = [visitor, replace(visitor, url=beside.url)]
        outcomes = await asyncio.gather(*(both[n % 2].elsewhere().login(ann.email, "not it") for n in range(10)))
        codes = [code_of(answer) for answer in outcomes]
        assert (codes.count("INVALID_CREDENTIALS"), codes.count("RATE_LIMITED")) == (5, 5)


class TestSessions:
    async def test_opened_at_one_and_gone_on_with_at_the_other(self, ann: Person, beside: Beside) -> None:
        there = beside.at(ann)
        assert (await there.ask(ME))["id"] == ann.id
        second = (await there.elsewhere(token="").ask(REFRESH, token=ann.session["refreshToken"]))["refreshToken"]
        assert (await ann.elsewhere(token="").ask(REFRESH, token=second))["__typename"] == "SignedIn"

    async def test_fifty_refreshes_at_both(self, ann: Person, beside: Beside) -> None:
        both = [ann.elsewhere(token=""), beside.at(ann).elsewhere(token="")]
        asked = (both[n % 2].ask(REFRESH, token=ann.session["refreshToken"]) for n in range(50))
        answers = await asyncio.gather(*asked)
        assert len({answer["refreshToken"] for answer in answers}) == 1

    async def test_ended_at_one_and_refused_at_the_other(self, ann: Person, beside: Beside) -> None:
        there = beside.at(ann)
        assert await there.refused(ME) == ""
        await ann.ask(LOGOUT)

        async def refused() -> bool:
            return await there.refused(ME) == "UNAUTHENTICATED"

        await eventually(refused, within_s=2)
        assert await there.elsewhere(token="").refused(REFRESH, token=ann.session["refreshToken"]) == "SESSION_OVER"


class TestAddresses:
    async def test_are_what_a_trusted_proxy_says(self, ann: Person) -> None:
        shown = await ann.ask("{ mySessions { edges { node { address } } } }")
        assert [edge["node"]["address"] for edge in shown["edges"]] == [ann.address]

    async def test_and_nothing_that_anybody_else_says(self, ann: Person, beside: Beside) -> None:
        """Each of these would be an address that was never heard of; all count as one."""
        there = beside.at(ann).elsewhere(token="")
        asked = {"query": LOGIN, "variables": {"input": {"identifier": ann.email, "password": "not it"}}}
        await there.post(asked, forwarded="for=192.0.2.9", **{"x-real-ip": "192.0.2.9"})
        signed_in = (await there.login(ann.email))["data"]["login"]
        shown = await replace(there, token=signed_in["accessToken"]).ask(
            "{ mySessions(first: 1) { edges { node { address } } } }"
        )
        assert shown["edges"][0]["node"]["address"] == "127.0.0.1"


class TestKeys:
    async def test_a_flood_of_unknown_ones_is_few_fetches(self, ann: Person, beside: Beside) -> None:
        claims = jwt.decode(ann.token, options={"verify_signature": False})
        private = Ed25519PrivateKey.generate()
        tokens = [
            jwt.encode(claims, private, "EdDSA", headers={"typ": "at+jwt", "kid": f"unknown-{n}"}) for n in range(300)
        ]
        before = len(beside.fetches)
        outcomes = await asyncio.gather(*(beside.at(ann).elsewhere(token=token).refused(ME) for token in tokens))
        assert set(outcomes) == {"UNAUTHENTICATED"}
        assert len(beside.fetches) - before <= 3
        assert await beside.at(ann).refused(ME) == ""
