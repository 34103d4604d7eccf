"""Subgraphs, made into one schema by the rules of each kind of type."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from gateway.federation.compose.errors import Report
from gateway.federation.compose.marks import merged_groups, merged_marks
from gateway.federation.compose.merged import (
    Merged,
    MergedArgument,
    MergedComposite,
    MergedDirective,
    MergedEnum,
    MergedField,
    MergedInput,
    MergedScalar,
    MergedType,
    MergedUnion,
    MergedValue,
    really_external,
)
from gateway.federation.compose.model import (
    Argument,
    Composite,
    Directive,
    Enum,
    Field,
    Input,
    Marks,
    Scalar,
    Schema,
    Type,
    Union,
    kind,
    named,
)
from gateway.federation.compose.subtypes import Subtypes

EXECUTABLE = {
    "QUERY",
    "MUTATION",
    "SUBSCRIPTION",
    "FIELD",
    "FRAGMENT_DEFINITION",
    "FRAGMENT_SPREAD",
    "INLINE_FRAGMENT",
    "VARIABLE_DEFINITION",
}
T = TypeVar("T")


def merge(schemas: Iterable[Schema], report: Report) -> Merged:
    graphs = {schema.id: schema for schema in schemas}
    merged = Merged(graphs, Subtypes.of(*graphs.values()))
    uses = _enum_uses(merged)
    for name, by in sorted(_by_name(graphs, lambda schema: schema.types).items()):
        if _is_of_one_kind(name, by, merged, report):
            merged.types[name] = _Types(merged, uses).merged(name, by)
    for name, directives in sorted(_by_name(graphs, lambda schema: schema.directives).items()):
        if directive := _directive(name, directives, merged):
            merged.directives[name] = directive
    _share_permissions(merged)
    return merged


def _by_name(graphs: Mapping[str, Schema], of: Callable[[Schema], Mapping[str, T]]) -> dict[str, dict[str, T]]:
    found: dict[str, dict[str, T]] = {}
    for id_, schema in graphs.items():
        for name, item in of(schema).items():
            found.setdefault(name, {})[id_] = item
    return found


def _is_of_one_kind(name: str, by: Mapping[str, Type], merged: Merged, report: Report) -> bool:
    kinds: dict[str, list[str]] = {}
    for id_, type_ in by.items():
        kinds.setdefault(kind(type_), []).append(id_)
    if len(kinds) == 1:
        return True
    groups = [f"{kind_} in {', '.join(merged.names(ids))}" for kind_, ids in kinds.items()]
    message = (
        f"{name} must be the same kind of type in all subgraphs, and is {' and '.join(groups)}: rename one of them"
    )
    report.add("TYPE_KIND_MISMATCH", message, name, merged.names(by))
    return False


def _enum_uses(merged: Merged) -> dict[str, tuple[list[str], list[str]]]:
    """Where each type is given and where it is answered."""
    uses: dict[str, tuple[list[str], list[str]]] = {}
    for schema in merged.graphs.values():
        for type_ in schema.types.values():
            if isinstance(type_, Composite):
                for field in type_.fields.values():
                    coordinate = f"{type_.name}.{field.name}"
                    uses.setdefault(named(field.type), ([], []))[1].append(coordinate)
                    for argument in field.arguments.values():
                        uses.setdefault(named(argument.type), ([], []))[0].append(f"{coordinate}({argument.name}:)")
            elif isinstance(type_, Input):
                for given in type_.fields.values():
                    uses.setdefault(named(given.type), ([], []))[0].append(f"{type_.name}.{given.name}")
    return uses


class _Types:
    def __init__(self, merged: Merged, uses: Mapping[str, tuple[list[str], list[str]]]) -> None:
        self._merged = merged
        self._uses = uses

    def merged(self, name: str, by: Mapping[str, Type]) -> MergedType:
        first = next(iter(by.values()))
        if isinstance(first, Composite):
            return self._composite(name, _all(by, Composite))
        if isinstance(first, Input):
            return self._input(name, _all(by, Input))
        if isinstance(first, Enum):
            return self._enum(name, _all(by, Enum))
        if isinstance(first, Union):
            unions = _all(by, Union)
            return MergedUnion(name, _marks(unions), unions, _in_order(union.members for union in unions.values()))
        scalars = _all(by, Scalar)
        specified_by = next((scalar.specified_by for scalar in scalars.values() if scalar.specified_by), None)
        return MergedScalar(name, _marks(scalars), scalars, specified_by)

    def _composite(self, name: str, by: dict[str, Composite]) -> MergedComposite:
        interface = any(each.interface for each in by.values())
        interfaces = _in_order(each.interfaces for each in by.values())
        type_ = MergedComposite(name, interface, _marks(by), by, {}, interfaces)
        for field in _in_order(each.fields for each in by.values()):
            here = {id_: each.fields[field] for id_, each in by.items() if field in each.fields}
            type_.fields[field] = self._field(field, type_, here)
        return type_

    def _field(self, name: str, parent: MergedComposite, by: dict[str, Field]) -> MergedField:
        marks = merged_marks(field.marks for field in by.values())
        if parent.entity and marks.description:
            moved = [field for field in by.values() if field.override and not field.shareable]
            marks.description = moved[-1].marks.description if moved else marks.description
        arguments = merged_arguments([(id_, field.arguments) for id_, field in by.items()], self._merged.subtypes)
        return MergedField(name, self._type(parent, by), marks, by, arguments)

    def _type(self, parent: MergedComposite, by: Mapping[str, Field]) -> str:
        """That which all are. It is the first one where there is none, which is told later."""
        types = [
            field.type
            for id_, field in by.items()
            if not really_external(self._merged.graphs[id_], parent.by[id_], field)
        ] or [field.type for field in by.values()]
        return self._merged.subtypes.widest(types) or types[0]

    def _input(self, name: str, by: dict[str, Input]) -> MergedInput:
        fields = merged_arguments([(id_, each.fields) for id_, each in by.items()], self._merged.subtypes)
        return MergedInput(name, _marks(by), by, fields, any(each.one_of for each in by.values()))

    def _enum(self, name: str, by: dict[str, Enum]) -> MergedEnum:
        values = {}
        for value in _in_order(each.values for each in by.values()):
            here = {id_: each.values[value] for id_, each in by.items() if value in each.values}
            values[value] = MergedValue(value, merged_marks(here.values()), here)
        inputs, outputs = self._uses.get(name, ([], []))
        return MergedEnum(name, _marks(by), by, values, inputs, outputs)


def merged_arguments(
    owners: Sequence[tuple[str, Mapping[str, Argument]]], subtypes: Subtypes
) -> dict[str, MergedArgument]:
    """Of a field or a directive, or the fields of an input: what is given must fit every subgraph, so types narrow."""
    arguments = {}
    for name in _in_order(owner for _, owner in owners):
        by = {id_: owner[name] for id_, owner in owners if name in owner}
        types = [argument.type for argument in by.values()]
        defaults = [argument.default for argument in by.values()]
        default = next((each for each in defaults if each is not None), None) if None not in defaults else None
        marks = merged_marks(argument.marks for argument in by.values())
        type_ = narrowed_type(types, subtypes) or types[0]
        arguments[name] = MergedArgument(name, type_, default, marks, by, len(by) == len(owners))
    return arguments


def narrowed_type(types: list[str], subtypes: Subtypes) -> str | None:
    """The one of `types` that fits all of them. Not null at the outside is wanted by any subgraph that wants it."""
    strict = any(type_.endswith("!") for type_ in types)
    return subtypes.narrowest(type_.removesuffix("!") + ("!" if strict else "") for type_ in types)


def _directive(name: str, by: dict[str, Directive], merged: Merged) -> MergedDirective | None:
    """One that clients may use is there if all subgraphs have it, one that subgraphs compose if any does."""
    composed = any(each.composed for each in by.values())
    in_common = [place for place in _locations(by) if all(place in each.locations for each in by.values())]
    executable = [place for place in in_common if place in EXECUTABLE and len(by) == len(merged.graphs)]
    composing = {id_: each for id_, each in by.items() if each.composed}
    locations = [place for place in _locations(composing) if place not in EXECUTABLE] if composed else []
    if not executable and not composed:
        return None
    owners = [(id_, each.arguments) for id_, each in by.items() if each.composed or not composed]
    arguments = merged_arguments(owners, merged.subtypes)
    if composed:
        for argument in arguments.values():
            argument.everywhere = True
    repeatable = any(each.repeatable for each in by.values())
    return MergedDirective(name, by, arguments, sorted({*executable, *locations}), composed, repeatable)


def _locations(by: Mapping[str, Directive]) -> tuple[str, ...]:
    return _in_order(each.locations for each in by.values())


def _share_permissions(merged: Merged) -> None:
    """What an object asks for, whoever reads it as its interface must have; interface objects ask for their objects."""
    for object_ in merged.objects():
        for interface in merged.interfaces_of(object_):
            if interface.has_interface_object:
                for name in interface.fields.keys() & object_.fields.keys():
                    _ask_for(object_.fields[name], interface.fields[name])
    for object_ in merged.objects():
        for interface in merged.interfaces_of(object_):
            _ask_for(interface, object_)
            for name in interface.fields.keys() & object_.fields.keys():
                _ask_for(interface.fields[name], object_.fields[name])


def _ask_for(one: MergedComposite | MergedField, other: MergedComposite | MergedField) -> None:
    one.marks.authenticated |= other.marks.authenticated
    one.marks.scopes = merged_groups(one.marks.scopes, other.marks.scopes)
    one.marks.policies = merged_groups(one.marks.policies, other.marks.policies)


M = TypeVar("M", Composite, Input, Enum, Union, Scalar)


def _all(by: Mapping[str, Type], form: type[M]) -> dict[str, M]:
    return {id_: type_ for id_, type_ in by.items() if isinstance(type_, form)}


def _marks(by: Mapping[str, M]) -> Marks:
    return merged_marks(each.marks for each in by.values())


def _in_order(names: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for each in names for name in each))
