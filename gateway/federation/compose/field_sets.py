"""The field sets of `@key`, `@requires` and `@provides`: checked, and what they select told to the fields."""

from collections.abc import Iterator
from dataclasses import dataclass

from graphql import (
    FieldNode,
    GraphQLError,
    InlineFragmentNode,
    ListValueNode,
    SelectionSetNode,
    StringValueNode,
    parse,
    print_ast,
)

from gateway.federation.compose.errors import SubgraphReport
from gateway.federation.compose.model import Composite, Enum, Field, Key, Scalar, Schema, Union, named
from gateway.federation.compose.read import Declared
from gateway.federation.compose.spec import BUILT_IN_SCALARS


def parse_fields(text: str) -> SelectionSetNode:
    """`GraphQLError` if it is no field set."""
    try:
        document = parse(text if text.strip().startswith("{") else "{" + text + "}", no_location=True)
    except RecursionError:
        raise GraphQLError("it is nested too deeply") from None
    if len(document.definitions) != 1:
        raise GraphQLError("there is something after it")
    selections: SelectionSetNode = document.definitions[0].selection_set  # type: ignore[attr-defined]
    return selections


def check_field_sets(schema: Schema, declared: list[Declared], report: SubgraphReport) -> None:
    """Sets keys, and the `requires` and `provides` of fields; those that are wrong are reported and left out."""
    for each in sorted(declared, key=lambda each: each.meaning != "key"):  # what @provides asks for depends on keys
        _FieldSet(schema, each, report).check()


@dataclass(frozen=True, slots=True)
class Selected:
    parent: Composite
    field: Field
    depth: int


class _FieldSet:
    def __init__(self, schema: Schema, declared: Declared, report: SubgraphReport) -> None:
        self._schema = schema
        self._report = report
        self._declared = declared
        self._type = declared.type_
        self._meaning = declared.meaning
        self._code = declared.meaning.upper()
        self._valid = True
        self._coordinate = f"{self._type.name}.{declared.field.name}" if declared.field else self._type.name

    def check(self) -> None:
        text = self._text()
        target = self._target() if text is not None and self._is_allowed() else None
        if text is None or target is None:
            return
        try:
            selections = parse_fields(text)
        except GraphQLError as error:
            self._tell("INVALID_FIELDS", f"{error.message}: give it fields of {target.name}, as in a query")
            return
        selected = list(self._select(selections, target, 0))
        for each in selected:
            self._note(each)
        if self._valid:
            self._keep(text)

    def _tell(self, suffix: str, problem: str) -> None:
        self._valid = False
        value = print_ast(self._declared.value) if self._declared.value is not None else ""
        where = f"@{self._meaning}(fields: {value}) on {self._coordinate}"
        self._report.add(f"{self._code}_{suffix}", f"{where}: {problem}", self._coordinate)

    def _text(self) -> str | None:
        value = self._declared.value
        if isinstance(value, StringValueNode):
            return value.value
        if self._schema.federation_1 and isinstance(value, ListValueNode):
            strings = [item.value for item in value.values if isinstance(item, StringValueNode)]
            if len(strings) == len(value.values):
                return " ".join(strings)
        self._tell("INVALID_FIELDS_TYPE", "the fields must be a string")
        return None

    def _is_allowed(self) -> bool:
        on_interface = self._type.interface and not self._type.interface_object
        if on_interface and self._meaning != "key":
            self._tell("UNSUPPORTED_ON_INTERFACE", "it is for fields of objects: put it on those that implement this")
            return False
        if on_interface and (2, 0) <= self._schema.names.version < (2, 3):
            self._tell("UNSUPPORTED_ON_INTERFACE", "keys of interfaces need Federation v2.3")
            return False
        return True

    def _target(self) -> "Composite | Union | None":
        if self._declared.field is None or self._meaning == "requires":
            return self._type
        target = self._schema.types.get(named(self._declared.field.type))
        if isinstance(target, Composite | Union):
            return target
        if not self._schema.federation_1:
            self._tell("ON_NON_OBJECT_FIELD", f"{self._declared.field.type} has no fields to provide: remove it")
        return None

    def _select(self, selections: SelectionSetNode, parent: Composite | Union, depth: int) -> Iterator[Selected]:
        if not selections.selections:
            self._tell("INVALID_FIELDS", f"it selects nothing: give it fields of {parent.name}")
        for node in selections.selections:
            if isinstance(node, InlineFragmentNode):
                yield from self._select_fragment(node, parent, depth)
            elif isinstance(node, FieldNode):
                yield from self._select_field(node, parent, depth)
            else:
                self._tell("INVALID_FIELDS", "fragments cannot be spread by name: write ... on the type")
            for directive in node.directives or ():
                name = directive.name.value
                known = name in self._schema.directives or name in ("skip", "include")
                self._tell(
                    "DIRECTIVE_IN_FIELDS_ARG" if known else "INVALID_FIELDS", f"@{name} cannot be in a field set"
                )

    def _select_fragment(self, node: InlineFragmentNode, parent: Composite | Union, depth: int) -> Iterator[Selected]:
        on = self._schema.types.get(node.type_condition.name.value) if node.type_condition else parent
        if isinstance(on, Composite | Union):
            yield from self._select(node.selection_set, on, depth)
        else:
            name = node.type_condition.name.value if node.type_condition else ""
            self._tell("INVALID_FIELDS", f"... on {name} is of no type that this subgraph has: declare it here")

    def _select_field(self, node: FieldNode, parent: Composite | Union, depth: int) -> Iterator[Selected]:
        name = node.name.value
        if name == "__typename":
            return
        field = parent.fields.get(name) if isinstance(parent, Composite) else None
        if field is None or isinstance(parent, Union):
            remedy = "add it to this subgraph, @external if it is another's"
            self._tell("INVALID_FIELDS", f"{parent.name} has no field {name}: {remedy}")
            return
        if node.alias:
            self._tell("INVALID_FIELDS", f"{name} cannot be given an alias")
        self._check_arguments(node, parent, field)
        yield Selected(parent, field, depth)
        yield from self._select_inner(node, parent, field, depth)

    def _check_arguments(self, node: FieldNode, parent: Composite, field: Field) -> None:
        coordinate = f"{parent.name}.{field.name}"
        if self._meaning != "requires":
            if field.arguments:
                self._tell(
                    "FIELDS_HAS_ARGS", f"{coordinate} has arguments, which no field of a @{self._meaning} may have"
                )
            return
        given = {argument.name.value for argument in node.arguments or ()}
        for name in sorted(given - field.arguments.keys()):
            self._tell("INVALID_FIELDS", f"{coordinate} has no argument {name}")
        for argument in field.arguments.values():
            if argument.required and argument.name not in given:
                self._tell("INVALID_FIELDS", f"{coordinate} needs the argument {argument.name}")

    def _select_inner(self, node: FieldNode, parent: Composite, field: Field, depth: int) -> Iterator[Selected]:
        coordinate, inner = f"{parent.name}.{field.name}", self._schema.types.get(named(field.type))
        if not isinstance(inner, Composite | Union):
            if node.selection_set:
                self._tell("INVALID_FIELDS", f"{coordinate} is {field.type}, which has no fields: remove the selection")
            return
        is_abstract = isinstance(inner, Union) or (inner.interface and not inner.interface_object)
        if self._meaning == "key" and is_abstract:
            message = f"{coordinate} is of the abstract type {inner.name}, which cannot be in a key"
            self._tell("FIELDS_SELECT_INVALID_TYPE", message)
        if node.selection_set:
            yield from self._select(node.selection_set, inner, depth + 1)
        else:
            self._tell("INVALID_FIELDS", f"{coordinate} is {field.type}: select some of its fields")

    def _note(self, selected: Selected) -> None:
        parent, field = selected.parent, selected.field
        field.used = True
        if self._meaning == "key":
            field.key |= parent is self._type
            field.shareable |= not parent.interface
            return
        if self._meaning == "requires":
            field.required |= not parent.interface
        else:
            field.provided |= not parent.interface
        if selected.depth == 0 and self._is_leaf(field) and not self._schema.federation_1:
            self._check_external(parent, field)

    def _check_external(self, parent: Composite, field: Field) -> None:
        coordinate = f"{parent.name}.{field.name}"
        if parent.interface and not parent.interface_object:
            return
        if not field.external:
            self._tell(
                "FIELDS_MISSING_EXTERNAL", f"{coordinate} is this subgraph's own: remove it, or mark it @external"
            )
        elif self._meaning == "provides" and parent.extension and not parent.defined and self._is_key(parent, field):
            message = f"{coordinate} is a key of an extension, which is provided in any case: remove it"
            self._tell("FIELDS_MISSING_EXTERNAL", message)

    def _is_key(self, parent: Composite, field: Field) -> bool:
        return any(field.name in _top_level(key.fields) for key in parent.keys)

    def _is_leaf(self, field: Field) -> bool:
        type_ = named(field.type)
        return type_ in BUILT_IN_SCALARS or isinstance(self._schema.types.get(type_), Enum | Scalar)

    def _keep(self, text: str) -> None:
        field = self._declared.field
        if field is None:
            self._type.keys.append(Key(text, self._declared.values.get("resolvable") is not False))
        elif self._meaning == "requires":
            field.requires = text
        else:
            field.provides = text


def _top_level(text: str) -> set[str]:
    return {node.name.value for node in parse_fields(text).selections if isinstance(node, FieldNode)}
