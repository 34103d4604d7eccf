"""What is wrong with one subgraph by itself, once it is read: GraphQL's rules for schemas, and Federation's."""

import re
from collections.abc import Iterator, Mapping

from graphql import parse_const_value

from gateway.federation.compose.errors import SubgraphReport
from gateway.federation.compose.model import (
    Argument,
    Composite,
    Enum,
    Field,
    Input,
    Schema,
    Union,
    is_list,
    named,
    nullable,
)
from gateway.federation.compose.read import ROOTS
from gateway.federation.compose.spec import BUILT_IN_SCALARS
from gateway.federation.compose.subtypes import Subtypes
from gateway.federation.compose.values import fits

_LABEL = re.compile(r"[a-zA-Z][a-zA-Z0-9_\-:./]*\Z|percent\((\d{1,2}(\.\d{1,8})?|100(\.0{1,8})?)\)\Z")


def check_graphql(schema: Schema, report: SubgraphReport) -> None:
    _GraphqlCheck(schema, report).check()


def check_federation(schema: Schema, report: SubgraphReport) -> None:
    """Expects the field sets to have been checked."""
    _FederationCheck(schema, report).check()


class _GraphqlCheck:
    def __init__(self, schema: Schema, report: SubgraphReport) -> None:
        self._schema = schema
        self._report = report
        self._subtypes = Subtypes.of(schema)

    def check(self) -> None:
        for directive in self._schema.directives.values():
            self._check_name(directive.name, f"@{directive.name}")
            self._check_arguments(directive.arguments, f"@{directive.name}")
        for type_ in self._schema.types.values():
            self._check_name(type_.name, type_.name)
            if isinstance(type_, Composite):
                self._check_composite(type_)
            elif isinstance(type_, Input):
                self._check_input(type_)
            elif isinstance(type_, Enum):
                self._check_enum(type_)
            elif isinstance(type_, Union):
                self._check_union(type_)
        self._check_cycles()

    def _check_name(self, name: str, coordinate: str) -> None:
        if name.startswith("__"):
            self._report.invalid(f"{coordinate} begins with __, as only GraphQL's own names may: rename it", coordinate)

    def _check_composite(self, type_: Composite) -> None:
        if not type_.fields and type_.name not in ROOTS.values():
            self._report.invalid(f"{type_.name} has no fields: add one, or remove it", type_.name)
        for field in type_.fields.values():
            coordinate = f"{type_.name}.{field.name}"
            self._check_name(field.name, coordinate)
            if self._is_known(field.type, coordinate) and isinstance(self._find(field.type), Input):
                message = f"{coordinate} is {field.type}, which is an input and cannot be the type of a field"
                self._report.invalid(message, coordinate)
            self._check_arguments(field.arguments, coordinate)
        for name in type_.interfaces:
            self._check_implements(type_, name)

    def _find(self, type_: str) -> object:
        return self._schema.types.get(named(type_))

    def _is_known(self, type_: str, coordinate: str) -> bool:
        name = named(type_)
        if name in BUILT_IN_SCALARS or name in self._schema.types:
            return True
        if coordinate.startswith("@") and (self._schema.names.is_machinery(name)):
            return False
        self._report.invalid(f"{coordinate} is of the type {name}, which is unknown: define it here", coordinate)
        return False

    def _check_arguments(self, arguments: Mapping[str, Argument], owner: str, *, of_input: bool = False) -> None:
        for argument in arguments.values():
            coordinate = f"{owner}.{argument.name}" if of_input else f"{owner}({argument.name}:)"
            self._check_name(argument.name, coordinate)
            if not self._is_known(argument.type, coordinate):
                continue
            if isinstance(self._find(argument.type), Composite | Union):
                message = f"{coordinate} is {argument.type}, which cannot be given: only scalars, enums and inputs can"
                self._report.invalid(message, coordinate)
            elif argument.default is not None and not self._fits(argument.default, argument.type):
                message = f"{argument.default} is no {argument.type}, for the default of {coordinate}"
                self._report.invalid(message, coordinate)
            if argument.required and argument.marks.deprecated is not None:
                self._report.invalid(f"{coordinate} is required, and cannot be deprecated", coordinate)

    def _fits(self, default: str, type_: str) -> bool:
        return fits(parse_const_value(default, no_location=True), type_, self._schema)

    def _check_input(self, type_: Input) -> None:
        if not type_.fields:
            self._report.invalid(f"{type_.name} has no fields: add one, or remove it", type_.name)
        self._check_arguments(type_.fields, type_.name, of_input=True)

    def _check_enum(self, type_: Enum) -> None:
        if not type_.values:
            self._report.invalid(f"{type_.name} has no values: add one, or remove it", type_.name)
        for value in type_.values:
            self._check_name(value, f"{type_.name}.{value}")

    def _check_union(self, type_: Union) -> None:
        if not type_.members:
            self._report.invalid(f"{type_.name} has no members: add one, or remove it", type_.name)
        for name in type_.members:
            member = self._schema.composite(name)
            if member is None or (member.interface and not member.interface_object):
                self._report.invalid(f"{type_.name} contains {name}, which is no object type here", type_.name)

    def _check_implements(self, type_: Composite, name: str) -> None:
        interface = self._schema.types.get(name)
        if interface is None:
            self._is_known(name, type_.name)
        elif interface is type_:
            self._report.invalid(f"{name} implements itself", name)
        elif not isinstance(interface, Composite) or not interface.interface or interface.interface_object:
            self._report.invalid(f"{type_.name} implements {name}, which is no interface here", type_.name)
        else:
            self._check_ancestors(type_, interface)
            for field in interface.fields.values():
                self._check_implementation(type_, interface, field)

    def _check_ancestors(self, type_: Composite, interface: Composite) -> None:
        for ancestor in interface.interfaces:
            if ancestor == type_.name:
                self._report.invalid(f"{type_.name} and {interface.name} implement each other", type_.name)
            elif ancestor not in type_.interfaces:
                message = f"{type_.name} implements {interface.name}, and must implement its {ancestor}, too"
                self._report.invalid(message, type_.name)

    def _check_implementation(self, type_: Composite, interface: Composite, wanted: Field) -> None:
        field = type_.fields.get(wanted.name)
        coordinate, of_interface = f"{type_.name}.{wanted.name}", f"{interface.name}.{wanted.name}"
        if field is None:
            self._report.invalid(
                f"{type_.name} lacks the field {wanted.name} of its interface {interface.name}", coordinate
            )
            return
        if not self._subtypes.holds(field.type, wanted.type):
            message = f"{coordinate} is {field.type}, which is not always the {wanted.type} of {of_interface}"
            self._report.invalid(message, coordinate)
        for name, argument in wanted.arguments.items():
            found = field.arguments.get(name)
            if found is None:
                self._report.invalid(f"{coordinate} lacks the argument {name} of {of_interface}", coordinate)
            elif found.type != argument.type:
                message = f"{coordinate}({name}:) is {found.type}, and {argument.type} in {of_interface}"
                self._report.invalid(message, f"{coordinate}({name}:)")
        for name, argument in field.arguments.items():
            if argument.required and name not in wanted.arguments:
                message = f"{coordinate} requires the argument {name}, which {of_interface} does not have"
                self._report.invalid(message, f"{coordinate}({name}:)")

    def _check_cycles(self) -> None:
        """Inputs that need themselves to be given can never be."""
        finite: set[str] = set()
        inputs = {type_.name: type_ for type_ in self._schema.types.values() if isinstance(type_, Input)}
        needs = {
            name: [f.type[:-1] for f in type_.fields.values() if f.type.endswith("!") and f.type[:-1] in inputs]
            for name, type_ in inputs.items()
            if not type_.one_of
        }
        while True:
            more = {name for name, needed in needs.items() if name not in finite and set(needed) <= finite}
            if not more:
                break
            finite |= more
        for name in needs.keys() - finite:
            if any(needed not in finite for needed in needs[name]):
                message = f"{name} needs itself, through fields that are not null: make one of them nullable"
                self._report.invalid(message, name)


class _FederationCheck:
    def __init__(self, schema: Schema, report: SubgraphReport) -> None:
        self._schema = schema
        self._report = report

    def check(self) -> None:
        if self._schema.name == "_":
            self._report.add("INVALID_SUBGRAPH_NAME", "a subgraph cannot be called _: rename it")
        query = self._schema.types.get("Query")
        if query is not None and query.marks.inaccessible:
            message = "the query type is @inaccessible: without it there is no schema for clients"
            self._report.add("QUERY_ROOT_TYPE_INACCESSIBLE", message, "Query")
        for type_ in self._schema.composites():
            self._check_composite(type_)
            for field in type_.fields.values():
                self._check_field(type_, field, f"{type_.name}.{field.name}")

    def _check_composite(self, type_: Composite) -> None:
        if type_.interface_object and not type_.declared_keys:
            message = f"{type_.name} is an @interfaceObject without a @key: add one"
            self._report.add("INTERFACE_OBJECT_USAGE_ERROR", message, type_.name)
        if type_.interface:
            self._check_permissions(type_, type_.name)
            self._check_interface_keys(type_)

    def _check_permissions(self, owner: Composite | Field, coordinate: str) -> None:
        marks = owner.marks
        if marks.authenticated or marks.scopes or marks.policies:
            message = (
                f"{coordinate} cannot ask for permissions: ask for them on the objects that implement the interface"
            )
            self._report.add("AUTH_REQUIREMENTS_APPLIED_ON_INTERFACE", message, coordinate)

    def _check_interface_keys(self, interface: Composite) -> None:
        if self._schema.federation_1 or interface.interface_object:
            return
        for key in interface.keys:
            for name in sorted(interface.implemented_by):
                type_ = self._schema.composite(name)
                if type_ and _normal(key.fields) not in map(_normal, type_.declared_keys):
                    message = f'{name} lacks the @key(fields: "{key.fields}") of its interface {interface.name}: add it'
                    self._report.add("INTERFACE_KEY_NOT_ON_IMPLEMENTATION", message, name)

    def _check_field(self, type_: Composite, field: Field, coordinate: str) -> None:
        if type_.interface and not type_.interface_object:
            self._check_interface_field(field, coordinate)
        else:
            self._check_override(type_, field, coordinate)
            self._check_external(type_, field, coordinate)
        if field.marks.list_size:
            self._check_list_size(field, coordinate)

    def _check_interface_field(self, field: Field, coordinate: str) -> None:
        self._check_permissions(field, coordinate)
        if field.shareable:
            message = f"{coordinate} is of an interface, and only fields of objects are @shareable: remove it"
            self._report.add("INVALID_SHAREABLE_USAGE", message, coordinate)
        if field.override is not None and self._schema.names.version >= (2, 3):
            message = f"{coordinate} is of an interface, whose fields none resolves: remove the @override"
            self._report.add("OVERRIDE_ON_INTERFACE", message, coordinate)
        if field.external and not self._schema.federation_1:
            message = f"{coordinate} is of an interface, and only fields of objects are @external: remove it"
            self._report.add("EXTERNAL_ON_INTERFACE", message, coordinate)
        for argument, marks in [("", field.marks), *((n, a.marks) for n, a in field.arguments.items())]:
            if marks.cost is not None:
                where = f"{coordinate}({argument}:)" if argument else coordinate
                self._report.add(
                    "COST_APPLIED_TO_INTERFACE_FIELD", f"{where} is of an interface: remove its @cost", where
                )

    def _check_override(self, type_: Composite, field: Field, coordinate: str) -> None:
        if field.override is None:
            return
        if field.label is not None and not _LABEL.match(field.label):
            message = (
                f'"{field.label}" cannot be the label of the @override of {coordinate}: labels begin with a letter and '
                'go on with letters, digits, "_-:./", or are "percent(x)", of 0 to 100'
            )
            self._report.add("OVERRIDE_LABEL_INVALID", message, coordinate)
        if field.external:
            message = f"{coordinate} is both @external and @override: remove one of them"
            self._report.add("OVERRIDE_COLLISION_WITH_ANOTHER_DIRECTIVE", message, coordinate)
        if field.override == self._schema.name:
            message = f"{coordinate} is overridden from the subgraph that it is in: name the one that had it"
            self._report.add("OVERRIDE_FROM_SELF_ERROR", message, coordinate)

    def _check_external(self, type_: Composite, field: Field, coordinate: str) -> None:
        if not field.external or self._schema.federation_1:
            return
        for tag in sorted(field.marks.tags):
            self._tell_mark_on_external(f'@tag(name: "{tag}")', coordinate)
        if field.marks.inaccessible:
            self._tell_mark_on_external("@inaccessible", coordinate)
        if not field.used and not any(self._has(name, field.name) for name in type_.interfaces):
            message = f"{coordinate} is @external, and no @key, @requires, @provides nor interface needs it: remove it"
            self._report.add("EXTERNAL_UNUSED", message, coordinate)

    def _has(self, interface: str, field: str) -> bool:
        found = self._schema.composite(interface)
        return found is not None and field in found.fields

    def _tell_mark_on_external(self, directive: str, coordinate: str) -> None:
        message = f"{directive} is on {coordinate}, which is @external: put it where the field is resolved"
        self._report.add("MERGED_DIRECTIVE_APPLICATION_ON_EXTERNAL", message, coordinate)

    def _check_list_size(self, field: Field, coordinate: str) -> None:
        for code, problem in _list_size_problems(field, self._schema):
            self._report.add(code, f"the @listSize of {coordinate} {problem}", coordinate)


def _list_size_problems(field: Field, schema: Schema) -> Iterator[tuple[str, str]]:
    size = field.marks.list_size
    assert size is not None
    if size.assumed is not None and size.assumed < 0:
        yield "LIST_SIZE_INVALID_ASSUMED_SIZE", "assumes a negative size"
    if size.sized is None and not is_list(field.type):
        yield "LIST_SIZE_INVALID_SIZED_FIELD", "is on no list: name the lists within it as sizedFields"
    type_ = schema.composite(named(field.type))
    for name in size.sized or ():
        sized = type_.fields.get(name) if type_ else None
        if sized is None:
            yield "LIST_SIZE_INVALID_SIZED_FIELD", f"names the field {name}, which {named(field.type)} does not have"
        elif not is_list(sized.type):
            yield "LIST_SIZE_APPLIED_TO_NON_LIST", f"names the field {name}, which is no list"
    for name in size.slicing or ():
        argument = field.arguments.get(name)
        if argument is None or nullable(argument.type) != "Int":
            yield "LIST_SIZE_INVALID_SLICING_ARGUMENT", f"names the argument {name}, which is none or no Int"


def _normal(fields: str) -> str:
    return " ".join(re.findall(r"[^\s,{}]+|[{}]", fields))
