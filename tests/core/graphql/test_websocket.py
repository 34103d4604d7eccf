import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from libs.core.testing import eventually
from tests.core.graphql.conftest import Served, serve
from tests.core.graphql.service import running

INIT = {"type": "connection_init"}


async def say(socket: ClientConnection, message: Any) -> None:
    await socket.send(orjson.dumps(message).decode())


async def hear(socket: ClientConnection) -> Any:
    return orjson.loads(await asyncio.wait_for(socket.recv(), 5))


async def closed(socket: ClientConnection) -> int:
    """The code that the server closes with, whatever it says before."""
    with suppress(ConnectionClosed):
        async with asyncio.timeout(5):
            while True:
                await socket.recv()
    assert socket.close_code is not None
    return socket.close_code


@asynccontextmanager
async def initialised(served: Served, **payload: Any) -> AsyncIterator[ClientConnection]:
    async with served.socket() as socket:
        await say(socket, INIT | ({"payload": payload} if payload else {}))
        assert await hear(socket) == {"type": "connection_ack"}
        yield socket


def subscribe(query: str, *, operation: str = "1", **parameters: Any) -> dict[str, Any]:
    return {"type": "subscribe", "id": operation, "payload": {"query": query, **parameters}}


def ticks(name: str, *, operation: str = "1") -> dict[str, Any]:
    return subscribe(f'subscription {{ ticks(name: "{name}") {{ id }} }}', operation=operation)


def error(message: Any) -> str:
    assert message["type"] == "error"
    return str(message["payload"][0]["extensions"]["code"])


class TestSubscribe:
    async def test_every_event_then_complete(self, served: Served) -> None:
        async with initialised(served) as socket:
            await say(socket, subscribe("subscription { count(to: 2) }"))
            assert [await hear(socket) for _ in range(3)] == [
                {"type": "next", "id": "1", "payload": {"data": {"count": 1}}},
                {"type": "next", "id": "1", "payload": {"data": {"count": 2}}},
                {"type": "complete", "id": "1"},
            ]

    async def test_queries_too(self, served: Served) -> None:
        async with initialised(served) as socket:
            await say(socket, subscribe("{ hello }"))
            assert (await hear(socket))["payload"] == {"data": {"hello": "world"}}
            assert (await hear(socket))["type"] == "complete"

    async def test_an_invalid_document(self, served: Served) -> None:
        async with initialised(served) as socket:
            await say(socket, subscribe("subscription { unknown }"))
            assert error(await hear(socket)) == "GRAPHQL_VALIDATION_FAILED"

    async def test_a_source_that_breaks_is_masked(self, served: Served) -> None:
        async with initialised(served) as socket:
            await say(socket, subscribe("subscription { breaks }"))
            assert (await hear(socket))["payload"] == {"data": {"breaks": 1}}
            answer = await hear(socket)
            assert error(answer) == "INTERNAL"
            assert "hunter2" not in str(answer)

    async def test_an_id_can_be_used_again_once_it_is_over(self, served: Served) -> None:
        async with initialised(served) as socket:
            for _ in range(3):
                await say(socket, subscribe("{ hello }"))
                assert [(await hear(socket))["type"] for _ in range(2)] == ["next", "complete"]

    async def test_complete_stops_the_resolver(self, served: Served) -> None:
        async with initialised(served) as socket:
            await say(socket, ticks("stopped"))
            await hear(socket)
            await say(socket, {"type": "complete", "id": "1"})
            await eventually(lambda: "stopped" not in running)
            await say(socket, subscribe("{ hello }", operation="2"))
            while (answer := await hear(socket))["id"] == "1":  # what was under way
                assert answer["type"] == "next"
            assert answer["payload"] == {"data": {"hello": "world"}}

    async def test_a_client_that_leaves_stops_the_resolver(self, served: Served) -> None:
        async with initialised(served) as socket:
            await say(socket, ticks("left"))
            await hear(socket)
        await eventually(lambda: "left" not in running)

    async def test_too_many_at_once(self) -> None:
        async with serve(operations_per_connection=1) as served, initialised(served) as socket:
            await say(socket, ticks("first", operation="1"))
            await say(socket, ticks("second", operation="2"))
            while (answer := await hear(socket))["id"] == "1":
                pass
            assert error(answer) == "RATE_LIMITED"

    async def test_the_caller_is_known_by_the_init_payload(self, served: Served) -> None:
        async with initialised(served, authorization="Bearer anna") as socket:
            await say(socket, subscribe("{ whoami }"))
            assert (await hear(socket))["payload"] == {"data": {"whoami": "anna"}}


class TestProtocol:
    async def test_pings_are_answered(self, served: Served) -> None:
        async with served.socket() as socket:
            await say(socket, {"type": "ping"})
            assert await hear(socket) == {"type": "pong"}

    async def test_the_legacy_protocol_is_refused(self, served: Served) -> None:
        async with served.socket("graphql-ws") as socket:
            assert await closed(socket) == 4406

    @pytest.mark.parametrize(
        "garbage",
        [
            "",
            "garbage",
            "{",
            "null",
            "[]",
            '"connection_init"',
            "{}",
            '{"type": null}',
            '{"type": {"$ne": 1}}',
            '{"type": "connection_init", "payload": "x"}',
            '{"type": "start"}',
            "[" * 50_000,
            b"\x00\xff",
        ],
    )
    async def test_garbage(self, served: Served, garbage: str | bytes) -> None:
        async with served.socket() as socket:
            await socket.send(garbage)
            assert await closed(socket) == 4400

    @pytest.mark.parametrize(
        "message",
        [
            {"type": "subscribe"},
            {"type": "subscribe", "id": "1"},
            {"type": "subscribe", "id": 1, "payload": {"query": "{ hello }"}},
            {"type": "subscribe", "id": "", "payload": {"query": "{ hello }"}},
            {"type": "subscribe", "id": "x" * 1_000, "payload": {"query": "{ hello }"}},
            {"type": "subscribe", "id": "1", "payload": {"query": 7}},
            {"type": "subscribe", "id": "1", "payload": {"query": "{ hello }", "variables": []}},
            {"type": "complete"},
        ],
    )
    async def test_malformed_messages(self, served: Served, message: Any) -> None:
        async with initialised(served) as socket:
            await say(socket, message)
            assert await closed(socket) == 4400

    async def test_a_message_that_is_too_large(self, served: Served) -> None:
        async with initialised(served) as socket:
            await say(socket, subscribe("#" * 300_000))
            assert await closed(socket) == 1009

    async def test_nothing_said_in_time(self) -> None:
        async with serve(init_timeout_s=0.05) as served, served.socket() as socket:
            assert await closed(socket) == 4408

    async def test_subscribing_before_the_acknowledgement(self, served: Served) -> None:
        async with served.socket() as socket:
            await say(socket, subscribe("{ hello }"))
            assert await closed(socket) == 4401

    async def test_a_second_init(self, served: Served) -> None:
        async with initialised(served) as socket:
            await say(socket, INIT)
            assert await closed(socket) == 4429

    async def test_an_id_that_is_in_use(self, served: Served) -> None:
        async with initialised(served) as socket:
            await say(socket, ticks("twice"))
            await say(socket, ticks("twice"))
            assert await closed(socket) == 4409
        await eventually(lambda: "twice" not in running)


class TestClosing:
    async def test_a_token_that_is_not_accepted(self, served: Served) -> None:
        async with served.socket() as socket:
            await say(socket, INIT | {"payload": {"authorization": "Bearer bad"}})
            assert await closed(socket) == 4403

    async def test_a_token_that_expires(self, served: Served) -> None:
        async with initialised(served, authorization="Bearer anna:0.2") as socket:
            await say(socket, ticks("expires"))
            assert await closed(socket) == 4403
        await eventually(lambda: "expires" not in running)

    async def test_a_session_that_is_revoked(self, served: Served) -> None:
        async with (
            initialised(served, authorization="Bearer anna") as anna,
            initialised(served, authorization="Bearer ben") as ben,
        ):
            served.endpoint.end_session("session-anna")
            assert await closed(anna) == 4403
            await say(ben, subscribe("{ whoami }"))
            assert (await hear(ben))["payload"] == {"data": {"whoami": "ben"}}

    async def test_a_subject_whose_tokens_are_revoked(self, served: Served) -> None:
        async with (
            initialised(served, authorization="Bearer anna") as anna,
            initialised(served, authorization="Bearer ben") as ben,
        ):
            served.endpoint.end_subject("another tenant", "anna")
            served.endpoint.end_subject("acme", "anna")
            assert await closed(anna) == 4403
            await say(ben, subscribe("{ whoami }"))
            assert (await hear(ben))["payload"] == {"data": {"whoami": "ben"}}

    async def test_a_server_that_stops(self, served: Served) -> None:
        async with initialised(served) as socket:
            await say(socket, ticks("stops"))
            await hear(socket)
            served.endpoint.stop()
            assert await closed(socket) == 1012
        await eventually(lambda: "stops" not in running)
