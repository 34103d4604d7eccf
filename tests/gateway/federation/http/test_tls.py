"""Subgraphs behind https:// and wss://."""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.federation.http import HttpLimits, HttpTransport
from libs.core.testing import eventually
from tests.gateway.federation.http.liars import (
    ANSWER,
    OK,
    Caller,
    answer,
    failure,
    heard,
    how_it_ends,
    request,
    saying,
    serving,
    subgraph,
)
from tests.gateway.federation.http.test_websocket import COMPLETE, begins_and_says, next_, peer

Certify = Callable[[str], tuple[ssl.SSLContext, ssl.SSLContext]]


@pytest.fixture
def certify(tmp_path: Path) -> Certify:
    """For a name: what a server of that name has, and what a client has who trusts it."""

    def certify(name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        file = _certificate(name, tmp_path)
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(file)
        return server, ssl.create_default_context(cafile=str(file))

    return certify


def _certificate(name: str, folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    named, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(named, named, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    file = folder / "certificate.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(certificate.public_bytes(Encoding.PEM) + private)
    return file


def named(url: str) -> str:
    return url.replace("127.0.0.1", "localhost")


class TestFetch:
    async def test_over_a_connection_that_is_kept(self, certify: Certify) -> None:
        server, client = certify("localhost")
        large = {"data": {"hello": "x" * 1_000_000}}
        async with (
            subgraph(serving(answer(large)), tls=server) as liar,
            HttpTransport({"liar": named(liar.url)}, tls=client) as transport,
        ):
            for _ in range(3):
                assert await transport.fetch(request(operation="mutation", body=b" " * 1_000_000)) == large
            assert liar.connections == 1

    async def test_of_an_answer_until_the_end(self, certify: Certify) -> None:
        server, client = certify("localhost")
        said = saying(OK + b'\r\n{"data":{"hello":"world"}}')
        async with (
            subgraph(said, tls=server) as liar,
            HttpTransport({"liar": named(liar.url)}, tls=client) as transport,
        ):
            assert await transport.fetch(request()) == ANSWER

    async def test_as_another_name_than_the_certificate_s(self, certify: Certify) -> None:
        server, client = certify("other.example")
        async with (
            subgraph(serving(), tls=server) as liar,
            HttpTransport({"liar": named(liar.url)}, tls=client) as transport,
        ):
            failed = await failure(transport)
            assert (failed.code, failed.message) == ("SUBGRAPH_UNREACHABLE", "no TLS connection to it could be made")
            assert liar.asked == []

    async def test_with_a_certificate_that_nobody_vouches_for(self, certify: Certify) -> None:
        server, _ = certify("localhost")
        async with subgraph(serving(), tls=server) as liar, HttpTransport({"liar": named(liar.url)}) as transport:
            assert (await failure(transport)).code == "SUBGRAPH_UNREACHABLE"
            assert liar.asked == []

    async def test_from_one_that_speaks_no_tls(self, certify: Certify) -> None:
        async def plain(caller: Caller) -> None:
            await caller.say(answer())
            await caller.left()

        _, client = certify("localhost")
        async with subgraph(plain) as liar:
            url = named(liar.url).replace("http:", "https:")
            async with HttpTransport({"liar": url}, tls=client) as transport:
                assert (await failure(transport)).code == "SUBGRAPH_UNREACHABLE"

    async def test_closes_what_is_idle(self, certify: Certify) -> None:
        server, client = certify("localhost")
        async with (
            subgraph(serving(), tls=server) as liar,
            HttpTransport({"liar": named(liar.url)}, tls=client, limits=HttpLimits(idle_s=0.1)) as transport,
        ):
            await transport.fetch(request())
            await eventually(lambda: liar.ended == 1)
            assert transport.counts()["liar"].connections == 0


class TestSubscribe:
    async def test_over_events(self, certify: Certify) -> None:
        server, client = certify("localhost")
        said = OK + b'content-type: text/event-stream\r\n\r\nevent: next\ndata: {"data":1}\n\nevent: complete\n\n'
        async with (
            subgraph(saying(said), tls=server) as liar,
            HttpTransport({"liar": named(liar.url)}, tls=client) as transport,
        ):
            assert await heard(transport) == [{"data": 1}]

    async def test_over_a_websocket(self, certify: Certify) -> None:
        server, client = certify("localhost")
        async with peer(begins_and_says(next_(1), COMPLETE), ssl=server) as to:
            url = named(to.url).replace("ws:", "wss:")
            async with HttpTransport({"liar": url}, tls=client) as transport:
                assert await heard(transport) == [{"data": {"n": 1}}]
            async with HttpTransport({"liar": url}) as transport:
                assert (await how_it_ends(transport)).code == "SUBGRAPH_UNREACHABLE"
