"""A subgraph that is not ours: it answers from a dict, in a thread, and tells the schema that the test gives it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any

from graphql import build_schema, graphql_sync


@dataclass
class Foreign:
    """`sdl` may be changed at any time, without a federation directive in it.

    `asked` are the headers of clients' requests. `route`: it has our `/graphql/sdl`, or else it knows `_service` alone.
    `lie` writes what it answers in place of an answer, and hangs up.
    """

    sdl: str
    data: dict[str, Any]
    route: bool = True
    url: str = ""
    told: int = 0  # how often it sent its schema
    asked: list[dict[str, str]] = field(default_factory=list)
    lie: Callable[[BufferedIOBase], Any] | None = None

    def answer(self, query: str) -> dict[str, Any]:
        result = graphql_sync(build_schema(self.sdl), query, self.data)
        return {"data": result.data, **({"errors": [e.formatted for e in result.errors]} if result.errors else {})}

    @property
    def etag(self) -> str:
        return f'"{sha256(self.sdl.encode()).hexdigest()}"'


@contextmanager
def serving(foreign: Foreign) -> Iterator[Foreign]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if not foreign.route or self.path != "/graphql/sdl":
                self._respond(404, b"")
            elif self.headers.get("if-none-match") == foreign.etag:
                self._respond(304, b"")
            else:
                foreign.told += 1
                self._respond(200, foreign.sdl.encode(), etag=foreign.etag)

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with suppress(ConnectionError):  # who asked may not wait any more
                if "_service" in request["query"]:
                    foreign.told += 1
                    self._say({"data": {"_service": {"sdl": foreign.sdl}}})
                    return
                foreign.asked.append({name.lower(): value for name, value in self.headers.items()})
                if foreign.lie:
                    self.close_connection = True
                    foreign.lie(self.wfile)
                else:
                    self._say(foreign.answer(request["query"]))

        def _say(self, answer: dict[str, Any]) -> None:
            self._respond(200, json.dumps(answer).encode())

        def _respond(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 304:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class' name
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    foreign.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield foreign
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
