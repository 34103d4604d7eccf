"""Subscriptions over WebSockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve as serve_websockets
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from gateway.federation.http import HttpLimits, HttpTransport
from gateway.federation.transport import SubgraphFailed
from libs.core.testing import eventually
from tests.core.graphql import service
from tests.core.graphql.conftest import Served, serve
from tests.gateway.federation.http.liars import (
    ANSWER,
    Answering,
    Liar,
    answer,
    heard,
    how_it_ends,
    request,
    saying,
    serving,
    silent,
    subgraph,
    subscription,
)

UNREACHABLE, INVALID, TOO_LARGE = "SUBGRAPH_UNREACHABLE", "SUBGRAPH_INVALID_RESPONSE", "SUBGRAPH_TOO_LARGE"
TIMEOUT = "SUBGRAPH_TIMEOUT"
BOTH = [{"data": {"n": 1}}, {"data": {"n": 2}}]


@dataclass
class Peer:
    """A subgraph that speaks WebSocket, and hears everything it is told."""

    url: str = ""
    told: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    closed: int = 0


class Spoken:
    def __init__(self, socket: ServerConnection, peer: Peer) -> None:
        self.socket = socket
        self._peer = peer

    async def say(self, *messages: dict[str, Any] | str) -> None:
        for message in messages:
            await self.socket.send(message if isinstance(message, str) else json.dumps(message))

    async def hear(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self.socket.recv())
        self._peer.told.append(message)
        return message

    async def begin(self) -> None:
        """Accepts the connection and a subscription."""
        await self.hear()
        await self.say({"type": "connection_ack"})
        await self.hear()

    async def listen(self) -> None:
        while True:
            await self.hear()


Speaking = Callable[[Spoken], Awaitable[None]]


@asynccontextmanager
async def peer(
    speaking: Speaking, *, protocol: str | None = "graphql-transport-ws", **options: Any
) -> AsyncIterator[Peer]:
    made = Peer()

    async def handle(socket: ServerConnection) -> None:
        assert socket.request
        made.headers.append({name.lower(): value for name, value in socket.request.headers.raw_items()})
        try:
            await speaking(Spoken(socket, made))
        except ConnectionClosed:
            pass
        finally:
            made.closed += 1

    protocols = [Subprotocol(protocol)] if protocol else None
    server = await serve_websockets(handle, "127.0.0.1", 0, subprotocols=protocols, **options)
    made.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/graphql?x=y"
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


def websocket(of: Liar | Served) -> str:
    return of.url.replace("http:", "ws:")


def next_(n: int) -> dict[str, Any]:
    return {"id": "1", "type": "next", "payload": {"data": {"n": n}}}


COMPLETE = {"id": "1", "type": "complete"}


def begins_and_says(*messages: dict[str, Any] | str) -> Speaking:
    async def speaking(spoken: Spoken) -> None:
        await spoken.begin()
        await spoken.say(*messages)
        await spoken.listen()

    return speaking


class TestMessages:
    async def test_as_the_protocol_says(self) -> None:
        headers = {"Authorization": "Bearer t", "x-correlation-id": "c", "host": "other"}
        async with (
            peer(begins_and_says(next_(1), next_(2), COMPLETE)) as to,
            HttpTransport({"liar": to.url}) as transport,
        ):
            assert await heard(transport, subscription(headers=headers)) == BOTH
            await eventually(lambda: to.closed == 1)
        passed = {"authorization": "Bearer t", "x-correlation-id": "c"}
        assert to.told == [
            {"type": "connection_init", "payload": passed},
            {"id": "1", "type": "subscribe", "payload": {"query": "subscription { n }", "variables": {}}},
        ]
        (sent,) = to.headers
        assert passed.items() <= sent.items()
        assert sent["host"] == to.url.split("/")[2]
        assert "sec-websocket-extensions" not in sent  # nothing that inflates

    async def test_an_error_is_the_last_response(self) -> None:
        error = {"id": "1", "type": "error", "payload": [{"message": "no"}]}
        async with peer(begins_and_says(next_(1), error)) as to, HttpTransport({"liar": to.url}) as transport:
            assert await heard(transport) == [BOTH[0], {"errors": [{"message": "no"}]}]

    async def test_pings_are_answered_at_any_time(self) -> None:
        async def speaking(spoken: Spoken) -> None:
            await spoken.hear()
            await spoken.say({"type": "ping"})
            assert await spoken.hear() == {"type": "pong"}
            await spoken.say({"type": "connection_ack"})
            await spoken.hear()
            await spoken.say(next_(1), {"type": "ping", "payload": {"a": 1}}, {"type": "pong"})
            assert await spoken.hear() == {"type": "pong"}
            await spoken.say(next_(2), COMPLETE)
            await spoken.listen()

        async with peer(speaking) as to, HttpTransport({"liar": to.url}) as transport:
            assert await heard(transport) == BOTH

    async def test_as_bytes(self) -> None:
        async def speaking(spoken: Spoken) -> None:
            await spoken.begin()
            await spoken.socket.send(json.dumps(next_(1)).encode())
            await spoken.say(COMPLETE)
            await spoken.listen()

        async with peer(speaking) as to, HttpTransport({"liar": to.url}) as transport:
            assert await heard(transport) == BOTH[:1]

    async def test_long_after_the_deadline_of_the_beginning(self) -> None:
        async def speaking(spoken: Spoken) -> None:
            await spoken.begin()
            await asyncio.sleep(0.6)
            await spoken.say(next_(1), COMPLETE)
            await spoken.listen()

        async with peer(speaking) as to, HttpTransport({"liar": to.url}) as transport:
            assert await heard(transport, subscription(within_s=0.5)) == BOTH[:1]

    async def test_of_a_real_subgraph(self) -> None:
        async with serve() as served, HttpTransport({"core": websocket(served)}) as transport:
            asked = subscription("core", "subscription { count(to: 3) }", headers={"authorization": "Bearer alice"})
            assert await heard(transport, asked) == [{"data": {"count": n}} for n in (1, 2, 3)]
            refused = subscription("core", "subscription { nothing }")
            (response,) = await heard(transport, refused)
            assert response["errors"]

    async def test_of_a_subgraph_that_is_asked_elsewhere(self) -> None:
        async with (
            peer(begins_and_says(next_(1), COMPLETE)) as to,
            subgraph(serving()) as liar,
            HttpTransport({"liar": liar.url}, stream_urls={"liar": to.url}) as transport,
        ):
            assert await transport.fetch(request()) == ANSWER
            events = transport.subscribe(subscription())
            assert await anext(events) == BOTH[0]
            assert (transport.counts()["liar"].streams, transport.counts()["liar"].connections) == (1, 2)
            await events.aclose()
            assert transport.counts()["liar"].streams == 0

    async def test_of_one_that_is_asked_at_the_same_address(self) -> None:
        async with subgraph(serving()) as liar, HttpTransport({"liar": websocket(liar)}) as transport:
            assert await transport.fetch(request()) == ANSWER


class TestRefusal:
    @pytest.mark.parametrize(
        ("answering", "code", "message"),
        [
            pytest.param(saying(), INVALID, "it does not speak graphql-transport-ws", id="hangs up"),
            pytest.param(saying(b"nonsense\r\n\r\n"), INVALID, "it does not speak", id="speaks no HTTP"),
            pytest.param(
                saying(answer(status=403)), INVALID, "it refused a WebSocket (HTTP status 403)", id="forbids it"
            ),
            pytest.param(silent, TIMEOUT, "its stream did not begin in time", id="says nothing"),
        ],
    )
    async def test_of_a_handshake(self, answering: Answering, code: str, message: str) -> None:
        async with subgraph(answering) as liar, HttpTransport({"liar": websocket(liar)}) as transport:
            failed = await how_it_ends(transport, subscription(within_s=0.5))
            assert failed.code == code
            assert failed.message.startswith(message)
            await eventually(lambda: transport.counts()["liar"].connections == 0)

    async def test_that_redirects_is_not_followed(self) -> None:
        async with peer(begins_and_says(next_(1), COMPLETE)) as elsewhere:

            def redirect(socket: ServerConnection, _: Request) -> Response:
                response = socket.respond(HTTPStatus.TEMPORARY_REDIRECT, "")
                response.headers["location"] = elsewhere.url
                return response

            async with (
                peer(silent_peer, process_request=redirect) as to,
                HttpTransport({"liar": to.url}) as transport,
            ):
                failed = await how_it_ends(transport)
            assert (failed.code, elsewhere.headers) == (INVALID, [])

    async def test_of_the_protocol(self) -> None:
        async with peer(silent_peer, protocol=None) as to, HttpTransport({"liar": to.url}) as transport:
            failed = await how_it_ends(transport)
            assert (failed.code, failed.message) == (INVALID, "it does not speak graphql-transport-ws")

    async def test_that_closes_with_a_code(self) -> None:
        async def forbids(spoken: Spoken) -> None:
            await spoken.hear()
            await spoken.socket.close(4403, "Forbidden by 127.0.0.1")

        async with peer(forbids) as to, HttpTransport({"liar": to.url}) as transport:
            failed = await how_it_ends(transport)
            assert (failed.code, failed.message) == (UNREACHABLE, "it closed the WebSocket with code 4403")

    async def test_that_says_something_else_than_an_acknowledgement(self) -> None:
        async def eager(spoken: Spoken) -> None:
            await spoken.say(next_(1))
            await spoken.listen()

        async with peer(eager) as to, HttpTransport({"liar": to.url}) as transport:
            assert (await how_it_ends(transport)).code == INVALID
            await eventually(lambda: to.closed == 1)

    async def test_that_does_not_come(self) -> None:
        async with peer(silent_peer) as to, HttpTransport({"liar": to.url}) as transport:
            assert (await how_it_ends(transport, subscription(within_s=0.3))).code == TIMEOUT
            await eventually(lambda: to.closed == 1)

    async def test_of_headers_that_would_be_more(self) -> None:
        async with peer(silent_peer) as to, HttpTransport({"liar": to.url}) as transport:
            failed = await how_it_ends(transport, subscription(headers={"x": "1\r\ny: 2"}))
            assert (failed.code, to.headers) == (UNREACHABLE, [])


async def silent_peer(spoken: Spoken) -> None:
    await spoken.listen()


class TestBreaksOff:
    @pytest.mark.parametrize(
        ("message", "code"),
        [
            pytest.param("nonsense", INVALID, id="no JSON"),
            pytest.param("[1]", INVALID, id="no object"),
            pytest.param("{}", INVALID, id="no type"),
            pytest.param('{"type":1}', INVALID, id="a type that is none"),
            pytest.param('{"type":"news"}', INVALID, id="an unknown type"),
            pytest.param('{"type":"next","id":"1"}', INVALID, id="nothing comes next"),
            pytest.param('{"type":"next","id":"1","payload":[]}', INVALID, id="no response"),
            pytest.param('{"type":"error","id":"1","payload":{}}', INVALID, id="no errors"),
            pytest.param('{"type":' * 100_000, INVALID, id="nested deeply"),
            pytest.param('{"type":"' + "x" * 1_000_000 + '"}', TOO_LARGE, id="too large"),
        ],
    )
    async def test_with(self, message: str, code: str) -> None:
        limits = HttpLimits(max_response_bytes=900_000)
        speaking = begins_and_says(next_(1), message)
        async with (
            peer(speaking) as to,
            HttpTransport({"liar": to.url}, limits=limits) as transport,
            aclosing(transport.subscribe(subscription())) as events,
        ):
            assert await anext(events) == BOTH[0]
            with pytest.raises(SubgraphFailed) as failed:
                await anext(events)
            assert failed.value.code == code
            await eventually(lambda: transport.counts()["liar"].connections == 0)

    @pytest.mark.parametrize("aborts", [True, False])
    async def test_without_an_end(self, *, aborts: bool) -> None:
        async def leaves(spoken: Spoken) -> None:
            await spoken.begin()
            await spoken.say(next_(1))
            if aborts:
                spoken.socket.transport.abort()

        async with peer(leaves) as to, HttpTransport({"liar": to.url}) as transport:
            failed = await how_it_ends(transport)
            assert failed.code == UNREACHABLE
            assert failed.message == ("its stream broke off" if aborts else "it closed the WebSocket with code 1000")

    async def test_with_silence(self) -> None:
        async def dead(spoken: Spoken) -> None:
            await spoken.begin()
            await spoken.say(next_(1))
            spoken.socket.transport.pause_reading()  # and so, no pongs
            await asyncio.sleep(0.8)
            spoken.socket.transport.resume_reading()

        limits = HttpLimits(stream_silence_s=0.3)
        async with peer(dead, ping_interval=None) as to, HttpTransport({"liar": to.url}, limits=limits) as transport:
            failed = await how_it_ends(transport)
            assert (failed.code, failed.message) == (TIMEOUT, "its stream fell silent")

    async def test_if_the_subgraph_reads_nothing(self) -> None:
        async def deaf(spoken: Spoken) -> None:
            await spoken.hear()
            spoken.socket.transport.pause_reading()
            await spoken.say({"type": "connection_ack"})
            await go_on.wait()
            spoken.socket.transport.abort()

        go_on = asyncio.Event()
        limits = HttpLimits(stream_silence_s=0.3)
        async with peer(deaf, ping_interval=None) as to, HttpTransport({"liar": to.url}, limits=limits) as transport:
            failed = await how_it_ends(transport, subscription(query="x" * 20_000_000))
            assert (failed.code, failed.message) == (TIMEOUT, "it does not read what it is sent")
            await eventually(lambda: transport.counts()["liar"].connections == 0)
            go_on.set()

    async def test_not_while_there_are_signs_of_life(self) -> None:
        async def slow(spoken: Spoken) -> None:
            await spoken.begin()
            await asyncio.sleep(0.8)
            await spoken.say(next_(1), COMPLETE)
            await spoken.listen()

        limits = HttpLimits(stream_silence_s=0.3)
        async with peer(slow, ping_interval=None) as to, HttpTransport({"liar": to.url}, limits=limits) as transport:
            assert await heard(transport) == BOTH[:1]

    async def test_if_the_transport_is_closed(self) -> None:
        async with peer(begins_and_says(next_(1))) as to:
            async with HttpTransport({"liar": to.url}) as transport:
                events = transport.subscribe(subscription())
                await anext(events)
            with pytest.raises(SubgraphFailed):
                await anext(events)
            await eventually(lambda: to.closed == 1)


class TestLeaving:
    async def test_tells_the_subgraph(self) -> None:
        async with peer(begins_and_says(next_(1))) as to, HttpTransport({"liar": to.url}) as transport:
            events = transport.subscribe(subscription())
            await anext(events)
            await events.aclose()
            await eventually(lambda: to.closed == 1)
            assert to.told[-1] == COMPLETE
            assert transport.counts()["liar"].streams == 0

    async def test_ends_the_resolver_of_a_real_subgraph(self) -> None:
        async with serve() as served, HttpTransport({"core": websocket(served)}) as transport:
            events = transport.subscribe(subscription("core", 'subscription { ticks(name: "left-ws") { id } }'))
            await anext(events)
            assert "left-ws" in service.running
            await events.aclose()
            await eventually(lambda: "left-ws" not in service.running)

    async def test_does_not_wait_for_a_subgraph_that_reads_nothing(self) -> None:
        async def deaf(spoken: Spoken) -> None:
            await spoken.begin()
            await spoken.say(next_(1))
            spoken.socket.transport.pause_reading()
            await go_on.wait()
            spoken.socket.transport.resume_reading()

        go_on = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with peer(deaf) as to, HttpTransport({"liar": to.url}) as transport:
            events = transport.subscribe(subscription())
            await anext(events)
            began = loop.time()
            await events.aclose()
            assert loop.time() - began < 5
            await eventually(lambda: transport.counts()["liar"].connections == 0)
            go_on.set()

    @pytest.mark.parametrize("speaking", [silent_peer, begins_and_says()], ids=["as it begins", "as it waits"])
    async def test_by_being_cancelled(self, speaking: Speaking) -> None:
        async with peer(speaking) as to, HttpTransport({"liar": to.url}) as transport:
            task = asyncio.create_task(heard(transport))
            await eventually(lambda: to.told)
            await asyncio.wait([task], timeout=0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            await eventually(lambda: to.closed == 1)
            assert transport.counts()["liar"].streams == 0


class TestSlowConsumer:
    async def test_holds_the_subgraph_up_and_gets_everything(self) -> None:
        said, count = 0, 3000

        async def eager(spoken: Spoken) -> None:
            nonlocal said
            await spoken.begin()
            for n in range(count):
                await spoken.say({"id": "1", "type": "next", "payload": {"data": {"n": n}, "padding": "x" * 10_000}})
                said += 1
            await spoken.say(COMPLETE)
            await spoken.listen()

        limits = HttpLimits(stream_silence_s=0.3)
        async with peer(eager, ping_interval=None) as to, HttpTransport({"liar": to.url}, limits=limits) as transport:
            events = transport.subscribe(subscription())
            first = await anext(events)
            before = -1
            while said != before:  # until it can say no more
                before = said
                await asyncio.sleep(0.4)
            assert said < count
            got = [first["data"]["n"]] + [event["data"]["n"] async for event in events]
            assert got == list(range(count))
