"""Subgraphs that mean harm, or are broken in ways that look like it."""

import asyncio

import pytest

from gateway.federation.http import HttpLimits, HttpTransport
from libs.core.testing import eventually
from tests.gateway.federation.http.liars import (
    ANSWER,
    OK,
    Caller,
    answer,
    chunked,
    failure,
    request,
    saying,
    serving,
    silent,
    subgraph,
)

UNREACHABLE, INVALID, TOO_LARGE = "SUBGRAPH_UNREACHABLE", "SUBGRAPH_INVALID_RESPONSE", "SUBGRAPH_TOO_LARGE"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "code", "message"),
    [
        pytest.param(b"", UNREACHABLE, "it closed the connection before it had answered", id="nothing"),
        pytest.param(OK, UNREACHABLE, "it closed the connection before it had answered", id="half a head"),
        pytest.param(answer()[:-1], UNREACHABLE, "it closed the connection before it had answered", id="cut off"),
        pytest.param(CHUNKED + chunked(b'{"data":{}}'), UNREACHABLE, "it closed", id="chunks without the last one"),
        pytest.param(OK + b'\r\n{"data":', INVALID, "its answer is not JSON", id="cut off, of no known length"),
        pytest.param(b"\x16\x03\x01\x00\xff" * 100, INVALID, "it did not answer with HTTP", id="no HTTP"),
        pytest.param(b"HTTP/2 200\r\n\r\n", INVALID, "it did not answer with HTTP", id="another HTTP"),
        pytest.param(b"HTTP/1.1 20 OK\r\n\r\n", INVALID, "it did not answer with HTTP", id="no status"),
        pytest.param(OK + b"content-length: -1\r\n\r\n", INVALID, "it did not answer with HTTP", id="no length"),
        pytest.param(
            OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}{", INVALID, "it did not", id="two lengths"
        ),
        pytest.param(
            OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}", INVALID, "it did not", id="two framings"
        ),
        pytest.param(CHUNKED + b"zz\r\n", INVALID, "it did not answer with HTTP", id="no chunks"),
        pytest.param(
            b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            INVALID,
            "it wants to",
            id="another protocol",
        ),
        pytest.param(answer(head=b"content-encoding: gzip\r\n"), INVALID, "its answer is compressed", id="gzip"),
        pytest.param(answer(b""), INVALID, "its answer is not JSON", id="an empty body"),
        pytest.param(b"HTTP/1.1 204 X\r\n\r\n", INVALID, "its answer is not JSON (HTTP status 204)", id="no body"),
        pytest.param(answer(b"<html>", status=502), INVALID, "its answer is not JSON (HTTP status 502)", id="HTML"),
        pytest.param(answer(b'{"data":"\xff"}'), INVALID, "its answer is not JSON", id="no UTF-8"),
        pytest.param(answer(b'{"data":NaN}'), INVALID, "its answer is not JSON", id="no number"),
        pytest.param(answer(b"[1]"), INVALID, "its answer is no JSON object", id="a list"),
        pytest.param(answer(b"null"), INVALID, "its answer is no JSON object", id="null"),
        pytest.param(answer(b'{"a":1}'), INVALID, "its answer is no GraphQL response", id="no GraphQL"),
        pytest.param(answer(b'{"data":' * 100_000), INVALID, "its answer is not JSON", id="nested deeply"),
        pytest.param(
            answer(b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), INVALID, "its answer is not", id="and closed"
        ),
        pytest.param(answer(b"", status=307, head=b"location: /\r\n"), INVALID, "its answer is not", id="a redirect"),
        pytest.param(OK + b"a: " + b"b" * 70_000 + b"\r\n\r\n", INVALID, "the head of its answer", id="a long header"),
        pytest.param(answer(head=(b"a: " + b"b" * 1000 + b"\r\n") * 70), INVALID, "the head of its", id="many headers"),
    ],
)
async def test_what_is_no_answer(said: bytes, code: str, message: str) -> None:
    async with subgraph(saying(said)) as liar, HttpTransport({"liar": liar.url}) as transport:
        failed = await failure(transport)
        assert (failed.code, failed.subgraph) == (code, "liar")
        assert failed.message.startswith(message)
        assert transport.counts()["liar"].in_flight == 0


class TestWithoutEnd:
    """The connection is closed as soon as it is too much: these would go on."""

    @pytest.mark.parametrize(
        ("begin", "again", "code"),
        [
            pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", INVALID, id="hints"),
            pytest.param(b"", b"\r\n", INVALID, id="empty lines"),
            pytest.param(OK, b"a: b\r\n", INVALID, id="headers"),
            pytest.param(OK + b"a: ", b"b" * 1000, INVALID, id="one header"),
            pytest.param(b"HTTP/1.1 200 ", b"O" * 1000, INVALID, id="a reason"),
            pytest.param(OK + b"\r\n", b" " * 1000, TOO_LARGE, id="a body"),
            pytest.param(CHUNKED, chunked(b" " * 1000), TOO_LARGE, id="chunks"),
            pytest.param(CHUNKED + b"1", b";a=b" * 100, INVALID, id="a chunk's extensions"),
            pytest.param(CHUNKED + chunked(b"{") + b"0\r\n", b"a: b\r\n" * 100, INVALID, id="trailers"),
            pytest.param(CHUNKED + chunked(b"{") + b"0\r\na: ", b"b" * 1000, INVALID, id="one trailer"),
        ],
    )
    async def test_of(self, begin: bytes, again: bytes, code: str) -> None:
        async def endless(caller: Caller) -> None:
            await caller.ask()
            await caller.say(begin)
            while True:
                await caller.say(again)

        limits = HttpLimits(max_response_bytes=100_000)
        async with subgraph(endless) as liar, HttpTransport({"liar": liar.url}, limits=limits) as transport:
            assert (await failure(transport)).code == code
            await eventually(lambda: liar.ended == 1)

    async def test_a_length_beyond_what_is_allowed_is_not_waited_for(self) -> None:
        async def boasting(caller: Caller) -> None:
            await caller.ask()
            await caller.say(OK + b"content-length: 16000001\r\n\r\n")
            await caller.left()

        async with subgraph(boasting) as liar, HttpTransport({"liar": liar.url}) as transport:
            assert (await failure(transport)).code == TOO_LARGE
            await eventually(lambda: liar.ended == 1)


class TestMoreThanWasAsked:
    async def test_a_second_answer_is_nobodys(self) -> None:
        poison = answer({"data": {"hello": "poison"}})
        async with subgraph(serving(answer() + poison)) as liar, HttpTransport({"liar": liar.url}) as transport:
            for _ in range(3):
                assert await transport.fetch(request()) == ANSWER
            assert liar.connections == 3

    async def test_nor_is_the_beginning_of_one(self) -> None:
        begun = answer({"data": {"hello": "poison"}})[:-5]
        async with subgraph(serving(answer() + begun)) as liar, HttpTransport({"liar": liar.url}) as transport:
            for _ in range(3):
                assert await transport.fetch(request()) == ANSWER
            assert liar.connections == 3

    async def test_nor_what_is_said_unasked(self) -> None:
        go_on = asyncio.Event()

        async def babbling(caller: Caller) -> None:
            await caller.ask()
            await caller.say(answer())
            await go_on.wait()
            await caller.say(answer({"data": {"hello": "poison"}}))
            await caller.left()

        limits = HttpLimits(idle_s=60)
        async with subgraph(babbling) as liar, HttpTransport({"liar": liar.url}, limits=limits) as transport:
            assert await transport.fetch(request()) == ANSWER
            go_on.set()
            await eventually(lambda: transport.counts()["liar"].connections == 0)
            assert await transport.fetch(request()) == ANSWER

    async def test_an_answer_before_the_request_was_read_ends_the_connection(self) -> None:
        async def hasty(caller: Caller) -> None:
            await caller.say(answer())
            await caller.left()

        large = b" " * 10_000_000
        async with subgraph(hasty) as liar, HttpTransport({"liar": liar.url}) as transport:
            for _ in range(2):
                assert await transport.fetch(request(body=large)) == ANSWER
            assert liar.connections == 2


async def test_a_liar_among_many_harms_no_other() -> None:
    limits = HttpLimits(connections=2, waiting=2)
    async with (
        subgraph(silent) as slow,
        subgraph(serving()) as quick,
        HttpTransport({"slow": slow.url, "quick": quick.url}, limits=limits) as transport,
    ):
        stuck = [asyncio.create_task(failure(transport, request("slow", within_s=30))) for _ in range(4)]
        await eventually(lambda: transport.counts()["slow"].waiting == 2)
        for _ in range(10):
            assert await transport.fetch(request("quick")) == ANSWER
        assert not any(task.done() for task in stuck)
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        counts = transport.counts()["slow"]
        assert (counts.in_flight, counts.waiting) == (0, 0)
