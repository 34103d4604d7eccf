"""An issuer of tokens for tests and benchmarks of single services: an Ed25519 key, its JWKS, and what it signs.

Only the issuing is made up: the services verify these tokens with the code that verifies auth's.
"""

import hashlib
import json
import threading
import time
from base64 import urlsafe_b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from scripts import process
from scripts.process import Failure

ISSUER = "http://127.0.0.1:9001"
AUDIENCE = "payments-platform"
TTL_S = 600


def public_jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    """As in RFC 8037, its `kid` the thumbprint of RFC 7638."""
    x = _base64url(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    jwk = {"crv": "Ed25519", "kty": "OKP", "x": x}
    thumbprint = hashlib.sha256(json.dumps(jwk, separators=(",", ":"), sort_keys=True).encode()).digest()
    return {**jwk, "kid": _base64url(thumbprint), "alg": "EdDSA", "use": "sig"}


def mint(user: str, roles: list[str], tenant: str, *, key: Ed25519PrivateKey, ttl_s: int = TTL_S) -> str:
    """An access token for `user` with these roles in `tenant`, good for `ttl_s` seconds."""
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


def serve(port: int, key: Ed25519PrivateKey) -> None:
    """Answers `/.well-known/jwks.json` on 127.0.0.1, in a thread, for as long as this process lives."""
    if process.port_in_use(port):
        raise Failure(f"port {port} on 127.0.0.1 is in use by another program, and the token issuer needs it")
    body = json.dumps({"keys": [public_jwk(key)]}).encode()

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
