"""ID tokens that no honest provider would issue, each through the whole of what our service does with one."""

import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from hashlib import sha256
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey

from libs.core.clock import SystemClock
from libs.core.errors import Refusal
from services.auth.domain.providers import IdentityProvider
from services.auth.providers import Answer, Providers, Question
from tests.auth.liar import Liar, liar, rsa_key, signed

QUESTION = Question("state", "nonce", "verifier-" * 6, "http://127.0.0.1:9/oauth/callback/other")


@pytest.fixture
async def provider() -> AsyncIterator[Liar]:
    async with liar() as provider:
        yield provider


async def verdict(provider: Liar, *id_token: Any, answer: Answer | None = None) -> str:
    """Who is taken to have logged in; or the rule that refused."""
    if id_token:
        provider.vouch(*id_token)
    configured = IdentityProvider(id="other", issuer=provider.issuer, client_id="platform")
    async with Providers("a-key-that-is-as-long-as-it-must-be", SystemClock(), development=True) as providers:
        try:
            return (await providers.at(configured).proven(QUESTION, answer or Answer("code"))).subject
        except Refusal as refusal:
            return refusal.rule.removeprefix("oauth.")


def by_hmac(claims: Mapping[str, Any], secret: bytes) -> str:
    """By hand: libraries refuse to take a public key for a secret."""
    signed_part = f"{b64(json.dumps({'alg': 'HS256', 'kid': 'first'}))}.{b64(json.dumps(claims))}"
    return f"{signed_part}.{b64(hmac.digest(secret, signed_part.encode(), 'sha256'))}"


def b64(text: str | bytes) -> str:
    return urlsafe_b64encode(text.encode() if isinstance(text, str) else text).rstrip(b"=").decode()


async def test_an_honest_one(provider: Liar) -> None:
    assert await verdict(provider, signed(provider.claims())) == "anna"


class TestSignature:
    async def test_alg_none(self, provider: Liar) -> None:
        _, claims, _ = signed(provider.claims()).split(".")
        for alg in ("none", "None", "NONE"):
            for signature in ("", "AAAA"):
                header = json.dumps({"alg": alg, "kid": "first"})
                forged = f"{b64(header)}.{claims}.{signature}"
                assert await verdict(provider, forged) == "id_token.signature"

    async def test_hs256_with_the_public_key(self, provider: Liar) -> None:
        """The provider says that it signs with HS256, too: the list is ours, not its."""
        for form in (rsa_key().as_pem(private=False), rsa_key().as_der(private=False)):
            forged = by_hmac(provider.claims(), form)
            assert await verdict(provider, forged) == "id_token.signature"

    async def test_hs256_with_the_client_secret(self, provider: Liar) -> None:
        forged = signed(provider.claims(), OctKey.import_key("secret" * 8, {"kid": "first"}), alg="HS256")
        assert await verdict(provider, forged) == "id_token.signature"

    async def test_a_shared_secret_among_the_published_keys(self, provider: Liar) -> None:
        shared = OctKey.import_key("secret" * 8, {"kid": "shared"})
        jwks = {"keys": [shared.as_dict(private=True), rsa_key().as_dict(private=False)]}
        provider.say("/jwks", jwks)
        assert await verdict(provider, signed(provider.claims(), shared, alg="HS256")) == "id_token.signature"

    async def test_another_key_under_the_same_kid(self, provider: Liar) -> None:
        forger = RSAKey.generate_key(2048, {"kid": "first"})
        assert await verdict(provider, signed(provider.claims(), forger)) == "id_token.signature"

    async def test_a_key_that_the_token_brings_along(self, provider: Liar) -> None:
        forger = RSAKey.generate_key(2048, {"kid": "first"})
        for header in ({"jwk": forger.as_dict(private=False)}, {"jku": f"{provider.issuer}/forged"}):
            assert await verdict(provider, signed(provider.claims(), forger, **header)) == "id_token.signature"
        assert provider.times_asked("/forged") == 0

    async def test_a_key_of_another_kind(self, provider: Liar) -> None:
        forger = ECKey.generate_key("P-256", {"kid": "first"})
        assert await verdict(provider, signed(provider.claims(), forger, alg="ES256")) == "id_token.signature"

    async def test_a_weak_key(self, provider: Liar) -> None:
        with pytest.warns(match="2048"):
            weak = RSAKey.generate_key(1024, {"kid": "weak"})
        provider.publish(weak, rsa_key())
        assert await verdict(provider, signed(provider.claims(), weak)) == "id_token.key"

    async def test_claims_that_were_changed(self, provider: Liar) -> None:
        header, _, signature = signed(provider.claims()).split(".")
        _, claims, _ = signed(provider.claims(sub="boris")).split(".")
        assert await verdict(provider, f"{header}.{claims}.{signature}") == "id_token.signature"

    @pytest.mark.parametrize("rubbish", ["a.b.c", "..", "a", "é.é.é", "." * 100, "a" * 200_000])
    async def test_rubbish(self, provider: Liar, rubbish: str) -> None:
        assert await verdict(provider, rubbish) == "id_token.signature"

    @pytest.mark.parametrize("missing", ["", None, 7, ["a"], {}])
    async def test_no_token(self, provider: Liar, missing: Any) -> None:
        assert await verdict(provider, missing) == "id_token"


class TestClaims:
    @pytest.mark.parametrize(
        ("claim", "value", "why"),
        [
            ("iss", "https://accounts.google.com", "another issuer"),
            ("iss", None, "no issuer"),
            ("aud", "another-client", "a token that another site got"),
            ("aud", ["another-client"], "the same in a list"),
            ("aud", None, "for nobody"),
            ("sub", None, "about nobody"),
            ("sub", "", "about nobody"),
            ("sub", 7, "not a string"),
            ("sub", "a" * 256, "longer than the standard allows"),
            ("sub", "an\0na", "would be somebody else's in a log"),
            ("exp", 1, "expired"),
            ("exp", None, "never expires"),
            ("exp", "9999999999", "not a number"),
            ("iat", None, "of no time"),
            ("nonce", "another", "replayed from another login"),
            ("nonce", None, "replayed from a login without"),
            ("nonce", ["nonce", "another"], "one that fits several"),
            ("azp", "another-client", "issued to somebody else"),
        ],
    )
    async def test_refused(self, provider: Liar, claim: str, value: Any, why: str) -> None:
        assert await verdict(provider, signed(provider.claims(**{claim: value}))) == f"id_token.{claim}"

    async def test_issued_in_the_future(self, provider: Liar) -> None:
        later = int(time.time()) + 3600
        assert await verdict(provider, signed(provider.claims(iat=later, exp=later + 300))) == "id_token.iat"

    async def test_not_valid_yet(self, provider: Liar) -> None:
        assert await verdict(provider, signed(provider.claims(nbf=int(time.time()) + 3600))) == "id_token.nbf"

    async def test_for_several_clients_without_saying_which(self, provider: Liar) -> None:
        assert await verdict(provider, signed(provider.claims(aud=["platform", "another-client"]))) == "id_token.azp"

    async def test_for_several_clients_and_issued_to_us(self, provider: Liar) -> None:
        claims = provider.claims(aud=["platform", "another-client"], azp="platform")
        assert await verdict(provider, signed(claims)) == "anna"

    async def test_an_access_token_that_was_swapped(self, provider: Liar) -> None:
        def of(token: str) -> str:
            return b64(sha256(token.encode()).digest()[:16])

        assert await verdict(provider, signed(provider.claims(at_hash=of("access")))) == "anna"
        assert await verdict(provider, signed(provider.claims(at_hash=of("another")))) == "id_token.at_hash"
        assert await verdict(provider, signed(provider.claims(at_hash=7))) == "id_token.at_hash"


class TestAnswer:
    async def test_a_code_of_another_issuer(self, provider: Liar) -> None:
        """Mix-up: RFC 9207. The code is not even shown to this one."""
        answer = Answer("code", iss="https://evil.example")
        assert await verdict(provider, signed(provider.claims()), answer=answer) == "iss"
        assert provider.times_asked("/token") == 0

    async def test_no_issuer_though_it_promised_one(self, provider: Liar) -> None:
        promised = provider.discovery(authorization_response_iss_parameter_supported=True)
        provider.say("/.well-known/openid-configuration", promised)
        assert await verdict(provider, signed(provider.claims())) == "iss"

    @pytest.mark.parametrize("answer", [{"error": "invalid_grant"}, {"token_type": "Bearer"}, [], 7, "x"])
    async def test_no_tokens(self, provider: Liar, answer: Any) -> None:
        provider.say("/token", answer)
        assert await verdict(provider) in ("code", "access_token", "answer")

    async def test_userinfo_of_somebody_else(self, provider: Liar) -> None:
        provider.say("/.well-known/openid-configuration", provider.discovery(userinfo_endpoint=f"{provider.issuer}/me"))
        provider.say("/me", {"sub": "boris", "email": "boris@example.com", "email_verified": True})
        assert await verdict(provider, signed(provider.claims())) == "userinfo.sub"

    @pytest.mark.parametrize("verified", [False, None, "false", 1, "yes", [True]])
    async def test_an_address_that_is_not_clearly_verified(self, provider: Liar, verified: Any) -> None:
        provider.vouch(signed(provider.claims(email="victim@example.com", email_verified=verified)))
        configured = IdentityProvider(id="other", issuer=provider.issuer, client_id="platform")
        async with Providers("a-key-that-is-as-long-as-it-must-be", SystemClock(), development=True) as providers:
            assert (await providers.at(configured).proven(QUESTION, Answer("code"))).email == ""
