"""Signing in with an identity provider, from the button to the session: real programs on both sides, a live auth."""

import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pyotp
import pytest

from libs.core.testing import scratch_namespace
from tests.auth.oauth_client import MINE, UNLINK, App
from tests.auth.oauth_house import House, open_house, provider_row
from tests.auth.oidc import query_of
from tests.web import web


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, mongo_url: str, redis_url: str) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("oauth"), mongo_url, redis_url, scratch_namespace()) as house:
        yield house


@pytest.fixture
async def app(house: House) -> AsyncIterator[App]:
    async with house.app() as app:
        yield app


async def told_of(house: House, user_id: str) -> list[str]:
    """The types of what was published about them, in order."""
    async with house.mongo() as mongo:
        texts = [row["events"] async for row in mongo.db["outbox"].find({}).sort([("at", 1), ("_id", 1)])]
    told = [json.loads(line) for text in texts for line in text.splitlines() if line.startswith("{")]
    return [event["type"] for event in told if event["subject"] == user_id]


class TestSigningIn:
    async def test_somebody_new_becomes_a_user(self, house: House, app: App) -> None:
        answer = await app.sign_in("one", "newcomer@example.com")
        assert answer["user"]["email"] == "newcomer@example.com"
        assert (await app.ask("{ me { email } }"))["email"] == "newcomer@example.com"
        told = await told_of(house, answer["user"]["id"])
        assert told == ["user.registered", "user.verified", "identity.linked", "login.succeeded"]

    async def test_who_comes_back_is_the_same_user(self, house: House, app: App) -> None:
        first = await app.sign_in("two", "regular@example.com")
        async with house.app() as elsewhere:
            second = await elsewhere.sign_in("two", "regular@example.com")
        assert first["user"] == second["user"]

    async def test_a_session_at_the_provider_needs_no_more_clicks(self, app: App) -> None:
        first = await app.sign_in("one", "clicker@example.com")
        assert (await app.again().sign_in("one", "nobody is asked"))["user"] == first["user"]

    async def test_the_clients_state_comes_back(self, app: App) -> None:
        assert (await app.visit("one", "stately@example.com"))["state"] == "mine"

    async def test_by_form_as_apple_does(self, app: App) -> None:
        answer = await app.sign_in("post", "poster@example.com")
        assert answer["user"]["email"] == "poster@example.com"

    async def test_without_an_address(self, app: App) -> None:
        answer = await app.sign_in("one", "nobody")
        assert answer["__typename"] == "SignedIn"
        assert not answer["user"]["email"]

    async def test_two_tabs_of_one_browser(self, app: App) -> None:
        other = app.again()
        first, second = await app.way_back("one", "tabs@example.com"), await other.way_back("one", "tabs@example.com")
        assert (await other.finish(await other.open(second)))["__typename"] == "SignedIn"
        assert (await app.finish(await app.open(first)))["__typename"] == "SignedIn"

    async def test_a_second_factor_is_asked_for_as_ever(self, app: App) -> None:
        await app.sign_in("one", "careful@example.com")
        setup = await app.ask("mutation { startTotp { ... on TotpSetup { flowId secret } ... on Problem { code } } }")
        totp = pyotp.TOTP(setup["secret"])
        confirm = "mutation ($input: ConfirmTotpInput!) { confirmTotp(input: $input) { __typename } }"
        done = await app.ask(confirm, input={"flowId": setup["flowId"], "code": totp.now()})
        assert done["__typename"] == "FactorsChanged"
        app.token = ""
        answer = await app.again().sign_in("one", "careful@example.com")
        assert answer["__typename"] == "SecondFactorRequired"
        assert "totp" in answer["methods"]

    async def test_other_tenants_have_providers_and_users_of_their_own(self, house: House, app: App) -> None:
        here = await app.sign_in("one", "both@example.com")
        async with house.app("other") as elsewhere:
            back = await elsewhere.browser.open(elsewhere.start_url("one"), until="https://app.example/")
            assert isinstance(back, httpx.Response)
            assert "RETURN_URL_REFUSED" in back.text
            await house.configure(tenant="other")
            there = await elsewhere.again().sign_in("one", "both@example.com")
        assert there["__typename"] == "SignedIn"
        assert there["user"]["id"] != here["user"]["id"]


class TestNotSigningIn:
    async def test_somebody_who_changes_their_mind(self, app: App) -> None:
        back = await app.browser.give_up(app.start_url("one"), until="https://app.example/")
        assert isinstance(back, str)
        assert query_of(back) == {"error": "PROVIDER_DECLINED", "state": "mine"}

    async def test_a_provider_that_is_down(self, house: House, app: App) -> None:
        await house.configure(provider_row("down", "http://127.0.0.1:1"))
        back = await app.browser.open(app.start_url("down"), until="https://app.example/")
        assert isinstance(back, str)
        assert query_of(back) == {"error": "PROVIDER_UNAVAILABLE", "state": "mine"}

    async def test_a_provider_that_there_is_none_of(self, app: App) -> None:
        back = await app.browser.open(app.start_url("three"), until="https://app.example/")
        assert isinstance(back, str)
        assert query_of(back)["error"] == "PROVIDER_UNKNOWN"

    async def test_a_page_where_there_is_nowhere_to_go(self, app: App) -> None:
        answer = await app.http.get(f"{app.url}/oauth/callback/one")
        assert (answer.status_code, "text/html" in answer.headers["content-type"]) == (400, True)
        assert "Sign-in did not work" in answer.text


class TestLinking:
    async def test_another_provider_signs_in_the_same_user(self, house: House, app: App) -> None:
        first = await app.sign_in("one", "linker@example.com")
        linked = await app.again().link("two", "linker-elsewhere@example.com")
        assert (linked["__typename"], linked["providerId"]) == ("LinkedIdentity", "two")
        async with house.app() as elsewhere:
            second = await elsewhere.sign_in("two", "linker-elsewhere@example.com")
        assert second["user"] == first["user"]
        assert (await told_of(house, first["user"]["id"])).count("identity.linked") == 2

    async def test_the_address_of_an_account_is_not_linked_by_itself(self, house: House, app: App) -> None:
        await app.sign_in("one", "owner@example.com")
        async with house.app() as elsewhere:
            answer = await elsewhere.sign_in("two", "owner@example.com")
        assert (answer["code"], answer["rule"]) == ("IDENTITY_NOT_LINKED", "oauth.not_linked")

    async def test_and_is_by_its_owner(self, house: House, app: App) -> None:
        owner = await app.sign_in("one", "double@example.com")
        async with house.app() as elsewhere:
            assert (await elsewhere.sign_in("two", "double@example.com"))["code"] == "IDENTITY_NOT_LINKED"
        await app.again().link("two", "double@example.com")
        async with house.app() as elsewhere:
            assert (await elsewhere.again().sign_in("two", "double@example.com"))["user"] == owner["user"]

    async def test_twice_is_once(self, app: App) -> None:
        await app.sign_in("one", "twice@example.com")
        first = await app.again().link("two", "twice@example.com")
        assert await app.again().link("two", "twice@example.com") == first

    async def test_one_that_is_anothers(self, house: House, app: App) -> None:
        async with house.app() as elsewhere:
            await elsewhere.sign_in("two", "first@example.com")
        await app.sign_in("one", "second@example.com")
        assert (await app.again().link("two", "first@example.com"))["code"] == "IDENTITY_TAKEN"


class TestUnlinking:
    async def test_as_long_as_another_way_in_is_left(self, app: App) -> None:
        await app.sign_in("one", "leaver@example.com")
        (only,) = await app.ask(MINE)
        assert only["label"] == "leaver@example.com"
        assert (await app.ask(UNLINK, id=only["id"]))["__typename"] == "LinkedIdentity"
        assert await app.ask(MINE) == []

    async def test_the_last_way_in_stays(self, app: App) -> None:
        await app.sign_in("two", "nobody")
        (only,) = await app.ask(MINE)
        assert (await app.ask(UNLINK, id=only["id"]))["code"] == "LAST_WAY_IN"

    async def test_afterwards_the_provider_opens_nothing(self, house: House, app: App) -> None:
        await app.sign_in("one", "gone@example.com")
        (only,) = await app.ask(MINE)
        await app.ask(UNLINK, id=only["id"])
        async with house.app() as elsewhere:
            assert (await elsewhere.sign_in("one", "gone@example.com"))["code"] == "IDENTITY_NOT_LINKED"


async def test_the_buttons_of_a_login_page(house: House) -> None:
    query = {"query": "{ identityProviders { id label preset startUrl } }"}
    async with web() as http:
        answer = (await http.post(f"{house.url}/graphql", json=query)).json()
    first = answer["data"]["identityProviders"][0]
    assert first == {
        "id": "one", "label": "one", "preset": "oidc", "startUrl": f"{house.url}/oauth/one/start?tenant=demo",
    }  # fmt: skip
    assert "secret" not in json.dumps(answer)
