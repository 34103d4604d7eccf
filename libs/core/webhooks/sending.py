"""One attempt: a POST to an endpoint, bounded in time and in what is read of the answer."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self

import httpcore
import httpx
import structlog

from libs.core.errors import InvalidInput
from libs.core.webhooks.targets import GuardedNetwork, Resolver, parse_url

CONNECT_S = 5.0
TOTAL_S = 15.0
BODY_S = 3.0
ANSWER_BYTES = 1024
# For each host, and for how many hosts they are kept.
CONNECTIONS_IDLE = 8
HOSTS_KEPT = 200
# Shorter than what load balancers in front of receivers allow, so that a connection is not closed under a request.
_IDLE_S = 20.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` is None if there was no answer, and `error` says why. `retry_after_s` is what the receiver asked for."""

    took_ms: int
    status: int | None = None
    body: str = ""
    error: str = ""
    retry_after_s: float | None = None

    @property
    def ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Sender:
    """The connections of one process: `async with Sender(resolver, development=…)`. They are kept for their host, with
    its certificate checked; the environment's proxies are not asked for, redirects are not followed."""

    def __init__(self, resolver: Resolver, *, development: bool, total_s: float = TOTAL_S) -> None:
        self._development = development
        self._total_s = total_s
        self._network = GuardedNetwork(resolver)
        self._tls = httpx.create_ssl_context()
        self._hosts: dict[tuple[bytes, bytes, int | None], _Host] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for host in self._hosts.values():
            await host.pool.aclose()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Whatever goes wrong is an answer too."""
        started = time.monotonic()
        answer = Answer(0)
        try:
            async with asyncio.timeout(self._total_s):
                answer = await self._post(url, headers, body)
        except TimeoutError:
            answer = Answer(0, error=f"no answer within {self._total_s:g} s")
        except httpcore.ConnectTimeout:
            answer = Answer(0, error=f"no connection within {CONNECT_S:g} s")
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, InvalidInput) as error:
            answer = Answer(0, error=f"{type(error).__name__}: {error}"[:300])
        except Exception as error:  # of what a stranger's server can do, something is always missing above
            log.exception("webhook failed in a new way")
            answer = Answer(0, error=type(error).__name__)
        took_ms = int((time.monotonic() - started) * 1000)
        return Answer(took_ms, answer.status, answer.body, answer.error, answer.retry_after_s)

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        target = parse_url(url, development=self._development)  # again: the rules may be stricter than when it was set
        request = httpcore.Request(
            "POST",
            httpcore.URL(scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path),
            headers=[
                ("host", target.netloc.decode("ascii")),
                ("user-agent", "payments-platform-webhooks/1"),
                ("content-type", "application/cloudevents+json"),
                ("content-length", str(len(body))),
                ("accept-encoding", "identity"),
                *headers.items(),
            ],
            content=body,
            extensions={"timeout": {"connect": CONNECT_S, "read": None, "write": None, "pool": CONNECT_S}},
        )
        async with self._connections(target) as pool:
            response = await pool.handle_async_request(request)
            try:
                text = await _beginning(response)
            finally:
                with suppress(httpcore.NetworkError, httpcore.ProtocolError):
                    await response.aclose()
        given = {name.lower(): value.decode("latin-1") for name, value in response.headers}
        answer = Answer(0, response.status, text, retry_after_s=_seconds(given.get(b"retry-after", "")))
        return answer if answer.ok else Answer(0, answer.status, text, f"HTTP {answer.status}", answer.retry_after_s)

    @asynccontextmanager
    async def _connections(self, target: httpx.URL) -> AsyncIterator[httpcore.AsyncConnectionPool]:
        """A pool for each host: one for all looks at every connection of every host for each request, which with 40 of
        them took half of the time."""
        key = (target.raw_scheme, target.raw_host, target.port)
        host = self._hosts.pop(key, None) or _Host(self._pool())
        self._hosts[key] = host  # the last used is the last to go
        host.users += 1
        try:
            yield host.pool
        finally:
            host.users -= 1
            await self._forget_some()

    def _pool(self) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(
            ssl_context=self._tls,
            max_connections=None,  # the worker's slots are the bound
            max_keepalive_connections=CONNECTIONS_IDLE,
            keepalive_expiry=_IDLE_S,
            network_backend=self._network,
        )

    async def _forget_some(self) -> None:
        unused = [key for key, host in self._hosts.items() if not host.users]
        for key in unused[: max(0, len(self._hosts) - HOSTS_KEPT)]:
            await self._hosts.pop(key).pool.aclose()


@dataclass(slots=True)
class _Host:
    pool: httpcore.AsyncConnectionPool
    users: int = 0


async def _beginning(response: httpcore.Response) -> str:
    """As far as it comes in time, for the log: what counts is the status, which is known. Where it is not read to its
    end, the connection is not used again."""
    read = bytearray()
    with suppress(TimeoutError, httpcore.NetworkError, httpcore.ProtocolError):
        async with asyncio.timeout(BODY_S):
            async for piece in response.aiter_stream():
                read += piece
                if len(read) > ANSWER_BYTES:
                    break
    return bytes(read[:ANSWER_BYTES]).decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _seconds(retry_after: str) -> float | None:
    """Of a `Retry-After`: a number of seconds, or an HTTP date. None for anything else."""
    if retry_after.isascii() and retry_after.isdecimal():
        return float(retry_after[:9])
    with suppress(ValueError, TypeError, OverflowError):
        at = parsedate_to_datetime(retry_after)
        return (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return None
