"""The key that journal heads are signed with, and the public keys that they are verified with."""

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterable, Mapping
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from libs.core.errors import Misconfigured


class JournalKeys:
    """One private key, never in the database, and all public keys by their ids, those of former keys among them."""

    def __init__(self, secret: str, former: Iterable[str] = ()) -> None:
        """`secret`: 32 bytes in base64, or any other text, which is hashed. `former`: public keys in hex.

        `Misconfigured` if one of these is no Ed25519 key.
        """
        self._private = Ed25519PrivateKey.from_private_bytes(_seed(secret))
        self.public = self._private.public_key().public_bytes_raw()
        self.id = key_id(self.public)
        self.all: Mapping[str, bytes] = {key_id(key): key for key in (*map(_public, former), self.public)}

    def sign(self, hash: bytes) -> bytes:  # noqa: A002
        return self._private.sign(hash)

    def signed(self, id: str, signature: bytes, hash: bytes) -> bool:  # noqa: A002
        return is_signed(self.all, id, signature, hash)


def is_signed(keys: Mapping[str, bytes], id: str, signature: bytes, hash: bytes) -> bool:  # noqa: A002
    """Whether the key `id`, which must be one of `keys`, has signed this."""
    if id not in keys:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(keys[id]).verify(signature, hash)
    except InvalidSignature:
        return False
    return True


def key_id(public: bytes) -> str:
    return sha256(public).hexdigest()[:8]


def public_keys(keys: Iterable[str]) -> dict[str, bytes]:
    """By their ids, from hex."""
    return {key_id(key): key for key in map(_public, keys)}


def _public(key: str) -> bytes:
    try:
        raw = bytes.fromhex(key)
        Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        raise Misconfigured(f"{key!r} is not the public key of a journal: 64 hex digits") from None
    return raw


def _seed(secret: str) -> bytes:
    try:
        raw = b64decode(secret, validate=True)
    except (NotBase64, ValueError):
        raw = b""
    return raw if len(raw) == 32 else sha256(b"journal-key:" + secret.encode()).digest()
