"""How users are found by those who administer them: in lists by what they are, and by how something begins."""

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from libs.core.errors import InvalidInput
from services.auth.domain.users import User, UserStatus


class UserKind(StrEnum):
    USER = "user"
    SERVICE = "service"


class SearchBy(StrEnum):
    EMAIL = "email"
    PHONE = "phone"
    USERNAME = "username"
    NAME = "name"


_PREFIX_CHARS = range(2, 101)
_FIELD = "search.prefix"


@dataclass(frozen=True, slots=True)
class UserFilter:
    """What is None does not matter. `since` <= created < `until`."""

    status: UserStatus | None = None
    role: str | None = None
    kind: UserKind | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def key(self) -> str:
        return _key(self.status or "", self.kind or "", self.role or "")


def list_keys(user: User) -> list[str]:
    """The lists that a user is in: one for each combination of what can be asked for, so that each page of any is one
    range of an index, however few of many it shows."""
    return [
        _key(status, kind, role)
        for status in ("", user.status.value)
        for kind in ("", user.kind)
        for role in ("", *user.roles)
    ]


def _key(status: str, kind: str, role: str) -> str:
    return f"{status}/{kind}/{role}"


def name_key(name: str) -> str:
    """Names are searched for without regard to case, width or the number of blanks."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def parse_prefix(by: SearchBy, text: str) -> str:
    """As what is searched is spelt. `InvalidInput` if nothing could begin so."""
    match by:
        case SearchBy.PHONE:
            prefix = re.sub(r"[ ()./-]", "", text)
            fits = bool(re.fullmatch(r"\+[0-9]+", prefix))
        case SearchBy.NAME:
            prefix, fits = name_key(text), True
        case _:
            prefix = unicodedata.normalize("NFC", text).strip().lower()
            fits = not re.search(r"\s", prefix)
    if not fits or len(prefix) not in _PREFIX_CHARS or not prefix.isprintable():
        raise InvalidInput(f"no {by} begins like that, or it is too short", field=_FIELD)
    return prefix
