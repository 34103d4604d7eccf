"""Receivers that mean harm, or are broken in ways that look like it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import repeat

import pytest

from libs.core.webhooks import sending
from libs.core.webhooks.sending import Answer, Sender
from libs.core.webhooks.targets import Resolver
from scripts.process import free_port

OK = b"HTTP/1.1 200 OK\r\n"
FOR_EVER = 100_000


@asynccontextmanager
async def server(*pieces: bytes, times: int = 1, pause_s: float = 0.0) -> AsyncIterator[str]:
    """Says `pieces`, the last of them so many times; closes the connection then."""

    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in (*pieces[:-1], *repeat(pieces[-1], times)):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    port = free_port()
    listening = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield f"http://127.0.0.1:{port}/"
        await ended.wait()
    finally:
        listening.close()


async def post(url: str) -> Answer:
    async with Sender(Resolver(development=True), development=True, total_s=1.0) as sender:
        return await sender.post(url, {}, b"{}")


class TestAnswer:
    async def test_without_an_end(self) -> None:
        async with server(OK, b"\r\n", b"x" * 10_000, times=FOR_EVER) as url:
            answer = await post(url)
        assert (answer.status, answer.body) == (200, "x" * 1024)

    async def test_with_headers_without_an_end(self) -> None:
        async with server(OK, b"a: " + b"b" * 1000 + b"\r\n", times=FOR_EVER) as url:
            answer = await post(url)
        assert answer.status is None
        assert answer.error.startswith("RemoteProtocolError")

    async def test_whose_body_drips_counts_by_its_status(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sending, "BODY_S", 0.2)
        async with server(OK, b"content-length: 1000\r\n\r\n", b"x", times=FOR_EVER, pause_s=0.05) as url:
            answer = await post(url)
        assert (answer.status, answer.error) == (200, "")
        assert set(answer.body) == {"x"}

    async def test_whose_headers_drip_is_not_waited_for(self) -> None:
        async with server(OK, b"a", times=FOR_EVER, pause_s=0.05) as url:
            answer = await post(url)
        assert answer.error == "no answer within 1 s"

    @pytest.mark.parametrize(
        ("said", "status"),
        [
            pytest.param(b"", None, id="nothing"),
            pytest.param(b"\x16\x03\x01\x00\xff" * 100, None, id="no HTTP"),
            pytest.param(b"HTTP/1.1 20 OK\r\n\r\n", None, id="no status"),
            pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", None, id="no length"),
            pytest.param(OK + b"content-length: 10\r\n\r\nhalf", 200, id="cut off"),
            pytest.param(OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n", 200, id="broken chunks"),
            pytest.param(OK + b"content-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\x00", 200, id="gzip"),
            pytest.param(OK + b"content-length: 5\r\n\r\na\x00b\xff\xfe", 200, id="no text"),
            pytest.param(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 X\r\n\r\n", 204, id="in two steps"),
            pytest.param(b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n", None, id="another protocol"),
        ],
    )
    async def test_that_is_broken(self, said: bytes, status: int | None) -> None:
        async with server(said) as url:
            answer = await post(url)
        assert answer.status == status
        assert answer.ok == (status in (200, 204))
        assert "\0" not in answer.body
