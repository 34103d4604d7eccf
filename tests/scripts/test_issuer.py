import json
import urllib.request
from pathlib import Path

import jwt

from scripts import issuer
from scripts.process import free_port


class TestSigningKey:
    def test_is_made_once_and_for_its_owner_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "run" / "issuer.pem"
        first, second = issuer.signing_key(path), issuer.signing_key(path)
        assert issuer.public_jwk(first) == issuer.public_jwk(second)
        assert path.stat().st_mode & 0o777 == 0o600
        assert list(path.parent.iterdir()) == [path]


class TestMint:
    def test_is_verified_with_the_published_key(self, tmp_path: Path) -> None:
        key = issuer.signing_key(tmp_path / "issuer.pem")
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
