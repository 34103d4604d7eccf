"""A tenant's receiver: a real HTTP server on loopback, which checks signatures by the specification and not by our
code."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from scripts.process import free_port


@dataclass
class Received:
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def signed_with(self, secret: str) -> bool:
        key = base64.b64decode(secret.split("_", 1)[1])
        text = f"{self.id}.{self.headers['webhook-timestamp']}.{self.body.decode()}"
        right = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
        return f"v1,{right}" in self.headers["webhook-signature"].split()


@dataclass
class Receiver:
    """Answers with `status` (or what `answers` say, one each, first), after `go_on` is set."""

    url: str
    status: int = 200
    headers: str = ""
    body: str = "thanks"
    answers: list[int] = field(default_factory=list)
    got: list[Received] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0
    at_once: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.go_on.set()

    @property
    def ids(self) -> list[str]:
        return [received.id for received in self.got]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.got.append(Received(headers, body))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.go_on.wait()
        finally:
            self.at_once -= 1
        status = self.answers.pop(0) if self.answers else self.status
        answer = self.body.encode()
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(answer)}\r\n{self.headers}\r\n".encode() + answer)
        await writer.drain()
        return True


Listen = Callable[..., "asyncio.Future[Receiver]"]


@asynccontextmanager
async def receiver(**options: object) -> AsyncIterator[Receiver]:
    port = free_port()
    made = Receiver(f"http://127.0.0.1:{port}/hooks?from=us", **options)  # type: ignore[arg-type]
    server = await asyncio.start_server(made.serve, "127.0.0.1", port)
    try:
        yield made
    finally:
        made.go_on.set()
        server.close()
