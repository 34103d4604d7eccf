"""Secrets at rest: encrypted with a key that is not in the database.

    box = SecretBox("the-newest-key,the-one-before")
    sealed = box.seal("whsec_…", owner="tenant:endpoint")

The first key seals; all of them open. To change keys without a pause: deploy `old,new`, then `new,old`, then, once all
processes run with that, `new`. What is sealed with an older key is sealed again when a process starts.
"""

import base64

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from libs.core.errors import Misconfigured

_KEY_ID_CHARS = 16


class SecretBox:
    """`keys`: one or several, separated by commas, the newest first. `key_id` names the newest without telling it."""

    def __init__(self, keys: str) -> None:
        derived = [_derived(key.strip()) for key in keys.split(",") if key.strip()]
        if not derived:
            raise Misconfigured("there is no key to seal webhook secrets with")
        self.key_id = _key_id(derived[0])
        self._fernet = MultiFernet([Fernet(key) for key in derived])

    def seal(self, secret: str, *, owner: str) -> bytes:
        """Opens for the same `owner` only: moved to another's document it is worth nothing."""
        return self._fernet.encrypt(f"{owner}\0{secret}".encode())

    def open(self, sealed: bytes, *, owner: str) -> str:
        """`Misconfigured` if none of the keys opens it, or it was sealed for somebody else."""
        try:
            whose, _, secret = self._fernet.decrypt(sealed).decode().partition("\0")
        except InvalidToken:
            raise Misconfigured("a webhook's secret was sealed with a key that is not among these") from None
        if whose != owner:
            raise Misconfigured("a webhook's secret was sealed for another endpoint")
        return secret


def _derived(key: str) -> bytes:
    """A Fernet key. What is configured is random text already, so HKDF, and not a slow hash for passwords."""
    return base64.urlsafe_b64encode(HKDF(SHA256(), 32, salt=None, info=b"webhook secrets").derive(key.encode()))


def _key_id(key: bytes) -> str:
    digest = Hash(SHA256())
    digest.update(b"key id\0" + key)
    return digest.finalize().hex()[:_KEY_ID_CHARS]
