"""Conditions over attributes, as data that is written in YAML or JSON:

    condition  = {"all": [condition, …]} | {"any": [condition, …]} | {"not": condition}
               | {attribute: {operator: operand}}
    attribute  = "object." name | "subject." name
    operator   = "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "in" | "contains" | "exists"
    operand    = a bool, number or text | {"time": "2026-03-01T12:00:00Z"} | {"ref": "subject." name}
                 of "in" a list of the former, of "exists" true or false

    {"all": [{"object.status": {"in": ["open", "new"]}}, {"object.brand_id": {"eq": {"ref": "subject.brand_id"}}}]}

A condition is true, false, or unknown: unknown if an attribute that it needs is missing, or is of a kind that cannot be
compared so. `not` of unknown is unknown. What is unknown allows nothing, and denies: see `Rule`.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from libs.access_engine.predicate import (
    EVERYTHING,
    NOTHING,
    OPPOSITE,
    Compare,
    Constant,
    Contains,
    Member,
    Operator,
    Predicate,
    Present,
    all_of,
    any_of,
    compared,
    constant_or_none,
    contains,
    is_member,
    whole_ms,
)
from libs.access_engine.subject import Object, Subject

# What a condition may be at most. It is evaluated for each object that is asked about, and becomes part of a query.
MAX_DEPTH, MAX_TESTS, MAX_MEMBERS, MAX_TEXT = 8, 64, 256, 256

Op = Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "contains", "exists"]

_ATTRIBUTE = re.compile(r"(subject|object)\.([A-Za-z][A-Za-z0-9_]{0,63})", re.ASCII)
_COMPARISONS: Final = get_args(Operator)
_ORDERINGS: Final = ("lt", "le", "gt", "ge")
_INT64 = 2**63


class ConditionError(ValueError):
    """This is no condition; `path` leads to where it goes wrong: "if.all[1].object.status.eq"."""

    def __init__(self, reason: str, *, path: str) -> None:
        super().__init__(f"{reason}, at {path}")
        self.reason = reason
        self.path = path


@dataclass(frozen=True, slots=True)
class Attribute:
    of: Literal["subject", "object"]
    name: str

    def __str__(self) -> str:
        return f"{self.of}.{self.name}"


Operand: TypeAlias = Constant | frozenset[Constant] | bool | Attribute


@dataclass(frozen=True, slots=True)
class Test:
    """One attribute, held against a constant, against several (`in`), an attribute of the subject, or being there."""

    attribute: Attribute
    op: Op
    operand: Operand

    def truth(self, subject: Subject, obj: Object) -> bool | None:
        of = subject if self.attribute.of == "subject" else obj
        return self._judged(of.attribute(self.attribute.name), self._resolved(subject))

    def surely(self, subject: Subject, wanted: bool) -> Predicate:
        """Which objects this is `wanted` of: those of which it is the opposite, or unknown, are not among them."""
        operand, name = self._resolved(subject), self.attribute.name
        if self.attribute.of == "subject":
            return EVERYTHING if self._judged(subject.attribute(name), operand) is wanted else NOTHING
        if operand is None:
            return NOTHING
        if self.op == "exists":
            return Present(name, there=operand is wanted)
        if self.op == "in":
            return Member(name, cast("frozenset[Constant]", operand), inside=wanted)
        if self.op == "contains":
            return Contains(name, cast("Constant", operand), inside=wanted)
        return Compare(name, self.op if wanted else OPPOSITE[self.op], cast("Constant", operand))

    def attributes(self) -> Iterable[Attribute]:
        yield self.attribute
        if isinstance(self.operand, Attribute):
            yield self.operand

    def _resolved(self, subject: Subject) -> Constant | frozenset[Constant] | bool | None:
        if isinstance(self.operand, Attribute):
            return constant_or_none(subject.attribute(self.operand.name))
        return self.operand

    def _judged(self, value: object, operand: Any) -> bool | None:
        if operand is None:
            return None
        if self.op == "exists":
            return (value is not None) is operand
        if self.op == "in":
            return is_member(value, operand)
        return contains(value, operand) if self.op == "contains" else compared(value, self.op, operand)


@dataclass(frozen=True, slots=True)
class AllOf:
    parts: "tuple[Condition, ...]"

    def truth(self, subject: Subject, obj: Object) -> bool | None:
        return _first_of(False, (part.truth(subject, obj) for part in self.parts))

    def surely(self, subject: Subject, wanted: bool) -> Predicate:
        return (all_of if wanted else any_of)(part.surely(subject, wanted) for part in self.parts)

    def attributes(self) -> Iterable[Attribute]:
        return (attribute for part in self.parts for attribute in part.attributes())


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: "tuple[Condition, ...]"

    def truth(self, subject: Subject, obj: Object) -> bool | None:
        return _first_of(True, (part.truth(subject, obj) for part in self.parts))

    def surely(self, subject: Subject, wanted: bool) -> Predicate:
        return (any_of if wanted else all_of)(part.surely(subject, wanted) for part in self.parts)

    def attributes(self) -> Iterable[Attribute]:
        return (attribute for part in self.parts for attribute in part.attributes())


@dataclass(frozen=True, slots=True)
class Negation:
    part: "Condition"

    def truth(self, subject: Subject, obj: Object) -> bool | None:
        truth = self.part.truth(subject, obj)
        return None if truth is None else not truth

    def surely(self, subject: Subject, wanted: bool) -> Predicate:
        return self.part.surely(subject, not wanted)

    def attributes(self) -> Iterable[Attribute]:
        return self.part.attributes()


Condition: TypeAlias = Test | AllOf | AnyOf | Negation


def _first_of(decisive: bool, truths: Iterable[bool | None]) -> bool | None:
    """`decisive` if one of them is; else unknown if one of them is that."""
    outcome: bool | None = not decisive
    for truth in truths:
        if truth is decisive:
            return decisive
        if truth is None:
            outcome = None
    return outcome


def parse_condition(data: object, *, path: str = "if") -> Condition:
    """`data` as a condition. Raises `ConditionError`, which says where it is not one, or where it is too much."""
    return _Parser().condition(data, path, 1)


def dump_condition(condition: Condition) -> dict[str, Any]:
    """As data again, that JSON can hold: what `parse_condition` reads back."""
    match condition:
        case AllOf(parts):
            return {"all": [dump_condition(part) for part in parts]}
        case AnyOf(parts):
            return {"any": [dump_condition(part) for part in parts]}
        case Negation(part):
            return {"not": dump_condition(part)}
        case Test(attribute, op, operand):
            if isinstance(operand, frozenset):
                return {str(attribute): {op: [_dump_operand(each) for each in sorted(operand, key=repr)]}}
            return {str(attribute): {op: _dump_operand(operand)}}


def _dump_operand(operand: Constant | bool | Attribute) -> Any:
    if isinstance(operand, Attribute):
        return {"ref": str(operand)}
    value = operand.value if isinstance(operand, Constant) else operand
    if isinstance(value, datetime):
        return {"time": value.isoformat().replace("+00:00", "Z")}
    return value


class _Parser:
    """Counts what it has read, so that neither a deep nor a wide condition costs more than its limit."""

    def __init__(self) -> None:
        self._tests = 0

    def condition(self, data: object, path: str, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            raise ConditionError(f"conditions are nested no deeper than {MAX_DEPTH}", path=path)
        self._tests += 1
        if self._tests > MAX_TESTS:
            raise ConditionError(f"a condition has no more than {MAX_TESTS} parts", path=path)
        word, content = _only_item(data, path, "a condition")
        path = f"{path}.{word}"
        if word == "not":
            return Negation(self.condition(content, path, depth + 1))
        if word in ("all", "any"):
            if not isinstance(content, list) or not content:
                # An empty "all" would be true of everything, which nobody means.
                raise ConditionError(f"{word!r} takes a list that is not empty", path=path)
            parts = tuple(self.condition(part, f"{path}[{n}]", depth + 1) for n, part in enumerate(content))
            return AllOf(parts) if word == "all" else AnyOf(parts)
        return self._test(_attribute(word, path), content, path)

    def _test(self, attribute: Attribute, data: object, path: str) -> Test:
        op, content = _only_item(data, path, "a test")
        path = f"{path}.{op}"
        if op == "exists":
            if not isinstance(content, bool):
                raise ConditionError("'exists' takes true or false", path=path)
            return Test(attribute, "exists", content)
        if op == "in":
            if not isinstance(content, list) or not 0 < len(content) <= MAX_MEMBERS:
                raise ConditionError(f"'in' takes a list of 1 to {MAX_MEMBERS} values", path=path)
            return Test(attribute, "in", frozenset(_constant(item, f"{path}[{n}]") for n, item in enumerate(content)))
        if op != "contains" and op not in _COMPARISONS:
            raise ConditionError(f"{_shown(op)} is no operator: there are {', '.join(get_args(Op))}", path=path)
        operand = _operand(content, path)
        if op in _ORDERINGS and isinstance(operand, Constant) and operand.kind == "bool":
            raise ConditionError(f"{op!r} takes no true or false, which have no order", path=path)
        return Test(attribute, cast("Op", op), operand)


def _only_item(data: object, path: str, what: str) -> tuple[str, object]:
    if not isinstance(data, Mapping) or len(data) != 1:
        raise ConditionError(f"{what} is a mapping with exactly one key", path=path)
    [(word, content)] = data.items()
    if not isinstance(word, str):
        raise ConditionError(f"{_shown(word)} is no text", path=path)
    return word[:100], content


def _attribute(text: str, path: str) -> Attribute:
    if match := _ATTRIBUTE.fullmatch(text):
        return Attribute(cast("Literal['subject', 'object']", match[1]), match[2])
    raise ConditionError(
        f"{_shown(text)} is neither 'all', 'any' nor 'not', nor an attribute such as 'object.status'", path=path
    )


def _operand(data: object, path: str) -> Constant | Attribute:
    if isinstance(data, Mapping) and set(data) == {"ref"}:
        reference = _attribute(data["ref"], path) if isinstance(data["ref"], str) else None
        if reference is None or reference.of != "subject":
            raise ConditionError("'ref' names an attribute of the subject, such as 'subject.brand_id'", path=path)
        return reference
    return _constant(data, path)


def _constant(data: object, path: str) -> Constant:
    if isinstance(data, Mapping) and set(data) == {"time"}:
        data = _instant(data["time"], path)
    elif isinstance(data, datetime):
        data = _instant(data, path)
    elif reason := _wrong_value(data):
        raise ConditionError(reason, path=path)
    found = constant_or_none(data)
    assert found is not None
    return found


def _wrong_value(data: object) -> str | None:
    if isinstance(data, str):
        if len(data) > MAX_TEXT:
            return f"a text is no longer than {MAX_TEXT} characters"
        return "a text holds no lone surrogates" if any("\ud800" <= c <= "\udfff" for c in data) else None
    if isinstance(data, int):
        return None if -_INT64 <= data < _INT64 else "a whole number has no more than 64 bits"
    if isinstance(data, float):
        return None if math.isfinite(data) else "a number is finite"
    return f"{_shown(data)} is no value: a bool, a number, a text, {{'time': …}} or {{'ref': 'subject.…'}}"


def _instant(data: object, path: str) -> datetime:
    try:
        return parse_instant(data)
    except ValueError as error:
        raise ConditionError(str(error), path=path) from None


def parse_instant(data: object) -> datetime:
    """An instant as in ISO 8601, with its zone, in whole milliseconds. Raises `ValueError`."""
    try:
        at = data if isinstance(data, datetime) else datetime.fromisoformat(cast("str", data))
        if at.tzinfo is None:
            raise ValueError
        return whole_ms(at.astimezone(UTC))
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{_shown(data)} is no instant with its zone, such as 2026-03-01T12:00:00Z") from None


def _shown(data: object) -> str:
    text = repr(data) if isinstance(data, str | int | float | bool | datetime | None) else f"a {type(data).__name__}"
    return text[:60]
