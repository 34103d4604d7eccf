"""The grammar of permissions, case-sensitive:

    permission = part ":" part ":" target         resource, action, target
    part       = name | "*"                       "*" is one whole part, never a piece of one
    target     = "own" | "tenant" | "all" | "*" | id
    name, id   = a letter or digit, then up to 63 letters, digits, "_" or "-"

A target reaches the subject's own objects, its tenant's, all ("*" says the same), or the one with that id.
"""

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_PARTS = ("resource", "action", "target")


class PermissionSyntaxError(ValueError):
    """`text` is not a permission; `position` is the index of the character where it goes wrong."""

    def __init__(self, reason: str, *, text: str, position: int) -> None:
        super().__init__(f"{reason}, at position {position} of {text[:100]!r}")
        self.text = text
        self.position = position


class Reach(IntEnum):
    """How far a target reaches. Each includes the ones before it: own ⊂ tenant ⊂ all."""

    NOTHING = 0
    OWN = 1
    TENANT = 2
    ALL = 3


_REACH = {"own": Reach.OWN, "tenant": Reach.TENANT, "all": Reach.ALL, "*": Reach.ALL}


@dataclass(frozen=True, slots=True)
class Permission:
    """Made by `parse`, which is what checks it."""

    resource: str
    action: str
    target: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """`text` as a permission. Raises `PermissionSyntaxError`, which says where it is not one."""
        parts = text.split(":")
        if len(parts) > len(_PARTS):
            position = len(":".join(parts[:3]))
            raise PermissionSyntaxError("a permission has no more than three parts", text=text, position=position)
        position = 0
        for name, part in zip(_PARTS, parts, strict=False):
            _check_part(name, part, text, position)
            position += len(part) + 1
        if len(parts) < len(_PARTS):
            missing = _PARTS[len(parts)]
            raise PermissionSyntaxError(f"':' and the {missing} are missing", text=text, position=len(text))
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.resource}:{self.action}:{self.target}"

    @property
    def reach(self) -> Reach:
        """`NOTHING` if the target is an id."""
        return _REACH.get(self.target, Reach.NOTHING)


def _check_part(name: str, part: str, text: str, position: int) -> None:
    if part == "*":
        return
    if not part:
        raise PermissionSyntaxError(f"the {name} is empty", text=text, position=position)
    if not (match := _NAME.match(part)):
        raise PermissionSyntaxError(f"the {name} cannot begin with {part[0]!r}", text=text, position=position)
    if match.end() < len(part):
        wrong = "is longer than 64 characters" if match.end() == 64 else f"cannot hold {part[match.end()]!r}"
        raise PermissionSyntaxError(f"the {name} {wrong}", text=text, position=position + match.end())
    # "Own" would be read as the id of an object that nobody has, and grant nothing without a word.
    if name == "target" and part not in _REACH and part.lower() in _REACH:
        raise PermissionSyntaxError(f"{part.lower()!r} is written in lower case", text=text, position=position)
