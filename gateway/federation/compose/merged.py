"""The supergraph while it is made: what each subgraph says, kept beside what all of them come to.

`by` goes by the subgraphs' ids, in their order.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from gateway.federation.compose.model import (
    Argument,
    Composite,
    Directive,
    Enum,
    Field,
    Input,
    Key,
    Marks,
    Scalar,
    Schema,
    Union,
)
from gateway.federation.compose.subtypes import Subtypes

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class MergedArgument:
    """`everywhere` is whether all subgraphs that have the field have it: others are left out of the supergraph."""

    name: str
    type: str
    default: str | None
    marks: Marks
    by: dict[str, Argument]
    everywhere: bool

    @property
    def required(self) -> bool:
        return any(argument.required for argument in self.by.values())


@dataclass(frozen=True, slots=True)
class Join:
    """A `@join__field`: what one subgraph has to do with a field."""

    graph: str
    type: str | None = None
    external: bool = False
    requires: str | None = None
    provides: str | None = None
    override: str | None = None
    label: str | None = None
    used_overridden: bool = False

    @property
    def plain(self) -> bool:
        return self == Join(self.graph)


@dataclass(slots=True, eq=False)
class MergedField:
    """`joins` is None if it is in all subgraphs that its type is in, plainly; it is empty if interface objects only
    have it."""

    name: str
    type: str
    marks: Marks
    by: dict[str, Field]
    arguments: dict[str, MergedArgument]
    joins: list[Join] | None = None

    @property
    def key(self) -> bool:
        return any(each.key for each in self.by.values())


@dataclass(slots=True, eq=False)
class TypeJoin:
    graph: str
    key: Key | None = None
    extension: bool = False
    interface_object: bool = False


@dataclass(slots=True, eq=False)
class MergedComposite:
    name: str
    interface: bool
    marks: Marks
    by: dict[str, Composite]
    fields: dict[str, MergedField]
    interfaces: tuple[str, ...]
    joins: list[TypeJoin] = field(default_factory=list)

    @property
    def has_interface_object(self) -> bool:
        return any(each.interface_object for each in self.by.values())

    @property
    def entity(self) -> bool:
        return any(each.keys for each in self.by.values())


@dataclass(slots=True, eq=False)
class MergedInput:
    name: str
    marks: Marks
    by: dict[str, Input]
    fields: dict[str, MergedArgument]
    one_of: bool


@dataclass(slots=True, eq=False)
class MergedValue:
    name: str
    marks: Marks
    by: dict[str, Marks]


@dataclass(slots=True, eq=False)
class MergedEnum:
    """`inputs` and `outputs` are coordinates of what is of this type."""

    name: str
    marks: Marks
    by: dict[str, Enum]
    values: dict[str, MergedValue]
    inputs: list[str]
    outputs: list[str]

    @property
    def kept(self) -> list[MergedValue]:
        """Those that every subgraph knows, where clients only give them."""
        values = list(self.values.values())
        return [v for v in values if len(v.by) == len(self.by)] if self.inputs and not self.outputs else values


@dataclass(slots=True, eq=False)
class MergedUnion:
    name: str
    marks: Marks
    by: dict[str, Union]
    members: tuple[str, ...]


@dataclass(slots=True, eq=False)
class MergedScalar:
    name: str
    marks: Marks
    by: dict[str, Scalar]
    specified_by: str | None


@dataclass(slots=True, eq=False)
class MergedDirective:
    name: str
    by: dict[str, Directive]
    arguments: dict[str, MergedArgument]
    locations: list[str]
    composed: bool
    repeatable: bool


MergedType = MergedComposite | MergedInput | MergedEnum | MergedUnion | MergedScalar


@dataclass(slots=True, eq=False)
class Merged:
    graphs: dict[str, Schema]
    subtypes: Subtypes
    types: dict[str, MergedType] = field(default_factory=dict)
    directives: dict[str, MergedDirective] = field(default_factory=dict)

    def composites(self) -> list[MergedComposite]:
        return [type_ for type_ in self.types.values() if isinstance(type_, MergedComposite)]

    def composite(self, name: str) -> MergedComposite | None:
        found = self.types.get(name)
        return found if isinstance(found, MergedComposite) else None

    def objects(self) -> list[MergedComposite]:
        return [type_ for type_ in self.composites() if not type_.interface]

    def interfaces_of(self, type_: MergedComposite) -> list[MergedComposite]:
        found = (self.composite(name) for name in type_.interfaces)
        return [each for each in found if each is not None and each.interface]

    def names(self, ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(self.graphs[id_].name for id_ in ids)

    def id(self, name: str | None) -> str | None:
        """Of the subgraph of this name, if there is one."""
        return next((id_ for id_, schema in self.graphs.items() if schema.name == name), None)

    def overridden(self, field: MergedField) -> set[str]:
        """The subgraphs that others take a field from."""
        found = (self.id(each.override) for each in field.by.values() if each.override is not None)
        return {id_ for id_ in found if id_ is not None}


def really_external(schema: Schema, type_: Composite, field: Field) -> bool:
    """Whether it says nothing about the type of the field: keys do, and in Federation 1 what is written `extend`."""
    return field.external and not field.key and not (schema.federation_1 and not type_.extends)
