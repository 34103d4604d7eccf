"""What somebody between a person, a provider and us may try, at a live auth with real providers."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from urllib.parse import quote, urlencode

import httpx
import pytest

from libs.core.testing import scratch_namespace
from tests.auth.liar import liar, signed
from tests.auth.oauth_client import MINE, RETURN_URL, App
from tests.auth.oauth_house import House, open_house, provider_row
from tests.auth.oidc import posted_form, query_of


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, mongo_url: str, redis_url: str) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("oauth"), mongo_url, redis_url, scratch_namespace()) as house:
        yield house


@pytest.fixture
async def app(house: House) -> AsyncIterator[App]:
    async with house.app() as app:
        yield app


@pytest.fixture
async def elsewhere(house: House) -> AsyncIterator[App]:
    """Another person's browser."""
    async with house.app() as app:
        yield app


def name() -> str:
    return f"{secrets.token_hex(6)}@example.com"


def changed(callback: str, **changes: str | None) -> str:
    """Our callback's address with other parameters; None leaves one out."""
    address, _, _ = callback.partition("?")
    given = {**query_of(callback), **changes}
    return f"{address}?{urlencode({name: value for name, value in given.items() if value is not None})}"


async def logged(house: House, action: str, reason: str) -> int:
    """How many rows of the security log say so."""
    async with house.mongo() as mongo:
        return await mongo.db["audit_log"].count_documents({"log": "auth.demo", "action": action, "reason": reason})


class TestState:
    async def test_missing_or_made_up(self, app: App) -> None:
        callback = await app.way_back("one", name())
        for state in (None, "", "demo", "demo.", f"demo.{'A' * 43}", "other.x", ".x", "demo.$ne"):
            answer = await app.http.get(changed(callback, state=state))
            assert (answer.status_code, "location" in answer.headers) == (400, False), state

    async def test_of_another_tenant(self, app: App) -> None:
        callback = await app.way_back("one", name())
        stolen = query_of(callback)["state"].replace("demo.", "other.")
        assert "FLOW_OVER" in (await app.http.get(changed(callback, state=stolen))).text

    async def test_replayed(self, app: App) -> None:
        callback = await app.way_back("one", name())
        assert "code" in await app.open(callback)
        again = await app.http.get(callback)
        assert (again.status_code, "FLOW_OVER" in again.text) == (400, True)

    async def test_many_at_once_have_one_winner(self, app: App) -> None:
        callback = await app.way_back("one", name())
        answers = await asyncio.gather(*(app.http.get(callback) for _ in range(4)))
        codes = [query_of(answer.headers["location"]).get("code") for answer in answers if answer.is_redirect]
        assert len([code for code in codes if code]) == 1

    async def test_another_browsers(self, house: House, app: App, elsewhere: App) -> None:
        """Login CSRF: a victim opens an attacker's way back, and would be signed in as the attacker."""
        callback = await app.way_back("one", name())
        before = await logged(house, "login.failed", "oauth.browser")
        assert await elsewhere.open(callback) == {"error": "OTHER_BROWSER", "state": "mine"}
        assert await logged(house, "login.failed", "oauth.browser") == before + 1

    async def test_another_browsers_that_is_on_its_own_way(self, app: App, elsewhere: App) -> None:
        await elsewhere.way_back("one", name())
        assert (await elsewhere.open(await app.way_back("one", name())))["error"] == "OTHER_BROWSER"

    async def test_and_the_right_browser_still_comes_in(self, app: App, elsewhere: App) -> None:
        callback = await app.way_back("one", name())
        await elsewhere.open(callback)
        assert "code" in await app.open(callback)

    async def test_tries_are_counted(self, app: App, elsewhere: App) -> None:
        callback = await app.way_back("one", name())
        for _ in range(5):
            await elsewhere.http.get(callback)
        assert "FLOW_OVER" in (await app.http.get(callback)).text

    async def test_by_form_from_another_browser(self, app: App, elsewhere: App) -> None:
        page = await app.browser.log_in(app.start_url("post"), name(), until=RETURN_URL)
        assert isinstance(page, httpx.Response)
        action, form = posted_form(page)
        answer = await elsewhere.http.post(action, data=form)
        assert query_of(answer.headers["location"])["error"] == "OTHER_BROWSER"

    async def test_twice_in_one_address(self, app: App) -> None:
        callback = await app.way_back("one", name())
        answer = await app.http.get(f"{callback}&state=demo.x")
        assert (answer.status_code, "BAD_USER_INPUT" in answer.text) == (400, True)

    async def test_the_cookie_is_no_scripts(self, app: App) -> None:
        cookie = (await app.http.get(app.start_url("one"))).headers["set-cookie"]
        assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))


class TestCodes:
    async def test_of_the_provider_replayed(self, app: App) -> None:
        """In a login of one's own, with somebody else's code: PKCE and nonce are of another."""
        stolen = query_of(await app.way_back("one", name()))["code"]
        own = await app.again().way_back("one", "whoever")
        assert (await app.open(changed(own, code=stolen)))["error"] == "PROVIDER_ANSWER_INVALID"

    async def test_of_the_provider_made_up_or_missing(self, app: App) -> None:
        for code in ("made-up", None):
            callback = await app.again().way_back("one", name())
            assert (await app.open(changed(callback, code=code)))["error"] == "PROVIDER_ANSWER_INVALID"

    async def test_ours_without_the_verifier(self, app: App) -> None:
        told = await app.visit("one", name())
        for verifier in ("", "A" * 43, app.challenge, "short", "é" * 43, app.verifier + "A"):
            answer = await app.finish(told, verifier=verifier)
            assert answer["code"] in ("VERIFIER_WRONG", "FLOW_OVER")

    async def test_ours_is_given_up_after_five_tries(self, app: App) -> None:
        told = await app.visit("one", name())
        for _ in range(5):
            assert (await app.finish(told, verifier="A" * 43))["code"] == "VERIFIER_WRONG"
        assert (await app.finish(told))["code"] == "FLOW_OVER"

    async def test_ours_replayed(self, app: App) -> None:
        told = await app.visit("one", name())
        assert (await app.finish(told))["__typename"] == "SignedIn"
        assert (await app.finish(told))["code"] == "FLOW_OVER"

    async def test_ours_at_once(self, house: House, app: App) -> None:
        who = name()
        told = await app.visit("one", who)
        answers = await asyncio.gather(*(app.finish(told) for _ in range(4)))
        assert sorted(answer["__typename"] for answer in answers) == ["Problem"] * 3 + ["SignedIn"]
        async with house.mongo() as mongo:
            assert await mongo.db["users"].count_documents({"email": who}) == 1

    async def test_two_first_logins_at_once_make_one_user(self, house: House, app: App, elsewhere: App) -> None:
        who = name()
        told = [await app.visit("one", who), await elsewhere.visit("one", who)]
        answers = await asyncio.gather(app.finish(told[0]), elsewhere.finish(told[1]))
        assert len({answer["user"]["id"] for answer in answers}) == 1

    async def test_a_state_is_no_code(self, app: App) -> None:
        state = query_of(await app.way_back("one", name()))["state"]
        for code in (state, state.removeprefix("demo.")):
            assert (await app.finish({"code": code}))["code"] in ("FLOW_OVER", "BAD_USER_INPUT")


class TestAddresses:
    @pytest.mark.parametrize(
        "url",
        [
            "https://app.example.evil.example/signed-in",
            "https://evil.app.example/signed-in",
            "https://app.example/signed-in/",
            "https://app.example/signed-in?x=1",
            "https://app.example/signed-in#x",
            "https://app.example/signed-in/../evil",
            "https://app.example@evil.example/signed-in",
            "https://app.example:443/signed-in",
            "http://app.example/signed-in",
            "HTTPS://app.example/signed-in",
            "https://APP.example/signed-in",
            "https://app.example/Signed-In",
            "https://app.example/signed%2Din",
            "https://app.example%2fsigned-in",
            "https://app.example\\@evil.example/signed-in",
            "//app.example/signed-in",
            "/signed-in",
            " https://app.example/signed-in",
            "https://app.example/signed-in ",
            "https://app.example/signed-in\n",
            "javascript:alert(1)",
            "",
        ],
    )
    async def test_to_return_to(self, app: App, url: str) -> None:
        answer = await app.http.get(app.start_url("one", return_url=url))
        assert (answer.status_code, "location" in answer.headers) == (400, False)
        assert "RETURN_URL_REFUSED" in answer.text

    async def test_to_return_to_twice(self, app: App) -> None:
        """Whichever of the two was checked, the other might be used."""
        url = f"{app.start_url('one')}&return_url={quote('https://evil.example/', safe='')}"
        assert (await app.http.get(url)).status_code == 400

    async def test_the_providers_way_back_is_not_the_clients_to_choose(self, app: App) -> None:
        url = app.start_url("one", redirect_uri="https://evil.example/", client_id="evil", response_type="token")
        asked = query_of((await app.http.get(url)).headers["location"])
        assert asked["redirect_uri"] == f"{app.url}/oauth/callback/one"
        assert (asked["client_id"], asked["response_type"]) == ("platform", "code")

    async def test_nor_is_it_the_hosts(self, app: App) -> None:
        answer = await app.http.get(app.start_url("one"), headers={"host": "evil.example", "x-forwarded-host": "evil"})
        assert query_of(answer.headers["location"])["redirect_uri"] == f"{app.url}/oauth/callback/one"

    @pytest.mark.parametrize("challenge", ["", "short", "A" * 42, "A" * 44, "A" * 42 + "=", "A" * 42 + "!"])
    async def test_no_challenge_no_login(self, app: App, challenge: str) -> None:
        assert (await app.http.get(app.start_url("one", challenge=challenge))).status_code == 400

    async def test_what_is_shown_is_text(self, app: App) -> None:
        answer = await app.http.get(f"{app.url}/oauth/callback/<script>?state=<script>.<script>")
        assert "<script>" not in answer.text

    async def test_state_cannot_add_parameters(self, app: App) -> None:
        told = await app.browser.give_up(app.start_url("one", state="x&code=evil#"), until=RETURN_URL)
        assert isinstance(told, str)
        assert query_of(told) == {"error": "PROVIDER_DECLINED", "state": "x&code=evil#"}


class TestMixUp:
    async def test_a_code_of_one_at_the_address_of_the_other(self, app: App) -> None:
        callback = (await app.way_back("one", name())).replace("/callback/one", "/callback/two")
        assert (await app.open(callback))["error"] == "PROVIDER_ANSWER_INVALID"

    async def test_an_answer_in_the_name_of_the_other(self, house: House, app: App) -> None:
        callback = await app.way_back("one", name())
        assert (await app.open(changed(callback, iss=house.issuers["two"])))["error"] == "PROVIDER_ANSWER_INVALID"

    async def test_an_answer_in_nobodys_name(self, app: App) -> None:
        """These providers promise to say who they are."""
        callback = await app.way_back("one", name())
        assert (await app.open(changed(callback, iss=None)))["error"] == "PROVIDER_ANSWER_INVALID"

    async def test_a_provider_that_vouches_for_anothers_people(self, house: House, app: App, elsewhere: App) -> None:
        """The same subject at another issuer is another person."""
        owner = await app.sign_in("one", name())
        async with liar() as evil:
            await house.configure(provider_row("evil", evil.issuer))
            leaves = await elsewhere.http.get(elsewhere.start_url("evil"))
            asked = query_of(leaves.headers["location"])
            evil.vouch(signed(evil.claims(sub=owner["user"]["email"], nonce=asked["nonce"])))
            back = f"{house.url}/oauth/callback/evil?{urlencode({'code': 'x', 'state': asked['state']})}"
            answer = await elsewhere.finish(await elsewhere.open(back))
        assert answer["user"]["id"] != owner["user"]["id"]

    async def test_a_provider_that_claims_to_be_another_issuer(self, house: House, app: App) -> None:
        async with liar() as evil:
            await house.configure(provider_row("evil", evil.issuer))
            leaves = await app.http.get(app.start_url("evil"))
            asked = query_of(leaves.headers["location"])
            evil.vouch(signed(evil.claims(iss=house.issuers["one"], nonce=asked["nonce"])))
            back = f"{house.url}/oauth/callback/evil?{urlencode({'code': 'x', 'state': asked['state']})}"
            assert (await app.open(back))["error"] == "PROVIDER_ANSWER_INVALID"

    async def test_a_token_of_another_login(self, house: House, app: App) -> None:
        """Replayed with its own nonce, or with none."""
        async with liar() as evil:
            await house.configure(provider_row("evil", evil.issuer))
            for nonce in ("that-of-another-login", None):
                asked = query_of((await app.http.get(app.again().start_url("evil"))).headers["location"])
                evil.vouch(signed(evil.claims(nonce=nonce)))
                back = f"{house.url}/oauth/callback/evil?{urlencode({'code': 'x', 'state': asked['state']})}"
                assert (await app.open(back))["error"] == "PROVIDER_ANSWER_INVALID"


class TestTakeover:
    async def test_by_an_address_that_is_not_verified(self, house: House, app: App, elsewhere: App) -> None:
        victim = await app.sign_in("one", "victim")
        assert victim["user"]["email"] == "victim@example.com"
        attacker = await elsewhere.sign_in("two", "victim:unverified")
        assert attacker["__typename"] == "SignedIn"
        assert attacker["user"]["id"] != victim["user"]["id"]
        assert not attacker["user"]["email"]

    async def test_by_holding_an_address_before_its_owner_comes(self, app: App, elsewhere: App) -> None:
        attacker = await app.sign_in("two", "latecomer:unverified")
        owner = await elsewhere.sign_in("one", "latecomer")
        assert (owner["__typename"], owner["user"]["email"]) == ("SignedIn", "latecomer@example.com")
        assert owner["user"]["id"] != attacker["user"]["id"]

    async def test_by_a_verified_address_at_another_provider(self, house: House, app: App, elsewhere: App) -> None:
        who = name()
        await app.sign_in("one", who)
        before = await logged(house, "login.failed", "oauth.not_linked")
        assert (await elsewhere.sign_in("two", who))["code"] == "IDENTITY_NOT_LINKED"
        assert await logged(house, "login.failed", "oauth.not_linked") == before + 1
        assert len(await app.ask(MINE)) == 1

    async def test_by_another_spelling_of_it(self, app: App, elsewhere: App) -> None:
        who = name()
        await app.sign_in("one", who)
        assert (await elsewhere.sign_in("two", who.upper()))["code"] == "IDENTITY_NOT_LINKED"


class TestLinkingInto:
    async def test_anothers_session(self, app: App, elsewhere: App) -> None:
        """A code of the attacker's trip, in the victim's session."""
        await app.sign_in("one", name())
        trip = app.again()
        told = await trip.visit("two", name(), await trip.link_url("two"))
        await elsewhere.sign_in("one", name())
        answer = await elsewhere.finish_link(told, verifier=trip.verifier)
        assert answer["code"] == "FLOW_OVER"
        assert len(await elsewhere.ask(MINE)) == 1

    async def test_another_session_of_ones_own(self, app: App, elsewhere: App) -> None:
        who = name()
        await app.sign_in("one", who)
        await elsewhere.sign_in("one", who)
        trip = app.again()
        told = await trip.visit("two", name(), await trip.link_url("two"))
        assert (await elsewhere.finish_link(told, verifier=trip.verifier))["code"] == "FLOW_OVER"

    async def test_a_session_with_a_code_that_was_for_signing_in(self, app: App) -> None:
        """The attacker's own identity, slipped to a victim's app as if it had been linked."""
        await app.sign_in("one", name())
        trip = app.again()
        told = await trip.visit("two", name())
        assert (await trip.finish_link(told))["code"] == "FLOW_OVER"
        assert len(await app.ask(MINE)) == 1

    async def test_signing_in_with_a_code_that_was_for_linking(self, app: App) -> None:
        await app.sign_in("one", name())
        trip = app.again()
        told = await trip.visit("two", name(), await trip.link_url("two"))
        assert (await trip.finish(told))["code"] == "FLOW_OVER"

    async def test_the_address_that_begins_it_is_good_once(self, app: App, elsewhere: App) -> None:
        await app.sign_in("one", name())
        url = await app.again().link_url("two")
        assert (await elsewhere.http.get(url)).is_redirect
        assert "FLOW_OVER" in (await app.http.get(url)).text

    async def test_the_address_for_another_provider(self, app: App) -> None:
        await app.sign_in("one", name())
        url = await app.again().link_url("two")
        assert "FLOW_OVER" in (await app.http.get(url.replace("/two/", "/one/"))).text

    async def test_without_a_session(self, app: App) -> None:
        with pytest.raises(AssertionError, match="UNAUTHENTICATED"):
            await app.link_url("two")

    async def test_at_an_address_of_anothers(self, app: App) -> None:
        await app.sign_in("one", name())
        start = """mutation ($input: StartIdentityLinkInput!) {
            startIdentityLink(input: $input) { ... on Problem { code } } }"""
        given = {"providerId": "two", "returnUrl": "https://evil.example/", "challenge": app.challenge}
        assert (await app.ask(start, input=given))["code"] == "RETURN_URL_REFUSED"

    async def test_unlinking_anothers(self, app: App, elsewhere: App) -> None:
        await app.sign_in("one", name())
        (identity,) = await app.ask(MINE)
        await elsewhere.sign_in("one", name())
        with pytest.raises(AssertionError, match="NOT_FOUND"):
            await elsewhere.ask("mutation ($id: ID!) { unlinkIdentity(id: $id) { __typename } }", id=identity["id"])


class TestSecrets:
    async def test_what_is_stored_opens_nothing(self, house: House, app: App) -> None:
        """Neither the state, nor the browser's secret, nor the verifiers: a copy of the database signs nobody in."""
        callback = await app.way_back("one", name())
        state = query_of(callback)["state"].partition(".")[2]
        cookie = app.http.cookies.get("oauth")
        async with house.mongo() as mongo:
            flows = str([row async for row in mongo.db["flows"].find({})])
        assert cookie
        assert not any(secret in flows for secret in (state, cookie, app.verifier))

    async def test_a_form_that_is_too_large_or_none(self, app: App) -> None:
        url = f"{app.url}/oauth/callback/post"
        assert (await app.http.post(url, data={"state": "x" * 100_000})).status_code == 400
        assert (await app.http.post(url, json={"state": "demo.x"})).status_code == 400
        many = urlencode([(f"f{n}", "") for n in range(1_000)])
        form = {"content-type": "application/x-www-form-urlencoded"}
        assert (await app.http.post(url, content=many, headers=form)).status_code == 400
