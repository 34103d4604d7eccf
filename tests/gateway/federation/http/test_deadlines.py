"""Nothing takes longer than the caller said, and nothing goes on once the caller left."""

import asyncio
import socket

import pytest

from gateway.federation.http import HttpLimits, HttpTransport
from libs.core.testing import eventually
from tests.gateway.federation.http.liars import (
    ANSWER,
    OK,
    Answering,
    Caller,
    Liar,
    answer,
    failure,
    request,
    serving,
    silent,
    subgraph,
)

TIMEOUT = "SUBGRAPH_TIMEOUT"


def dripping(begin: bytes, drop: bytes) -> Answering:
    async def answering(caller: Caller) -> None:
        await caller.ask()
        await caller.say(begin)
        while True:
            await caller.say(drop)
            await asyncio.sleep(0.01)

    return answering


def https(liar: Liar) -> str:
    """Where a handshake never ends: it does not speak TLS."""
    return liar.url.replace("http:", "https:")


async def reads_nothing(caller: Caller) -> None:
    await asyncio.Event().wait()


class TestDeadline:
    @pytest.mark.parametrize(
        "answering",
        [
            pytest.param(silent, id="says nothing"),
            pytest.param(dripping(b"", b"\r\n"), id="drips before its head"),
            pytest.param(dripping(OK + b"a: ", b"b"), id="drips its head"),
            pytest.param(dripping(OK + b"content-length: 10000\r\n\r\n", b" "), id="drips its body"),
            pytest.param(dripping(OK + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"), id="drips chunks"),
        ],
    )
    async def test_is_of_the_whole_answer(self, answering: Answering) -> None:
        loop = asyncio.get_running_loop()
        async with subgraph(answering) as liar, HttpTransport({"liar": liar.url}) as transport:
            began = loop.time()
            assert (await failure(transport, request(within_s=0.2))).code == TIMEOUT
            assert 0.19 <= loop.time() - began < 2
            await eventually(lambda: transport.counts()["liar"].connections == 0)
            await eventually(lambda: liar.ended == 1)

    async def test_is_of_the_sending_as_well(self) -> None:
        async with subgraph(reads_nothing) as liar, HttpTransport({"liar": liar.url}) as transport:
            failed = await failure(transport, request(within_s=0.2, body=b" " * 20_000_000))
            assert failed.code == TIMEOUT
            await eventually(lambda: transport.counts()["liar"].connections == 0)

    async def test_is_of_connecting(self) -> None:
        async with subgraph(silent) as liar, HttpTransport({"liar": https(liar)}) as transport:
            assert (await failure(transport, request(within_s=0.2))).code == TIMEOUT
            await eventually(lambda: liar.ended == 1)

    async def test_is_of_waiting_for_a_connection(self) -> None:
        limits = HttpLimits(connections=1)
        async with subgraph(silent) as liar, HttpTransport({"liar": liar.url}, limits=limits) as transport:
            first = asyncio.create_task(failure(transport, request(within_s=1)))
            await eventually(lambda: transport.counts()["liar"].in_flight == 1)
            assert (await failure(transport, request(within_s=0.1))).code == TIMEOUT
            assert not first.done()
            assert (await first).code == TIMEOUT
            assert liar.connections == 1

    async def test_that_is_over_lets_nothing_be_sent(self) -> None:
        async with subgraph(serving()) as liar, HttpTransport({"liar": liar.url}) as transport:
            assert (await failure(transport, request(within_s=-1))).code == TIMEOUT
            await transport.fetch(request())
            assert (await failure(transport, request(within_s=-1))).code == TIMEOUT
            assert (len(liar.asked), liar.connections) == (1, 1)

    async def test_of_an_earlier_request_on_the_connection_means_nothing(self) -> None:
        async def slow_the_second_time(caller: Caller) -> None:
            await caller.ask()
            await caller.say(answer())
            await caller.ask()
            await asyncio.sleep(0.3)
            await caller.say(answer())

        async with subgraph(slow_the_second_time) as liar, HttpTransport({"liar": liar.url}) as transport:
            assert await transport.fetch(request(within_s=0.2)) == ANSWER
            assert await transport.fetch(request(within_s=5)) == ANSWER
            assert liar.connections == 1

    async def test_that_is_earlier_than_the_last_ones_holds(self) -> None:
        async def once(caller: Caller) -> None:
            await caller.ask()
            await caller.say(answer())
            await caller.left()

        loop = asyncio.get_running_loop()
        async with subgraph(once) as liar, HttpTransport({"liar": liar.url}) as transport:
            assert await transport.fetch(request(within_s=60)) == ANSWER
            began = loop.time()
            assert (await failure(transport, request(within_s=0.2))).code == TIMEOUT
            assert loop.time() - began < 2
            assert liar.connections == 1


class TestCancel:
    async def test_while_it_answers_closes_the_connection(self) -> None:
        limits = HttpLimits(connections=1)
        async with subgraph(silent) as liar, HttpTransport({"liar": liar.url}, limits=limits) as transport:
            for n in (1, 2):  # the place is free again
                fetch = asyncio.create_task(transport.fetch(request()))
                await eventually(lambda n=n: liar.connections == n)  # type: ignore[misc]
                await cancelled(fetch)
                await eventually(lambda n=n: liar.ended == n)  # type: ignore[misc]
            assert transport.counts()["liar"].in_flight == 0

    async def test_while_it_connects_closes_the_connection(self) -> None:
        async with subgraph(silent) as liar, HttpTransport({"liar": https(liar)}) as transport:
            fetch = asyncio.create_task(transport.fetch(request()))
            await eventually(lambda: liar.connections == 1)
            await cancelled(fetch)
            await eventually(lambda: liar.ended == 1)

    async def test_while_waiting_leaves_the_queue(self) -> None:
        limits = HttpLimits(connections=1, waiting=1)
        async with subgraph(silent) as liar, HttpTransport({"liar": liar.url}, limits=limits) as transport:
            first = asyncio.create_task(transport.fetch(request()))
            await eventually(lambda: liar.connections == 1)
            for _ in range(3):
                waiting = asyncio.create_task(transport.fetch(request()))
                await eventually(lambda: transport.counts()["liar"].waiting == 1)
                await cancelled(waiting)
                assert transport.counts()["liar"].waiting == 0
            await cancelled(first)
            assert transport.counts()["liar"].in_flight == 0

    async def test_as_its_turn_comes_hands_the_turn_on(self) -> None:
        async def first() -> None:
            await transport.fetch(request())
            second.cancel()  # who has the place by now, and does not know it yet

        limits = HttpLimits(connections=1)
        async with subgraph(serving()) as liar, HttpTransport({"liar": liar.url}, limits=limits) as transport:
            leading = asyncio.create_task(first())
            second, third = (asyncio.create_task(transport.fetch(request())) for _ in range(2))
            assert await third == ANSWER
            await leading
            assert second.cancelled()
            assert transport.counts()["liar"].in_flight == 0

    async def test_just_before_its_turn_is_passed_over(self) -> None:
        async def silent_at_first(caller: Caller) -> None:
            await (silent if liar.connections == 1 else serving())(caller)

        limits = HttpLimits(connections=1)
        async with subgraph(silent_at_first) as liar, HttpTransport({"liar": liar.url}, limits=limits) as transport:
            first, second, third = (asyncio.create_task(transport.fetch(request())) for _ in range(3))
            await eventually(lambda: transport.counts()["liar"].waiting == 2)
            await eventually(lambda: liar.connections == 1)
            first.cancel()
            second.cancel()
            assert await third == ANSWER
            assert first.cancelled()
            assert second.cancelled()
            assert transport.counts()["liar"].in_flight == 0

    async def test_and_the_answer_at_once_leaves_nothing_behind(self) -> None:
        limits = HttpLimits(connections=1)
        async with subgraph(serving()) as liar, HttpTransport({"liar": liar.url}, limits=limits) as transport:
            for n in range(50):
                fetch = asyncio.create_task(transport.fetch(request()))
                for _ in range(n % 10):
                    await asyncio.sleep(0)
                await cancelled(fetch)
                assert await transport.fetch(request()) == ANSWER
            assert transport.counts()["liar"].in_flight == 0
            await eventually(lambda: transport.counts()["liar"].connections <= 1)


async def cancelled(task: "asyncio.Task[object]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_port_that_accepts_nobody() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        async with HttpTransport({"liar": url}) as transport:
            failures = [failure(transport, request(within_s=0.3)) for _ in range(5)]
            assert {failed.code for failed in await asyncio.gather(*failures)} == {TIMEOUT}
