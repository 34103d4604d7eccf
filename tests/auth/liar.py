"""A provider that answers whatever a test wants it to: what no honest program can be made to say."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

from joserfc import jwt
from joserfc.jwk import Key, KeySet, RSAKey
from joserfc.jws import JWSRegistry

Answer = tuple[int, bytes]


@cache
def rsa_key(kid: str = "first") -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})


@dataclass(slots=True)
class Liar:
    """`pages` are answered by path. What was asked, with the form that came along, is in `asked`."""

    issuer: str
    pages: dict[str, Answer] = field(default_factory=dict)
    delay_s: float = 0.0
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def say(self, path: str, answer: Any, status: int = 200) -> None:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.pages[path] = status, body

    def discovery(self, **changes: Any) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/auth",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            **changes,
        }

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Those of an honest ID token; a change to None leaves one out."""
        now = int(time.time())
        honest = {"iss": self.issuer, "sub": "anna", "aud": "platform", "iat": now, "exp": now + 300, "nonce": "nonce"}
        return {name: value for name, value in {**honest, **changes}.items() if value is not None}

    def vouch(self, id_token: str, **more: Any) -> None:
        self.say("/token", {"access_token": "access", "token_type": "Bearer", "id_token": id_token, **more})

    def publish(self, *keys: Key) -> None:
        self.say("/jwks", KeySet(list(keys)).as_dict(private=False))

    def times_asked(self, path: str) -> int:
        return sum(asked == path for asked, _ in self.asked)


def signed(claims: Mapping[str, Any], key: Key | None = None, alg: str = "RS256", **header: Any) -> str:
    key = key or rsa_key()
    registry = JWSRegistry(algorithms=[alg], strict_check_header=False)
    return jwt.encode({"alg": alg, "kid": key.kid, **header}, dict(claims), key, registry=registry)


@asynccontextmanager
async def liar() -> AsyncIterator[Liar]:
    """Honest as long as a test does not change what it says."""
    server = await asyncio.start_server(lambda reader, writer: _serve(provider, reader, writer), "127.0.0.1", 0)
    provider = Liar(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    provider.say("/.well-known/openid-configuration", provider.discovery())
    provider.publish(rsa_key())
    provider.vouch(signed(provider.claims()))
    try:
        yield provider
    finally:
        server.close()


async def _serve(provider: Liar, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next((int(line[15:]) for line in head.lower().splitlines() if line.startswith("content-length:")), 0)
        form = dict(parse_qsl((await reader.readexactly(length)).decode()))
        path = head.split(" ")[1].partition("?")[0]
        provider.asked.append((path, form))
        await asyncio.sleep(provider.delay_s)
        status, body = provider.pages.get(path, (404, b"{}"))
        lines = f"HTTP/1.1 {status} As wanted\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        writer.write(f"{lines}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # whoever asked has had enough
    finally:
        writer.close()
