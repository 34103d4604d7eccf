"""A world's subgraphs over HTTP, for judges that are not in this process, and in this process, wave by wave."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from tests.gateway.federation.judges.world import World

_PATIENCE = 40  # turns of the event loop without a new request, until the requests that wait are a wave


class Server:
    """Worlds by their number: their subgraphs' URLs are `server.url(number, subgraph)`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.worlds: dict[int, World] = {}

    def add(self, number: int, world: World) -> None:
        self.worlds[number] = world

    def remove(self, number: int) -> None:
        del self.worlds[number]

    def url(self, number: int, subgraph: str) -> str:
        return f"http://127.0.0.1:{self._port}/{number}/{subgraph}"

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        _, number, subgraph = path.split("/")
        request = json.loads(body)
        return self.worlds[int(number)].answer(subgraph, request["query"], request.get("variables"))


@contextmanager
def serving() -> Iterator[Server]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    http.daemon_threads = True
    server = _Handler.server_of[http.server_port] = Server(http.server_port)
    thread = Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_of: dict[int, Server] = {}  # noqa: RUF012 - by port

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        answer = json.dumps(self.server_of[self.server.server_port].answer(self.path, body)).encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: Any) -> None:
        pass


class Waves:
    """A world in this process, answering as slowly as it must to see who waits for whom: all requests that can be made
    are made before any is answered. So `hops` is the number of round trips if all take the same time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: list[asyncio.Future[None]] = []
        self._watch: asyncio.Task[None] | None = None
        self.hops = 0
        self.fetches = 0

    async def answer(self, subgraph: str, query: str, variables: Any) -> dict[str, Any]:
        self.fetches += 1
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if self._watch is None:
            self._watch = asyncio.create_task(self._release())
        await turn
        return self._world.answer(subgraph, query, variables)

    async def _release(self) -> None:
        seen, patience = -1, _PATIENCE
        while patience:
            patience = patience - 1 if seen == len(self._waiting) else _PATIENCE
            seen = len(self._waiting)
            await asyncio.sleep(0)
        wave, self._waiting, self._watch = self._waiting, [], None
        self.hops += 1
        for turn in wave:
            if not turn.done():  # its asker may have been cancelled
                turn.set_result(None)
