"""Subscriptions over server-sent events."""

import asyncio
from contextlib import aclosing

import pytest

from gateway.federation.http import HttpLimits, HttpTransport
from gateway.federation.transport import SubgraphFailed
from libs.core.testing import eventually
from tests.core.graphql import service
from tests.core.graphql.conftest import serve
from tests.gateway.federation.http.liars import (
    OK,
    Answering,
    Caller,
    answer,
    chunked,
    heard,
    how_it_ends,
    request,
    saying,
    serving,
    silent,
    subgraph,
    subscription,
    unused_url,
)

HEAD = OK + b"Content-Type: text/event-stream; charset=utf-8\r\n\r\n"
UNREACHABLE, INVALID, TOO_LARGE = "SUBGRAPH_UNREACHABLE", "SUBGRAPH_INVALID_RESPONSE", "SUBGRAPH_TOO_LARGE"


def event(n: int) -> bytes:
    return b'event: next\ndata: {"data":{"n":%d}}\n\n' % n


COMPLETE = b"event: complete\ndata: \n\n"
BOTH = [{"data": {"n": 1}}, {"data": {"n": 2}}]


class TestEvents:
    @pytest.mark.parametrize(
        "stream",
        [
            pytest.param(event(1) + event(2) + COMPLETE, id="as ours are"),
            pytest.param((event(1) + event(2) + COMPLETE).replace(b"\n", b"\r\n"), id="with CRLF"),
            pytest.param(event(1).replace(b": ", b":") + event(2) + b"event:complete\n\n", id="without spaces"),
            pytest.param(event(1) + event(2).replace(b'{"n', b'\ndata: {"n') + COMPLETE, id="over several lines"),
            pytest.param(b":\n\n" + event(1) + b": still here\n:\n\n\n" + event(2) + COMPLETE, id="among comments"),
            pytest.param(b"id: 7\nretry: 5\nx\n" + event(1) + event(2) + COMPLETE, id="with other fields"),
            pytest.param(event(1) + b"event: news\ndata: x\n\ndata: y\n\n" + event(2) + COMPLETE, id="among others"),
            pytest.param(event(1) + event(2) + COMPLETE + event(3), id="and one after the last"),
        ],
    )
    @pytest.mark.parametrize("piece", [1, 10, 100_000])
    async def test_arrive_however_they_are_sent(self, stream: bytes, piece: int) -> None:
        pieces = [stream[n : n + piece] for n in range(0, len(stream), piece)]
        async with subgraph(saying(HEAD, *pieces)) as liar, HttpTransport({"liar": liar.url}) as transport:
            assert await heard(transport) == BOTH

    @pytest.mark.parametrize("piece", [1, 10, 100_000])
    async def test_arrive_in_chunks(self, piece: int) -> None:
        stream = event(1) + event(2) + COMPLETE
        chunks = chunked(*(stream[n : n + piece] for n in range(0, len(stream), piece)))
        head = HEAD.removesuffix(b"\r\n") + b"transfer-encoding: chunked\r\n\r\n"
        async with subgraph(saying(head, chunks)) as liar, HttpTransport({"liar": liar.url}) as transport:
            assert await heard(transport) == BOTH

    async def test_are_asked_for_as_the_protocol_says(self) -> None:
        async with subgraph(saying(HEAD, COMPLETE)) as liar, HttpTransport({"liar": liar.url}) as transport:
            assert await heard(transport, subscription(headers={"Authorization": "Bearer t"})) == []
        (asked,) = liar.asked
        assert asked.line == "POST /graphql HTTP/1.1"
        assert dict(asked.headers)["accept"] == "text/event-stream"
        assert dict(asked.headers)["authorization"] == "Bearer t"

    async def test_come_one_by_one_long_after_the_deadline_of_the_beginning(self) -> None:
        go_on = asyncio.Event()

        async def slow(caller: Caller) -> None:
            await caller.ask()
            await caller.say(HEAD)
            await asyncio.sleep(0.4)
            await caller.say(event(1))
            await go_on.wait()
            await caller.say(event(2) + COMPLETE)

        async with subgraph(slow) as liar, HttpTransport({"liar": liar.url}) as transport:
            events = transport.subscribe(subscription(within_s=0.3))
            assert await anext(events) == BOTH[0]
            assert transport.counts()["liar"].streams == 1
            go_on.set()
            assert [event async for event in events] == BOTH[1:]
            assert transport.counts()["liar"].streams == 0

    async def test_of_a_real_subgraph(self) -> None:
        async with serve() as served, HttpTransport({"core": served.url}) as transport:
            asked = subscription("core", "subscription { count(to: 3) }", headers={"authorization": "Bearer alice"})
            assert await heard(transport, asked) == [{"data": {"count": n}} for n in (1, 2, 3)]

    async def test_of_a_real_subgraph_that_fails(self) -> None:
        async with serve() as served, HttpTransport({"core": served.url}) as transport:
            first, last = await heard(transport, subscription("core", "subscription { breaks }"))
            assert first == {"data": {"breaks": 1}}
            assert last["errors"]

    async def test_do_not_take_the_place_of_requests(self) -> None:
        async def streaming(caller: Caller) -> None:
            if dict((await caller.ask()).headers)["accept"] == "text/event-stream":
                await caller.say(HEAD, event(1))
                await caller.left()
            else:
                await caller.say(answer())

        limits = HttpLimits(connections=1, waiting=0)
        async with (
            subgraph(streaming) as liar,
            HttpTransport({"liar": liar.url}, limits=limits) as transport,
            aclosing(transport.subscribe(subscription())) as one,
            aclosing(transport.subscribe(subscription())) as other,
        ):
            assert [await anext(one), await anext(other)] == [BOTH[0], BOTH[0]]
            assert await transport.fetch(request())
            assert transport.counts()["liar"].connections >= 2


class TestRefusal:
    @pytest.mark.parametrize("status", [200, 400, 401, 406, 500])
    async def test_that_is_graphql_is_the_only_response(self, status: int) -> None:
        said = answer({"errors": [{"message": "no"}]}, status=status, head=b"content-type: application/json\r\n")
        async with subgraph(serving(said)) as liar, HttpTransport({"liar": liar.url}) as transport:
            assert await heard(transport) == [{"errors": [{"message": "no"}]}]
            await eventually(lambda: liar.ended == 1)

    async def test_of_a_real_subgraph(self) -> None:
        async with serve() as served, HttpTransport({"core": served.url}) as transport:
            asked = subscription("core", "subscription { count }", headers={"authorization": "Bearer bad"})
            (response,) = await heard(transport, asked)
            assert response["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"

    @pytest.mark.parametrize(
        ("said", "code", "message"),
        [
            pytest.param(answer(b"<html>", status=404), INVALID, "its answer is not JSON (HTTP status 404)", id="HTML"),
            pytest.param(b"nonsense\r\n\r\n", INVALID, "it did not answer with HTTP", id="no HTTP"),
            pytest.param(b"", UNREACHABLE, "it closed the connection before it had answered", id="nothing"),
            pytest.param(OK + b"content-length: 16000001\r\n\r\n", TOO_LARGE, "its answer exceeds", id="large"),
            pytest.param(answer(head=b"content-encoding: gzip\r\n"), INVALID, "its answer is compressed", id="gzip"),
        ],
    )
    async def test_that_is_none(self, said: bytes, code: str, message: str) -> None:
        async with subgraph(saying(said)) as liar, HttpTransport({"liar": liar.url}) as transport:
            failed = await how_it_ends(transport)
            assert failed.code == code
            assert failed.message.startswith(message)

    async def test_of_nobody(self) -> None:
        async with HttpTransport({"liar": unused_url()}) as transport:
            assert (await how_it_ends(transport)).code == UNREACHABLE
            assert (await how_it_ends(transport, subscription("other"))).code == UNREACHABLE

    async def test_of_headers_that_would_be_more(self) -> None:
        async with subgraph(serving()) as liar, HttpTransport({"liar": liar.url}) as transport:
            failed = await how_it_ends(transport, subscription(headers={"x": "1\r\ny: 2"}))
            assert (failed.code, liar.connections) == (UNREACHABLE, 0)

    @pytest.mark.parametrize(
        "pieces",
        [
            pytest.param([], id="says nothing"),
            pytest.param([OK], id="says half a head"),
            pytest.param([OK + b"content-length: 20\r\n\r\n", b'{"err'], id="says half of why"),
        ],
    )
    async def test_that_does_not_come_in_time(self, pieces: list[bytes]) -> None:
        async def waiting(caller: Caller) -> None:
            await caller.ask()
            await caller.say(*pieces)
            await caller.left()

        async with subgraph(waiting) as liar, HttpTransport({"liar": liar.url}) as transport:
            assert (await how_it_ends(transport, subscription(within_s=0.2))).code == "SUBGRAPH_TIMEOUT"
            await eventually(lambda: liar.ended == 1)


async def endless(caller: Caller) -> None:
    while True:
        await caller.say(b"x" * 1000)


def after_the_head(then: Answering) -> Answering:
    async def answering(caller: Caller) -> None:
        await caller.ask()
        await caller.say(HEAD, event(1))
        await then(caller)

    return answering


def says(*pieces: bytes) -> Answering:
    async def answering(caller: Caller) -> None:
        await caller.say(*pieces)

    return answering


class TestBreaksOff:
    @pytest.mark.parametrize(
        ("then", "code", "message"),
        [
            pytest.param(says(), UNREACHABLE, "its stream broke off", id="without an end"),
            pytest.param(says(event(2)[:-1]), UNREACHABLE, "its stream broke off", id="within an event"),
            pytest.param(says(b"event: next\ndata: {\n\n"), INVALID, "its answer is not JSON", id="no JSON"),
            pytest.param(says(b"event: next\ndata: 1\n\n"), INVALID, "its answer is no JSON object", id="no object"),
            pytest.param(says(b"event: next\ndata: {}\n\n"), INVALID, "its answer is no GraphQL", id="no GraphQL"),
            pytest.param(silent, "SUBGRAPH_TIMEOUT", "its stream fell silent", id="silence"),
            pytest.param(endless, TOO_LARGE, "its answer exceeds", id="a line without end"),
            pytest.param(says(*[b"data: " + b"x" * 1000 + b"\n"] * 110), TOO_LARGE, "its answer", id="a large event"),
            pytest.param(says(*[b"data\n" * 1000] * 110), TOO_LARGE, "its answer", id="an event of many empty lines"),
        ],
    )
    async def test_with(self, then: Answering, code: str, message: str) -> None:
        limits = HttpLimits(stream_silence_s=0.3, max_response_bytes=100_000)
        async with (
            subgraph(after_the_head(then)) as liar,
            HttpTransport({"liar": liar.url}, limits=limits) as transport,
            aclosing(transport.subscribe(subscription())) as events,
        ):
            assert await anext(events) == BOTH[0]
            with pytest.raises(SubgraphFailed) as failed:
                await anext(events)
            assert failed.value.code == code
            assert failed.value.message.startswith(message)
            await eventually(lambda: transport.counts()["liar"].connections == 0)
            await eventually(lambda: liar.ended == 1)

    async def test_before_the_first_event(self) -> None:
        async def answering(caller: Caller) -> None:
            await caller.ask()
            await caller.say(HEAD)
            await silent(caller)

        async with (
            subgraph(answering) as liar,
            HttpTransport({"liar": liar.url}, limits=HttpLimits(stream_silence_s=0.1)) as transport,
        ):
            with pytest.raises(SubgraphFailed, match="silent"):
                await anext(transport.subscribe(subscription()))

    async def test_not_while_there_are_signs_of_life(self) -> None:
        async def pinging(caller: Caller) -> None:
            for _ in range(12):
                await caller.say(b":\n\n")
                await asyncio.sleep(0.05)
            await caller.say(event(2) + COMPLETE)

        limits = HttpLimits(stream_silence_s=0.3)
        answering = after_the_head(pinging)
        async with subgraph(answering) as liar, HttpTransport({"liar": liar.url}, limits=limits) as transport:
            assert await heard(transport) == BOTH

    async def test_if_the_transport_is_closed(self) -> None:
        async with subgraph(after_the_head(silent)) as liar:
            async with HttpTransport({"liar": liar.url}) as transport:
                events = transport.subscribe(subscription())
                await anext(events)
            with pytest.raises(SubgraphFailed):
                await anext(events)
            await eventually(lambda: liar.ended == 1)

    async def test_not_if_the_subgraph_moves(self) -> None:
        go_on = asyncio.Event()

        async def later(caller: Caller) -> None:
            await go_on.wait()
            await caller.say(event(2) + COMPLETE)

        async with subgraph(after_the_head(later)) as liar, HttpTransport({"liar": liar.url}) as transport:
            events = transport.subscribe(subscription())
            await anext(events)
            transport.update({})
            go_on.set()
            assert [event async for event in events] == BOTH[1:]


class TestLeaving:
    async def test_tells_the_subgraph(self) -> None:
        async with subgraph(after_the_head(silent)) as liar, HttpTransport({"liar": liar.url}) as transport:
            events = transport.subscribe(subscription())
            await anext(events)
            await events.aclose()
            await eventually(lambda: liar.ended == 1)
            assert transport.counts()["liar"].streams == 0

    async def test_ends_the_resolver_of_a_real_subgraph(self) -> None:
        async with serve() as served, HttpTransport({"core": served.url}) as transport:
            events = transport.subscribe(subscription("core", 'subscription { ticks(name: "left-sse") { id } }'))
            await anext(events)
            assert "left-sse" in service.running
            await events.aclose()
            await eventually(lambda: "left-sse" not in service.running)

    @pytest.mark.parametrize("answering", [silent, after_the_head(silent)], ids=["as it begins", "as it waits"])
    async def test_by_being_cancelled(self, answering: Answering) -> None:
        async with subgraph(answering) as liar, HttpTransport({"liar": liar.url}) as transport:
            task = asyncio.create_task(heard(transport))
            await eventually(lambda: transport.counts()["liar"].connections == 1)
            await asyncio.wait([task], timeout=0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            await eventually(lambda: liar.ended == 1)
            assert transport.counts()["liar"].streams == 0


class TestSlowConsumer:
    async def test_holds_the_subgraph_up_and_gets_everything(self) -> None:
        said = 0
        count = 3000
        padding = b"x" * 10_000

        async def eager(caller: Caller) -> None:
            nonlocal said
            await caller.ask()
            await caller.say(HEAD)
            for n in range(count):
                await caller.say(b'event: next\ndata: {"data":{"n":%d,"padding":"%b"}}\n\n' % (n, padding))
                said += 1
            await caller.say(COMPLETE)

        # It is silent for longer than allowed meanwhile, but only because nobody listens.
        limits = HttpLimits(stream_silence_s=0.3)
        async with subgraph(eager) as liar, HttpTransport({"liar": liar.url}, limits=limits) as transport:
            events = transport.subscribe(subscription())
            first = await anext(events)
            before = -1
            while said != before:  # until it can say no more
                before = said
                await asyncio.sleep(0.2)
            assert said < count
            got = [first["data"]["n"]] + [event["data"]["n"] async for event in events]
            assert got == list(range(count))
