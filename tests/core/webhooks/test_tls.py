"""Certificates are for the name, although the connection goes to an address that was looked up and checked before."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from libs.core.webhooks.sending import Sender
from libs.core.webhooks.targets import Resolver
from tests.core.webhooks.receiver import Receiver

Listen = Callable[[str], Awaitable[Receiver]]


def certify(name: str, folder: Path) -> Path:
    """A certificate for `name` that is its own authority, and its key, in one file."""
    key, named = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]),
    )
    now = datetime.now(UTC)
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


@pytest.fixture
async def listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Listen]:
    """A receiver with a trusted certificate for that name, to be asked as https://hooks.example."""
    async with AsyncExitStack() as stack:

        async def listen(name: str) -> Receiver:
            file = certify(name, tmp_path)
            monkeypatch.setenv("SSL_CERT_FILE", str(file))
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(file)
            receiver = Receiver("")
            server = await stack.enter_async_context(
                await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=context)
            )
            receiver.url = f"https://hooks.example:{server.sockets[0].getsockname()[1]}/"
            return receiver

        yield listen


def sender() -> Sender:
    return Sender(Resolver(development=True, lookup=lambda *_: ["127.0.0.1"]), development=True)


class TestCertificate:
    async def test_of_the_name_is_accepted_at_the_checked_address(self, listen: Listen) -> None:
        to = await listen("hooks.example")
        async with sender() as sending:
            answer = await sending.post(to.url, {}, b"{}")
        assert (answer.status, answer.error) == (200, "")

    async def test_of_another_name_is_not(self, listen: Listen) -> None:
        to = await listen("other.example")
        async with sender() as sending:
            answer = await sending.post(to.url, {}, b"{}")
        assert "certificate" in answer.error.lower()
        assert to.got == []

    async def test_that_nobody_vouches_for_is_not(self, listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
        to = await listen("hooks.example")
        monkeypatch.delenv("SSL_CERT_FILE")
        async with sender() as sending:
            answer = await sending.post(to.url, {}, b"{}")
        assert "certificate" in answer.error.lower()
        assert to.got == []
