"""The passwords that were stolen somewhere: a file that the operator brings, and nothing that is asked over a network.

It is what Have I Been Pwned offers for download (Pwned Passwords, SHA-1, ordered by hash): a line `SHA1:count` each,
some 40 GB today. It is searched where it lies, in about 30 steps.
"""

import asyncio
import hashlib
import mmap
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from libs.core.errors import Misconfigured
from services.auth.domain.passwords import breached, weakness

_LINE = re.compile(rb"[0-9A-Fa-f]{40}(:[0-9]+)?\r?\n?")
_HASH_CHARS = 40


class PasswordRules:
    """What a new password is held to. Open (`with`) while it is used; `path` is the file, or "" for none."""

    def __init__(self, path: str) -> None:
        """`Misconfigured` if that is not such a file."""
        self._lines = _open(path) if path else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lines:
            self._lines.close()

    async def check(self, password: str, *, personal: Iterable[str]) -> None:
        """`Refusal` WEAK_PASSWORD, its rule one of `password.length`, `.common`, `.personal` and `.breached`."""
        refusal = weakness(password, personal=personal)
        if refusal is None and await self.is_breached(password):
            refusal = breached()
        if refusal:
            raise refusal

    async def is_breached(self, password: str) -> bool:
        if self._lines is None:
            return False
        text = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
        # A thread: what is not in memory yet is read from the disk.
        return await asyncio.to_thread(_found, self._lines, hashlib.sha1(text, usedforsecurity=False).hexdigest())


def _open(path: str) -> mmap.mmap:
    try:
        with Path(path).open("rb") as file:
            lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise Misconfigured(f"BREACHED_PASSWORDS: {path} cannot be read: {error}") from None
    lines.madvise(mmap.MADV_RANDOM)
    if not _LINE.fullmatch(lines.readline()):
        raise Misconfigured(f"BREACHED_PASSWORDS: {path} does not have the form SHA1:count, ordered by hash")
    return lines


def _found(lines: mmap.mmap, digest: str) -> bool:
    """Bisects the bytes: `low` is always the beginning of a line, and what is sought is not before it."""
    wanted = digest.upper().encode()
    low, high = 0, len(lines)
    while low < high:
        middle = _line_at(lines, low, (low + high) // 2)
        found = lines[middle : middle + _HASH_CHARS].upper()
        if found == wanted:
            return True
        if found < wanted:
            low = _after(lines, middle)
        else:
            high = middle
    return False


def _line_at(lines: mmap.mmap, low: int, position: int) -> int:
    """The beginning of the line that `position` is in."""
    return max(low, lines.rfind(b"\n", low, position) + 1)


def _after(lines: mmap.mmap, line: int) -> int:
    end = lines.find(b"\n", line)
    return len(lines) if end < 0 else end + 1
