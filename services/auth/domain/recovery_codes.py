"""Codes for the day the phone is lost: ten, each good once, shown when they are made and never again.

They are 120 random bits, so what is stored is a plain SHA-256 of each: nobody tries 2^120 of them, whatever a try costs
(OWASP ASVS 5.0 V6.5.2 wants a slow hash below 112).
A slow hash is for passwords, which people choose; a key would have to be kept for as long as the codes. The user is
part of what is hashed, so that a table of hashes is no use against many users at once.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

COUNT = 10
LOW = 3
_CHARS, _GROUP = 24, 4
# Crockford's base32: 5 bits a character, without I, L, O and U.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_MISREAD = str.maketrans("ILO", "110")
_CODE = re.compile(rf"[{_ALPHABET}]{{{_CHARS}}}")


@dataclass(frozen=True, slots=True)
class RecoveryCodes:
    """How many of a user's are left, of those made at an instant."""

    left: int
    made_at: datetime

    @property
    def low(self) -> bool:
        return self.left <= LOW


def new_recovery_codes() -> list[str]:
    return [_new_code() for _ in range(COUNT)]


def _new_code() -> str:
    code = "".join(secrets.choice(_ALPHABET) for _ in range(_CHARS))
    return "-".join(code[i : i + _GROUP] for i in range(0, _CHARS, _GROUP))


def recovery_code_hash(tenant_id: str, user_id: str, code: str) -> str | None:
    """None for what can be no code. Case, blanks and dashes do not count, nor O for 0, I and L for 1."""
    if len(code) > 4 * _CHARS:
        return None
    plain = re.sub(r"[\s-]", "", code).upper().translate(_MISREAD)
    if not _CODE.fullmatch(plain):
        return None
    return hashlib.sha256(f"recovery code\0{tenant_id}\0{user_id}\0{plain}".encode()).hexdigest()


def recovery_code_hashes(tenant_id: str, user_id: str, codes: Sequence[str]) -> list[str]:
    return [h for code in codes if (h := recovery_code_hash(tenant_id, user_id, code))]
