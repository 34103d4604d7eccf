"""The head of a request: what is always the same for a subgraph, and what a client's request adds."""

import re
from collections.abc import Mapping
from functools import lru_cache

from gateway.federation.http.broken import UNREACHABLE, Broken

# What a request has anyway, or what is between two neighbours only. Whoever passes headers on cannot change these.
_OURS = {
    *("accept", "accept-encoding", "content-encoding", "content-length", "content-type", "expect", "host"),
    *("connection", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding"),
    "upgrade",
}
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def lines(headers: Mapping[str, str]) -> bytes:
    """`Broken` if one of them cannot be a header: what would end it early, above all."""
    return "".join([f"{name}: {value}\r\n" for name, value in passed(headers)]).encode("latin-1")


def passed(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Those that are sent. `Broken`, likewise."""
    sent = []
    for name, value in headers.items():
        lowered = _lowered(name)
        if lowered is None:
            continue
        if not ((value.isascii() and value.isprintable()) or _VALUE.fullmatch(value)):
            raise Broken(UNREACHABLE, f"the value of the header {lowered} cannot be sent to it")
        sent.append((lowered, value))
    return sent


@lru_cache(512)
def _lowered(name: str) -> str | None:
    """None if it is not to be sent."""
    if not _NAME.fullmatch(name):
        raise Broken(UNREACHABLE, "a header cannot be sent to it, by its name")
    name = name.lower()
    return None if name in _OURS or name.startswith("sec-websocket-") else name
