"""A subgraph as composition sees it: read from its text, with Federation's directives made into facts.

Types of fields and arguments are kept as they are printed: `[Product!]!`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.federation.compose.link import Names

Groups = list[list[str]]  # any of these groups of scopes or policies will do, of which all are needed


@dataclass(slots=True)
class ListSize:
    assumed: int | None = None
    slicing: list[str] | None = None
    sized: list[str] | None = None
    require_one: bool = True


@dataclass(slots=True)
class Marks:
    """What any definition may carry besides its structure. `composed` are applications of composed directives, printed;
    `deprecated` is the reason, empty if none was given."""

    description: str | None = None
    tags: set[str] = field(default_factory=set)
    inaccessible: bool = False
    authenticated: bool = False
    scopes: Groups = field(default_factory=list)
    policies: Groups = field(default_factory=list)
    cost: int | None = None
    list_size: ListSize | None = None
    deprecated: str | None = None
    composed: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Argument:
    """Of a field or of a directive, or a field of an input. `default` is printed."""

    name: str
    type: str
    default: str | None = None
    marks: Marks = field(default_factory=Marks)

    @property
    def required(self) -> bool:
        return self.type.endswith("!") and self.default is None


@dataclass(slots=True, eq=False)
class Field:
    """`external` is as declared. `key`, `required` and `provided` say which field sets of this subgraph select it."""

    name: str
    type: str
    arguments: dict[str, Argument] = field(default_factory=dict)
    marks: Marks = field(default_factory=Marks)
    external: bool = False
    shareable: bool = False
    override: str | None = None
    label: str | None = None
    requires: str | None = None
    provides: str | None = None
    in_extension: bool = False
    key: bool = False
    required: bool = False
    provided: bool = False
    used: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    fields: str
    resolvable: bool


@dataclass(slots=True, eq=False)
class Composite:
    """An object or an interface. An interface object is an interface here, with `interface_object`. `extends` is where
    `@extends` says so, `extension` also where it is written `extend type`. `declared_keys` are there before `keys`,
    which are those that are right."""

    name: str
    interface: bool
    fields: dict[str, Field] = field(default_factory=dict)
    interfaces: dict[str, None] = field(default_factory=dict)
    keys: list[Key] = field(default_factory=list)
    declared_keys: set[str] = field(default_factory=set)
    marks: Marks = field(default_factory=Marks)
    defined: bool = False
    extension: bool = False
    extends: bool = False
    external: bool = False
    interface_object: bool = False
    implemented_by: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Input:
    name: str
    fields: dict[str, Argument] = field(default_factory=dict)
    marks: Marks = field(default_factory=Marks)
    one_of: bool = False


@dataclass(slots=True, eq=False)
class Enum:
    name: str
    values: dict[str, Marks] = field(default_factory=dict)
    marks: Marks = field(default_factory=Marks)


@dataclass(slots=True, eq=False)
class Union:
    name: str
    members: dict[str, None] = field(default_factory=dict)
    marks: Marks = field(default_factory=Marks)


@dataclass(slots=True, eq=False)
class Scalar:
    name: str
    marks: Marks = field(default_factory=Marks)
    specified_by: str | None = None


@dataclass(slots=True, eq=False)
class Directive:
    name: str
    arguments: dict[str, Argument]
    locations: list[str]
    repeatable: bool
    composed: bool = False


Type = Composite | Input | Enum | Union | Scalar


@dataclass(slots=True, eq=False)
class Schema:
    """One subgraph. `id` is its value of join__Graph. Root types have their usual names, whatever they are here."""

    id: str
    name: str
    url: str
    names: Names
    types: dict[str, Type] = field(default_factory=dict)
    directives: dict[str, Directive] = field(default_factory=dict)

    def composites(self) -> Iterable[Composite]:
        return [type_ for type_ in self.types.values() if isinstance(type_, Composite)]

    def composite(self, name: str) -> Composite | None:
        found = self.types.get(name)
        return found if isinstance(found, Composite) else None

    @property
    def federation_1(self) -> bool:
        return self.names.federation_1


def kind(type_: Type) -> str:
    """As error messages name it."""
    if isinstance(type_, Composite):
        return "interface" if type_.interface else "object"
    return type(type_).__name__.lower()


def named(type_: str) -> str:
    return type_.strip("[]!")


def nullable(type_: str) -> str:
    return type_.removesuffix("!")


def is_list(type_: str) -> bool:
    return type_.startswith("[")


def item(type_: str) -> str:
    """Of a list, nullable or not."""
    return nullable(type_)[1:-1]
