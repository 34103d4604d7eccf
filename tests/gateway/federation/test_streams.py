"""Subscriptions of subgraphs over server-sent events, however they come and end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.federation import SubgraphFailed, SubgraphRequest
from gateway.federation.http import HttpLimits, HttpTransport

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers])
    return head.encode() + b"\r\n\r\n" + body


async def request_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return head + await reader.readexactly(length)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/graphql"
    finally:
        server.close()


def saying(*answers: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for each in answers:
            await request_of(reader)
            writer.write(each)
            await writer.drain()

    return handle


def asking() -> SubgraphRequest:
    deadline = asyncio.get_running_loop().time() + 5.0
    return SubgraphRequest("liar", "{ a }", {}, "subscription", {}, deadline, b'{"query":"{ a }"}')


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunks(text: bytes, size: int) -> bytes:
    parts = [text[n : n + size] for n in range(0, len(text), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


class TestSubscribe:
    @pytest.mark.parametrize("size", [1, 7, 1000])
    async def test_events_however_they_are_cut(self, size: int) -> None:
        events = b':\n\nevent: next\r\ndata: {"data":\r\ndata: {"a": 1}}\r\n\r\nevent: next\ndata: {"data":{"a":2}}\n\n'
        sent = STREAM + chunks(events + b"event: complete\ndata:\n\n", size) + b"0\r\n\r\n"
        async with serving(saying(sent)) as url, HttpTransport({"liar": url}) as transport:
            heard = [event async for event in transport.subscribe(asking())]
        assert heard == [{"data": {"a": 1}}, {"data": {"a": 2}}]

    async def test_a_refusal(self) -> None:
        sent = answer(b'{"errors":[{"message":"no"}]}', "content-type: application/json")
        async with serving(saying(sent)) as url, HttpTransport({"liar": url}) as transport:
            heard = [event async for event in transport.subscribe(asking())]
        assert heard == [{"errors": [{"message": "no"}]}]

    async def test_a_stream_that_breaks_off(self) -> None:
        sent = STREAM + chunks(b'event: next\ndata: {"data":{"a":1}}\n\n', 1000)
        async with serving(saying(sent)) as url, HttpTransport({"liar": url}) as transport:
            events = transport.subscribe(asking())
            assert await anext(events) == {"data": {"a": 1}}
            with pytest.raises(SubgraphFailed):
                await anext(events)

    async def test_one_that_falls_silent(self) -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await request_of(reader)
            writer.write(STREAM)
            await reader.read()

        limits = HttpLimits(stream_silence_s=0.1)
        async with serving(silent) as url, HttpTransport({"liar": url}, limits=limits) as transport:
            with pytest.raises(SubgraphFailed, match="silent"):
                await anext(transport.subscribe(asking()))

    async def test_who_leaves_hangs_up(self) -> None:
        left = asyncio.Event()

        async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await request_of(reader)
            writer.write(STREAM + chunks(b'event: next\ndata: {"data":{"a":1}}\n\n', 1000))
            await reader.read()
            left.set()

        async with serving(stream) as url, HttpTransport({"liar": url}) as transport:
            events = transport.subscribe(asking())
            assert await anext(events) == {"data": {"a": 1}}
            await events.aclose()
            async with asyncio.timeout(5):
                await left.wait()
