"""Which connection a request goes over."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from socket import create_server

import pytest

from gateway.federation.http import HttpLimits, HttpTransport
from libs.core.testing import eventually
from tests.gateway.federation.http.liars import (
    ANSWER,
    Caller,
    answer,
    failure,
    request,
    saying,
    serving,
    silent,
    subgraph,
)


class TestConnections:
    async def test_are_kept(self) -> None:
        async with subgraph(serving()) as liar, HttpTransport({"liar": liar.url}) as transport:
            for _ in range(5):
                await transport.fetch(request())
            assert liar.connections == transport.counts()["liar"].connections == 1

    async def test_are_as_many_as_requests_at_once(self) -> None:
        async with subgraph(serving()) as liar, HttpTransport({"liar": liar.url}) as transport:
            await asyncio.gather(*(transport.fetch(request()) for _ in range(5)))
            assert liar.connections == 5
            await asyncio.gather(*(transport.fetch(request()) for _ in range(5)))
            assert liar.connections == 5

    async def test_are_no_more_than_allowed_and_whoever_waits_longest_is_next(self) -> None:
        limits = HttpLimits(connections=2)
        done: list[int] = []

        async def fetch(n: int) -> None:
            assert await transport.fetch(request()) == ANSWER
            done.append(n)

        async with subgraph(serving()) as liar, HttpTransport({"liar": liar.url}, limits=limits) as transport:
            await asyncio.gather(*(fetch(n) for n in range(20)))
            assert liar.connections == 2
        assert all(abs(place - n) <= 1 for place, n in enumerate(done))

    async def test_and_a_full_queue_before_them_refuses_at_once(self) -> None:
        limits = HttpLimits(connections=1, waiting=1)
        async with subgraph(silent) as liar, HttpTransport({"liar": liar.url}, limits=limits) as transport:
            tasks = [asyncio.create_task(failure(transport)) for _ in range(2)]
            await eventually(lambda: transport.counts()["liar"].waiting == 1)
            assert (await failure(transport)).code == "SUBGRAPH_UNREACHABLE"
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def test_that_are_idle_are_closed(self) -> None:
        limits = HttpLimits(idle_s=0.1)
        async with subgraph(serving()) as liar, HttpTransport({"liar": liar.url}, limits=limits) as transport:
            await asyncio.gather(*(transport.fetch(request()) for _ in range(3)))
            await eventually(lambda: liar.ended == 3)
            assert transport.counts()["liar"].connections == 0
            assert await transport.fetch(request()) == ANSWER

    async def test_of_a_burst_are_closed_although_one_is_used(self) -> None:
        limits = HttpLimits(idle_s=0.2)
        async with subgraph(serving()) as liar, HttpTransport({"liar": liar.url}, limits=limits) as transport:

            async def quiet() -> bool:
                await transport.fetch(request())
                return liar.ended == 4

            await asyncio.gather(*(transport.fetch(request()) for _ in range(5)))
            await eventually(quiet)
            assert liar.connections == 5

    @pytest.mark.parametrize(
        "said",
        [
            pytest.param(answer(head=b"Connection: close\r\n"), id="because it says so"),
            pytest.param(answer().replace(b"HTTP/1.1", b"HTTP/1.0"), id="because it speaks HTTP 1.0"),
        ],
    )
    async def test_that_will_be_closed_are_not_used_again(self, said: bytes) -> None:
        async with subgraph(serving(said)) as liar, HttpTransport({"liar": liar.url}) as transport:
            for _ in range(3):
                assert await transport.fetch(request()) == ANSWER
            assert liar.connections == 3
            await eventually(lambda: liar.ended == 3)

    async def test_that_the_subgraph_closes_are_forgotten(self) -> None:
        async with subgraph(saying(answer())) as liar, HttpTransport({"liar": liar.url}) as transport:
            for n in range(3):
                assert await transport.fetch(request(operation="mutation")) == ANSWER
                await eventually(lambda: transport.counts()["liar"].connections == 0)
                assert liar.connections == n + 1


async def hangs_up_the_second_time(caller: Caller) -> None:
    await caller.ask()
    await caller.say(answer())
    await caller.ask()


class TestKeptConnectionThatIsClosed:
    async def test_costs_a_query_a_second_try(self) -> None:
        async with subgraph(hangs_up_the_second_time) as liar, HttpTransport({"liar": liar.url}) as transport:
            for _ in range(3):
                assert await transport.fetch(request()) == ANSWER
            assert (len(liar.asked), liar.connections) == (5, 3)

    async def test_costs_a_mutation_its_answer_for_it_may_have_happened(self) -> None:
        async with subgraph(hangs_up_the_second_time) as liar, HttpTransport({"liar": liar.url}) as transport:
            assert await transport.fetch(request(operation="mutation")) == ANSWER
            assert (await failure(transport, request(operation="mutation"))).code == "SUBGRAPH_UNREACHABLE"
            assert (len(liar.asked), liar.connections) == (2, 1)

    async def test_is_not_made_up_for_by_other_kept_ones(self) -> None:
        """A subgraph that was restarted: all of them are closed, and one request would try one after the other."""
        async with subgraph(hangs_up_the_second_time) as liar, HttpTransport({"liar": liar.url}) as transport:
            await asyncio.gather(*(transport.fetch(request()) for _ in range(5)))
            assert await transport.fetch(request()) == ANSWER
            assert (len(liar.asked), liar.connections) == (7, 6)

    async def test_and_a_new_one_that_is_too_is_a_failure(self) -> None:
        said = [answer()]

        async def never_again(caller: Caller) -> None:
            await caller.ask()
            if said:
                await caller.say(said.pop())
                await caller.ask()

        async with subgraph(never_again) as liar, HttpTransport({"liar": liar.url}) as transport:
            await transport.fetch(request())
            assert (await failure(transport)).code == "SUBGRAPH_UNREACHABLE"
            assert (len(liar.asked), liar.connections) == (3, 2)

    async def test_after_a_byte_of_the_answer_is_a_failure(self) -> None:
        async def begins(caller: Caller) -> None:
            await caller.ask()
            await caller.say(answer())
            await caller.ask()
            await caller.say(b"H")

        async with subgraph(begins) as liar, HttpTransport({"liar": liar.url}) as transport:
            await transport.fetch(request())
            assert (await failure(transport)).code == "SUBGRAPH_UNREACHABLE"
            assert len(liar.asked) == 2

    async def test_is_not_used_for_a_mutation_even_if_nobody_noticed_yet(self) -> None:
        with closing_server() as server:
            async with HttpTransport({"liar": server.url}) as transport:
                for _ in range(3):
                    assert await transport.fetch(request(operation="mutation")) == ANSWER
                    # The event loop stands still meanwhile, and so does not hear of it.
                    assert server.closed.acquire(timeout=10)
            assert server.asked == 3


@dataclass
class ClosingServer:
    url: str
    asked: int = 0
    closed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


@contextmanager
def closing_server() -> Iterator[ClosingServer]:
    """Answers once per connection and closes it, in a thread: `closed` is released then."""
    with create_server(("127.0.0.1", 0)) as listening:
        server = ClosingServer(f"http://127.0.0.1:{listening.getsockname()[1]}/")

        def serve() -> None:
            for _ in range(3):
                connection, _ = listening.accept()
                with connection:
                    while not connection.recv(65536).endswith(b"}"):
                        pass
                    server.asked += 1
                    connection.sendall(answer())
                server.closed.release()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server
        thread.join(10)
        assert not thread.is_alive()


class TestUpdate:
    async def test_lets_end_what_is_under_way(self) -> None:
        go_on = asyncio.Event()

        async def slow(caller: Caller) -> None:
            await caller.ask()
            await go_on.wait()
            await caller.say(answer())
            await caller.left()

        other = {"data": {"hello": "other"}}
        async with (
            subgraph(slow) as old,
            subgraph(serving(answer(other))) as new,
            HttpTransport({"liar": old.url}, limits=HttpLimits(idle_s=60)) as transport,
        ):
            fetch = asyncio.create_task(transport.fetch(request()))
            await eventually(lambda: old.asked)
            transport.update({"liar": new.url})
            assert await transport.fetch(request()) == other
            go_on.set()
            assert await fetch == ANSWER
            await eventually(lambda: old.ended == 1)

    async def test_closes_idle_connections_to_where_nobody_is_asked_any_more(self) -> None:
        async with subgraph(serving()) as liar, HttpTransport({"liar": liar.url}) as transport:
            await transport.fetch(request())
            transport.update({})
            await eventually(lambda: liar.ended == 1)
            assert transport.counts() == {}
            assert (await failure(transport)).code == "SUBGRAPH_UNREACHABLE"

    async def test_keeps_connections_to_where_it_asked_before(self) -> None:
        async with (
            subgraph(serving()) as liar,
            subgraph(serving()) as new,
            HttpTransport({"liar": liar.url}) as transport,
        ):
            await transport.fetch(request())
            transport.update({"liar": liar.url, "new": new.url})
            await transport.fetch(request())
            assert await transport.fetch(request("new")) == ANSWER
            assert liar.connections == 1

    async def test_with_what_is_no_url_changes_nothing(self) -> None:
        async with subgraph(serving()) as liar, HttpTransport({"liar": liar.url}) as transport:
            await transport.fetch(request())
            with pytest.raises(ValueError):
                transport.update({"new": liar.url, "liar": "nonsense"})
            assert await transport.fetch(request()) == ANSWER
            assert (liar.connections, set(transport.counts())) == (1, {"liar"})


class TestExit:
    async def test_cuts_off_what_is_under_way(self) -> None:
        async with subgraph(silent) as liar, subgraph(silent) as old:
            async with HttpTransport({"liar": old.url}) as transport:
                tasks = [asyncio.create_task(failure(transport))]
                await eventually(lambda: old.connections == 1)
                transport.update({"liar": liar.url})
                tasks.append(asyncio.create_task(failure(transport)))
                await eventually(lambda: liar.connections == 1)
            assert [(await task).code for task in tasks] == ["SUBGRAPH_UNREACHABLE"] * 2
            await eventually(lambda: [liar.ended, old.ended] == [1, 1])


async def test_counts_are_of_now() -> None:
    async with subgraph(silent) as slow, subgraph(serving()) as quick:
        urls, limits = {"slow": slow.url, "quick": quick.url}, HttpLimits(connections=2)
        async with HttpTransport(urls, limits=limits) as transport:
            await transport.fetch(request("quick"))
            tasks = [asyncio.create_task(transport.fetch(request("slow"))) for _ in range(3)]
            await eventually(lambda: slow.connections == 2)
            counts = transport.counts()
            assert (counts["slow"].in_flight, counts["slow"].waiting, counts["slow"].connections) == (2, 1, 2)
            assert (counts["quick"].in_flight, counts["quick"].waiting, counts["quick"].connections) == (0, 0, 1)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
