import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import httpx
import pytest

from libs.core import http
from libs.core.errors import Unavailable

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[str]:
    """The address of one that reads a request and answers it so."""

    serving = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    finally:
        listening.close()
        await listening.wait_closed()
        await asyncio.gather(*filter(None, serving))


def answers(text: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()

    return answer


async def drip(writer: asyncio.StreamWriter) -> None:
    """Each byte comes well within any limit on the wait for the next."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.005)


@pytest.fixture
async def web() -> AsyncIterator[httpx.AsyncClient]:
    async with http.client() as web:
        yield web


class TestFetch:
    async def test_body(self, web: httpx.AsyncClient) -> None:
        async with server(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")) as url:
            assert await http.fetch(web, url, max_bytes=2) == b"hi"

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123456789"), "more than 8 bytes"),
            (
                answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n123456789\r\n0\r\n\r\n"),
                "more than 8",
            ),
            (answers(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"), "status 302"),
            (answers(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), "status 500"),
            (answers(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf"), "cannot be fetched"),
            (answers(b"SSH-2.0-OpenSSH\r\n\r\n"), "cannot be fetched"),
            (answers(b""), "cannot be fetched"),
        ],
        ids=["long", "long without a length", "redirect", "error", "cut off", "another protocol", "silence"],
    )
    async def test_refused(self, web: httpx.AsyncClient, answer: Answer, reason: str) -> None:
        async with server(answer) as url:
            with pytest.raises(Unavailable, match=reason):
                await http.fetch(web, url, max_bytes=8)

    async def test_that_drips(self, web: httpx.AsyncClient) -> None:
        async with server(drip) as url:
            with pytest.raises(Unavailable, match="TimeoutError"):
                await http.fetch(web, url, max_bytes=100_000, within_s=0.1)

    @pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://", "file:///etc/passwd", "http://[::1", "\x00"])
    async def test_from_nowhere(self, web: httpx.AsyncClient, url: str) -> None:
        with pytest.raises(Unavailable):
            await http.fetch(web, url, max_bytes=8)
