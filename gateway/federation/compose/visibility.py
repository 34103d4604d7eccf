"""What is @inaccessible must not be needed by what clients see."""

from collections.abc import Iterable, Iterator, Mapping

from graphql import (
    EnumValueNode,
    ListValueNode,
    ObjectValueNode,
    StringValueNode,
    ValueNode,
    parse_const_value,
)

from gateway.federation.compose.errors import Report
from gateway.federation.compose.merged import (
    Merged,
    MergedArgument,
    MergedComposite,
    MergedEnum,
    MergedField,
    MergedInput,
    MergedType,
    MergedUnion,
)
from gateway.federation.compose.model import Marks, named


def check_visibility(merged: Merged, report: Report) -> None:
    check = _Check(merged, report)
    for type_ in merged.types.values():
        if not type_.marks.inaccessible:
            check.check(type_)


class _Check:
    def __init__(self, merged: Merged, report: Report) -> None:
        self._merged = merged
        self._report = report

    def check(self, type_: MergedType) -> None:
        children = list(self._children(type_))
        if children and all(marks.inaccessible for marks in children):
            message = (
                f"{type_.name} is not @inaccessible, and all that it consists of is: hide it too, or show some of it"
            )
            self._add("ONLY_INACCESSIBLE_CHILDREN", message, type_.name, type_.by)
        if isinstance(type_, MergedComposite):
            for field in type_.fields.values():
                self._check_field(type_, field, f"{type_.name}.{field.name}")
        elif isinstance(type_, MergedInput):
            self._check_arguments(type_.fields, type_.name, of_input=True)

    def _add(self, code: str, message: str, coordinate: str, graphs: Iterable[str]) -> None:
        names = self._merged.names(graphs)
        self._report.add(code, f"in {', '.join(names)}: {message}", coordinate, names)

    def _children(self, type_: MergedType) -> Iterator[Marks]:
        if isinstance(type_, MergedComposite | MergedInput):
            yield from (field.marks for field in type_.fields.values())
        elif isinstance(type_, MergedEnum):
            yield from (value.marks for value in type_.values.values())
        elif isinstance(type_, MergedUnion):
            yield from (self._merged.types[name].marks for name in type_.members if name in self._merged.types)

    def _check_field(self, type_: MergedComposite, field: MergedField, coordinate: str) -> None:
        if field.marks.inaccessible:
            self._check_hidden_field(type_, field, coordinate)
            return
        self._check_reference(field.type, coordinate, field.by)
        self._check_arguments(field.arguments, coordinate)

    def _check_hidden_field(self, type_: MergedComposite, field: MergedField, coordinate: str) -> None:
        for interface in self._merged.interfaces_of(type_):
            wanted = interface.fields.get(field.name)
            if wanted and not wanted.marks.inaccessible and not interface.marks.inaccessible:
                message = (
                    f"{coordinate} is @inaccessible, and clients see it in {interface.name}: hide {interface.name}."
                )
                self._add("IMPLEMENTED_BY_INACCESSIBLE", f"{message}{field.name} too", coordinate, field.by)

    def _check_reference(self, type_: str, coordinate: str, graphs: Iterable[str]) -> None:
        found = self._merged.types.get(named(type_))
        if found is not None and found.marks.inaccessible:
            message = f"{coordinate} is {type_}, and {found.name} is @inaccessible: hide {coordinate} too"
            self._add("REFERENCED_INACCESSIBLE", message, coordinate, {**dict.fromkeys(graphs), **found.by})

    def _check_arguments(self, arguments: Mapping[str, MergedArgument], owner: str, *, of_input: bool = False) -> None:
        for argument in arguments.values():
            coordinate = f"{owner}.{argument.name}" if of_input else f"{owner}({argument.name}:)"
            if not argument.marks.inaccessible:
                self._check_reference(argument.type, coordinate, argument.by)
                self._check_default(argument, coordinate)
            elif argument.type.endswith("!") and argument.default is None:
                message = f"{coordinate} is @inaccessible, and required: make it optional, or show it"
                self._add("REQUIRED_INACCESSIBLE", message, coordinate, argument.by)

    def _check_default(self, argument: MergedArgument, coordinate: str) -> None:
        default = next((here.default for here in argument.by.values() if here.default is not None), None)
        if default is None:
            return
        for hidden in self._hidden(parse_const_value(default, no_location=True), argument.type):
            message = f"{coordinate} has {hidden} in its default, which is @inaccessible: choose another default"
            self._add("DEFAULT_VALUE_USES_INACCESSIBLE", message, coordinate, argument.by)

    def _hidden(self, node: ValueNode, type_: str) -> Iterator[str]:
        found = self._merged.types.get(named(type_))
        if isinstance(node, ListValueNode):
            for value in node.values:
                yield from self._hidden(value, type_)
        elif isinstance(found, MergedEnum) and isinstance(node, EnumValueNode | StringValueNode):
            value_ = found.values.get(node.value)
            if found.marks.inaccessible or (value_ and value_.marks.inaccessible):
                yield f"{found.name}.{node.value}"
        elif isinstance(found, MergedInput) and isinstance(node, ObjectValueNode):
            for field in node.fields:
                inner = found.fields.get(field.name.value)
                if inner:
                    yield from [f"{found.name}.{inner.name}"] if inner.marks.inaccessible else ()
                    yield from self._hidden(field.value, inner.type)
