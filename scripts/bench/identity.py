"""What a token costs to verify: seen for the first time, and seen before. `python -m scripts.bench.identity`"""

import asyncio
import json
import statistics
import time

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.core.clock import SystemClock
from libs.core.identity import Identity
from scripts.issuer import AUDIENCE, ISSUER, mint, public_jwk

TOKENS = 2_000
ROUNDS = 5


async def measure(identity: Identity, tokens: list[str]) -> float:
    """µs a token."""
    began = time.perf_counter()
    for token in tokens:
        await identity.authenticate(token)
    return (time.perf_counter() - began) / len(tokens) * 1e6


async def main() -> None:
    key = Ed25519PrivateKey.generate()
    jwks = json.dumps({"keys": [public_jwk(key)]}).encode()
    answer = httpx.MockTransport(lambda _: httpx.Response(200, stream=httpx.ByteStream(jwks)))
    first, again = [], []
    async with httpx.AsyncClient(transport=answer) as http:
        identity = Identity(http, SystemClock(), jwks_url="http://issuer/jwks", issuer=ISSUER, audience=AUDIENCE)
        for _ in range(ROUNDS):
            tokens = [f"Bearer {mint('anna', ['player'], 'acme', key=key)}" for _ in range(TOKENS)]
            first.append(await measure(identity, tokens))
            again.append(await measure(identity, tokens))
    slow, fast = statistics.median(first), statistics.median(again)
    print(f"a token seen for the first time  {slow:8.1f} µs")
    print(f"a token seen before              {fast:8.1f} µs   ({slow / fast:.0f} times faster; target: at most 10 µs)")


if __name__ == "__main__":
    asyncio.run(main())
