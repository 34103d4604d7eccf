"""Tokens as an attacker would make them, against an issuer that is a real HTTP server on the loopback."""

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from libs.core import http, identity as identity_module
from libs.core.context import Caller
from libs.core.errors import Unauthenticated, Unavailable
from libs.core.identity import MAX_TOKEN_BYTES, Identity
from libs.core.testing import FrozenClock, eventually

ISSUER, AUDIENCE = "https://auth.test", "payments-platform"
MISSING = type("Missing", (), {"__repr__": lambda _: "missing"})()


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(key: Ed25519PrivateKey, kid: str) -> dict[str, str]:
    x = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": base64url(x), "use": "sig", "alg": "EdDSA"}


class Issuer:
    """Signs with `key`, publishes `published`, and counts how often it was asked for that."""

    def __init__(self, clock: FrozenClock) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.published: Any = {"keys": [jwk(self.key, "k1")]}
        self.status = b"200 OK"
        self.fetches = 0
        self.answering = asyncio.Event()
        self.answering.set()
        self._clock = clock
        self._serving: set[asyncio.Task[None] | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks.json"

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.answering.set()
        self._server.close()
        await self._server.wait_closed()
        await asyncio.gather(*filter(None, self._serving))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.fetches += 1
            await self.answering.wait()
            body = self.published if isinstance(self.published, bytes) else json.dumps(self.published).encode()
            head = b"HTTP/1.1 %s\r\nLocation: /jwks.json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % (self.status, len(body)) + body)
            await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(self._clock.now().timestamp())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "exp": now + 300,
            "iat": now,
            "sub": "anna",
            "tenant": "acme",
            "sid": "s1",
            "roles": ["player"],
        } | changes
        return {name: value for name, value in claims.items() if value is not MISSING}

    def token(self, *, header: dict[str, Any] | None = None, key: Any = None, **changes: Any) -> str:
        headers = {"alg": "EdDSA", "typ": "at+jwt", "kid": "k1"} | (header or {})
        headers = {name: value for name, value in headers.items() if value is not MISSING}
        signed = b".".join(
            urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (headers, self.claims(**changes))
        )
        return f"{signed.decode()}.{base64url((key or self.key).sign(signed))}"


@pytest.fixture
async def issuer(clock: FrozenClock) -> AsyncIterator[Issuer]:
    issuer = Issuer(clock)
    await issuer.start()
    yield issuer
    await issuer.stop()


class Identities:
    """Makes what is tested, with the times that the test wants."""

    def __init__(self, client: httpx.AsyncClient, issuer: Issuer, clock: FrozenClock) -> None:
        self._http = client
        self._issuer = issuer
        self._clock = clock

    def __call__(self, **times: float) -> Identity:
        return Identity(self._http, self._clock, jwks_url=self._issuer.url, issuer=ISSUER, audience=AUDIENCE, **times)


@pytest.fixture
async def identities(issuer: Issuer, clock: FrozenClock) -> AsyncIterator[Identities]:
    async with http.client() as client:
        yield Identities(client, issuer, clock)


@pytest.fixture
def identity(identities: Identities) -> Identity:
    return identities()


async def refusal(identity: Identity, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await identity.authenticate(f"Bearer {token}")
    return caught.value.message


class TestAuthenticate:
    async def test_caller_is_what_the_token_says(self, identity: Identity, issuer: Issuer, clock: FrozenClock) -> None:
        token = issuer.token(roles=["player", "admin", "player"])
        assert await identity.authenticate(f"Bearer {token}") == Caller(
            tenant_id="acme",
            subject="anna",
            roles=("admin", "player"),
            session_id="s1",
            kind="user",
            expires_at=clock.now() + timedelta(seconds=300),
            level=1,
        )

    async def test_how_and_when_the_caller_signed_in(self, identity: Identity, issuer: Issuer) -> None:
        at = issuer.claims()["iat"] - 60
        token = issuer.token(acr="2", auth_time=at, permissions=["wallet:read:own"], brand="shiny")
        caller = await identity.authenticate(f"Bearer {token}")
        assert (caller.level, caller.brand_id, caller.scopes) == (2, "shiny", ("wallet:read:own",))
        assert caller.authenticated_at == datetime.fromtimestamp(at, UTC)

    async def test_service(self, identity: Identity, issuer: Issuer) -> None:
        assert (await identity.authenticate(f"Bearer {issuer.token(kind='service')}")).kind == "service"

    async def test_one_of_several_audiences(self, identity: Identity, issuer: Issuer) -> None:
        await identity.authenticate(f"Bearer {issuer.token(aud=['other', AUDIENCE])}")

    async def test_scheme_in_any_case(self, identity: Identity, issuer: Issuer) -> None:
        await identity.authenticate(f"bearer {issuer.token()}")

    async def test_claims_that_we_do_not_know(self, identity: Identity, issuer: Issuer) -> None:
        await identity.authenticate(f"Bearer {issuer.token(jti='x', scope='openid')}")

    async def test_issuer_whose_clock_is_a_little_ahead(self, identity: Identity, issuer: Issuer) -> None:
        ahead = issuer.claims()["iat"] + 29
        await identity.authenticate(f"Bearer {issuer.token(iat=ahead, nbf=ahead)}")

    @pytest.mark.parametrize(
        "authorization",
        [
            "",
            "Bearer",
            "Bearer ",
            "Basic YTpi",
            "Bearer  {}",
            "Bearer {} ",
            "Bearer {},{}",
            "{}",
            "Bearer {}\n",
            "Bearer é",
        ],
    )
    async def test_headers_that_are_not_bearer_tokens(
        self, identity: Identity, issuer: Issuer, authorization: str
    ) -> None:
        with pytest.raises(Unauthenticated):
            await identity.authenticate(authorization.replace("{}", issuer.token()))


class TestClaims:
    @pytest.mark.parametrize("claim", ["iss", "aud", "exp", "iat", "sub", "tenant", "sid", "roles"])
    async def test_each_is_required_and_of_its_type(self, identity: Identity, issuer: Issuer, claim: str) -> None:
        wrong: list[Any] = [MISSING, None, "", False, [1], {}, {"$ne": ""}]
        for value in wrong:
            await refusal(identity, issuer.token(**{claim: value}))

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"iss": ISSUER + "/"}, "another issuer"),
            ({"aud": "other"}, "another audience"),
            ({"aud": ["other", AUDIENCE + "2"]}, "another audience"),
            ({"exp": "9999999999"}, "exp"),
            ({"exp": 9999999999.5}, "exp"),
            ({"exp": True}, "exp"),
            ({"exp": 10**30}, "exp"),
            ({"exp": -1}, "exp"),
            ({"nbf": "0"}, "nbf"),
            ({"roles": "admin"}, "roles"),
            ({"roles": {"admin": True}}, "roles"),
            ({"roles": [["admin"]]}, "roles"),
            ({"roles": ["x"] * 65}, "roles"),
            ({"tenant": "acme\n"}, "tenant"),
            ({"sub": "../anna"}, "sub"),
            ({"sub": "a" * 65}, "sub"),
            ({"kind": "anonymous"}, "kind"),
        ],
        ids=repr,
    )
    async def test_wrong(self, identity: Identity, issuer: Issuer, changes: dict[str, Any], reason: str) -> None:
        assert reason in await refusal(identity, issuer.token(**changes))

    async def test_expired(self, identity: Identity, issuer: Issuer) -> None:
        assert "expired" in await refusal(identity, issuer.token(exp=issuer.claims()["iat"]))

    @pytest.mark.parametrize("claim", ["iat", "nbf"])
    async def test_not_valid_yet(self, identity: Identity, issuer: Issuer, claim: str) -> None:
        assert "not valid yet" in await refusal(identity, issuer.token(**{claim: issuer.claims()["iat"] + 31}))

    async def test_expires_although_it_was_verified_before(
        self, identity: Identity, issuer: Issuer, clock: FrozenClock
    ) -> None:
        token = issuer.token()
        await identity.authenticate(f"Bearer {token}")
        clock.advance(seconds=300)
        assert "expired" in await refusal(identity, token)


class TestSignature:
    async def test_of_another_key_under_the_same_kid(self, identity: Identity, issuer: Issuer) -> None:
        assert "signature" in await refusal(identity, issuer.token(key=Ed25519PrivateKey.generate()))

    async def test_over_other_claims(self, identity: Identity, issuer: Issuer) -> None:
        header, _, signature = issuer.token().split(".")
        forged = issuer.token(roles=["admin"]).split(".")[1]
        assert "signature" in await refusal(identity, f"{header}.{forged}.{signature}")

    async def test_left_out(self, identity: Identity, issuer: Issuer) -> None:
        header, claims, _ = issuer.token().split(".")
        for token in (f"{header}.{claims}.", f"{header}.{claims}", f"{header}.{claims}.AA"):
            await refusal(identity, token)

    async def test_changed_by_one_bit_after_it_was_verified(self, identity: Identity, issuer: Issuer) -> None:
        token = issuer.token()
        await identity.authenticate(f"Bearer {token}")
        await refusal(identity, token[:-3] + ("A" if token[-3] != "A" else "B") + token[-2:])

    async def test_algorithm_none(self, identity: Identity, issuer: Issuer) -> None:
        header = {"typ": "at+jwt", "kid": "k1"}
        await refusal(identity, jwt.encode(issuer.claims(), "", algorithm="none", headers=header))
        for spelling in ("none", "None", "NONE", "", None):
            await refusal(identity, issuer.token(header={"alg": spelling}))

    async def test_hmac_with_the_public_key(self, identity: Identity, issuer: Issuer) -> None:
        """What makes a verifier that goes by the token's own `alg` take a public key for a shared secret."""
        public = issuer.key.public_key()
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for secret in (raw, base64url(raw).encode(), base64url(pem).encode()):
            token = jwt.encode(issuer.claims(), secret, "HS256", {"typ": "at+jwt", "kid": "k1"})
            await refusal(identity, token)

    @pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256"])
    async def test_other_algorithms(self, identity: Identity, issuer: Issuer, algorithm: str) -> None:
        key: Any = ec.generate_private_key(ec.SECP256R1())
        if algorithm != "ES256":
            key = rsa.generate_private_key(65537, 2048)
        issuer.published["keys"].append({"kty": "RSA", "kid": "r1", "n": "AQAB", "e": "AQAB"})
        for kid in ("k1", "r1"):
            token = jwt.encode(issuer.claims(), key, algorithm, {"typ": "at+jwt", "kid": kid})
            assert "header must be" in await refusal(identity, token)


class TestHeader:
    @pytest.mark.parametrize(
        "header",
        [
            {"typ": MISSING},
            {"typ": "JWT"},
            {"typ": "refresh+jwt"},
            {"typ": ["at+jwt"]},
            {"kid": MISSING},
            {"kid": None},
            {"kid": 1},
            {"kid": {"$gt": ""}},
            {"kid": "../../etc/passwd"},
            {"kid": "/dev/null"},
            {"kid": "k1' OR '1'='1"},
            {"kid": "k1\x00"},
            {"kid": "k" * 5_000},
            {"alg": MISSING},
            {"alg": ["EdDSA"]},
            {"jku": "https://evil.test/jwks.json"},
            {"x5u": "https://evil.test/cert.pem"},
            {"x5c": ["MIIB"]},
            {"crit": ["exp"]},
            {"crit": ["b64"], "b64": False},
            {"zip": "DEF"},
        ],
        ids=lambda header: repr(header)[:40],
    )
    async def test_anything_else(self, identity: Identity, issuer: Issuer, header: dict[str, Any]) -> None:
        assert "header must be" in await refusal(identity, issuer.token(header=header))
        assert issuer.fetches == 0

    async def test_that_brings_its_own_key(self, identity: Identity, issuer: Issuer) -> None:
        own = Ed25519PrivateKey.generate()
        await refusal(identity, issuer.token(key=own, header={"jwk": jwk(own, "k1")}))

    async def test_that_brings_the_private_key(self, identity: Identity, issuer: Issuer) -> None:
        """A JWKS that shows the private part of a key has shown it to everybody."""
        private = issuer.key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        issuer.published["keys"][0]["d"] = base64url(private)
        assert "not one of the issuer's" in await refusal(identity, issuer.token())

    @pytest.mark.parametrize(
        "token",
        [
            "",
            ".",
            "..",
            "a.b.c",
            "....",
            "e30.e30.e30",
            "🙂.🙂.🙂",
            "W10.W10.W10",
            "\x00.\x00.\x00",
            f"{base64url(b'[' * 3_000)}.e30.e30",
            f"{base64url(b'{}')}={base64url(b'{}')}",
            "a." * 2_000,
        ],
        ids=lambda token: repr(token)[:30],
    )
    async def test_garbage(self, identity: Identity, issuer: Issuer, token: str) -> None:
        await refusal(identity, token)
        assert issuer.fetches == 0

    async def test_huge_token(self, identity: Identity, issuer: Issuer) -> None:
        assert "at most" in await refusal(identity, issuer.token(padding="x" * MAX_TOKEN_BYTES))
        assert "at most" in await refusal(identity, "x" * 10_000_000)
        assert issuer.fetches == 0


def rotate(issuer: Issuer, kid: str, *, keep: bool) -> None:
    issuer.key = Ed25519PrivateKey.generate()
    issuer.published = {"keys": [*(issuer.published["keys"] if keep else []), jwk(issuer.key, kid)]}


class TestKeys:
    async def test_are_fetched_once_for_all_who_wait(self, identity: Identity, issuer: Issuer) -> None:
        issuer.answering.clear()
        waiting = [asyncio.create_task(identity.authenticate(f"Bearer {issuer.token(sid=f's{n}')}")) for n in range(50)]
        await eventually(lambda: issuer.fetches)
        waiting[0].cancel()  # one that leaves takes nothing from the others
        issuer.answering.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes[1:]] == [Caller] * 49
        assert issuer.fetches == 1

    async def test_flood_of_unknown_ones(self, identities: Identities, issuer: Issuer) -> None:
        identity = identities(fetch_at_most_every_s=60)
        await identity.authenticate(f"Bearer {issuer.token()}")
        flood = [issuer.token(header={"kid": f"unknown-{n}"}) for n in range(200)]
        assert {await refusal(identity, token) for token in flood} == {"the token's key is not one of the issuer's"}
        assert issuer.fetches == 1

    async def test_flood_at_once_before_the_first_fetch(self, identities: Identities, issuer: Issuer) -> None:
        identity = identities(fetch_at_most_every_s=60)
        flood = [identity.authenticate(f"Bearer {issuer.token(header={'kid': f'u{n}'})}") for n in range(200)]
        outcomes = await asyncio.gather(*flood, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {Unauthenticated}
        assert issuer.fetches == 1

    async def test_new_one_is_found_when_it_is_first_used(self, identities: Identities, issuer: Issuer) -> None:
        identity = identities(fetch_at_most_every_s=0)
        old = issuer.token()
        await identity.authenticate(f"Bearer {old}")
        rotate(issuer, "k2", keep=True)
        await identity.authenticate(f"Bearer {issuer.token(header={'kid': 'k2'})}")
        await identity.authenticate(f"Bearer {old}")
        assert issuer.fetches == 2

    async def test_withdrawn_one_is_refused_after_the_next_refresh(
        self, identities: Identities, issuer: Issuer
    ) -> None:
        identity = identities(refresh_s=0.02, fetch_at_most_every_s=0)
        stolen, seen = issuer.token(sid="s2"), issuer.token()
        await identity.authenticate(f"Bearer {seen}")
        rotate(issuer, "k2", keep=False)
        async with identity:
            await eventually(lambda: issuer.fetches >= 3)
        for token in (seen, stolen):
            assert "not one of the issuer's" in await refusal(identity, token)

    async def test_exchanged_under_the_same_kid(self, identities: Identities, issuer: Issuer) -> None:
        identity = identities(refresh_s=0.02, fetch_at_most_every_s=0)
        seen = issuer.token()
        await identity.authenticate(f"Bearer {seen}")
        rotate(issuer, "k1", keep=False)
        async with identity:
            await eventually(lambda: issuer.fetches >= 3)
        assert "signature" in await refusal(identity, seen)

    @pytest.mark.parametrize(
        "useless",
        [
            {"crv": "Ed448"},
            {"crv": "X25519"},
            {"kty": "RSA"},
            {"use": "enc"},
            {"alg": "HS256"},
            {"x": "AAAA"},
            {"x": None},
            {"kid": None},
        ],
        ids=repr,
    )
    async def test_that_cannot_be_used(self, identity: Identity, issuer: Issuer, useless: dict[str, Any]) -> None:
        issuer.published["keys"][0] |= useless
        assert "not one of the issuer's" in await refusal(identity, issuer.token())


class TestIssuerAway:
    async def test_from_the_beginning(self, identity: Identity, issuer: Issuer) -> None:
        await issuer.stop()
        with pytest.raises(Unavailable):
            await identity.authenticate(f"Bearer {issuer.token()}")

    async def test_until_it_is_back(self, identities: Identities, issuer: Issuer) -> None:
        identity = identities(fetch_at_most_every_s=0)
        await issuer.stop()
        with pytest.raises(Unavailable):
            await identity.authenticate(f"Bearer {issuer.token()}")
        await issuer.start(issuer.port)
        await identity.authenticate(f"Bearer {issuer.token()}")

    async def test_keys_that_it_had_are_kept(self, identities: Identities, issuer: Issuer) -> None:
        identity = identities(refresh_s=0.01, fetch_at_most_every_s=0.01)
        async with identity:
            await identity.authenticate(f"Bearer {issuer.token()}")
            issuer.status = b"503 Service Unavailable"
            seen = issuer.fetches
            await eventually(lambda: issuer.fetches > seen + 2)
        await identity.authenticate(f"Bearer {issuer.token(sid='s2')}")

    async def test_unknown_key_may_be_a_new_one(self, identities: Identities, issuer: Issuer) -> None:
        identity = identities(fetch_at_most_every_s=0)
        await identity.authenticate(f"Bearer {issuer.token()}")
        await issuer.stop()
        with pytest.raises(Unavailable):
            await identity.authenticate(f"Bearer {issuer.token(header={'kid': 'k2'})}")

    async def test_for_too_long(self, identities: Identities, issuer: Issuer) -> None:
        identity = identities(fetch_at_most_every_s=0)
        await identity.authenticate(f"Bearer {issuer.token()}")
        await issuer.stop()
        identity._keys._keep_s = 0
        with pytest.raises(Unavailable):
            await identity.authenticate(f"Bearer {issuer.token(sid='s2')}")

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (b"200 OK", b"<html>sign in to the network</html>"),
            (b"200 OK", b"{}"),
            (b"200 OK", b'{"keys": {}}'),
            (b"200 OK", b'{"keys": [' + b" " * 70_000 + b"]}"),
            (b"302 Found", b""),
            (b"404 Not Found", b'{"keys": []}'),
        ],
        ids=["portal", "empty", "shape", "huge", "redirect", "not found"],
    )
    async def test_answer_that_is_no_jwks_changes_nothing(
        self, identities: Identities, issuer: Issuer, status: bytes, body: bytes
    ) -> None:
        identity = identities(refresh_s=0.01, fetch_at_most_every_s=0.01)
        seen = issuer.token()
        await identity.authenticate(f"Bearer {seen}")
        issuer.status, issuer.published = status, body
        async with identity:
            await eventually(lambda: issuer.fetches >= 4)
        await identity.authenticate(f"Bearer {seen}")
        await identity.authenticate(f"Bearer {issuer.token(sid='s2')}")


class TestRevoke:
    async def test_session_that_was_seen_and_one_that_was_not(
        self, identity: Identity, issuer: Issuer, clock: FrozenClock
    ) -> None:
        seen, unseen = issuer.token(), issuer.token(roles=[])
        await identity.authenticate(f"Bearer {seen}")
        identity.revoke_session("s1", clock.now() + timedelta(minutes=10))
        for token in (seen, unseen):
            assert "revoked" in await refusal(identity, token)

    async def test_leaves_other_sessions_alone(self, identity: Identity, issuer: Issuer, clock: FrozenClock) -> None:
        identity.revoke_session("s2", clock.now() + timedelta(minutes=10))
        await identity.authenticate(f"Bearer {issuer.token()}")

    async def test_subject_until_a_new_login(self, identity: Identity, issuer: Issuer, clock: FrozenClock) -> None:
        old = issuer.token()
        identity.revoke_subject("acme", "anna", issued_until=clock.now(), until=clock.now() + timedelta(minutes=10))
        assert "revoked" in await refusal(identity, old)
        clock.advance(seconds=1)
        await identity.authenticate(f"Bearer {issuer.token(sid='s2')}")

    async def test_subject_of_another_tenant(self, identity: Identity, issuer: Issuer, clock: FrozenClock) -> None:
        identity.revoke_subject("other", "anna", issued_until=clock.now(), until=clock.now() + timedelta(minutes=10))
        await identity.authenticate(f"Bearer {issuer.token()}")

    async def test_earlier_end_does_not_shorten_it(
        self, identity: Identity, issuer: Issuer, clock: FrozenClock
    ) -> None:
        identity.revoke_session("s1", clock.now() + timedelta(minutes=4))
        identity.revoke_session("s1", clock.now() + timedelta(minutes=1))
        token = issuer.token()
        clock.advance(minutes=2)
        identity.revoke_session("another", clock.now() + timedelta(minutes=10))
        assert "revoked" in await refusal(identity, token)

    async def test_is_forgotten_when_it_is_over_or_there_are_too_many(
        self, identity: Identity, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(identity_module, "MAX_REVOCATIONS", 10)
        for n in range(100):
            identity.revoke_session(f"s{n}", clock.now() + timedelta(minutes=1, seconds=n))
        assert list(identity._revoked._until) == [("session", f"s{n}") for n in range(90, 100)]
        clock.advance(minutes=5)
        identity.revoke_session("last", clock.now() + timedelta(minutes=1))
        assert list(identity._revoked._until) == [("session", "last")]


class TestMemory:
    async def test_of_verified_tokens_is_bounded(
        self, identity: Identity, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(identity_module, "MAX_VERIFIED", 5)
        for n in range(20):
            await identity.authenticate(f"Bearer {issuer.token(sid=f's{n}')}")
        assert [v.caller.session_id for v in identity._verified.values()] == [f"s{n}" for n in range(15, 20)]

    async def test_of_refused_tokens_is_none(self, identity: Identity, issuer: Issuer) -> None:
        await refusal(identity, issuer.token(aud="other"))
        await refusal(identity, issuer.token(exp=issuer.claims()["iat"] - 1))
        await refusal(identity, issuer.token(header={"kid": "k9"}))
        assert not identity._verified
