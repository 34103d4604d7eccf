"""A subgraph's SDL, read independently of the gateway: what the world needs to serve it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    ConstDirectiveNode,
    DefinitionNode,
    DirectiveDefinitionNode,
    DocumentNode,
    EnumTypeDefinitionNode,
    EnumTypeExtensionNode,
    FieldNode,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    InputObjectTypeDefinitionNode,
    InputObjectTypeExtensionNode,
    InterfaceTypeDefinitionNode,
    InterfaceTypeExtensionNode,
    NamedTypeNode,
    NameNode,
    ObjectTypeDefinitionNode,
    ObjectTypeExtensionNode,
    OperationDefinitionNode,
    OperationType,
    ScalarTypeDefinitionNode,
    ScalarTypeExtensionNode,
    SchemaDefinitionNode,
    SchemaExtensionNode,
    SelectionSetNode,
    UnionTypeDefinitionNode,
    UnionTypeExtensionNode,
    build_ast_schema,
    parse,
    value_from_ast_untyped,
)

_FEDERATION = "https://specs.apollo.dev/federation/"
_OBJECT = (ObjectTypeDefinitionNode, ObjectTypeExtensionNode)
_INTERFACE = (InterfaceTypeDefinitionNode, InterfaceTypeExtensionNode)
_ROOTS = {"query": "Query", "mutation": "Mutation", "subscription": "Subscription"}
# What a definition and its extensions become, and which parts of them add up.
_KINDS: tuple[tuple[tuple[type, ...], Any, tuple[str, ...]], ...] = (
    (_OBJECT, ObjectTypeDefinitionNode, ("interfaces", "fields")),
    (_INTERFACE, InterfaceTypeDefinitionNode, ("interfaces", "fields")),
    ((UnionTypeDefinitionNode, UnionTypeExtensionNode), UnionTypeDefinitionNode, ("types",)),
    ((EnumTypeDefinitionNode, EnumTypeExtensionNode), EnumTypeDefinitionNode, ("values",)),
    ((InputObjectTypeDefinitionNode, InputObjectTypeExtensionNode), InputObjectTypeDefinitionNode, ("fields",)),
    ((ScalarTypeDefinitionNode, ScalarTypeExtensionNode), ScalarTypeDefinitionNode, ()),
)


@dataclass(frozen=True, slots=True)
class Key:
    fields: SelectionSetNode
    resolvable: bool


@dataclass(frozen=True, slots=True)
class FieldNote:
    """What federation's directives say of a field."""

    external: bool
    requires: SelectionSetNode | None
    provides: SelectionSetNode | None
    override: str | None


@dataclass(slots=True)
class Reading:
    """`schema` is executable, and bare of federation's directives."""

    name: str
    sdl: str
    schema: GraphQLSchema
    keys: dict[str, list[Key]] = field(default_factory=dict)
    interface_objects: set[str] = field(default_factory=set)
    fields: dict[tuple[str, str], FieldNote] = field(default_factory=dict)


def read(name: str, sdl: str) -> Reading:
    document = parse(sdl, no_location=True)
    names = _Names(document)
    keys: dict[str, list[Key]] = {}
    interface_objects: set[str] = set()
    notes: dict[tuple[str, str], FieldNote] = {}
    for node in document.definitions:
        if isinstance(node, _OBJECT + _INTERFACE):
            type_ = node.name.value
            directives = names.of(node.directives)
            for arguments in directives.get("key", []):
                key = Key(field_set(arguments["fields"]), arguments.get("resolvable", True))
                keys.setdefault(type_, []).append(key)
            if "interfaceObject" in directives:
                interface_objects.add(type_)
            for definition in node.fields or ():
                note = _note(names.of(definition.directives), all_external="external" in directives)
                notes[type_, definition.name.value] = note
    schema = _executable(document, keys, names)
    return Reading(name, sdl, schema, keys, interface_objects, notes)


def field_set(text: str) -> SelectionSetNode:
    operation = parse("{" + text + "}", no_location=True).definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    return operation.selection_set


def selected(selections: SelectionSetNode) -> set[str]:
    """The names of all fields in a field set, fragments' too, at its first level."""
    names: set[str] = set()
    for node in selections.selections:
        if isinstance(node, FieldNode):
            names.add(node.name.value)
        elif isinstance(node, InlineFragmentNode):
            names |= selected(node.selection_set)
    return names


class _Names:
    """Federation's directives by the names that @link gives them in this document."""

    def __init__(self, document: DocumentNode) -> None:
        self._imported: dict[str, str] = {}
        self.roots: dict[str, str] = dict(_ROOTS)
        for node in document.definitions:
            if isinstance(node, SchemaDefinitionNode | SchemaExtensionNode):
                for operation in node.operation_types or ():
                    self.roots[operation.operation.value] = operation.type.name.value
                for directive in node.directives or ():
                    if directive.name.value == "link":
                        self._link(_arguments(directive))

    def _link(self, link: dict[str, Any]) -> None:
        if not str(link.get("url")).startswith(_FEDERATION):
            return
        for item in link.get("import") or ():
            if isinstance(item, dict):
                self._imported[str(item.get("as", item["name"])).lstrip("@")] = str(item["name"]).lstrip("@")

    def of(self, directives: Iterable[ConstDirectiveNode] | None) -> dict[str, list[dict[str, Any]]]:
        by_name: dict[str, list[dict[str, Any]]] = {}
        for directive in directives or ():
            name = directive.name.value.removeprefix("federation__")
            by_name.setdefault(self._imported.get(name, name), []).append(_arguments(directive))
        return by_name


def _arguments(directive: ConstDirectiveNode) -> dict[str, Any]:
    return {a.name.value: value_from_ast_untyped(a.value) for a in directive.arguments or ()}


def _note(directives: dict[str, list[dict[str, Any]]], *, all_external: bool) -> FieldNote:
    def of(name: str, argument: str) -> Any:
        return directives[name][0].get(argument) if name in directives else None

    requires, provides = of("requires", "fields"), of("provides", "fields")
    return FieldNote(
        external=all_external or "external" in directives,
        requires=field_set(requires) if requires else None,
        provides=field_set(provides) if provides else None,
        override=None if of("override", "label") else of("override", "from"),
    )


def _executable(document: DocumentNode, keys: dict[str, list[Key]], names: _Names) -> GraphQLSchema:
    merged: dict[str, list[Any]] = {}
    kept: list[DefinitionNode] = []
    for node in document.definitions:
        if isinstance(node, DirectiveDefinitionNode):
            if any(location.value in {"FIELD", "QUERY", "MUTATION", "INLINE_FRAGMENT"} for location in node.locations):
                kept.append(node)
        elif not isinstance(node, SchemaDefinitionNode | SchemaExtensionNode):
            merged.setdefault(node.name.value, []).append(node)  # type: ignore[attr-defined]
    types = {name: _merge(nodes) for name, nodes in merged.items() if not name.startswith("link__")}
    entities = [name for name in keys if isinstance(types[name], ObjectTypeDefinitionNode)]
    query = names.roots["query"]
    if query not in types:
        types[query] = ObjectTypeDefinitionNode(name=NameNode(value=query), fields=(), interfaces=())
    machinery = f"extend type {query} {{ _service: _Service! }} type _Service {{ sdl: String! }} scalar _Any\n"
    if entities:
        machinery += f"extend type {query} {{ _entities(representations: [_Any!]!): [_Entity]! }}\n"
        machinery += f"union _Entity = {' | '.join(entities)}"
    extra = parse(machinery).definitions
    types[query] = _merge([types[query], *(d for d in extra if isinstance(d, ObjectTypeExtensionNode))])
    roots = " ".join(f"{operation}: {name}" for operation, name in names.roots.items() if name in types)
    definitions = [
        *parse(f"schema {{ {roots} }}").definitions,
        *kept,
        *types.values(),
        *(d for d in extra if not isinstance(d, ObjectTypeExtensionNode)),
    ]
    return build_ast_schema(DocumentNode(definitions=tuple(definitions)))


def _merge(nodes: list[Any]) -> Any:
    """One bare definition of a definition and its extensions."""
    first: Any = nodes[0]
    definition, parts = next((made, parts) for kinds, made, parts in _KINDS if isinstance(first, kinds))
    summed = {part: _distinct(item for node in nodes for item in getattr(node, part) or ()) for part in parts}
    return definition(name=first.name, **summed)


def _distinct(items: Iterable[Any]) -> tuple[Any, ...]:
    """Bare, and each once: `extend type T { id: ID! @external }` may say again what is said."""
    by_name: dict[str, Any] = {}
    for item in items:
        by_name.setdefault(item.name.value, item if isinstance(item, NamedTypeNode) else _bare(item))
    return tuple(by_name.values())


def _bare(node: Any) -> Any:
    arguments = {key: getattr(node, key) for key in node.keys if key not in {"directives", "loc", "arguments"}}
    if "arguments" in node.keys:
        arguments["arguments"] = tuple(_bare(argument) for argument in node.arguments or ())
    return type(node)(**arguments)


def objects(schema: GraphQLSchema) -> dict[str, GraphQLObjectType]:
    """By their name in any subgraph: the roots are Query, Mutation, Subscription."""
    named = {}
    for name, type_ in schema.type_map.items():
        if isinstance(type_, GraphQLObjectType) and not name.startswith("_"):
            named[root_name(schema, type_) or name] = type_
    return named


def root_name(schema: GraphQLSchema, type_: Any) -> str | None:
    for operation in OperationType:
        if schema.get_root_type(operation) is type_:
            return _ROOTS[operation.value]
    return None
