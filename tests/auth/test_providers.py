"""Identity providers, asked as our service asks them: a real one, and ones that answer what they like."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import ValidationError

from libs.core.clock import SystemClock
from libs.core.crypto import SecretBox
from libs.core.errors import Misconfigured, Refusal
from services.auth.domain.identities import Proven
from services.auth.domain.providers import IdentityProvider, check_return_url
from services.auth.providers import PURPOSE, Answer, Providers, Question
from services.auth.providers.outside import ANSWER_BYTES
from tests.auth.liar import Liar, liar, rsa_key, signed
from tests.auth.oidc import CLIENT_ID, CLIENT_SECRET, Browser, oidc_provider, posted_form, query_of
from tests.web import web

KEY = "a-key-for-these-tests-that-is-long-enough"
BACK = "http://127.0.0.1:9/oauth/callback/other"
QUESTION = Question("state", "nonce", "verifier-" * 6, BACK)


@pytest.fixture
async def providers() -> AsyncIterator[Providers]:
    async with Providers(KEY, SystemClock(), development=True) as providers:
        yield providers


@pytest.fixture
async def lying() -> AsyncIterator[Liar]:
    async with liar() as provider:
        yield provider


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with oidc_provider(tmp_path_factory.mktemp("oidc"), BACK) as issuer:
        yield issuer


def configured(issuer: str, secret: str = CLIENT_SECRET, **more: Any) -> IdentityProvider:
    draft = IdentityProvider(id="other", issuer=issuer, client_id=CLIENT_ID)
    sealed = SecretBox(KEY, purpose=PURPOSE).seal(secret, owner=draft.secret_owner).decode()
    return IdentityProvider(**{**draft.model_dump(), "client_secret": sealed, **more})


def answer_of(address: str) -> Answer:
    given = query_of(address)
    return Answer(given.get("code", ""), given.get("error", ""), given.get("iss", ""))


async def journey(providers: Providers, provider: IdentityProvider, who: str) -> Proven:
    """All the way: to the provider's pages, back, and what it says of who was there."""
    at = providers.at(provider)
    async with web() as http:
        address = await Browser(http).log_in(await at.address(QUESTION), who, until=BACK)
    assert isinstance(address, str), address.text
    return await at.proven(QUESTION, answer_of(address))


async def refused(providers: Providers, provider: IdentityProvider, answer: Answer | None = None) -> str:
    """The code and rule of the refusal that there must be."""
    with pytest.raises(Refusal) as refusal:
        await providers.at(provider).proven(QUESTION, answer or Answer("code"))
    return f"{refusal.value.code} {refusal.value.rule}"


class TestOpenID:
    async def test_who_it_is_comes_from_token_and_userinfo(self, providers: Providers, issuer: str) -> None:
        proven = await journey(providers, configured(issuer), "anna")
        assert (proven.issuer, proven.subject, proven.email, proven.locale) == (
            issuer, "anna", "anna@example.com", "de-AT",
        )  # fmt: skip

    async def test_an_address_that_is_not_verified_is_none(self, providers: Providers, issuer: str) -> None:
        assert (await journey(providers, configured(issuer), "anna:unverified")).email == ""

    async def test_nobody_needs_an_address(self, providers: Providers, issuer: str) -> None:
        assert (await journey(providers, configured(issuer), "nobody")).email == ""

    async def test_all_in_the_token(self, providers: Providers, tmp_path: Path) -> None:
        with oidc_provider(tmp_path, BACK, conformIdTokenClaims=False) as issuer:
            assert (await journey(providers, configured(issuer), "anna")).email == "anna@example.com"

    async def test_an_issuer_that_ends_with_a_slash(self, providers: Providers, lying: Liar) -> None:
        """Auth0's do. Of the document's address it is no part; of the issuer it is."""
        issuer = f"{lying.issuer}/"
        lying.say("/.well-known/openid-configuration", lying.discovery(issuer=issuer))
        lying.vouch(signed(lying.claims(iss=issuer)))
        assert (await providers.at(configured(issuer)).proven(QUESTION, Answer("code"))).issuer == issuer

    async def test_a_client_that_posts_its_secret(self, providers: Providers, tmp_path: Path) -> None:
        async with liar() as lying:
            methods = lying.discovery(token_endpoint_auth_methods_supported=["client_secret_post"])
            lying.say("/.well-known/openid-configuration", methods)
            await providers.at(configured(lying.issuer)).proven(QUESTION, Answer("code"))
            assert dict(lying.asked)["/token"]["client_secret"] == CLIENT_SECRET

    async def test_what_is_asked(self, providers: Providers, lying: Liar) -> None:
        asked = query_of(await providers.at(configured(lying.issuer)).address(QUESTION))
        assert asked.pop("code_challenge")
        assert asked == {
            "response_type": "code",
            "client_id": "platform",
            "redirect_uri": BACK,
            "scope": "openid email profile",
            "state": "state",
            "nonce": "nonce",
            "code_challenge_method": "S256",
        }

    async def test_verifier_and_redirect_uri_are_shown_with_the_code(self, providers: Providers, lying: Liar) -> None:
        await providers.at(configured(lying.issuer)).proven(QUESTION, Answer("code"))
        form = dict(lying.asked)["/token"]
        assert (form["code"], form["code_verifier"], form["redirect_uri"]) == ("code", QUESTION.verifier, BACK)

    async def test_keys_that_were_rotated_are_found(self, lying: Liar, providers: Providers) -> None:
        providers._discovery._keys._at_most_every_s = 0
        at = providers.at(configured(lying.issuer))
        await at.proven(QUESTION, Answer("code"))
        lying.publish(rsa_key("second"))
        lying.vouch(signed(lying.claims(), rsa_key("second")))
        assert (await at.proven(QUESTION, Answer("code"))).subject == "anna"

    async def test_unknown_keys_do_not_make_us_ask_without_end(self, lying: Liar, providers: Providers) -> None:
        lying.vouch(signed(lying.claims(), rsa_key("second")))
        for _ in range(5):
            assert "oauth.id_token.key" in await refused(providers, configured(lying.issuer))
        assert lying.times_asked("/jwks") == 1

    async def test_a_secret_of_another_client_does_not_open(self, lying: Liar, providers: Providers) -> None:
        at = providers.at(configured(lying.issuer, client_id="another"))
        with pytest.raises(Misconfigured):
            await at.proven(QUESTION, Answer("code"))


class TestApple:
    """On a provider that checks client secrets as Apple does. The rest of Apple is what it answers by form."""

    async def test_the_secret_is_a_token_of_ours_and_the_name_comes_by_form(
        self, providers: Providers, tmp_path: Path
    ) -> None:
        key = generate_private_key(SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        apple = {"publicKey": public, "teamId": "TEAM", "keyId": "KEY"}
        by_post = {"token_endpoint_auth_method": "client_secret_post"}
        with oidc_provider(tmp_path, BACK, apple=apple, client=by_post) as issuer:
            provider = configured(issuer, pem, preset="apple", team_id="TEAM", key_id="KEY", scopes=("openid", "email"))
            at = providers.at(provider)
            async with web() as http:
                page = await Browser(http).log_in(await at.address(QUESTION), "anna", until=BACK)
            assert isinstance(page, httpx.Response)
            action, form = posted_form(page)
            assert action == BACK
            user = json.dumps({"name": {"firstName": "Anna", "lastName": "Bauer"}, "email": "victim@example.com"})
            proven = await at.proven(QUESTION, Answer(form["code"], iss=form["iss"], user=user))
        assert (proven.subject, proven.email, proven.name) == ("anna", "anna@example.com", "Anna Bauer")

    @pytest.mark.parametrize("user", ["", "{", "[]", '{"name": "Anna"}', '{"name": {"firstName": 7}}'])
    def test_names_of_no_shape_are_none(self, providers: Providers, user: str) -> None:
        provider = configured("http://127.0.0.1", preset="apple", team_id="T", key_id="K")
        assert providers.at(provider)._name(Answer(user=user)) == ""  # type: ignore[union-attr]


class TestGitHub:
    async def test_the_primary_verified_address(self, providers: Providers, lying: Liar) -> None:
        hub(lying)
        proven = await providers.at(configured(lying.issuer, preset="github")).proven(QUESTION, Answer("code"))
        assert proven == Proven(lying.issuer, "583231", "anna@example.com", "anna-b")

    async def test_an_address_that_is_not_verified_is_none(self, providers: Providers, lying: Liar) -> None:
        hub(lying, emails=[{"email": "anna@example.com", "primary": True, "verified": False}])
        proven = await providers.at(configured(lying.issuer, preset="github")).proven(QUESTION, Answer("code"))
        assert proven.email == ""

    async def test_a_code_of_another_issuer(self, providers: Providers, lying: Liar) -> None:
        hub(lying)
        answer = Answer("code", iss="https://evil.example")
        assert "oauth.iss" in await refused(providers, configured(lying.issuer, preset="github"), answer)

    async def test_what_is_no_user(self, providers: Providers, lying: Liar) -> None:
        hub(lying, user={"message": "Bad credentials"})
        assert "oauth.answer" in await refused(providers, configured(lying.issuer, preset="github"))


def hub(lying: Liar, user: Any = None, emails: Any = None) -> None:
    """As GitHub answers; its errors of the token endpoint come with status 200."""
    lying.say("/login/oauth/access_token", {"access_token": "gho_x", "token_type": "bearer", "scope": "user:email"})
    lying.say("/api/v3/user", user or {"id": 583231, "login": "anna-b", "name": None})
    several = [
        {"email": "old@example.com", "primary": False, "verified": True},
        {"email": "Anna@Example.com", "primary": True, "verified": True},
    ]
    lying.say("/api/v3/user/emails", emails or several)


class TestBadProviders:
    """Nobody waits long for one, and nothing that it says is believed."""

    async def test_another_issuer_in_the_document(self, providers: Providers, lying: Liar) -> None:
        lying.say("/.well-known/openid-configuration", lying.discovery(issuer="https://accounts.google.com"))
        assert "PROVIDER_UNAVAILABLE" in await refused(providers, configured(lying.issuer))

    async def test_an_issuer_that_differs_by_a_slash(self, providers: Providers, lying: Liar) -> None:
        lying.say("/.well-known/openid-configuration", lying.discovery(issuer=f"{lying.issuer}/"))
        assert "PROVIDER_UNAVAILABLE" in await refused(providers, configured(lying.issuer))

    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"issuer": 7}'])
    async def test_no_document(self, providers: Providers, lying: Liar, body: bytes) -> None:
        lying.say("/.well-known/openid-configuration", body)
        assert "PROVIDER_UNAVAILABLE" in await refused(providers, configured(lying.issuer))

    @pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/jwks", "/token"])
    async def test_server_errors(self, providers: Providers, lying: Liar, path: str) -> None:
        lying.say(path, {"error": "server_error"}, status=503)
        assert "PROVIDER_UNAVAILABLE" in await refused(providers, configured(lying.issuer))

    @pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/jwks", "/token"])
    async def test_answers_without_end(self, providers: Providers, lying: Liar, path: str) -> None:
        lying.say(path, b" " * (ANSWER_BYTES + 1))
        assert "PROVIDER_UNAVAILABLE" in await refused(providers, configured(lying.issuer))

    async def test_one_that_does_not_answer_is_given_up(
        self, providers: Providers, lying: Liar, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("services.auth.providers.client.WITHIN_S", 0.2)
        at = providers.at(configured(lying.issuer))
        await at.proven(QUESTION, Answer("code"))
        lying.delay_s = 30
        async with asyncio.timeout(5):
            assert "PROVIDER_UNAVAILABLE" in await refused(providers, configured(lying.issuer))

    async def test_one_that_is_down_is_asked_once_in_a_while(self, providers: Providers, lying: Liar) -> None:
        lying.say("/.well-known/openid-configuration", {}, status=500)
        for _ in range(5):
            await refused(providers, configured(lying.issuer))
        assert len(lying.asked) == 1

    async def test_what_was_known_stays_good_while_it_is_down(self, providers: Providers, lying: Liar) -> None:
        at = providers.at(configured(lying.issuer))
        await at.proven(QUESTION, Answer("code"))
        lying.say("/.well-known/openid-configuration", {}, status=500)
        providers._discovery._documents._fresh_s = 0
        assert (await at.proven(QUESTION, Answer("code"))).subject == "anna"

    @pytest.mark.parametrize("endpoint", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
    async def test_endpoints_that_are_not_of_the_web(self, providers: Providers, lying: Liar, endpoint: str) -> None:
        changed = lying.discovery(**{endpoint: "javascript:alert(1)"})
        lying.say("/.well-known/openid-configuration", changed)
        assert "PROVIDER_UNAVAILABLE" in await refused(providers, configured(lying.issuer))

    async def test_a_redirect_is_not_followed(self, providers: Providers, lying: Liar) -> None:
        lying.say("/token", {}, status=307)
        assert "PROVIDER_" in await refused(providers, configured(lying.issuer))
        assert lying.times_asked("/token") == 1

    async def test_in_production_nothing_inside_is_asked(self, lying: Liar) -> None:
        async with Providers(KEY, SystemClock(), development=False) as providers:
            assert "PROVIDER_UNAVAILABLE" in await refused(providers, configured(lying.issuer))
            by_tls = lying.issuer.replace("http://", "https://")
            assert "PROVIDER_UNAVAILABLE" in await refused(providers, configured(by_tls))
        assert lying.asked == []


class TestConfiguration:
    @pytest.mark.parametrize(
        ("wrong", "why"),
        [
            ({"client_secret": "GOCSPX-in-clear"}, "a secret in clear would be for every admin to read"),
            ({"issuer": ""}, "nobody to ask"),
            ({"issuer": "https://user@idp.example"}, "a user in the URL"),
            ({"issuer": "https://idp.example/?tenant=1"}, "Discovery forbids a query"),
            ({"issuer": "file:///etc/passwd"}, "not of the web"),
            ({"scopes": ("email",)}, "not OpenID Connect"),
            ({"id": "callback"}, "its address would be another's"),
            ({"id": "Other"}, "not lower case"),
            ({"preset": "apple"}, "no key"),
            ({"preset": "github"}, "no secret"),
            ({"client_secret_env": "AUTH_KEY"}, "unknown field"),
        ],
    )
    def test_refused(self, wrong: dict[str, Any], why: str) -> None:
        given = {"id": "other", "issuer": "https://idp.example", "client_id": "platform", **wrong}
        with pytest.raises(ValidationError):
            IdentityProvider(**given)

    @pytest.mark.parametrize(
        "url",
        ["https://app.example/done", "https://app.example/done?x=1", "http://localhost:5173/", "com.example.app:/done"],
    )
    def test_return_urls(self, url: str) -> None:
        assert check_return_url(url) == url

    @pytest.mark.parametrize(
        "url",
        [
            "http://app.example/done", "javascript:alert(1)", "data:text/html,x", "https://app.example/#x", "/done",
            "https://app.example@evil.example/", "https://app.example\\@evil.example/", "//app.example", "app:/done",
            "https://app.example/a b", "https://app.example\n/", "",
        ],
    )  # fmt: skip
    def test_no_return_urls(self, url: str) -> None:
        with pytest.raises(ValueError):
            check_return_url(url)
