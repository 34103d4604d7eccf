"""Subgraphs on loopback that say just what a test wants, byte by byte."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from gateway.federation.http import HttpTransport
from gateway.federation.transport import SubgraphFailed, SubgraphRequest

ANSWER = {"data": {"hello": "world"}}
OK = b"HTTP/1.1 200 OK\r\n"
FOR_EVER = 1e9


def answer(body: Any = ANSWER, *, status: int = 200, head: bytes = b"") -> bytes:
    text = body if isinstance(body, bytes) else orjson.dumps(body)
    return b"HTTP/1.1 %d X\r\n%bcontent-length: %d\r\n\r\n%b" % (status, head, len(text), text)


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


@dataclass(frozen=True)
class Asked:
    line: str
    headers: list[tuple[str, str]]
    body: bytes


class Caller:
    """One connection of the transport's, as the subgraph has it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[Asked]) -> None:
        self._reader = reader
        self._writer = writer
        self._asked = asked

    async def ask(self) -> Asked:
        """The next request."""
        line, *head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (h.partition(":") for h in head)]
        body = await self._reader.readexactly(int(dict(headers).get("content-length", "0")))
        asked = Asked(line, headers, body)
        self._asked.append(asked)
        return asked

    async def say(self, *pieces: bytes) -> None:
        """Piece by piece, as the network would have it."""
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(0)

    async def left(self) -> None:
        """Until the transport closes the connection."""
        with suppress(ConnectionError):
            while await self._reader.read(65536):
                pass


Answering = Callable[[Caller], Awaitable[None]]


@dataclass
class Liar:
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    ended: int = 0  # of those


@asynccontextmanager
async def subgraph(
    answering: Answering, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Liar]:
    """Each connection is `answering`'s, and closed once it returns."""
    liar = Liar()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        liar.connections += 1
        try:
            await answering(Caller(reader, writer, liar.asked))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            liar.ended += 1
            writer.close()

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    liar.url = f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}/graphql"
    try:
        yield liar
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def saying(*pieces: bytes) -> Answering:
    """Says that to the first request, and hangs up."""

    async def answering(caller: Caller) -> None:
        await caller.ask()
        await caller.say(*pieces)

    return answering


def serving(said: bytes = answer()) -> Answering:
    """Says that to every request."""

    async def answering(caller: Caller) -> None:
        while True:
            await caller.ask()
            await caller.say(said)

    return answering


async def silent(caller: Caller) -> None:
    await caller.left()


def request(
    subgraph: str = "liar",
    operation: str = "query",
    *,
    within_s: float = 10.0,
    headers: Mapping[str, str] | None = None,
    body: bytes = b'{"query":"{ hello }"}',
) -> SubgraphRequest:
    deadline = asyncio.get_running_loop().time() + within_s
    return SubgraphRequest(subgraph, "{ hello }", {}, operation, headers or {}, deadline, body)


async def failure(transport: HttpTransport, asked: SubgraphRequest | None = None) -> SubgraphFailed:
    """How a request fails. What clients may see of it says nothing about addresses."""
    with pytest.raises(SubgraphFailed) as failed:
        await transport.fetch(asked or request())
    return without_address(failed.value)


def without_address(failed: SubgraphFailed) -> SubgraphFailed:
    assert "127.0.0.1" not in str(failed)
    assert "localhost" not in str(failed)
    return failed


def unused_url() -> str:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{bound.getsockname()[1]}/graphql"


def subscription(
    subgraph: str = "liar",
    query: str = "subscription { n }",
    *,
    within_s: float = 10.0,
    headers: Mapping[str, str] | None = None,
) -> SubgraphRequest:
    body = orjson.dumps({"query": query, "variables": {}})
    return request(subgraph, "subscription", within_s=within_s, headers=headers, body=body)


async def heard(transport: HttpTransport, asked: SubgraphRequest | None = None) -> list[dict[str, Any]]:
    return [response async for response in transport.subscribe(asked or subscription())]


async def how_it_ends(transport: HttpTransport, asked: SubgraphRequest | None = None) -> SubgraphFailed:
    """How a subscription fails, sooner or later."""
    with pytest.raises(SubgraphFailed) as failed:
        await heard(transport, asked)
    return without_address(failed.value)
