"""The supergraph's text: with the definitions that join v0.5 and the other specifications ask for."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from graphql.language.block_string import is_printable_as_block_string, print_block_string
from graphql.language.print_string import print_string

from gateway.federation.compose.link import Link, linked_directive
from gateway.federation.compose.merged import (
    Join,
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
    TypeJoin,
)
from gateway.federation.compose.model import Enum, Groups, ListSize, Marks, named
from gateway.federation.compose.read import ROOTS

_LINK = """
directive @link(url: String, as: String, for: link__Purpose, import: [link__Import]) repeatable on SCHEMA

scalar link__Import

enum link__Purpose {
  \"\"\"
  `SECURITY` features provide metadata necessary to securely resolve fields.
  \"\"\"
  SECURITY

  \"\"\"
  `EXECUTION` features provide metadata necessary for operation execution.
  \"\"\"
  EXECUTION
}
"""
_JOIN = """
directive @join__directive(graphs: [join__Graph!], name: String!, args: join__DirectiveArguments) repeatable on SCHEMA | OBJECT | INTERFACE | FIELD_DEFINITION

directive @join__enumValue(graph: join__Graph!) repeatable on ENUM_VALUE

directive @join__field(graph: join__Graph, requires: join__FieldSet, provides: join__FieldSet, type: String, external: Boolean, override: String, usedOverridden: Boolean, overrideLabel: String, contextArguments: [join__ContextArgument!]) repeatable on FIELD_DEFINITION | INPUT_FIELD_DEFINITION

directive @join__graph(name: String!, url: String!) on ENUM_VALUE

directive @join__implements(graph: join__Graph!, interface: String!) repeatable on OBJECT | INTERFACE

directive @join__type(graph: join__Graph!, key: join__FieldSet, extension: Boolean! = false, resolvable: Boolean! = true, isInterfaceObject: Boolean! = false) repeatable on OBJECT | INTERFACE | UNION | ENUM | INPUT_OBJECT | SCALAR

directive @join__unionMember(graph: join__Graph!, member: String!) repeatable on UNION

input join__ContextArgument {
  name: String!
  type: String!
  context: String!
  selection: join__FieldValue!
}

scalar join__DirectiveArguments

scalar join__FieldSet

scalar join__FieldValue
"""  # noqa: E501 - as Apollo prints them
_ON_AUTH = "FIELD_DEFINITION | OBJECT | INTERFACE | SCALAR | ENUM"
# What marks need: the specification that defines them, and the definitions.
_MARKS: dict[str, tuple[str, str]] = {
    "tag": (
        "tag/v0.3",
        "directive @tag(name: String!) repeatable on FIELD_DEFINITION | OBJECT | INTERFACE | UNION | "
        "ARGUMENT_DEFINITION | SCALAR | ENUM | ENUM_VALUE | INPUT_OBJECT | INPUT_FIELD_DEFINITION | SCHEMA",
    ),
    "inaccessible": (
        "inaccessible/v0.2",
        "directive @inaccessible on FIELD_DEFINITION | OBJECT | INTERFACE | UNION | ARGUMENT_DEFINITION | SCALAR | "
        "ENUM | ENUM_VALUE | INPUT_OBJECT | INPUT_FIELD_DEFINITION",
    ),
    "authenticated": ("authenticated/v0.1", f"directive @authenticated on {_ON_AUTH}"),
    "requiresScopes": (
        "requiresScopes/v0.1",
        f"directive @requiresScopes(scopes: [[requiresScopes__Scope!]!]!) on {_ON_AUTH}\n\n"
        "scalar requiresScopes__Scope",
    ),
    "policy": (
        "policy/v0.1",
        f"directive @policy(policies: [[policy__Policy!]!]!) on {_ON_AUTH}\n\nscalar policy__Policy",
    ),
    "cost": (
        "cost/v0.1",
        "directive @cost(weight: Int!) on ARGUMENT_DEFINITION | ENUM | FIELD_DEFINITION | INPUT_FIELD_DEFINITION | "
        "OBJECT | SCALAR",
    ),
    "listSize": (
        "cost/v0.1",
        "directive @listSize(assumedSize: Int, slicingArguments: [String!], sizedFields: [String!], "
        "requireOneSlicingArgument: Boolean = true) on FIELD_DEFINITION",
    ),
}
_SECURITY = {"inaccessible", "authenticated", "requiresScopes", "policy"}


def printed(merged: Merged) -> str:
    return _Printer(merged).text()


class _Printer:
    def __init__(self, merged: Merged) -> None:
        self._merged = merged
        self._used: set[str] = set()
        self._one_of = False

    def text(self) -> str:
        types = [self._type(type_) for type_ in self._merged.types.values()]
        directives = [self._directive(directive) for directive in self._merged.directives.values()]
        marks = [_MARKS[name][1] for name in sorted(self._used)]
        if self._one_of:
            marks.append("directive @oneOf on INPUT_OBJECT")
        parts = [self._schema(), *directives, _LINK.strip(), _JOIN.strip(), *marks, self._graphs(), *types]
        return "\n\n".join(parts) + "\n"

    def _schema(self) -> str:
        links = ['@link(url: "https://specs.apollo.dev/link/v1.0")']
        links.append('@link(url: "https://specs.apollo.dev/join/v0.5", for: EXECUTION)')
        links += self._mark_links()
        links += self._composed_links()
        roots = [f"  {operation}: {name}" for operation, name in ROOTS.items() if name in self._merged.types]
        return "\n".join(["schema", *(f"  {link}" for link in links), "{", *roots, "}"])

    def _mark_links(self) -> list[str]:
        imports = ', import: ["@listSize"]' if "listSize" in self._used else ""
        links = {}
        for name in sorted(self._used):
            url = _MARKS[name][0]
            more = ", for: SECURITY" if name in _SECURITY else imports if url.startswith("cost") else ""
            links[url] = f'@link(url: "https://specs.apollo.dev/{url}"{more})'
        return list(links.values())

    def _composed_links(self) -> Iterator[str]:
        """One for each feature, of the newest version that a subgraph links."""
        features: dict[str, tuple[Link, dict[str, str]]] = {}
        for directive in self._merged.directives.values():
            for graph, here in directive.by.items():
                found = linked_directive(self._merged.graphs[graph].names.links, here.name) if here.composed else None
                if found:
                    newest, imports = features.setdefault(found[0].identity, (found[0], {}))
                    imports[here.name] = found[1]
                    newest = max(newest, found[0], key=_version)
                    features[found[0].identity] = (newest, imports)
        for _, (link, imports) in sorted(features.items()):
            items = [_import(original, f"@{name}") for name, original in sorted(imports.items())]
            yield f"@link(url: {_string(link.url)}, import: [{', '.join(items)}])"

    def _graphs(self) -> str:
        values = []
        for id_, schema in self._merged.graphs.items():
            values.append(f"  {id_} @join__graph(name: {_string(schema.name)}, url: {_string(schema.url)})")
        return _block("enum join__Graph", values)

    def _directive(self, directive: MergedDirective) -> str:
        repeatable = " repeatable" if directive.repeatable else ""
        arguments = self._arguments(directive.arguments)
        return f"directive @{directive.name}{arguments}{repeatable} on {' | '.join(directive.locations)}"

    def _type(self, type_: MergedType) -> str:
        match type_:
            case MergedComposite():
                text = self._composite(type_)
            case MergedInput():
                text = self._input(type_)
            case MergedEnum():
                text = self._enum(type_)
            case MergedUnion():
                text = self._union(type_)
            case MergedScalar():
                text = self._scalar(type_)
        return _description(type_.marks, "") + text

    def _composite(self, type_: MergedComposite) -> str:
        form = "interface" if type_.interface else "type"
        implements = f" implements {' & '.join(type_.interfaces)}" if type_.interfaces else ""
        graphs = dict.fromkeys(join.graph for join in type_.joins)
        joins = [_type_join(join) for join in type_.joins]
        for graph in graphs:
            implemented = type_.by[graph].interfaces if graph in type_.by else ()
            joins += [f'@join__implements(graph: {graph}, interface: "{name}")' for name in implemented]
        fields = [self._field(field) for field in type_.fields.values()]
        return _block(f"{form} {type_.name}{implements}{_lines([*joins, *self._marks(type_.marks)])}", fields)

    def _field(self, field: MergedField) -> str:
        joins = [] if field.joins is None else [_field_join(join) for join in field.joins] or ["@join__field"]
        directives = _inline([*joins, *self._marks(field.marks)])
        arguments = self._arguments(field.arguments)
        return f"{_description(field.marks, '  ')}  {field.name}{arguments}: {field.type}{directives}"

    def _arguments(self, arguments: Mapping[str, MergedArgument]) -> str:
        kept = [argument for argument in arguments.values() if argument.everywhere]
        if not kept:
            return ""
        if all(argument.marks.description is None for argument in kept):
            return f"({', '.join(self._argument(argument) for argument in kept)})"
        lines = [_description(argument.marks, "    ") + "    " + self._argument(argument) for argument in kept]
        return "(\n" + "\n".join(lines) + "\n  )"

    def _argument(self, argument: MergedArgument, joins: Iterable[str] = ()) -> str:
        default = argument.default
        if default is not None and default.startswith('"') and self._is_enum(argument.type):
            default = default.strip('"')
        default = "" if default is None else f" = {default}"
        return f"{argument.name}: {argument.type}{default}{_inline([*joins, *self._marks(argument.marks)])}"

    def _is_enum(self, type_: str) -> bool:
        return any(isinstance(schema.types.get(named(type_)), Enum) for schema in self._merged.graphs.values())

    def _input(self, type_: MergedInput) -> str:
        fields = []
        for field in type_.fields.values():
            if field.everywhere:
                differ = any(here.type != field.type for here in field.by.values())
                joins = [f'@join__field(graph: {g}, type: "{a.type}")' for g, a in field.by.items()] if differ else []
                fields.append(_description(field.marks, "  ") + "  " + self._argument(field, joins))
        one_of = ["@oneOf"] if type_.one_of else []
        self._one_of |= type_.one_of
        return _block(
            f"input {type_.name}{_lines([*_graph_joins(type_.by), *one_of, *self._marks(type_.marks)])}", fields
        )

    def _enum(self, type_: MergedEnum) -> str:
        values = []
        for value in type_.kept:
            joins = [f"@join__enumValue(graph: {graph})" for graph in value.by]
            directives = _inline([*joins, *self._marks(value.marks)])
            values.append(f"{_description(value.marks, '  ')}  {value.name}{directives}")
        return _block(f"enum {type_.name}{_lines([*_graph_joins(type_.by), *self._marks(type_.marks)])}", values)

    def _union(self, type_: MergedUnion) -> str:
        joins = _graph_joins(type_.by)
        for graph, here in type_.by.items():
            joins += [f'@join__unionMember(graph: {graph}, member: "{member}")' for member in here.members]
        directives = _lines([*joins, *self._marks(type_.marks)])
        return f"union {type_.name}{directives}{' ' if not directives else ''}= {' | '.join(type_.members)}"

    def _scalar(self, type_: MergedScalar) -> str:
        by = [f"@specifiedBy(url: {_string(type_.specified_by)})"] if type_.specified_by else []
        return f"scalar {type_.name}{_lines([*_graph_joins(type_.by), *by, *self._marks(type_.marks)])}".rstrip()

    def _marks(self, marks: Marks) -> Iterator[str]:
        yield from marks.composed
        for tag in sorted(marks.tags):
            yield self._mark("tag", f"(name: {_string(tag)})")
        if marks.inaccessible:
            yield self._mark("inaccessible")
        if marks.authenticated:
            yield self._mark("authenticated")
        if marks.scopes:
            yield self._mark("requiresScopes", f"(scopes: {_groups(marks.scopes)})")
        if marks.policies:
            yield self._mark("policy", f"(policies: {_groups(marks.policies)})")
        if marks.cost is not None:
            yield self._mark("cost", f"(weight: {marks.cost})")
        if marks.list_size:
            yield self._mark("listSize", _list_size(marks.list_size))
        if marks.deprecated is not None:
            yield "@deprecated" + (f"(reason: {_string(marks.deprecated)})" if marks.deprecated else "")

    def _mark(self, name: str, arguments: str = "") -> str:
        self._used.add(name)
        return f"@{name}{arguments}"


def _type_join(join: TypeJoin) -> str:
    key = f", key: {_string(join.key.fields)}" if join.key else ""
    extension = ", extension: true" if join.extension else ""
    resolvable = ", resolvable: false" if join.key and not join.key.resolvable else ""
    interface_object = ", isInterfaceObject: true" if join.interface_object else ""
    return f"@join__type(graph: {join.graph}{key}{extension}{resolvable}{interface_object})"


def _graph_joins(graphs: Iterable[str]) -> list[str]:
    return [f"@join__type(graph: {graph})" for graph in graphs]


def _field_join(join: Join) -> str:
    given: list[tuple[str, str | None]] = [
        ("requires", join.requires),
        ("provides", join.provides),
        ("type", join.type),
        ("override", join.override),
        ("overrideLabel", join.label),
    ]
    texts = [f"graph: {join.graph}", *(f"{name}: {_string(value)}" for name, value in given if value is not None)]
    texts += [
        name for name, on in [("external: true", join.external), ("usedOverridden: true", join.used_overridden)] if on
    ]
    return f"@join__field({', '.join(texts)})"


def _groups(groups: Groups) -> str:
    return f"[{', '.join(_strings(group) for group in groups)}]"


def _strings(texts: Iterable[str]) -> str:
    return f"[{', '.join(_string(text) for text in texts)}]"


def _list_size(size: ListSize) -> str:
    texts = [] if size.assumed is None else [f"assumedSize: {size.assumed}"]
    texts += [] if size.slicing is None else [f"slicingArguments: {_strings(size.slicing)}"]
    texts += [] if size.sized is None else [f"sizedFields: {_strings(size.sized)}"]
    texts += [] if size.require_one else ["requireOneSlicingArgument: false"]
    return f"({', '.join(texts)})" if texts else ""


def _import(original: str, name: str) -> str:
    return _string(name) if original == name else f"{{ name: {_string(original)}, as: {_string(name)} }}"


def _version(link: Link) -> tuple[int, ...]:
    return tuple(int(part) for part in (link.version or "v0.0")[1:].split("."))


_string: Callable[[str], str] = print_string


def _description(marks: Marks, indent: str) -> str:
    text = marks.description
    if not text:
        return ""
    block = print_block_string(text) if is_printable_as_block_string(text) else print_string(text)
    return "".join(f"{indent}{line}\n" if line else "\n" for line in block.split("\n"))


def _block(head: str, lines: Iterable[str]) -> str:
    inner = "\n".join(lines)
    space = "" if head.endswith("\n") else " "
    return f"{head}{space}{{\n{inner}\n}}" if inner else head.rstrip()


def _lines(directives: Iterable[str]) -> str:
    text = "".join(f"\n  {directive}" for directive in directives)
    return text + "\n" if text else ""


def _inline(directives: Iterable[str]) -> str:
    return "".join(f" {directive}" for directive in directives)
