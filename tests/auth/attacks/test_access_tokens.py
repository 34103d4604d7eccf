"""Access tokens that auth did not sign, or signed for something else, shown to a live auth."""

import asyncio
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from libs.core.clock import SystemClock
from libs.core.crypto import SecretBox
from libs.core.errors import Unauthenticated
from libs.core.revocations import Revocations, RevokedKey
from libs.core.settings import DEVELOPMENT_SECRET
from libs.core.testing import eventually
from services.auth.commands.devices import Device
from services.auth.commands.login import login
from services.auth.commands.tokens import SignedIn
from services.auth.domain.identifiers import parse_username
from services.auth.keys import SigningKeys
from tests.auth.attacks.scene import ME, PASSWORD, Person, Scene, closed, code_of, heard, socket
from tests.auth.conftest import House
from tests.live import LiveAuth
from tests.web import web

UNAUTHENTICATED = "UNAUTHENTICATED"


@pytest.fixture(scope="module")
def known(attacked: LiveAuth) -> Person:
    async def make() -> Person:
        async with web(timeout=30) as http:
            return await Scene(attacked, http).person()

    return asyncio.run(make())


@pytest.fixture
def ann(known: Person, scene: Scene) -> Person:
    """The same for all of these tests."""
    return replace(known, http=scene.http)


def b64(text: str | bytes) -> str:
    return urlsafe_b64encode(text.encode() if isinstance(text, str) else text).rstrip(b"=").decode()


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})


def unsigned(header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    return f"{b64(json.dumps(header))}.{b64(json.dumps(claims))}"


async def shown(person: Person, token: str) -> str:
    return code_of(await person.elsewhere(token=token).answer(ME))


class TestSignature:
    async def test_of_an_honest_token(self, ann: Person) -> None:
        assert await shown(ann, ann.token) == ""

    @pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", ""])
    async def test_algorithm_none(self, ann: Person, alg: str) -> None:
        header, claims = parts(ann.token)
        forged = unsigned(header | {"alg": alg}, claims | {"roles": ["admin"]})
        assert {await shown(ann, f"{forged}.{end}") for end in ("", "AAAA")} == {UNAUTHENTICATED}

    async def test_hmac_with_the_public_key(self, scene: Scene, ann: Person) -> None:
        header, claims = parts(ann.token)
        _, private = await scene.signing_key()
        public = private.public_key()
        jwk = (await ann.http.get(f"{ann.url}/.well-known/jwks.json")).content
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for secret in (public.public_bytes_raw(), pem, pem.strip(), b64(public.public_bytes_raw()).encode(), jwk):
            text = unsigned(header | {"alg": "HS256"}, claims)
            forged = f"{text}.{b64(hmac.digest(secret, text.encode(), 'sha256'))}"
            assert await shown(ann, forged) == UNAUTHENTICATED

    async def test_of_another_key_under_the_same_kid(self, ann: Person) -> None:
        header, claims = parts(ann.token)
        forged = jwt.encode(claims, Ed25519PrivateKey.generate(), "EdDSA", headers=header)
        assert await shown(ann, forged) == UNAUTHENTICATED

    async def test_over_other_claims(self, ann: Person, eve: Person) -> None:
        head, _, signature = eve.token.split(".")
        _, claims = parts(ann.token)
        assert await shown(eve, f"{head}.{b64(json.dumps(claims))}.{signature}") == UNAUTHENTICATED


class TestHeader:
    async def test_that_brings_its_own_key(self, ann: Person) -> None:
        header, claims = parts(ann.token)
        private = Ed25519PrivateKey.generate()
        x = b64(private.public_key().public_bytes_raw())
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": header["kid"], "use": "sig", "alg": "EdDSA"}
        for more in (
            {"jwk": jwk},
            {"jku": f"{ann.url}/development/messages"},
            {"jku": "http://127.0.0.1:1/jwks.json"},
            {"x5u": "http://127.0.0.1:1/certificate.pem"},
            {"x5c": ["MIIB"]},
            {"x5t": "AAAA"},
        ):
            for kid in (header["kid"], "mine"):
                forged = jwt.encode(claims, private, "EdDSA", headers=header | more | {"kid": kid})
                assert await shown(ann, forged) == UNAUTHENTICATED, more

    @pytest.mark.parametrize(
        "more", [{"crit": ["exp"]}, {"b64": False, "crit": ["b64"]}, {"zip": "DEF"}, {"cty": "JWT"}]
    )
    async def test_that_wants_something_understood(self, scene: Scene, ann: Person, more: dict[str, Any]) -> None:
        """Although the signature is the house's own."""
        header, claims = parts(ann.token)
        _, private = await scene.signing_key()
        text = unsigned(header | more, claims)
        assert await shown(ann, f"{text}.{b64(private.sign(text.encode()))}") == UNAUTHENTICATED

    @pytest.mark.parametrize(
        "kid",
        [
            "../../../../dev/null",
            "/proc/sys/kernel/osrelease",
            "' OR '1'='1",
            "x' UNION SELECT 'key' --",
            "*",
            "a\x00b",
            {"$ne": ""},
            {"$gt": ""},
            ["a"],
            0,
            True,
            None,
            "",
            "k" * 129,
            "k" * 6_000,
            "http://127.0.0.1:1/key",
        ],
        ids=lambda kid: repr(kid)[:24],
    )
    async def test_kid_that_is_no_name_of_a_key(self, scene: Scene, ann: Person, kid: Any) -> None:
        header, claims = parts(ann.token)
        _, private = await scene.signing_key()
        text = unsigned(header | {"kid": kid}, claims)
        assert await shown(ann, f"{text}.{b64(private.sign(text.encode()))}") == UNAUTHENTICATED

    @pytest.mark.parametrize("name", ["alg", "kid", "typ"])
    async def test_left_out(self, scene: Scene, ann: Person, name: str) -> None:
        header, claims = parts(ann.token)
        _, private = await scene.signing_key()
        del header[name]
        text = unsigned(header, claims)
        assert await shown(ann, f"{text}.{b64(private.sign(text.encode()))}") == UNAUTHENTICATED

    @pytest.mark.parametrize(
        "typ", [None, "", "JWT", "at+JWT ", "step-up+jwt", "id+jwt", "logout+jwt", "application/at+jwt"]
    )
    async def test_of_another_type(self, scene: Scene, ann: Person, typ: str | None) -> None:
        """What auth signs to confirm one operation, and what others call ID tokens, signs nobody in."""
        header, claims = parts(ann.token)
        _, private = await scene.signing_key()
        text = unsigned(header | {"typ": typ}, claims)
        assert await shown(ann, f"{text}.{b64(private.sign(text.encode()))}") == UNAUTHENTICATED


class TestClaims:
    @pytest.mark.parametrize("claim", ["exp", "iat", "aud", "iss", "sub", "tenant", "sid", "roles"])
    async def test_missing(self, scene: Scene, ann: Person, claim: str) -> None:
        header, claims = parts(ann.token)
        _, private = await scene.signing_key()
        del claims[claim]
        assert await shown(ann, jwt.encode(claims, private, "EdDSA", headers=header)) == UNAUTHENTICATED

    @pytest.mark.parametrize(
        "wrong",
        [
            {"iss": "https://elsewhere.example"},
            {"iss": "http://127.0.0.1:9001/"},
            {"aud": "another-platform"},
            {"aud": []},
            {"aud": {"$ne": ""}},
            {"exp": 1},
            {"exp": "9999999999"},
            {"exp": 1e300},
            {"exp": None},
            {"nbf": 9_999_999_999},
            {"iat": 9_999_999_999},
            {"sub": {"$ne": ""}},
            {"sub": ""},
            {"sub": "../admin"},
            {"tenant": {"$gt": ""}},
            {"tenant": ""},
            {"tenant": "nowhere"},
            {"sid": None},
            {"roles": "admin"},
            {"roles": [{"$ne": ""}]},
            {"kind": "anonymous"},
            {"acr": "3"},
            {"permissions": "*:*:all"},
        ],
        ids=str,
    )
    async def test_wrong(self, scene: Scene, ann: Person, wrong: dict[str, Any]) -> None:
        header, claims = parts(ann.token)
        _, private = await scene.signing_key()
        assert await shown(ann, jwt.encode(claims | wrong, private, "EdDSA", headers=header)) != ""

    async def test_expired_a_second_ago(self, scene: Scene, ann: Person) -> None:
        header, claims = parts(ann.token)
        _, private = await scene.signing_key()
        over = claims | {"exp": int(time.time()) - 1}
        assert await shown(ann, jwt.encode(over, private, "EdDSA", headers=header)) == UNAUTHENTICATED


class TestKeys:
    async def test_of_another_installation(self, ann: Person) -> None:
        header, claims = parts(ann.token)
        forged = jwt.encode(claims, Ed25519PrivateKey.generate(), "EdDSA", headers=header | {"kid": "another"})
        assert await shown(ann, forged) == UNAUTHENTICATED

    async def test_are_shown_without_their_private_part(self, ann: Person) -> None:
        shown_keys = (await ann.http.get(f"{ann.url}/.well-known/jwks.json")).json()["keys"]
        assert {name for key in shown_keys for name in key} == {"kty", "crv", "x", "kid", "use", "alg"}

    async def test_retired(self, house: House) -> None:
        """Whoever comes to have a key that signs no more signs nothing with it either."""
        keys, clock, identity = house.auth.keys, house.clock, house.auth.platform.identity
        user = await house.user("ann")
        signed_in = await login(house.auth, house.context(), parse_username("ann", ""), PASSWORD, device=Device())
        assert isinstance(signed_in, SignedIn)
        _, claims = parts(signed_in.access_token)
        forged = keys.sign(claims | {"exp": claims["exp"] + 10 * 24 * 3600}, typ="at+jwt")
        assert (await identity.authenticate(f"Bearer {forged}")).subject == user.id
        await keys.rotate(timedelta(minutes=1))
        clock.advance(minutes=21)
        await keys.rotate(timedelta(days=30))
        identity.learn_keys(json.dumps(keys.jwks()).encode())
        with pytest.raises(Unauthenticated, match="not one of the issuer's"):
            await identity.authenticate(f"Bearer {forged}")

    async def test_withdrawn(self, scene: Scene) -> None:
        """Stolen: what it signed is refused at once, and a login is answered with what another signed."""
        before = await scene.person()
        kid, _ = await scene.signing_key()
        async with socket(before, {"authorization": f"Bearer {before.token}"}) as stream:
            assert await heard(stream, ME) == ""
            await _withdraw(scene, kid)
            assert await closed(stream) == 4403

        async def refused() -> bool:
            return await shown(before, before.token) == UNAUTHENTICATED

        await eventually(refused)
        after = await scene.person()
        assert await shown(after, after.token) == ""
        assert parts(after.token)[0]["kid"] != kid
        jwks = (await after.http.get(f"{after.url}/.well-known/jwks.json")).json()
        assert kid not in {key["kid"] for key in jwks["keys"]}


async def _withdraw(scene: Scene, kid: str) -> None:
    """As an operator's command does."""
    clock, box = SystemClock(), SecretBox(DEVELOPMENT_SECRET, purpose="auth secrets")

    def ignore(*_: object) -> None:
        pass

    async with scene.mongo() as mongo, scene.redis() as redis, SigningKeys(mongo.db, redis, clock, box) as keys:
        revocations = Revocations(mongo.core, redis, clock, on_session=ignore, on_tokens=ignore, on_key=ignore)

        async def work(session: Any) -> None:
            await keys.withdraw(session, kid)
            await revocations.add(session, [RevokedKey(kid, clock.now().replace(year=clock.now().year + 1))])

        await mongo.transaction(work)
        await keys.replace()
        await revocations.tell()
