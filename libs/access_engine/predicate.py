"""Which objects, said without any: what `Scope.predicate` answers, for a store to turn into its own query.

    All((Compare.of("tenant_id", "eq", "acme"), Any((Compare.of("owner_id", "eq", "anna"), Member.of("id", ["w7"])))))

A leaf is true of an object only if the object has that attribute, with a value that can be compared: there is no third
value here, and `ne` is not the opposite of `eq`. `All(())` is true of every object, `Any(())` of none. What `all_of`,
`any_of` and `negated` make is in a simple form: no connective holds one of its own kind, nor what is always true or
never, nor the same twice, and nothing is negated twice.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Self, TypeAlias

if TYPE_CHECKING:
    from libs.access_engine.subject import Object

Value: TypeAlias = bool | int | float | str | datetime
Operator = Literal["eq", "ne", "lt", "le", "gt", "ge"]

OPPOSITE: Final[dict[Operator, Operator]] = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}


class Constant(NamedTuple):
    """A value with its kind: to Python true is 1, to a policy and a store it is not."""

    kind: str
    value: Value


@dataclass(frozen=True, slots=True)
class All:
    """Every one of `parts`."""

    parts: "tuple[Predicate, ...]" = ()

    def matches(self, obj: "Object") -> bool:
        return all(part.matches(obj) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Any:
    """One of `parts` at least."""

    parts: "tuple[Predicate, ...]" = ()

    def matches(self, obj: "Object") -> bool:
        return any(part.matches(obj) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not:
    part: "Predicate"

    def matches(self, obj: "Object") -> bool:
        return not self.part.matches(obj)


@dataclass(frozen=True, slots=True)
class Compare:
    """The attribute is there and compares so. Values of different kinds are never equal, and have no order."""

    attribute: str
    operator: Operator
    constant: Constant

    @classmethod
    def of(cls, attribute: str, operator: Operator, value: Value) -> Self:
        return cls(attribute, operator, constant(value))

    def matches(self, obj: "Object") -> bool:
        return compared(obj.attribute(self.attribute), self.operator, self.constant) is True


@dataclass(frozen=True, slots=True)
class Member:
    """The attribute is there and is one of `constants`; not `inside`: it is there and is none of them."""

    attribute: str
    constants: frozenset[Constant]
    inside: bool = True

    @classmethod
    def of(cls, attribute: str, values: Iterable[Value]) -> Self:
        return cls(attribute, frozenset(map(constant, values)))

    def matches(self, obj: "Object") -> bool:
        return is_member(obj.attribute(self.attribute), self.constants) is self.inside


@dataclass(frozen=True, slots=True)
class Contains:
    """The attribute is a list with `constant` in it; not `inside`: it is a list without."""

    attribute: str
    constant: Constant
    inside: bool = True

    def matches(self, obj: "Object") -> bool:
        return contains(obj.attribute(self.attribute), self.constant) is self.inside


@dataclass(frozen=True, slots=True)
class Present:
    """The attribute is there; not `there`: it is missing, or null."""

    attribute: str
    there: bool = True

    def matches(self, obj: "Object") -> bool:
        return (obj.attribute(self.attribute) is not None) is self.there


Leaf: TypeAlias = Compare | Member | Contains | Present
Predicate: TypeAlias = All | Any | Not | Leaf

EVERYTHING: Final = All()
NOTHING: Final = Any()


def all_of(parts: Iterable[Predicate]) -> Predicate:
    flat: dict[Predicate, None] = {}
    for part in parts:
        flat.update(dict.fromkeys(part.parts if isinstance(part, All) else (part,)))
    if NOTHING in flat or any(isinstance(part, Not) and part.part in flat for part in flat):
        return NOTHING
    return next(iter(flat)) if len(flat) == 1 else All(tuple(flat))


def any_of(parts: Iterable[Predicate]) -> Predicate:
    flat: dict[Predicate, None] = {}
    for part in parts:
        flat.update(dict.fromkeys(part.parts if isinstance(part, Any) else (part,)))
    if EVERYTHING in flat:
        return EVERYTHING
    return next(iter(flat)) if len(flat) == 1 else Any(tuple(flat))


def negated(part: Predicate) -> Predicate:
    if isinstance(part, Not):
        return part.part
    if part in (EVERYTHING, NOTHING):
        return NOTHING if part == EVERYTHING else EVERYTHING
    return Not(part)


def rewritten(predicate: Predicate, change: Callable[[Leaf], Predicate]) -> Predicate:
    """`predicate` with each leaf replaced by what `change` answers for it, in its simple form again.

    So a store says what it knows: `lambda leaf: EVERYTHING if leaf == Compare("tenant_id", "eq", "acme") else leaf`.
    """
    if isinstance(predicate, All):
        return all_of(rewritten(part, change) for part in predicate.parts)
    if isinstance(predicate, Any):
        return any_of(rewritten(part, change) for part in predicate.parts)
    if isinstance(predicate, Not):
        return negated(rewritten(predicate.part, change))
    return change(predicate)


# The comparisons themselves, True, False, or None for what cannot be said. None of them raises, whatever it is given.


def constant(value: Value) -> Constant:
    """`ValueError` for what cannot be compared with anything."""
    if (found := constant_or_none(value)) is None:
        raise ValueError(f"{value!r:.60} cannot be compared with anything")
    return found


def constant_or_none(value: object) -> Constant | None:
    """None for what cannot be compared with anything: what is missing, null, a list, an object, or not a number."""
    if isinstance(value, str):
        return Constant("text", value)
    if isinstance(value, bool):
        return Constant("bool", value)
    if isinstance(value, int | float):
        return Constant("number", value) if value == value else None
    if isinstance(value, datetime) and value.tzinfo is not None:
        return Constant("time", whole_ms(value))
    return None


def compared(value: object, operator: Operator, with_: Constant) -> bool | None:
    found = constant_or_none(value)
    if found is None:
        return None
    if operator == "eq":
        return found == with_
    if operator == "ne":
        return found != with_
    return _ordered(found.value, operator, with_.value) if found.kind == with_.kind else None


def is_member(value: object, constants: frozenset[Constant]) -> bool | None:
    found = constant_or_none(value)
    return None if found is None else found in constants


def contains(value: object, wanted: Constant) -> bool | None:
    if not isinstance(value, list | tuple | set | frozenset):
        return None
    return any(constant_or_none(item) == wanted for item in value)


def whole_ms(at: datetime) -> datetime:
    """As stores keep it: in milliseconds."""
    return at.replace(microsecond=at.microsecond // 1_000 * 1_000)


def _ordered(left: Value, operator: Operator, right: Value) -> bool:
    if operator == "lt":
        return left < right  # type: ignore[operator]
    if operator == "le":
        return left <= right  # type: ignore[operator]
    if operator == "gt":
        return left > right  # type: ignore[operator]
    return left >= right  # type: ignore[operator]
