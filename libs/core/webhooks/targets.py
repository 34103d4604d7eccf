"""Where webhooks may be sent: to public addresses, over HTTPS. A URL is written by a tenant and called from inside.

What counts is the address that is connected to. A name is looked up once for each connection, every address that it
has must be public, and the connection goes to one of those: between the check and the use there is no second lookup
that could say something else (DNS rebinding). TLS is still for the name.
"""

import asyncio
import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import httpcore
import httpx

from libs.core.errors import InvalidInput

URL_CHARS = 2_000
# Others are what services inside listen on, and what mail and the like listen on outside.
_PORTS = frozenset({443, 8443})
_ADDRESSES_TRIED = 4
# A lookup that nobody answers holds its thread for half a minute or so, whatever its asker does meanwhile.
_LOOKUPS_AT_ONCE = 128

# One text for whatever is wrong with a host: else the answer would tell which names exist inside, and where they are.
UNREACHABLE = "the host has no public address"

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*", re.ASCII)
_NUMERIC = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)", re.ASCII)

# All other IPv6 is local, or carries an IPv4 address, or is not allotted.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# Which Python's own `is_global` lets pass: 6to4 carries an IPv4 address, the others are for documents and relays.
_NEVER = tuple(map(ipaddress.ip_network, ("2002::/16", "2001::/23", "3fff::/20", "192.88.99.0/24", "192.0.0.0/24")))

Lookup = Callable[[str, int], Iterable[str]]


class Unreachable(Exception):
    """The host cannot be looked up, or has an address that is not public. Which of them is not said."""


def is_public(address: str) -> bool:
    """Whether anybody on the Internet may connect to it: not private, loopback, link-local, shared (CGNAT), multicast,
    reserved, for documents, or an IPv6 form of an IPv4 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip not in _GLOBAL_UNICAST:
        return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NEVER)


def parse_url(text: str, *, development: bool) -> httpx.URL:
    """`InvalidInput` unless it is https, to port 443 or 8443 of a host name or address, without user or fragment.

    Development also allows http, and any port. Says nothing about the host's addresses.
    """
    if len(text) > URL_CHARS:
        raise _wrong(f"a URL has at most {URL_CHARS} characters")
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise _wrong("this is not a URL") from None
    if url.scheme not in (("https", "http") if development else ("https",)):
        raise _wrong("a webhook's URL begins with https://")
    if url.userinfo or "@" in text.partition("?")[0].removeprefix(f"{url.scheme}://").partition("/")[0]:
        raise _wrong("a webhook's URL has no user and password")
    if url.fragment or "#" in text:
        raise _wrong("a webhook's URL has no fragment")
    if not development and url.port is not None and url.port not in _PORTS:
        raise _wrong(f"a webhook's port is one of {', '.join(map(str, sorted(_PORTS)))}")
    if not _is_host(url.raw_host.decode("ascii")):
        raise _wrong("a webhook's URL names a host")
    return url


def _is_host(host: str) -> bool:
    """A name, or an address in its usual form: 127.1 and 0x7f000001 are addresses too, to those who look them up."""
    with suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return bool(_NAME.fullmatch(host.removesuffix("."))) and not _NUMERIC.fullmatch(host.removesuffix("."))


def _wrong(why: str) -> InvalidInput:
    return InvalidInput(why, field="url")


class Resolver:
    """Looks hosts up, each in a thread of its own that nobody waits for longer than they want to.

    Not in the loop's own threads: a few names whose servers never answer would use these up. Whoever asks for a name
    that is being looked up shares the answer.
    """

    def __init__(self, *, development: bool, lookup: Lookup | None = None) -> None:
        self._development = development
        self._lookup = lookup or _look_up
        self._running: dict[tuple[str, int], asyncio.Future[list[str]]] = {}

    async def addresses(self, host: str, port: int) -> list[str]:
        """What to connect to; `Unreachable` unless every address may be connected to."""
        running = self._running.get((host, port)) or self._start(host, port)
        addresses = await asyncio.shield(running)
        if not addresses or not all(map(self._allows, addresses)):
            raise Unreachable(UNREACHABLE)
        return addresses[:_ADDRESSES_TRIED]

    def _allows(self, address: str) -> bool:
        if self._development and ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            return True
        return is_public(address)

    def _start(self, host: str, port: int) -> "asyncio.Future[list[str]]":
        if len(self._running) >= _LOOKUPS_AT_ONCE:
            raise Unreachable("too many names are being looked up")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[str]] = loop.create_future()
        self._running[host, port] = found
        found.add_done_callback(lambda _: self._running.pop((host, port)))

        def tell(addresses: list[str]) -> None:
            if not found.done():
                found.set_result(addresses)

        def look_up() -> None:
            addresses: list[str] = []
            with suppress(OSError, UnicodeError):
                addresses = list(dict.fromkeys(self._lookup(host, port)))
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(tell, addresses)

        # A daemon, so that a process which stops does not wait for it.
        threading.Thread(target=look_up, name=f"look up {host}", daemon=True).start()
        return found


def _look_up(host: str, port: int) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects where `resolver` allows it, and to nothing else."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        ends_at = time.monotonic() + (timeout or 5.0)
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._resolver.addresses(host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout("the host could not be looked up in time") from None
        except Unreachable as error:
            raise httpcore.ConnectError(str(error)) from None
        for n, address in enumerate(addresses):
            left_s = max(0.1, (ends_at - time.monotonic()) / (len(addresses) - n))
            try:
                return await self._network.connect_tcp(address, port, left_s, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure: Exception = error
        raise failure

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        raise httpcore.ConnectError(UNREACHABLE)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
