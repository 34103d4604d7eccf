"""Secrets at rest: encrypted with a key that is not in the database.

    box = SecretBox("the-newest-key,the-one-before", purpose="webhook secrets")
    sealed = box.seal("whsec_…", owner="tenant:endpoint")
    box.open(sealed, owner="tenant:endpoint")

The first key seals; all of them open. To change keys without a pause: deploy `old,new`, then `new,old`, then, once all
processes run with that and what lasts was sealed again, `new`. `key_id`, stored beside what is sealed, tells what is
due for that.
"""

import base64

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from libs.core.errors import Misconfigured

_KEY_ID_CHARS = 16


class SecretBox:
    """`keys`: one or several, separated by commas, the newest first. `key_id` names the newest without telling it.

    `purpose` says in a few words what is sealed. It is part of the keys (HKDF's info, RFC 5869 section 3.2): what was
    sealed for one purpose opens for no other, even where somebody configured the same key for both. It is fixed for
    ever, since another one would open nothing of what is stored.
    """

    def __init__(self, keys: str, *, purpose: str) -> None:
        """`Misconfigured` without a key."""
        derived = [_derived(key.strip(), purpose) for key in keys.split(",") if key.strip()]
        if not derived:
            raise Misconfigured(f"there is no key to seal {purpose} with")
        self.key_id = _key_id(derived[0])
        self._purpose = purpose
        self._fernet = MultiFernet([Fernet(key) for key in derived])

    def seal(self, secret: str, *, owner: str) -> bytes:
        """Opens for the same `owner` only: moved to another's document it is worth nothing. ASCII, a third longer."""
        if "\0" in owner:
            raise ValueError("an owner has no NUL: it ends there")
        return self._fernet.encrypt(f"{owner}\0{secret}".encode())

    def open(self, sealed: bytes | str, *, owner: str) -> str:
        """`Misconfigured` if none of the keys opens it, or it was sealed for somebody else."""
        try:
            whose, _, secret = self._fernet.decrypt(sealed).decode().partition("\0")
        except (InvalidToken, ValueError):  # the latter for what is not even base64
            raise Misconfigured(f"{self._purpose}: this was sealed with a key that is not among these") from None
        if whose != owner:
            raise Misconfigured(f"{self._purpose}: this was sealed for another owner")
        return secret


def _derived(key: str, purpose: str) -> bytes:
    """A Fernet key. What is configured is random text already, so HKDF, and not a slow hash for passwords."""
    return base64.urlsafe_b64encode(HKDF(SHA256(), 32, salt=None, info=purpose.encode()).derive(key.encode()))


def _key_id(key: bytes) -> str:
    digest = Hash(SHA256())
    digest.update(b"key id\0" + key)
    return digest.finalize().hex()[:_KEY_ID_CHARS]
