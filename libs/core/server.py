"""Runs a service: `python -m libs.core.server services.payment.app:app`. uvicorn, with the limits that it leaves open.

uvicorn alone waits for ever for a client that sends half a request, buffers headers of any size, and ends a graceful
shutdown by killing itself with the signal it got. Here:

- headers must be whole after 10 s, the body after 60 s;
- on SIGTERM or SIGINT the process is not ready at once, and streams are asked to end; connections are still accepted
  for `shutdown_delay_s`, so that load balancers notice; then requests in flight finish, the service closes, and the
  exit code is 0, all within `shutdown_grace_s`. A second signal skips the delay, a third one the waiting;
- a start-up that fails says why in one sentence, and the exit code is 1.

`uvicorn services.payment.app:app --reload` works too, for development.
"""

import asyncio
import ctypes
import gc
import signal
import sys
from contextlib import suppress
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.importer import import_from_string
from uvicorn.loops.auto import auto_loop_factory
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from libs.core.app import CLOSING_SHARE
from libs.core.errors import CoreError
from libs.core.telemetry import configure_logging

log = structlog.get_logger(__name__)

HEADERS_WITHIN_S = 10.0
BODY_WITHIN_S = 60.0
# Beyond what one read of the socket brings (256 KB).
MAX_HEADERS_BYTES = 32 * 1024
# An operation and its variables; uvicorn's own limit is 16 MB a message.
MAX_WEBSOCKET_MESSAGE_BYTES = 128 * 1024
MAX_CONNECTIONS = 4096
# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_BYTES = 128 * 1024


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 for clients that may be slow or hostile."""

    _alarm: asyncio.TimerHandle | None = None
    _unfinished_bytes = 0
    _in_headers = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._close_after(HEADERS_WITHIN_S)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_headers:  # still: the parser buffers an endless header without a word
            self._unfinished_bytes += len(data)
            if self._unfinished_bytes > MAX_HEADERS_BYTES and not self.transport.is_closing():
                self.send_400_response("The request's headers are too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers, self._unfinished_bytes = True, 0
        self._close_after(HEADERS_WITHIN_S)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._close_after(BODY_WITHIN_S)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._disarm()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._disarm()
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def _close_after(self, seconds: float) -> None:
        self._disarm()
        self._alarm = self.loop.call_later(seconds, self.transport.close)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


class Server(uvicorn.Server):
    """Stops as this module's docstring tells. `app` is what `create_app` made."""

    def __init__(self, app: FastAPI) -> None:
        settings = app.state.settings
        self._stopping: asyncio.Event = app.state.stopping
        self._delay_s: float = settings.shutdown_delay_s
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=Protocol,
                ws="websockets-sansio",
                ws_max_size=MAX_WEBSOCKET_MESSAGE_BYTES,
                lifespan="off",  # `run` holds it, so that its errors are ours to tell
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=max(1, int(settings.shutdown_grace_s * (1 - CLOSING_SHARE))),
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._stopping.is_set():
            self.force_exit = self.should_exit
            self.should_exit = True
        else:
            self._stopping.set()
            asyncio.get_running_loop().call_later(self._delay_s, self._exit)

    def _exit(self) -> None:
        self.should_exit = True


def collect_rarely() -> None:
    """What was loaded by now stays, and is not looked at any more; what is made from now on, in larger portions.

    A service makes thousands of objects a millisecond that die without the collector's help: with Python's own
    thresholds it took a fifth of the ledger's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 5)


def give_memory_back() -> None:
    """Has glibc map large blocks for themselves, and so return them, however large some of them were.

    Left to itself it learns from each larger answer of MongoDB to keep more of its kind, in pieces: a process that had
    taken 250,000 transfers in bulk had 166 MB, and 154 with this. But each large block is then made of new pages:
    argon2, which wants 19 MB for every hash, made 35 a second in place of 52.
    """
    with suppress(OSError, AttributeError):  # another C library has other ways
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)


async def _run(app: FastAPI) -> None:
    # Until uvicorn takes both over, SIGTERM cancels a start-up like Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    async with app.router.lifespan_context(app):
        collect_rarely()
        if not app.state.keeps_memory:
            give_memory_back()
        await Server(app).serve()


def main(target: str) -> int:
    """Runs the app at `target`, `module:attribute`, until it is told to stop; the exit code."""
    try:
        app: FastAPI = import_from_string(target)
        configure_logging(app.state.settings)
        with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
            runner.run(_run(app))
    except CoreError as error:
        log.critical("could not start", reason=error.message)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
