"""What hostile clients and subgraphs can do through the gateway: nothing to others, and nothing without bounds."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.federation import Subgraph, compose
from gateway.federation.http import HttpTransport
from gateway.supergraph import Graph
from libs.core.graphql import Limits, Request
from libs.core.testing import eventually
from tests.gateway.foreign import Foreign, serving
from tests.live import Live, Surroundings, gateway_process, shared_namespace
from tests.web import web

GOOD = "type Query { city: String me: User } type User { name: String kind: String best: User worst: User }"
BAD = """type Query { word: String number: Int words: [String!]! thing: Thing anything: JSON } scalar JSON
    type Thing { id: ID! name: String! }"""
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
MB = 1_000_000
Ask = Callable[..., Any]
Lie = Callable[[BufferedIOBase], Any]


@pytest.fixture(scope="module")
def good() -> Iterator[Foreign]:
    with serving(Foreign(GOOD, {"city": "Riga", "me": {"name": "Anna"}})) as good:
        yield good


@pytest.fixture(scope="module")
def bad() -> Iterator[Foreign]:
    with serving(Foreign(BAD, {"word": "yes"})) as bad:
        yield bad


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, mongo_url: str, redis_url: str, good: Foreign, bad: Foreign
) -> Iterator[Live]:
    folder, subgraphs = tmp_path_factory.mktemp("gateway"), {"good": good.url, "bad": bad.url}
    with shared_namespace(mongo_url, redis_url) as namespace:
        on = Surroundings.new(mongo_url, redis_url, namespace)
        with gateway_process(folder, on, subgraphs=subgraphs, REQUEST_TIMEOUT_S="2") as gateway:
            yield gateway


@pytest.fixture
async def ask(gateway: Live, bad: Foreign) -> AsyncIterator[Ask]:
    async with web(timeout=20) as client:

        async def ask(query: str, **variables: Any) -> Any:
            body = {"query": query, "variables": variables}
            answer = await client.post(f"{gateway.server.url}/graphql", json=body)
            return answer.json()

        yield ask
    bad.lie = None


def codes(answer: Any) -> list[str]:
    return [error["extensions"]["code"] for error in answer["errors"]]


def resident(gateway: Live) -> int:
    status = Path(f"/proc/{gateway.server.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def _said(body: Any) -> Lie:
    text = json.dumps(body).encode()
    return lambda out: _all(out, OK, b"content-length: %d\r\n\r\n" % len(text), text)


def _all(out: BufferedIOBase, *pieces: bytes) -> None:
    for piece in pieces:
        out.write(piece)


def _gigabyte(out: BufferedIOBase) -> None:
    _all(out, OK, b"content-length: %d\r\n\r\n" % 10**9, b'{"data": {"word": "')
    for _ in range(1_000):
        out.write(b"x" * MB)


def _gigabyte_in_chunks(out: BufferedIOBase) -> None:
    out.write(OK + b"transfer-encoding: chunked\r\n\r\n")
    for _ in range(1_000):
        out.write(b"%x\r\n%b\r\n" % (MB, b" " * MB))


class TestOfASubgraph:
    @pytest.mark.parametrize(
        ("lie", "code"),
        [
            pytest.param(_gigabyte, "SUBGRAPH_TOO_LARGE", id="a gigabyte"),
            pytest.param(_gigabyte_in_chunks, "SUBGRAPH_TOO_LARGE", id="a gigabyte of unknown length"),
            pytest.param(lambda out: out.write(OK), "SUBGRAPH_UNREACHABLE", id="half a head"),
            pytest.param(
                lambda out: out.write(OK + b'content-length: 99\r\n\r\n{"data"'), "SUBGRAPH_UNREACHABLE", id="half"
            ),
            pytest.param(lambda out: out.write(b"what?\r\n\r\n"), "SUBGRAPH_INVALID_RESPONSE", id="no HTTP"),
            pytest.param(
                lambda out: out.write(b"HTTP/1.1 500 X\r\ncontent-length: 6\r\n\r\n<html>"),
                "SUBGRAPH_INVALID_RESPONSE",
                id="an error in HTML",
            ),
            pytest.param(_said([]), "SUBGRAPH_INVALID_RESPONSE", id="a list"),
            pytest.param(_said({"data": "word"}), "SUBGRAPH_INVALID_RESPONSE", id="data that is a string"),
            pytest.param(_said({"data": {"word": ["x"]}}), "SUBGRAPH_INVALID_RESPONSE", id="a list for a string"),
            pytest.param(
                lambda out: _all(out, OK, b"content-length: 200000\r\n\r\n", b"[" * 200_000),
                "SUBGRAPH_INVALID_RESPONSE",
                id="nested without end",
            ),
        ],
    )
    async def test_a_lie_costs_its_own_fields(self, gateway: Live, bad: Foreign, ask: Ask, lie: Lie, code: str) -> None:
        before = resident(gateway)
        bad.lie = lie
        answer = await ask("{ word city }")
        assert answer["data"] == {"word": None, "city": "Riga"}
        assert codes(answer) == [code]
        assert answer["errors"][0]["path"] == ["word"] or answer["errors"][0]["path"] == []
        assert resident(gateway) - before < 60 * MB

    async def test_silence_ends_at_the_deadline_and_holds_up_nobody(
        self, gateway: Live, bad: Foreign, ask: Ask
    ) -> None:
        over = threading.Event()
        bad.lie = lambda _: over.wait(20)
        waiting = [asyncio.create_task(ask("{ word city }")) for _ in range(150)]
        for _ in range(20):
            assert await ask("{ city }") == {"data": {"city": "Riga"}}
        for answer in await asyncio.gather(*waiting):
            assert answer["data"] == {"word": None, "city": "Riga"}
            assert codes(answer) == ["SUBGRAPH_TIMEOUT"]
        over.set()
        bad.lie = None
        assert await ask("{ word }") == {"data": {"word": "yes"}}

    async def test_wrong_types_become_null_as_far_up_as_they_must(self, bad: Foreign, ask: Ask) -> None:
        bad.lie = _said({"data": {"number": "7", "thing": {"id": {}, "name": "x", "more": 1}, "word": "yes", "x": 1}})
        answer = await ask("{ number thing { id name } word city }")
        assert answer["data"] == {"number": None, "thing": None, "word": "yes", "city": "Riga"}
        assert sorted(error["path"] for error in answer["errors"]) == [["number"], ["thing", "id"]]
        bad.lie = _said({"data": {"words": ["a", None]}})
        answer = await ask("{ words city }")
        assert answer["data"] is None
        assert [error["path"] for error in answer["errors"]] == [["words", 1]]

    async def test_what_cannot_be_written_is_refused(self, bad: Foreign, ask: Ask) -> None:
        nested: list[Any] = []
        for _ in range(300):
            nested = [nested]
        bad.lie = _said({"data": {"anything": nested}})
        assert codes(await ask("{ anything city }")) == ["SUBGRAPH_INVALID_RESPONSE"]


def spread(depth: int) -> str:
    """Four fields more for each of 2 ** depth selections."""
    below = (
        f"fragment U{n} on User {{ name kind best {{ ...U{n - 1} }} worst {{ ...U{n - 1} }} }}"
        for n in range(1, depth + 1)
    )
    return f"{{ me {{ ...U{depth} }} }} fragment U0 on User {{ name }} {' '.join(below)}"


class TestOfAClient:
    async def test_a_large_document_is_planned_beside_others(self) -> None:
        """It takes a quarter of a second, in which the event loop has its turns."""
        text = compose([Subgraph("good", "http://good", GOOD)])
        graph = Graph(text, HttpTransport({}), Limits(), development=True, at=datetime.now(UTC))
        asked, _ = graph.documents.ask(Request(spread(9), {}, None, {}))
        planned, turns = asyncio.create_task(graph.plan(graph.operation(asked), {})), 0
        while not planned.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns > 20
        assert (await planned).hops == 1

    @pytest.mark.parametrize(("depth", "limit"), [(10, "plan"), (11, "cost")])
    async def test_one_that_spreads_too_far_is_refused(self, ask: Ask, depth: int, limit: str) -> None:
        answer = await ask(spread(depth))
        assert codes(answer) == ["LIMIT_EXCEEDED"]
        assert answer["errors"][0]["extensions"]["details"]["limit"] == limit

    @pytest.mark.parametrize(
        "query",
        [
            pytest.param("{ " + " ".join(f"a{n}: city" for n in range(10_000)) + " }", id="10,000 aliases"),
            pytest.param("{ city " + "@include(if: true) " * 10_000 + "}", id="10,000 directives"),
            pytest.param("{ city " + "@a " * 1_500 + "}", id="1,500 unknown directives"),
            pytest.param(" ".join(f"query Q{n} {{ city }}" for n in range(400)), id="400 operations"),
            pytest.param("{ me " + "{ best " * 5_000 + "}" * 5_000 + "}", id="5,000 deep"),
            pytest.param("{ me " + "{ best " * 100 + "{ name }" + "}" * 100 + "}", id="100 deep"),
            pytest.param("{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }", id="a cycle"),
            pytest.param("query (" + " ".join(f"$v{n}: Int" for n in range(600)) + ") { city }", id="unused variables"),
        ],
    )
    async def test_documents_that_are_refused(self, ask: Ask, query: str) -> None:
        async with asyncio.timeout(2):
            answer = await ask(query)
        assert "data" not in answer
        assert set(codes(answer)) <= {
            "LIMIT_EXCEEDED",
            "GRAPHQL_VALIDATION_FAILED",
            "GRAPHQL_PARSE_FAILED",
            "OPERATION_RESOLUTION_FAILURE",
        }

    async def test_variables_that_are_too_many(self, ask: Ask) -> None:
        assert codes(await ask("{ city }", of=[0] * 20_001)) == ["LIMIT_EXCEEDED"]

    async def test_variables_that_are_too_large(self, gateway: Live, ask: Ask) -> None:
        async with web() as client:
            body = {"query": "{ city }", "variables": {"of": "x" * MB}}
            answer = await client.post(f"{gateway.server.url}/graphql", json=body)
        assert answer.status_code == 413
        assert codes(answer.json()) == ["LIMIT_EXCEEDED"]

    async def test_twenty_who_ask_for_what_is_planned_for_the_first_time(self, ask: Ask) -> None:
        answers = await asyncio.gather(*(ask("{ me { name } city }") for _ in range(20)))
        assert answers == [{"data": {"me": {"name": "Anna"}, "city": "Riga"}}] * 20

    async def test_who_hangs_up_while_it_is_planned(self, gateway: Live, ask: Ask) -> None:
        async with web(timeout=0.02) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post(f"{gateway.server.url}/graphql", json={"query": spread(8)})
        await eventually(lambda: _is_calm(ask))


async def _is_calm(ask: Ask) -> bool:
    return bool(await ask("{ city }") == {"data": {"city": "Riga"}})
