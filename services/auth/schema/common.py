"""What the rooms of this schema share: who asks, and what input becomes."""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar, cast

from strawberry import Info

from libs.core.access import Scope
from libs.core.context import Context
from libs.core.errors import InvalidInput, Refusal
from libs.core.graphql import Problem
from libs.core.ids import parse_id
from services.auth.commands.auth import Auth
from services.auth.domain.identifiers import Identifier, parse_email, parse_phone

T = TypeVar("T")

_TEXT_CHARS = 100


def auth_of(info: Info[Context]) -> Auth:
    return cast("Auth", info.context.service)


def scope_of(info: Info[Context], action: str) -> Scope:
    return info.context.platform.access.scope(info.context.caller, action)


def ids_of(representations: Sequence[Mapping[str, Any]]) -> list[str]:
    return [parse_id(r.get("id"), "representations.id") for r in representations]


async def or_problem(asked: Awaitable[T]) -> T | Problem:
    """A refusal is an answer."""
    try:
        return await asked
    except Refusal as refusal:
        return Problem.of(refusal)


def text_of(value: str, field: str, *, most: int = _TEXT_CHARS) -> str:
    """Free text: a name. No control characters, which could write lines of their own into logs and messages."""
    stripped = value.strip()
    if len(stripped) > most or not stripped.isprintable():
        raise InvalidInput(f"{field} has at most {most} characters, and no control characters", field=field)
    return stripped


def recipient_of(email: str | None, phone: str | None) -> Identifier:
    """Where a code is sent to."""
    if (email is None) == (phone is None):
        raise InvalidInput("give an email or a phone", field="input")
    return parse_email(email, "input.email") if email is not None else parse_phone(phone or "", "input.phone")
