"""Which passwords are too weak to be chosen: NIST SP 800-63B section 3.1.1.2 and OWASP ASVS 5.0 V6.2.

Length, a list of what everybody takes, and what is known of the person. No rules of composition: a digit, a capital and
a sign make `Password1!`, and keep out four words by dice.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise

from zxcvbn.frequency_lists import FREQUENCY_LISTS

from libs.core.errors import Refusal

# Characters are code points in NFC, as NIST counts them.
SHORTEST = 8
LONGEST = 128

# What is left when the guessable part is gone must be more than a year or `123!`.
_LEFT_OVER = 4
_SHORTEST_WORD = 4
_TAIL = re.compile(r"[\W\d_]{1,4}\Z")


def weakness(password: str, *, personal: Iterable[str]) -> Refusal | None:
    """Why it cannot be chosen; None if it can. `personal`: whatever names the person, their addresses, our product."""
    text = unicodedata.normalize("NFC", password)
    if not SHORTEST <= len(text) <= LONGEST:
        return _weak("length", f"a password has {SHORTEST} to {LONGEST} characters", shortest=SHORTEST, longest=LONGEST)
    folded = unicodedata.normalize("NFKC", text).casefold()
    if _is_common(folded):
        return _weak("common", "this is among the passwords that are tried first")
    if _is_personal(folded, personal):
        return _weak("personal", "this says little more than what is known of you, or of this service")
    return None


def breached() -> Refusal:
    return _weak("breached", "this password is in the lists of stolen ones that attackers try")


def _weak(rule: str, message: str, **details: int) -> Refusal:
    return Refusal("WEAK_PASSWORD", message, rule=f"password.{rule}", **details)


def _is_common(folded: str) -> bool:
    common = _common()
    return folded in common or _TAIL.sub("", folded) in common or _repeats(folded) or _counts(folded)


@cache
def _common() -> frozenset[str]:
    """30,000 from leaks (those of zxcvbn), the shorter ones too: `monkey` is what `monkey12` is made of."""
    return frozenset(FREQUENCY_LISTS["passwords"])


def _repeats(text: str) -> bool:
    """`aaaaaaaa`, `xyxyxyxy`, `abcabcabc`: one to three characters over and over."""
    return any(text == (text[:size] * len(text))[: len(text)] for size in (1, 2, 3))


def _counts(text: str) -> bool:
    """`23456789`, `hgfedcba`: each character is the one after, or before, the last."""
    steps = {ord(after) - ord(before) for before, after in pairwise(text)}
    return steps in ({1}, {-1})


def _is_personal(folded: str, personal: Iterable[str]) -> bool:
    """Whether it is made of those words, and of hardly anything else."""
    rest = folded
    for word in sorted({word for text in personal for word in _words(text)}, key=len, reverse=True):
        rest = rest.replace(word, "")
    return len(rest) < len(folded) and len(re.sub(r"[\W_]", "", rest)) <= _LEFT_OVER


def _words(text: str) -> Iterator[str]:
    """`anna.smith@example.com` whole, and `anna`, `smith`, `annasmith`, `example`."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    parts = re.split(r"[\W_]+", folded)
    local, _, _ = folded.partition("@")
    for word in (folded, local, re.sub(r"[\W_]+", "", local), *parts):
        if len(word) >= _SHORTEST_WORD:
            yield word
