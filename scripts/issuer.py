"""Tokens for development, until there is an auth service: one Ed25519 key, its JWKS, and what it signs.

    USER=alice ROLE=player TENANT=demo python -m scripts.issuer     # prints a token; so does `make token`

Only the issuing is for development: the services verify these tokens with the code that verifies all others.
"""

import hashlib
import json
import os
import sys
import threading
import time
from base64 import urlsafe_b64encode
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from scripts import process
from scripts.process import Failure
from scripts.stack import DEMO_TENANT, ISSUER_PORT, RUN

KEY = RUN / "issuer.pem"
ISSUER = f"http://127.0.0.1:{ISSUER_PORT}"
AUDIENCE = "payments-platform"
TTL_S = 600


def signing_key(path: Path = KEY) -> Ed25519PrivateKey:
    """The key of this checkout, made the first time it is asked for. Readable by its owner alone."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
        with suppress(FileExistsError):  # another process was first: its key it is
            os.link(draft, path)
        draft.unlink()
    key = load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


def public_jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    """As in RFC 8037, its `kid` the thumbprint of RFC 7638."""
    x = _base64url(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    jwk = {"crv": "Ed25519", "kty": "OKP", "x": x}
    thumbprint = hashlib.sha256(json.dumps(jwk, separators=(",", ":"), sort_keys=True).encode()).digest()
    return {**jwk, "kid": _base64url(thumbprint), "alg": "EdDSA", "use": "sig"}


def mint(user: str, roles: list[str], tenant: str, *, ttl_s: int = TTL_S, key: Ed25519PrivateKey | None = None) -> str:
    """An access token for `user` with these roles in `tenant`, good for `ttl_s` seconds."""
    key = key or signing_key()
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": user,
        "tenant": tenant,
        "roles": roles,
        "sid": str(uuid4()),
        "iat": now,
        "exp": now + ttl_s,
    }
    return jwt.encode(claims, key, algorithm="EdDSA", headers={"typ": "at+jwt", "kid": public_jwk(key)["kid"]})


def serve(port: int = ISSUER_PORT, key: Ed25519PrivateKey | None = None) -> None:
    """Answers `/.well-known/jwks.json` on 127.0.0.1, in a thread, for as long as this process lives."""
    if process.port_in_use(port):
        raise Failure(f"port {port} on 127.0.0.1 is in use by another program, and the token issuer needs it")
    body = json.dumps({"keys": [public_jwk(key or signing_key())]}).encode()

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            found = self.path == "/.well-known/jwks.json"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class' name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, name="issuer", daemon=True).start()


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def main() -> None:
    ttl = os.environ.get("TTL", str(TTL_S))
    if not ttl.isdecimal() or int(ttl) == 0:
        sys.exit(f"TTL is how many seconds the token is good for, not {ttl!r}")
    roles = [role for role in os.environ.get("ROLE", "player").split(",") if role]
    print(mint(os.environ["USER"], roles, os.environ.get("TENANT", DEMO_TENANT), ttl_s=int(ttl)))


if __name__ == "__main__":
    main()
