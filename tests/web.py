"""HTTP clients of tests."""

import ssl
from typing import Any

import httpx

# httpx reads the machine's certificates anew for each client, which takes 30 ms; nobody here speaks TLS with it.
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def web(**options: Any) -> httpx.AsyncClient:
    """Of httpx's options, whichever: `timeout=30`. It trusts nobody's certificate."""
    return httpx.AsyncClient(verify=_NO_CERTIFICATES, **options)
