"""The one way out over HTTP: bounded in time, in size and in connections, and never led elsewhere by a redirect."""

import asyncio
import ssl
from functools import cache

import httpx

from libs.core.errors import Unavailable


def client() -> httpx.AsyncClient:
    """One a process, closed by whoever made it. The environment's proxies and certificates are not asked for."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(5.0, connect=2.0),
        limits=httpx.Limits(max_connections=20, max_keepalive_connections=5, keepalive_expiry=30.0),
        follow_redirects=False,
        trust_env=False,
        verify=_certificates(),
    )


@cache
def _certificates() -> ssl.SSLContext:
    """Reading them takes 30 ms."""
    return httpx.create_ssl_context(trust_env=False)


async def fetch(http: httpx.AsyncClient, url: str, *, max_bytes: int, within_s: float = 5.0) -> bytes:
    """The body of a GET that is answered with 200, in `max_bytes` and in `within_s` altogether; else `Unavailable`."""
    try:
        # httpx limits the wait for each piece; a server that drips could take forever all the same.
        async with (
            asyncio.timeout(within_s),
            http.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise Unavailable(f"{url} answered with status {answer.status_code}", url=url)
            return await read(answer, max_bytes)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        raise Unavailable(f"{url} cannot be fetched: {str(error) or type(error).__name__}", url=url) from error


async def read(answer: httpx.Response, max_bytes: int) -> bytes:
    """The body of an answer that is streamed, as it was sent; `Unavailable` once it is longer."""
    body = bytearray()
    async for piece in answer.aiter_raw():
        body += piece
        if len(body) > max_bytes:
            raise Unavailable(f"{answer.url} answered with more than {max_bytes} bytes", url=str(answer.url))
    return bytes(body)
