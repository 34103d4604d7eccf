"""The schema that clients see: a supergraph without what joins it, and without what is @inaccessible."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

from graphql import (
    DefinitionNode,
    DirectiveDefinitionNode,
    DirectiveLocation,
    DocumentNode,
    EnumTypeDefinitionNode,
    FieldDefinitionNode,
    GraphQLSchema,
    InputObjectTypeDefinitionNode,
    InterfaceTypeDefinitionNode,
    ObjectTypeDefinitionNode,
    SchemaDefinitionNode,
    TypeDefinitionNode,
    UnionTypeDefinitionNode,
    build_ast_schema,
)

# Directives on types that a client can see the effect of.
_SHOWN = {"deprecated", "specifiedBy", "oneOf"}
_EXECUTABLE = {
    location.name
    for location in (
        DirectiveLocation.QUERY,
        DirectiveLocation.MUTATION,
        DirectiveLocation.SUBSCRIPTION,
        DirectiveLocation.FIELD,
        DirectiveLocation.FRAGMENT_DEFINITION,
        DirectiveLocation.FRAGMENT_SPREAD,
        DirectiveLocation.INLINE_FRAGMENT,
        DirectiveLocation.VARIABLE_DEFINITION,
    )
}
_MACHINERY = ("join__", "link__", "core__", "federation__", "inaccessible__", "tag__", "connect__")

T = TypeVar("T", bound=Any)


def api_schema(supergraph: DocumentNode) -> GraphQLSchema:
    hidden = {
        node.name.value
        for node in supergraph.definitions
        if isinstance(node, TypeDefinitionNode) and (_is_machinery(node.name.value) or _is_hidden(node))
    }
    shown = [node for definition in supergraph.definitions for node in _shown(definition, hidden)]
    return build_ast_schema(DocumentNode(definitions=tuple(shown)), assume_valid_sdl=True)


def _is_machinery(name: str) -> bool:
    return name.startswith(_MACHINERY)


def _is_hidden(node: Any) -> bool:
    return any(directive.name.value == "inaccessible" for directive in node.directives or ())


def _shown(node: DefinitionNode, hidden: set[str]) -> Iterable[DefinitionNode]:
    if isinstance(node, SchemaDefinitionNode):
        return [_bare(node)]
    if isinstance(node, DirectiveDefinitionNode):
        executable = [location for location in node.locations if location.value in _EXECUTABLE]
        return [] if not executable or _is_machinery(node.name.value) else [replace(node, locations=tuple(executable))]
    if not isinstance(node, TypeDefinitionNode) or node.name.value in hidden:
        return []
    return [_type(_bare(node), hidden)]


def _type(node: TypeDefinitionNode, hidden: set[str]) -> TypeDefinitionNode:
    if isinstance(node, ObjectTypeDefinitionNode | InterfaceTypeDefinitionNode):
        interfaces = tuple(i for i in node.interfaces or () if i.name.value not in hidden)
        return replace(node, fields=tuple(map(_field, _visible(node.fields))), interfaces=interfaces)
    if isinstance(node, UnionTypeDefinitionNode):
        return replace(node, types=tuple(t for t in node.types or () if t.name.value not in hidden))
    if isinstance(node, InputObjectTypeDefinitionNode):
        return replace(node, fields=tuple(map(_bare, _visible(node.fields))))
    if isinstance(node, EnumTypeDefinitionNode):
        return replace(node, values=tuple(map(_bare, _visible(node.values))))
    return node


def _field(node: FieldDefinitionNode) -> FieldDefinitionNode:
    return replace(_bare(node), arguments=tuple(map(_bare, _visible(node.arguments))))


def _visible(nodes: Iterable[T] | None) -> list[T]:
    return [node for node in nodes or () if not _is_hidden(node)]


def _bare(node: T) -> T:
    return replace(node, directives=tuple(d for d in node.directives or () if d.name.value in _SHOWN))
