"""The transport over HTTP, against servers that answer as they should, and against liars."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import orjson
import pytest

from gateway.federation import SubgraphFailed, SubgraphRequest
from gateway.federation.http import HttpLimits, HttpTransport

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

GOOD = b'{"data":{"a":1}}'


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


def asking(
    within_s: float = 5.0, operation: str = "query", headers: Mapping[str, str] | None = None
) -> SubgraphRequest:
    deadline = asyncio.get_running_loop().time() + within_s
    body = orjson.dumps({"query": "{ a }"})
    return SubgraphRequest("liar", "{ a }", {}, operation, headers or {}, deadline, body)


async def refused(handler: Handler, within_s: float = 5.0, limits: HttpLimits | None = None) -> str:
    async with serving(handler) as url, HttpTransport({"liar": url}, limits=limits) as transport:
        with pytest.raises(SubgraphFailed) as failed:
            await transport.fetch(asking(within_s))
        assert "127.0.0.1" not in str(failed.value)
        assert not transport.counts()["liar"].in_flight
        return failed.value.code


class TestFetch:
    @pytest.mark.parametrize(
        "sent",
        [
            pytest.param(answer(GOOD), id="by its length"),
            pytest.param(answer(GOOD, status="500 Internal Server Error"), id="whatever its status"),
            pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + answer(GOOD), id="after one that is none yet"),
            pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + GOOD, id="until it closes"),
            pytest.param(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\n"
                + GOOD[:7]
                + b"\r\n9\r\n"
                + GOOD[7:]
                + b"\r\n0\r\n\r\n",
                id="in chunks",
            ),
        ],
    )
    async def test_an_answer(self, sent: bytes) -> None:
        async with serving(saying(sent)) as url, HttpTransport({"liar": url}) as transport:
            assert await transport.fetch(asking()) == {"data": {"a": 1}}

    async def test_a_connection_serves_again(self) -> None:
        connections = 0

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await saying(answer(GOOD), answer(GOOD), answer(GOOD))(reader, writer)

        async with serving(handle) as url, HttpTransport({"liar": url}) as transport:
            for _ in range(3):
                await transport.fetch(asking())
        assert connections == 1

    async def test_one_that_was_closed_meanwhile_costs_a_query_nothing(self) -> None:
        async with serving(saying(answer(GOOD))) as url, HttpTransport({"liar": url}) as transport:
            for _ in range(3):
                assert await transport.fetch(asking()) == {"data": {"a": 1}}

    async def test_a_mutation_is_never_sent_twice(self) -> None:
        asked = 0

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            await request_of(reader)
            asked += 1
            writer.write(answer(GOOD))
            await request_of(reader)
            asked += 1

        async with serving(handle) as url, HttpTransport({"liar": url}) as transport:
            await transport.fetch(asking(operation="mutation"))
            with pytest.raises(SubgraphFailed):
                await transport.fetch(asking(operation="mutation"))
        assert asked == 2

    async def test_headers_cannot_be_smuggled(self) -> None:
        async with serving(saying(answer(GOOD))) as url, HttpTransport({"liar": url}) as transport:
            with pytest.raises(SubgraphFailed):
                await transport.fetch(asking(headers={"x": "1\r\nx-tenant: other"}))

    async def test_who_waits_too_long_for_a_connection_leaves(self) -> None:
        async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.read()

        limits = HttpLimits(connections=1, waiting=1)
        async with serving(never) as url, HttpTransport({"liar": url}, limits=limits) as transport:
            results = await asyncio.gather(*(transport.fetch(asking(0.3)) for _ in range(3)), return_exceptions=True)
            codes = sorted(r.code for r in results if isinstance(r, SubgraphFailed))
            assert codes == ["SUBGRAPH_TIMEOUT", "SUBGRAPH_TIMEOUT", "SUBGRAPH_UNREACHABLE"]
            assert transport.counts()["liar"].in_flight == 0

    async def test_another_is_unharmed(self) -> None:
        async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.read()

        async with (
            serving(never) as slow,
            serving(saying(answer(GOOD))) as quick,
            HttpTransport({"slow": slow, "liar": quick}, limits=HttpLimits(connections=1)) as transport,
        ):
            request = asking()
            stalled = asyncio.create_task(transport.fetch(SubgraphRequest("slow", "", {}, "query", {}, 1e12, b"{}")))
            assert await transport.fetch(request) == {"data": {"a": 1}}
            stalled.cancel()

    async def test_an_address_that_changes(self) -> None:
        async with (
            serving(saying(answer(GOOD))) as one,
            serving(saying(answer(b'{"data":{"a":2}}'))) as other,
            HttpTransport({"liar": one}) as transport,
        ):
            assert await transport.fetch(asking()) == {"data": {"a": 1}}
            transport.update({"liar": other})
            assert await transport.fetch(asking()) == {"data": {"a": 2}}
            transport.update({})
            with pytest.raises(SubgraphFailed, match="nobody knows"):
                await transport.fetch(asking())


class TestLiars:
    async def test_nobody_there(self) -> None:
        async with serving(saying()) as url:
            pass
        async with HttpTransport({"liar": url}) as transport:
            with pytest.raises(SubgraphFailed) as failed:
                await transport.fetch(asking())
        assert failed.value.code == "SUBGRAPH_UNREACHABLE"

    @pytest.mark.parametrize(
        ("sent", "code"),
        [
            pytest.param(b"", "SUBGRAPH_UNREACHABLE", id="hangs up"),
            pytest.param(answer(GOOD)[:-3], "SUBGRAPH_UNREACHABLE", id="hangs up within its answer"),
            pytest.param(b"SSH-2.0-OpenSSH\r\n", "SUBGRAPH_INVALID_RESPONSE", id="speaks no HTTP"),
            pytest.param(answer(b"<html>"), "SUBGRAPH_INVALID_RESPONSE", id="not JSON"),
            pytest.param(answer(b"[]"), "SUBGRAPH_INVALID_RESPONSE", id="no object"),
            pytest.param(answer(b"{}"), "SUBGRAPH_INVALID_RESPONSE", id="no GraphQL"),
            pytest.param(answer(b"[" * 200_000), "SUBGRAPH_INVALID_RESPONSE", id="nested without end"),
            pytest.param(answer(b"", "location: /", status="302 Found"), "SUBGRAPH_INVALID_RESPONSE", id="redirects"),
            pytest.param(answer(GOOD, "content-encoding: gzip"), "SUBGRAPH_INVALID_RESPONSE", id="encoded"),
            pytest.param(
                b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200_000, "SUBGRAPH_INVALID_RESPONSE", id="headers without end"
            ),
            pytest.param(
                b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n", "SUBGRAPH_TOO_LARGE", id="says it is large"
            ),
            pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 100_000, "SUBGRAPH_TOO_LARGE", id="is large"),
        ],
    )
    async def test_lies(self, sent: bytes, code: str) -> None:
        limits = HttpLimits(max_response_bytes=300_000 if b"[[" in sent else 50_000)
        assert await refused(saying(sent), limits=limits) == code

    async def test_says_nothing(self) -> None:
        async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.read()

        assert await refused(never, within_s=0.1) == "SUBGRAPH_TIMEOUT"

    async def test_trickles(self) -> None:
        async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await request_of(reader)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.wait([asyncio.ensure_future(reader.read(1))], timeout=0.01)

        assert await refused(trickle, within_s=0.2) == "SUBGRAPH_TIMEOUT"


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
            heard = [event async for event in transport.subscribe(asking(operation="subscription"))]
        assert heard == [{"data": {"a": 1}}, {"data": {"a": 2}}]

    async def test_a_refusal(self) -> None:
        sent = answer(b'{"errors":[{"message":"no"}]}', "content-type: application/json")
        async with serving(saying(sent)) as url, HttpTransport({"liar": url}) as transport:
            heard = [event async for event in transport.subscribe(asking(operation="subscription"))]
        assert heard == [{"errors": [{"message": "no"}]}]

    async def test_a_stream_that_breaks_off(self) -> None:
        sent = STREAM + chunks(b'event: next\ndata: {"data":{"a":1}}\n\n', 1000)
        async with serving(saying(sent)) as url, HttpTransport({"liar": url}) as transport:
            events = transport.subscribe(asking(operation="subscription"))
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
                await anext(transport.subscribe(asking(operation="subscription")))

    async def test_who_leaves_hangs_up(self) -> None:
        left = asyncio.Event()

        async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await request_of(reader)
            writer.write(STREAM + chunks(b'event: next\ndata: {"data":{"a":1}}\n\n', 1000))
            await reader.read()
            left.set()

        async with serving(stream) as url, HttpTransport({"liar": url}) as transport:
            events = transport.subscribe(asking(operation="subscription"))
            assert await anext(events) == {"data": {"a": 1}}
            await events.aclose()
            async with asyncio.timeout(5):
                await left.wait()
