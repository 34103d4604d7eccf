"""A supergraph, read from its SDL: which subgraph can answer what, and the schema that clients see.

    supergraph = Supergraph.parse(sdl)          # of ours, or of any composer that writes join v0.2 to v0.5
    supergraph.api_schema                       # what clients may ask, without what is @inaccessible
    supergraph.subgraphs["PRODUCTS"].url

Subgraphs go by the names of `join__Graph`, and by their own (`Member.name`) only where people read them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

from graphql import (
    ConstDirectiveNode,
    DirectiveNode,
    DocumentNode,
    EnumTypeDefinitionNode,
    FieldDefinitionNode,
    FieldNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    InterfaceTypeDefinitionNode,
    ListTypeNode,
    NamedTypeNode,
    NonNullTypeNode,
    ObjectTypeDefinitionNode,
    OperationType,
    SchemaDefinitionNode,
    SelectionSetNode,
    TypeNode,
    UnionTypeDefinitionNode,
    parse,
    parse_type,
    print_ast,
    value_from_ast_untyped,
)

from gateway.federation.api_schema import api_schema

Kind = Literal["object", "interface", "union"]
# A parsed field set. They are compared by identity: each is parsed once.
FieldSet: TypeAlias = SelectionSetNode


class InvalidSupergraph(ValueError):
    """The text is no supergraph: its message says why."""


@dataclass(frozen=True, slots=True)
class Key:
    fields: FieldSet
    text: str
    resolvable: bool = True


@dataclass(slots=True, eq=False)
class LocalField:
    """A field as one subgraph has it. `type` is its named type there, and `shape` the whole type: `[Product!]!`."""

    name: str
    type: str
    shape: str
    external: bool = False
    explicit: bool = True  # whether the supergraph says so of this subgraph, and not just of all
    requires: FieldSet | None = None
    requires_text: str = ""
    provides: FieldSet | None = None


@dataclass(slots=True, eq=False)
class LocalType:
    """A composite type as one subgraph has it. `possible` are the objects that it can be there."""

    name: str
    kind: Kind
    fields: dict[str, LocalField] = field(default_factory=dict)
    keys: list[Key] = field(default_factory=list)
    interface_object: bool = False
    possible: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Member:
    """One subgraph of the supergraph."""

    id: str
    name: str
    url: str
    types: dict[str, LocalType] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class GlobalField:
    name: str
    type: str
    node: TypeNode

    @property
    def nullable(self) -> bool:
        return not isinstance(self.node, NonNullTypeNode)


@dataclass(slots=True, eq=False)
class GlobalType:
    """A composite type of the supergraph, with what is @inaccessible. `possible` are the objects that it can be."""

    name: str
    kind: Kind
    fields: dict[str, GlobalField] = field(default_factory=dict)
    possible: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()

    @property
    def abstract(self) -> bool:
        return self.kind != "object"


@dataclass(frozen=True, slots=True)
class Jump:
    """A way into `subgraph` for a type: as `local_type`, named `typename` in the representation, with this key."""

    subgraph: str
    local_type: str
    key: Key
    into_interface_object: bool


def _whole(label: str) -> bool:
    return label == "percent(100)"


class Supergraph:
    """See the module. `sdl` is the text it was read from."""

    def __init__(self, sdl: str, document: DocumentNode, is_active: Callable[[str], bool]) -> None:
        self.sdl = sdl
        self.subgraphs: dict[str, Member] = {}
        self.types: dict[str, GlobalType] = {}
        self.roots: dict[OperationType, str] = {}
        self._document = document
        _Reader(self, is_active).read(document)
        self._jumps: dict[str, tuple[Jump, ...]] = {}

    @classmethod
    def parse(cls, sdl: str, *, is_active: Callable[[str], bool] = _whole) -> "Supergraph":
        """`InvalidSupergraph` if it is none. `is_active` decides about the labels of progressive @override: the
        default lets nothing but `percent(100)` move."""
        try:
            document = parse(sdl, no_location=True)
        except GraphQLError as error:
            raise InvalidSupergraph(f"the supergraph is not GraphQL: {error.message}") from None
        return cls(sdl, document, is_active)

    @cached_property
    def api_schema(self) -> GraphQLSchema:
        return api_schema(self._document)

    def root(self, operation: OperationType) -> str:
        return self.roots[operation]

    def possible(self, type_name: str) -> tuple[str, ...]:
        """The objects that a composite type can be."""
        type_ = self.types[type_name]
        return type_.possible if type_.abstract else (type_name,)

    def jumps(self, type_name: str) -> tuple[Jump, ...]:
        """All ways into a type by its keys, those of its interfaces' interface objects too."""
        if type_name not in self._jumps:
            self._jumps[type_name] = tuple(self._ways_into(type_name))
        return self._jumps[type_name]

    def seen_as(self, type_name: str) -> Iterator[tuple[Member, LocalType]]:
        """What the subgraphs take objects of a type for: that type, or an interface object of one of its interfaces."""
        for member in self.subgraphs.values():
            for name in (type_name, *self.types[type_name].interfaces):
                local = member.types.get(name)
                if local is not None and (name == type_name or local.interface_object):
                    yield member, local

    def _ways_into(self, type_name: str) -> Iterator[Jump]:
        for member, local in self.seen_as(type_name):
            for key in local.keys:
                if key.resolvable:
                    yield Jump(member.id, local.name, key, local.interface_object)


@dataclass(slots=True)
class _Joins:
    """The `@join__…` directives of one definition, by name."""

    by_name: dict[str, list[dict[str, Any]]]

    @classmethod
    def of(cls, directives: Iterable[DirectiveNode | ConstDirectiveNode] | None) -> "_Joins":
        by_name: dict[str, list[dict[str, Any]]] = {}
        for directive in directives or ():
            if directive.name.value.startswith("join__"):
                values = {a.name.value: value_from_ast_untyped(a.value) for a in directive.arguments or ()}
                by_name.setdefault(directive.name.value.removeprefix("join__"), []).append(values)
        return cls(by_name)

    def __getitem__(self, name: str) -> list[dict[str, Any]]:
        return self.by_name.get(name, [])


_Composite = ObjectTypeDefinitionNode | InterfaceTypeDefinitionNode | UnionTypeDefinitionNode


class _Reader:
    """Fills a supergraph from its document."""

    def __init__(self, supergraph: Supergraph, is_active: Callable[[str], bool]) -> None:
        self._graph = supergraph
        self._is_active = is_active
        self._field_sets: dict[str, FieldSet] = {}

    def read(self, document: DocumentNode) -> None:
        self._read_subgraphs(document)
        composites = [d for d in document.definitions if isinstance(d, _Composite)]
        self._read_roots(document, {node.name.value for node in composites})
        for node in composites:
            self._declare(node)
        for node in composites:
            self._read_fields(node)
        self._read_possible(composites)
        for member in self._graph.subgraphs.values():
            for local in member.types.values():
                for required in [f.requires for f in local.fields.values() if f.requires]:
                    _make_external(local, required)

    def _read_subgraphs(self, document: DocumentNode) -> None:
        for node in document.definitions:
            if isinstance(node, EnumTypeDefinitionNode) and node.name.value == "join__Graph":
                for value in node.values or ():
                    for graph in _Joins.of(value.directives)["graph"]:
                        id_ = value.name.value
                        self._graph.subgraphs[id_] = Member(id_, str(graph.get("name")), str(graph.get("url") or ""))
        if not self._graph.subgraphs:
            raise InvalidSupergraph("the supergraph names no subgraphs: it has no enum join__Graph")

    def _read_roots(self, document: DocumentNode, known: set[str]) -> None:
        names = {OperationType.QUERY: "Query", OperationType.MUTATION: "Mutation"}
        names[OperationType.SUBSCRIPTION] = "Subscription"
        for node in document.definitions:
            if isinstance(node, SchemaDefinitionNode):
                names = {operation.operation: operation.type.name.value for operation in node.operation_types}
        self._graph.roots = {operation: name for operation, name in names.items() if name in known}
        if OperationType.QUERY not in self._graph.roots:
            raise InvalidSupergraph("the supergraph has no query type")

    def _declare(self, node: _Composite) -> None:
        name, joins, kind = node.name.value, _Joins.of(node.directives), _kind(node)
        interfaces = () if isinstance(node, UnionTypeDefinitionNode) else node.interfaces or ()
        self._graph.types[name] = GlobalType(name, kind, interfaces=tuple(i.name.value for i in interfaces))
        joined = joins["type"] or [{"graph": graph} for graph in self._graph.subgraphs]
        for join in joined:
            member = self._member(join)
            local = member.types.setdefault(name, LocalType(name, kind))
            if join.get("isInterfaceObject"):
                local.kind, local.interface_object = "object", True
            if join.get("key"):
                key = Key(self._field_set(join["key"]), join["key"], join.get("resolvable", True))
                local.keys.append(key)

    def _member(self, join: Mapping[str, Any]) -> Member:
        try:
            return self._graph.subgraphs[join["graph"]]
        except KeyError:
            raise InvalidSupergraph(f"no subgraph is called {join.get('graph')!r} in join__Graph") from None

    def _read_fields(self, node: _Composite) -> None:
        if isinstance(node, UnionTypeDefinitionNode):
            return
        type_ = self._graph.types[node.name.value]
        for definition in node.fields or ():
            name = definition.name.value
            type_.fields[name] = GlobalField(name, _named(definition.type), definition.type)
            for member, local_field in self._local_fields(type_.name, definition):
                member.types[type_.name].fields[name] = local_field

    def _local_fields(self, parent: str, definition: FieldDefinitionNode) -> Iterator[tuple[Member, LocalField]]:
        joins = _Joins.of(definition.directives)["field"]
        shape = print_ast(definition.type)
        if not joins:
            for member in self._graph.subgraphs.values():
                if parent in member.types:
                    yield member, LocalField(definition.name.value, _named(definition.type), shape, explicit=False)
        moved = {join["override"] for join in joins if join.get("override") and self._moves(join)}
        for join in joins:
            if "graph" not in join:  # of an interface object, which resolves it for all that implement it
                continue
            member = self._member(join)
            if parent in member.types:
                there = join.get("type") or shape
                stays = member.name not in moved and self._is_at(join)
                yield member, self._local_field(definition.name.value, there, join, stays)

    def _moves(self, join: Mapping[str, Any]) -> bool:
        return "overrideLabel" not in join or self._is_active(join["overrideLabel"])

    def _is_at(self, join: Mapping[str, Any]) -> bool:
        """False where an @override took the field away, or is not in force yet."""
        return not join.get("usedOverridden") and ("override" not in join or self._moves(join))

    def _local_field(self, name: str, shape: str, join: Mapping[str, Any], stays: bool) -> LocalField:
        requires, provides = join.get("requires"), join.get("provides")
        return LocalField(
            name,
            _named(parse_type(shape, no_location=True)),
            shape,
            external=bool(join.get("external")) or not stays,
            requires=self._field_set(requires) if requires else None,
            requires_text=requires or "",
            provides=self._field_set(provides) if provides else None,
        )

    def _read_possible(self, nodes: list[_Composite]) -> None:
        graph = self._graph
        possible: dict[str, list[str]] = {}
        for node in nodes:
            name, joins = node.name.value, _Joins.of(node.directives)
            if isinstance(node, UnionTypeDefinitionNode):
                possible[name] = [member.name.value for member in node.types or ()]
                self._read_members(node, joins)
            elif isinstance(node, ObjectTypeDefinitionNode):
                for interface in node.interfaces or ():
                    possible.setdefault(interface.name.value, []).append(name)
                self._read_implements(node, joins)
        for name, objects in possible.items():
            if name in graph.types:
                graph.types[name].possible = tuple(objects)
        for member in graph.subgraphs.values():
            for local in member.types.values():
                if local.interface_object:
                    local.possible = set(possible.get(local.name, ()))
                elif local.kind == "object":
                    local.possible = {local.name}

    def _read_members(self, node: UnionTypeDefinitionNode, joins: _Joins) -> None:
        for join in joins["unionMember"]:
            self._local(join, node.name.value).possible.add(join["member"])
        if not joins["unionMember"]:
            members = {member.name.value for member in node.types or ()}
            for member in self._graph.subgraphs.values():
                if local := member.types.get(node.name.value):
                    local.possible = {name for name in members if name in member.types}

    def _read_implements(self, node: ObjectTypeDefinitionNode, joins: _Joins) -> None:
        for join in joins["implements"]:
            local = self._local(join, join["interface"])
            if local.kind == "interface":
                local.possible.add(node.name.value)

    def _local(self, join: Mapping[str, Any], type_name: str) -> LocalType:
        try:
            return self._member(join).types[type_name]
        except KeyError:
            raise InvalidSupergraph(f"{type_name} is not joined to the subgraph {join.get('graph')}") from None

    def _field_set(self, text: str) -> FieldSet:
        if text not in self._field_sets:
            try:
                self._field_sets[text] = parse_field_set(text)
            except GraphQLError as error:
                raise InvalidSupergraph(f"{text!r} is no field set: {error.message}") from None
        return self._field_sets[text]


def _make_external(local: LocalType, required: FieldSet) -> None:
    """What a subgraph requires it does not have: some composers do not say so where all others have the field.

    Of fields within others that is not so plain: they may be external there, and shared elsewhere.
    """
    keys = {node.name.value for key in local.keys for node in key.fields.selections if isinstance(node, FieldNode)}
    for node in required.selections:
        if isinstance(node, FieldNode) and not node.selection_set and node.name.value not in keys:
            field = local.fields.get(node.name.value)
            if field is not None and not field.explicit:
                field.external = True


def parse_field_set(text: str) -> FieldSet:
    """`GraphQLError` if it is none."""
    document = parse("{" + text + "}", no_location=True)
    selections: FieldSet = document.definitions[0].selection_set  # type: ignore[attr-defined]
    return selections


def _kind(node: _Composite) -> Kind:
    if isinstance(node, ObjectTypeDefinitionNode):
        return "object"
    return "interface" if isinstance(node, InterfaceTypeDefinitionNode) else "union"


def _named(node: TypeNode) -> str:
    while isinstance(node, ListTypeNode | NonNullTypeNode):
        node = node.type
    assert isinstance(node, NamedTypeNode)
    return node.name.value


def narrowed(selections: FieldSet, type_name: str, supergraph: Supergraph) -> Iterator[FieldNode]:
    """The fields of a field set that apply to an object of this type."""
    for node in selections.selections:
        if isinstance(node, FieldNode):
            yield node
        elif isinstance(node, InlineFragmentNode):
            on = node.type_condition.name.value if node.type_condition else type_name
            if on == type_name or (on in supergraph.types and type_name in supergraph.possible(on)):
                yield from narrowed(node.selection_set, type_name, supergraph)
