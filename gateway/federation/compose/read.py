"""A subgraph's text, made into its schema: extensions joined, Federation's own definitions left out."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from graphql import (
    DefinitionNode,
    DirectiveDefinitionNode,
    DirectiveLocation,
    DocumentNode,
    EnumTypeDefinitionNode,
    EnumTypeExtensionNode,
    FieldDefinitionNode,
    InputObjectTypeDefinitionNode,
    InputObjectTypeExtensionNode,
    InputValueDefinitionNode,
    InterfaceTypeDefinitionNode,
    InterfaceTypeExtensionNode,
    ListTypeNode,
    NamedTypeNode,
    NonNullTypeNode,
    ObjectTypeDefinitionNode,
    ObjectTypeExtensionNode,
    ScalarTypeDefinitionNode,
    ScalarTypeExtensionNode,
    SchemaDefinitionNode,
    SchemaExtensionNode,
    TypeDefinitionNode,
    TypeNode,
    UnionTypeDefinitionNode,
    UnionTypeExtensionNode,
    ValueNode,
    print_ast,
)

from gateway.federation.compose import spec
from gateway.federation.compose.errors import SubgraphReport
from gateway.federation.compose.link import linked_directive
from gateway.federation.compose.marks import mark, merged_marks
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
)
from gateway.federation.compose.usage import Applied, Usage

ROOTS = {"query": "Query", "mutation": "Mutation", "subscription": "Subscription"}
_SchemaNode = SchemaDefinitionNode | SchemaExtensionNode
_ObjectNode = ObjectTypeDefinitionNode | ObjectTypeExtensionNode
_InterfaceNode = InterfaceTypeDefinitionNode | InterfaceTypeExtensionNode
_InputNode = InputObjectTypeDefinitionNode | InputObjectTypeExtensionNode
_EnumNode = EnumTypeDefinitionNode | EnumTypeExtensionNode
_UnionNode = UnionTypeDefinitionNode | UnionTypeExtensionNode
_ScalarNode = ScalarTypeDefinitionNode | ScalarTypeExtensionNode
_FORMS = (_ObjectNode, _InterfaceNode, _InputNode, _EnumNode, _UnionNode, _ScalarNode)
_TypeNode = Any  # one of the forms
N = TypeVar("N")


def read(schema: Schema, document: DocumentNode, report: SubgraphReport) -> list["Declared"]:
    """Fills the schema. Returns the field sets of its `@key`, `@requires` and `@provides`, which need all of it."""
    return _Reader(schema, document, report).read()


class Declared:
    """A field set as it is declared: on `type_`, and on `field` of it if it is no key."""

    __slots__ = ("field", "meaning", "type_", "value", "values")

    def __init__(self, meaning: str, type_: Composite, field: Field | None, applied: Applied) -> None:
        self.meaning, self.type_, self.field = meaning, type_, field
        self.values = applied.values
        self.value = next((a.value for a in applied.node.arguments or () if a.name.value == "fields"), None)


class _Reader:
    def __init__(self, schema: Schema, document: DocumentNode, report: SubgraphReport) -> None:
        self._schema = schema
        self._report = report
        self._definitions = document.definitions
        self._directives = [node for node in document.definitions if isinstance(node, DirectiveDefinitionNode)]
        self._usage = Usage(schema.names, self._directives, report)
        self._renamed: dict[str, str] = {}
        self._declared: list[Declared] = []

    def read(self) -> list[Declared]:
        self._check_documents()
        self._read_roots()
        self._read_directives()
        self._read_schema_directives()
        for name, nodes in self._grouped().items():
            self._schema.types[name] = self._type(name, nodes)
        self._usage.check_values(self._schema)
        return self._declared

    def _check_documents(self) -> None:
        known = (*_FORMS, _SchemaNode, DirectiveDefinitionNode)
        for node in self._definitions:
            if not isinstance(node, known):
                self._report.invalid(f"a schema cannot contain {node.kind.replace('_', ' ')}s: remove it")
        if sum(isinstance(node, SchemaDefinitionNode) for node in self._definitions) > 1:
            self._report.invalid(
                "there is more than one schema definition: use `extend schema` for the others", "schema"
            )

    def _read_roots(self) -> None:
        types = {_name(node) for node in self._definitions if isinstance(node, _FORMS)}
        seen = set()
        for node in self._schema_nodes():
            for root in node.operation_types or ():
                operation, local = root.operation.value, root.type.name.value
                if operation in seen:
                    self._report.invalid(f"the schema has two types for {operation}", "schema")
                seen.add(operation)
                if local not in types:
                    self._report.invalid(f"the {operation} type of the schema is {local}, which is unknown", local)
                elif local in self._renamed:
                    self._report.invalid(f"{local} is the type of two operations: each needs its own", local)
                elif local != ROOTS[operation] and ROOTS[operation] in types:
                    self._tell_root_used(operation, local)
                    continue
                self._renamed.setdefault(local, ROOTS[operation])

    def _tell_root_used(self, operation: str, local: str) -> None:
        default = ROOTS[operation]
        message = (
            f"{default} is not the {operation} type, which is {local}: rename {default}, which would be taken for it"
        )
        self._report.add(f"ROOT_{operation.upper()}_USED", message, default)

    def _schema_nodes(self) -> Iterator[_SchemaNode]:
        return (node for node in self._definitions if isinstance(node, _SchemaNode))

    def _read_directives(self) -> None:
        for node in self._directives:
            name = node.name.value
            if name in self._schema.names.directives or name in spec.BUILT_IN or name in spec.LINK:
                continue
            if name.startswith(spec.MACHINERY_PREFIXES):
                continue
            arguments = self._arguments(node.arguments, "ARGUMENT_DEFINITION", f"@{name}")
            locations = [location.value for location in node.locations]
            for location in locations:
                if location not in DirectiveLocation.__members__:
                    self._report.invalid(f"@{name} is on {location}, which is no place for a directive", f"@{name}")
            self._schema.directives[name] = Directive(name, arguments, locations, node.repeatable)

    def _read_schema_directives(self) -> None:
        seen: set[str] = set()
        for node in self._schema_nodes():
            for applied in self._usage.applied(node.directives, "SCHEMA", "schema", seen):
                if applied.meaning == "composeDirective":
                    self._compose_directive(str(applied.values.get("name")))

    def _compose_directive(self, name: str) -> None:
        directive = self._schema.directives.get(name.removeprefix("@"))
        if directive is None:
            message = f"{name} cannot be composed: define the directive in this subgraph, and name it with its @"
        elif linked_directive(self._schema.names.links, directive.name) is None:
            message = f"{name} cannot be composed: no @link imports it, so nothing says whose it is"
        else:
            directive.composed = True
            return
        self._report.add("DIRECTIVE_COMPOSITION_ERROR", message, f"@{name.removeprefix('@')}")

    def _grouped(self) -> dict[str, list[_TypeNode]]:
        """The declarations of each type by the name that it has in the supergraph."""
        grouped: dict[str, list[_TypeNode]] = {}
        for node in self._definitions:
            if not isinstance(node, _FORMS) or self._is_machinery(node):
                continue
            name = self._renamed.get(_name(node), _name(node))
            nodes = grouped.setdefault(name, [])
            if nodes and _form(nodes[0]) is not _form(node):
                self._report.invalid(f"{name} is declared as more than one kind of type", name)
                continue
            if isinstance(node, TypeDefinitionNode) and any(isinstance(each, TypeDefinitionNode) for each in nodes):
                self._report.invalid(f"{name} is defined twice: use `extend` for one of them", name)
            nodes.append(node)
        return grouped

    def _is_machinery(self, node: DefinitionNode) -> bool:
        name = _name(node)
        if name in ("FieldSet",) and name in self._schema.names.types and not isinstance(node, _ScalarNode):
            self._report.add("TYPE_DEFINITION_INVALID", f"{name} is Federation's, and must be a scalar", name)
        return self._schema.names.is_machinery(name) or (
            name in spec.BUILT_IN_SCALARS and isinstance(node, _ScalarNode)
        )

    def _type(self, name: str, nodes: list[_TypeNode]) -> Type:
        first = nodes[0]
        if isinstance(first, _ObjectNode | _InterfaceNode):
            return self._composite(name, nodes)
        if isinstance(first, _InputNode):
            return self._input(name, nodes)
        if isinstance(first, _EnumNode):
            return self._enum(name, nodes)
        return self._union(name, nodes) if isinstance(first, _UnionNode) else self._scalar(name, nodes)

    def _composite(self, name: str, nodes: list[_TypeNode]) -> Composite:
        is_interface = isinstance(nodes[0], _InterfaceNode)
        location = "INTERFACE" if is_interface else "OBJECT"
        type_ = Composite(name, is_interface)
        seen: set[str] = set()
        for node in nodes:
            applied = list(self._usage.applied(node.directives, location, name, seen))
            meanings = {each.meaning for each in applied}
            self._mark(type_, node, applied)
            type_.interface_object |= "interfaceObject" in meanings
            type_.extends |= "extends" in meanings and isinstance(node, TypeDefinitionNode)
            type_.defined |= isinstance(node, TypeDefinitionNode)
            type_.extension |= not isinstance(node, TypeDefinitionNode)
            keys = [each for each in applied if each.meaning == "key"]
            type_.declared_keys |= {str(key.values.get("fields")) for key in keys}
            self._declared += [Declared("key", type_, None, key) for key in keys]
            self._implement(type_, node)
            for field in node.fields or ():
                self._field(type_, node, field, meanings)
        self._finish(type_)
        return type_

    def _implement(self, type_: Composite, node: _TypeNode) -> None:
        for interface in node.interfaces or ():
            name = interface.name.value
            if name in type_.interfaces:
                self._report.invalid(f"{type_.name} implements {name} twice", type_.name)
            type_.interfaces[name] = None

    def _finish(self, type_: Composite) -> None:
        """`extend` says little in Federation 1: whole types are written so, and `@extends` makes an extension."""
        if type_.interface_object:
            type_.interface = True
        if self._schema.federation_1:
            type_.defined &= not type_.extends
            type_.extension &= not type_.interface
        type_.extension |= type_.extends

    def _field(self, type_: Composite, parent: _TypeNode, node: FieldDefinitionNode, meanings: set[str]) -> None:
        name = node.name.value
        if type_.name == "Query" and name in spec.MACHINERY_FIELDS:
            return
        coordinate = f"{type_.name}.{name}"
        if name in type_.fields:
            self._report.invalid(f"{coordinate} is defined twice", coordinate)
            return
        field = Field(name, self._text(node.type), self._arguments(node.arguments, "ARGUMENT_DEFINITION", coordinate))
        type_.fields[name] = field
        applied = list(self._usage.applied(node.directives, "FIELD_DEFINITION", coordinate))
        self._mark(field, node, applied)
        for each in applied:
            self._apply(type_, field, each)
        is_definition = isinstance(parent, TypeDefinitionNode)
        field.in_extension = not is_definition
        if self._schema.federation_1:
            field.shareable |= not type_.interface and (is_definition or type_.name in ROOTS.values())
        else:
            field.external |= "external" in meanings
        field.shareable |= "shareable" in meanings

    def _apply(self, type_: Composite, field: Field, applied: Applied) -> None:
        match applied.meaning:
            case "external":
                field.external = True
            case "shareable":
                field.shareable = True
            case "override":
                field.override = str(applied.values.get("from"))
                label = applied.values.get("label")
                field.label = label if isinstance(label, str) else None
            case "requires" | "provides":
                self._declared.append(Declared(applied.meaning, type_, field, applied))

    def _input(self, name: str, nodes: list[_TypeNode]) -> Input:
        type_ = Input(name)
        seen: set[str] = set()
        for node in nodes:
            applied = list(self._usage.applied(node.directives, "INPUT_OBJECT", name, seen))
            self._mark(type_, node, applied)
            type_.one_of |= any(each.meaning == "oneOf" for each in applied)
            for field, argument in self._arguments(node.fields, "INPUT_FIELD_DEFINITION", name).items():
                if field in type_.fields:
                    self._report.invalid(f"{name}.{field} is defined twice", f"{name}.{field}")
                type_.fields.setdefault(field, argument)
        return type_

    def _enum(self, name: str, nodes: list[_TypeNode]) -> Enum:
        type_ = Enum(name)
        seen: set[str] = set()
        for node in nodes:
            self._mark(type_, node, self._usage.applied(node.directives, "ENUM", name, seen))
            for value in node.values or ():
                coordinate = f"{name}.{value.name.value}"
                if value.name.value in type_.values:
                    self._report.invalid(f"{coordinate} is defined twice", coordinate)
                marks = self._marks(value, self._usage.applied(value.directives, "ENUM_VALUE", coordinate), coordinate)
                type_.values.setdefault(value.name.value, marks)
        return type_

    def _union(self, name: str, nodes: list[_TypeNode]) -> Union:
        type_ = Union(name)
        seen: set[str] = set()
        for node in nodes:
            self._mark(type_, node, self._usage.applied(node.directives, "UNION", name, seen))
            for member in node.types or ():
                if member.name.value in type_.members:
                    self._report.invalid(f"{name} contains {member.name.value} twice", name)
                type_.members[self._renamed.get(member.name.value, member.name.value)] = None
        return type_

    def _scalar(self, name: str, nodes: list[_TypeNode]) -> Scalar:
        type_ = Scalar(name)
        seen: set[str] = set()
        for node in nodes:
            applied = list(self._usage.applied(node.directives, "SCALAR", name, seen))
            self._mark(type_, node, applied)
            for each in applied:
                if each.meaning == "specifiedBy":
                    type_.specified_by = str(each.values.get("url"))
        return type_

    def _arguments(
        self, nodes: Iterable[InputValueDefinitionNode] | None, location: str, owner: str
    ) -> dict[str, Argument]:
        is_field = location == "INPUT_FIELD_DEFINITION"
        arguments: dict[str, Argument] = {}
        for node in nodes or ():
            name = node.name.value
            coordinate = f"{owner}.{name}" if is_field else f"{owner}({name}:)"
            if name in arguments:
                self._report.invalid(f"{coordinate} is defined twice", coordinate)
                continue
            default = _default(node.default_value)
            arguments[name] = Argument(name, self._text(node.type), default)
            self._mark(arguments[name], node, self._usage.applied(node.directives, location, coordinate), coordinate)
        return arguments

    def _mark(self, owner: Any, node: Any, applied: Iterable[Applied], coordinate: str = "") -> None:
        owner.marks = merged_marks([owner.marks, self._marks(node, applied, coordinate or owner.name)])

    def _marks(self, node: Any, applied: Iterable[Applied], coordinate: str) -> Marks:
        description = getattr(node, "description", None)
        marks = Marks(description.value if description else None)
        for each in applied:
            problem = mark(marks, each.meaning, each.values)
            if problem:
                self._report.add("UNSUPPORTED_FEATURE", f"{coordinate}: {problem}", coordinate)
            directive = self._schema.directives.get(each.name)
            if directive and directive.composed:
                marks.composed.append(print_ast(each.node))
        return marks

    def _text(self, node: TypeNode) -> str:
        if isinstance(node, NonNullTypeNode):
            return self._text(node.type) + "!"
        if isinstance(node, ListTypeNode):
            return f"[{self._text(node.type)}]"
        assert isinstance(node, NamedTypeNode)
        return self._renamed.get(node.name.value, node.name.value)


def _name(node: Any) -> str:
    name: str = node.name.value
    return name


def _form(node: DefinitionNode) -> Any:
    return next(form for form in _FORMS if isinstance(node, form))


def _default(node: ValueNode | None) -> str | None:
    return print_ast(node) if node is not None else None
