import json
import urllib.request

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scripts import issuer
from scripts.process import free_port


class TestMint:
    def test_is_verified_with_the_published_key(self) -> None:
        key = Ed25519PrivateKey.generate()
        token = issuer.mint("alice", ["player"], "demo", key=key)
        port = free_port()
        issuer.serve(port, key)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/.well-known/jwks.json") as response:
            keys = jwt.PyJWKSet.from_dict(json.load(response))
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, keys[header["kid"]], algorithms=["EdDSA"], audience=issuer.AUDIENCE)
        assert header["typ"] == "at+jwt"
        assert (claims["sub"], claims["tenant"], claims["roles"]) == ("alice", "demo", ["player"])
        assert claims["exp"] - claims["iat"] == issuer.TTL_S
