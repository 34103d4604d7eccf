"""What a supergraph says, whichever composer wrote it down: as plain values, to be compared.

A field that joins nothing is in all subgraphs of its type; field sets are sets; what is said by default is left out.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from graphql import (
    DefinitionNode,
    DirectiveDefinitionNode,
    EnumTypeDefinitionNode,
    FieldDefinitionNode,
    FieldNode,
    InlineFragmentNode,
    InputObjectTypeDefinitionNode,
    InputValueDefinitionNode,
    InterfaceTypeDefinitionNode,
    ObjectTypeDefinitionNode,
    OperationDefinitionNode,
    SchemaDefinitionNode,
    SelectionSetNode,
    UnionTypeDefinitionNode,
    parse,
    print_ast,
    value_from_ast_untyped,
)

_MACHINERY = ("join__", "link__", "requiresScopes__", "policy__")
_SPECIFIED = {"link", "tag", "inaccessible", "authenticated", "requiresScopes", "policy", "cost", "listSize"}
_DEFAULTS: dict[str, Any] = {"extension": False, "resolvable": True, "isInterfaceObject": False, "external": False}
_FIELD_SETS = {"key", "requires", "provides"}


@dataclass(frozen=True, slots=True)
class Difference:
    """`path` leads to it; `ours` and `theirs` are what only the one says."""

    path: tuple[str, ...]
    ours: Any
    theirs: Any


def differences(ours: Any, theirs: Any, path: tuple[str, ...] = ()) -> Iterator[Difference]:
    if ours == theirs:
        return
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted(ours.keys() | theirs.keys()):
            yield from differences(ours.get(name), theirs.get(name), (*path, name))
    elif isinstance(ours, frozenset) and isinstance(theirs, frozenset):
        yield Difference(path, ours - theirs, theirs - ours)
    else:
        yield Difference(path, ours, theirs)


def semantics(sdl: str) -> dict[str, Any]:
    document = parse(sdl, no_location=True)
    graphs: dict[str, str] = {}
    for node in document.definitions:
        if isinstance(node, EnumTypeDefinitionNode) and node.name.value == "join__Graph":
            graphs = {value.name.value: _directives(value)[0][1]["name"] for value in node.values or ()}
    reader = _Reader(graphs)
    return dict(entry for node in document.definitions if (entry := reader.entry(node)))


class _Reader:
    def __init__(self, graphs: dict[str, str]) -> None:
        self._graphs = graphs

    def entry(self, node: DefinitionNode) -> tuple[str, Any] | None:
        if isinstance(node, SchemaDefinitionNode):
            return "schema", frozenset((each.operation.value, each.type.name.value) for each in node.operation_types)
        name: str = node.name.value  # type: ignore[attr-defined]
        if name.startswith(_MACHINERY) or (isinstance(node, DirectiveDefinitionNode) and name in _SPECIFIED):
            return None
        if isinstance(node, DirectiveDefinitionNode):
            locations = frozenset(location.value for location in node.locations)
            return f"@{name}", {"places": locations, "arguments": self._inputs(node.arguments)}
        return name, self._type(node)

    def _type(self, node: Any) -> dict[str, Any]:
        said = {"kind": node.kind, **self._common(node), "joins": self._type_joins(node)}
        here = {graph for name, graph, _ in said["joins"] if name == "join__type"}
        if isinstance(node, ObjectTypeDefinitionNode | InterfaceTypeDefinitionNode):
            said["implements"] = frozenset(interface.name.value for interface in node.interfaces or ())
            said["fields"] = {field.name.value: self._field(field, here) for field in node.fields or ()}
        elif isinstance(node, InputObjectTypeDefinitionNode):
            hidden = ("inaccessible", ()) in said["directives"]
            said["fields"] = self._inputs(node.fields, ignored={"inaccessible"} if hidden else set())
        elif isinstance(node, EnumTypeDefinitionNode):
            said["values"] = {
                value.name.value: {**self._common(value), "joins": self._type_joins(value)}
                for value in node.values or ()
            }
        elif isinstance(node, UnionTypeDefinitionNode):
            said["members"] = frozenset(member.name.value for member in node.types or ())
        return said

    def _common(self, node: Any, ignored: Iterable[str] = ()) -> dict[str, Any]:
        found = [(name, values) for name, values in _directives(node) if name not in ignored]
        directives = frozenset((name, _frozen(values)) for name, values in found if not name.startswith("join__"))
        return {"description": node.description.value if node.description else None, "directives": directives}

    def _type_joins(self, node: Any) -> frozenset[Any]:
        return frozenset(
            (name, self._graphs[values["graph"]], _join(values))
            for name, values in _directives(node)
            if name.startswith("join__")
        )

    def _field(self, node: FieldDefinitionNode, here: set[str]) -> dict[str, Any]:
        type_ = print_ast(node.type)
        joins = [values for name, values in _directives(node) if name == "join__field"]
        told = {(self._graphs[values["graph"]], _join(values, type_)) for values in joins if "graph" in values}
        plain = {(graph, ()) for graph in here}
        said = {"type": type_, **self._common(node), "arguments": self._inputs(node.arguments)}
        return {**said, "joins": frozenset(told if joins else plain)}

    def _inputs(
        self, nodes: Iterable[InputValueDefinitionNode] | None, ignored: Iterable[str] = ()
    ) -> dict[str, dict[str, Any]]:
        return {
            node.name.value: {
                "type": print_ast(node.type),
                "default": print_ast(node.default_value) if node.default_value else None,
                **self._common(node, ignored),
                "joins": frozenset(_join(values) for name, values in _directives(node) if name == "join__field"),
            }
            for node in nodes or ()
        }


def _directives(node: Any) -> list[tuple[str, dict[str, Any]]]:
    return [
        (each.name.value, {a.name.value: value_from_ast_untyped(a.value) for a in each.arguments or ()})
        for each in node.directives or ()
    ]


def _join(values: dict[str, Any], type_: str | None = None) -> Any:
    kept = {name: value for name, value in values.items() if name != "graph" and value != _DEFAULTS.get(name)}
    if kept.get("type") == type_:
        kept.pop("type", None)
    return _frozen({name: _field_set(value) if name in _FIELD_SETS else value for name, value in kept.items()})


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(sorted((name, _frozen(each)) for name, each in value.items()))
    return tuple(sorted(map(_frozen, value), key=repr)) if isinstance(value, list) else value


def _field_set(text: str) -> str:
    operation = parse(text if text.lstrip().startswith("{") else "{" + text + "}", no_location=True).definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    return _selections(operation.selection_set)


def _selections(selections: SelectionSetNode) -> str:
    texts = set()
    for node in selections.selections:
        if isinstance(node, FieldNode):
            head = print_ast(FieldNode(name=node.name, arguments=node.arguments))
            texts.add(head + (_selections(node.selection_set) if node.selection_set else ""))
        elif isinstance(node, InlineFragmentNode):
            on = node.type_condition.name.value if node.type_condition else ""
            texts.add(f"...{on}{_selections(node.selection_set)}")
    return "{" + " ".join(sorted(texts)) + "}"
