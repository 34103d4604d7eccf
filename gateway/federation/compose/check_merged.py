"""What subgraphs do not agree about."""

from collections.abc import Iterable, Mapping

from gateway.federation.compose.errors import Report
from gateway.federation.compose.link import linked_directive
from gateway.federation.compose.merge import EXECUTABLE, narrowed_type
from gateway.federation.compose.merged import (
    Merged,
    MergedArgument,
    MergedComposite,
    MergedDirective,
    MergedEnum,
    MergedField,
    MergedInput,
    really_external,
)
from gateway.federation.compose.model import Directive
from gateway.federation.compose.read import ROOTS
from gateway.federation.compose.sharing import check_sharing
from gateway.federation.compose.visibility import check_visibility


def check_merged(merged: Merged, report: Report) -> None:
    _Check(merged, report).check()
    check_sharing(merged, report)
    check_visibility(merged, report)


class _Check:
    def __init__(self, merged: Merged, report: Report) -> None:
        self._merged = merged
        self._report = report

    def check(self) -> None:
        query = self._merged.types.get("Query")
        if not isinstance(query, MergedComposite) or not query.fields:
            message = (
                f"none of {self._in(self._merged.graphs)} has a query type with fields: there must be some to ask for"
            )
            self._report.add("NO_QUERIES", message, "Query", self._merged.names(self._merged.graphs))
        for type_ in self._merged.types.values():
            if isinstance(type_, MergedComposite):
                self._check_composite(type_)
            elif isinstance(type_, MergedInput):
                self._check_input(type_)
            elif isinstance(type_, MergedEnum):
                self._check_enum(type_)
        self._check_directives()

    def _add(self, code: str, message: str, coordinate: str, graphs: Iterable[str]) -> None:
        self._report.add(code, message, coordinate, self._merged.names(graphs))

    def _in(self, graphs: Iterable[str]) -> str:
        return ", ".join(self._merged.names(graphs)) or "none"

    def _check_composite(self, type_: MergedComposite) -> None:
        for field in type_.fields.values():
            coordinate = f"{type_.name}.{field.name}"
            self._check_field_type(type_, field, coordinate)
            self._check_arguments(field.arguments, coordinate)
            for argument in field.arguments.values():
                self._check_argument_presence(field, argument, coordinate)
            self._check_list_size(field, coordinate)
            if not type_.interface:
                self._check_external(type_, field, coordinate)
                self._check_overrides(field, coordinate)
        if type_.interface:
            self._check_interface(type_)
        else:
            self._check_base(type_)
            self._check_implements(type_)

    def _check_field_type(self, type_: MergedComposite, field: MergedField, coordinate: str) -> None:
        owned: dict[str, list[str]] = {}
        borrowed: dict[str, list[str]] = {}
        for graph, here in field.by.items():
            external = really_external(self._merged.graphs[graph], type_.by[graph], here)
            (borrowed if external else owned).setdefault(here.type, []).append(graph)
        if owned and self._merged.subtypes.widest(owned) is None:
            message = f"{coordinate} has types of which none is the others' supertype: {self._groups(owned)}"
            self._add("FIELD_TYPE_MISMATCH", message + ": agree on one", coordinate, field.by)
        wrong = {here: graphs for here, graphs in borrowed.items() if here != field.type}
        if owned and wrong:
            message = f"{coordinate} is {field.type}, and @external with another type: {self._groups(wrong)}"
            self._add("EXTERNAL_TYPE_MISMATCH", message + ": declare it as it is", coordinate, field.by)

    def _groups(self, by: Mapping[str, list[str]]) -> str:
        return " and ".join(f"{what} in {self._in(graphs)}" for what, graphs in by.items())

    def _check_arguments(self, arguments: Mapping[str, MergedArgument], owner: str, *, of_input: bool = False) -> None:
        for argument in arguments.values():
            coordinate = f"{owner}.{argument.name}" if of_input else f"{owner}({argument.name}:)"
            types: dict[str, list[str]] = {}
            defaults: dict[str, list[str]] = {}
            for graph, here in argument.by.items():
                types.setdefault(here.type, []).append(graph)
                if here.default is not None:
                    defaults.setdefault(here.default, []).append(graph)
            if narrowed_type(list(types), self._merged.subtypes) is None:
                code = "FIELD_TYPE_MISMATCH" if of_input else "FIELD_ARGUMENT_TYPE_MISMATCH"
                message = f"{coordinate} has types of which none fits all: {self._groups(types)}: agree on one"
                self._add(code, message, coordinate, argument.by)
            if len(defaults) > 1:
                code = "INPUT_FIELD_DEFAULT_MISMATCH" if of_input else "FIELD_ARGUMENT_DEFAULT_MISMATCH"
                message = f"{coordinate} has different defaults: {self._groups(defaults)}: agree on one"
                self._add(code, message, coordinate, argument.by)

    def _check_argument_presence(self, field: MergedField, argument: MergedArgument, owner: str) -> None:
        if argument.everywhere:
            return
        coordinate = f"{owner}({argument.name}:)"
        lacking = [graph for graph in field.by if graph not in argument.by]
        external = [graph for graph in lacking if field.by[graph].external]
        if argument.required:
            message = f"{coordinate} is required in {self._in(argument.by)} and missing in {self._in(lacking)}"
            message += ": add it there, or make it optional"
            self._add("REQUIRED_ARGUMENT_MISSING_IN_SOME_SUBGRAPH", message, coordinate, field.by)
        if external:
            message = (
                f"{owner} is @external in {self._in(external)}, and lacks the argument {argument.name} there: add it"
            )
            self._add("EXTERNAL_ARGUMENT_MISSING", message, coordinate, field.by)

    def _check_list_size(self, field: MergedField, coordinate: str) -> None:
        size = field.marks.list_size
        if size is None or not size.slicing:
            return
        size.slicing = [n for n in size.slicing if n in field.arguments and field.arguments[n].everywhere]
        if not size.slicing:
            message = f"no slicing argument of the @listSize of {coordinate} is in every subgraph that has the field"
            self._add("LIST_SIZE_INVALID_SLICING_ARGUMENT", message, coordinate, field.by)

    def _check_external(self, type_: MergedComposite, field: MergedField, coordinate: str) -> None:
        if all(self._is_missing(graph, type_, field) for graph in field.by) and not self._is_added(type_, field.name):
            message = (
                f"{coordinate} is @external in all subgraphs that have it ({self._in(field.by)}): one must resolve it"
            )
            self._add("EXTERNAL_MISSING_ON_BASE", message, coordinate, field.by)

    def _is_missing(self, graph: str, type_: MergedComposite, field: MergedField) -> bool:
        here = field.by[graph]
        return here.external and not (here.key and type_.by[graph].extension)

    def _is_added(self, type_: MergedComposite, name: str) -> bool:
        """Whether an interface object resolves the field."""
        return any(
            here.interface_object and name in here.fields and not here.fields[name].external
            for interface in self._merged.interfaces_of(type_)
            for here in interface.by.values()
        )

    def _check_overrides(self, field: MergedField, coordinate: str) -> None:
        overriding = {graph: here for graph, here in field.by.items() if here.override is not None}
        for graph, here in overriding.items():
            source = self._merged.id(here.override)
            if source is None or source not in field.by:
                continue
            if source in overriding and source != graph:
                message = f"{coordinate} is overridden in {self._in([graph])} from {here.override}, where it is too"
                self._add("OVERRIDE_SOURCE_HAS_OVERRIDE", message + ": keep one @override", coordinate, [graph, source])
            if here.label is not None and field.by[source].requires is not None:
                message = f"{coordinate} @requires fields in {here.override}, so that it can only be overridden at once"
                message += ": leave out the label"
                self._add("OVERRIDE_COLLISION_WITH_ANOTHER_DIRECTIVE", message, coordinate, [graph, source])

    def _check_base(self, type_: MergedComposite) -> None:
        if type_.name in ROOTS.values() or any(here.defined for here in type_.by.values()):
            return
        old = all(self._merged.graphs[graph].federation_1 and here.extends for graph, here in type_.by.items())
        if len(type_.by) > 1 and old:
            return
        message = f"{type_.name} is only extended, in {self._in(type_.by)}: define it in one of them, without `extend`"
        self._add("EXTENSION_WITH_NO_BASE", message, type_.name, type_.by)

    def _check_implements(self, type_: MergedComposite) -> None:
        for interface in self._merged.interfaces_of(type_):
            for name, wanted in interface.fields.items():
                coordinate = f"{type_.name}.{name}"
                field = type_.fields.get(name)
                if field is None:
                    self._check_lacking(type_, interface, wanted)
                elif not self._merged.subtypes.holds(field.type, wanted.type):
                    message = f"{coordinate} is {field.type}, which is not always the {wanted.type} of {interface.name}"
                    self._add("INVALID_GRAPHQL", f"{message}.{name}", coordinate, {**field.by, **wanted.by})

    def _check_lacking(self, type_: MergedComposite, interface: MergedComposite, wanted: MergedField) -> None:
        if self._is_added(type_, wanted.name):
            return
        implementing = [graph for graph, here in type_.by.items() if interface.name in here.interfaces]
        message = f"{interface.name}.{wanted.name} is declared in {self._in(wanted.by)}, and {type_.name}, which "
        message += f"implements it in {self._in(implementing)}, has no field {wanted.name} in any subgraph: add it"
        self._add("INTERFACE_FIELD_NO_IMPLEM", message, f"{type_.name}.{wanted.name}", {**type_.by, **wanted.by})

    def _check_interface(self, type_: MergedComposite) -> None:
        if all(here.interface_object for here in type_.by.values()):
            message = f"{type_.name} is an @interfaceObject in all subgraphs ({self._in(type_.by)}): one must define it"
            self._add("INTERFACE_OBJECT_USAGE_ERROR", f"{message} as an interface", type_.name, type_.by)
        if not type_.entity:
            return
        all_ = {name for here in type_.by.values() for name in here.implemented_by}
        for graph, here in type_.by.items():
            lacking = sorted(all_ - here.implemented_by)
            if here.interface_object or not any(key.resolvable for key in here.keys) or not lacking:
                continue
            if type_.has_interface_object or not here.implemented_by:
                message = f"{type_.name} has a resolvable @key in {self._in([graph])}, which must then know all that "
                message += f"implement it: define {', '.join(lacking)} there"
                self._add("INTERFACE_KEY_MISSING_IMPLEMENTATION_TYPE", message, type_.name, type_.by)

    def _check_input(self, type_: MergedInput) -> None:
        self._check_arguments(type_.fields, type_.name, of_input=True)
        for field in type_.fields.values():
            if not field.everywhere and field.required:
                lacking = [graph for graph in type_.by if graph not in field.by]
                coordinate = f"{type_.name}.{field.name}"
                message = f"{coordinate} is required in {self._in(field.by)} and missing in {self._in(lacking)}"
                message += ": add it there, or make it optional"
                self._add("REQUIRED_INPUT_FIELD_MISSING_IN_SOME_SUBGRAPH", message, coordinate, type_.by)
        if not any(field.everywhere for field in type_.fields.values()):
            message = f"{type_.name} has no field that all of {self._in(type_.by)} have, so that none can be given"
            self._add("EMPTY_MERGED_INPUT_TYPE", message, type_.name, type_.by)

    def _check_enum(self, type_: MergedEnum) -> None:
        if type_.inputs and not type_.outputs and not type_.kept:
            message = f"{type_.name} has no value that all of {self._in(type_.by)} have, so that none can be given"
            self._add("EMPTY_MERGED_ENUM_TYPE", message, type_.name, type_.by)
        if not type_.inputs or not type_.outputs:
            return
        for value in type_.values.values():
            if len(value.by) < len(type_.by) and not value.marks.inaccessible:
                lacking = [graph for graph in type_.by if graph not in value.by]
                coordinate = f"{type_.name}.{value.name}"
                message = (
                    f"{coordinate} is in {self._in(value.by)} and not in {self._in(lacking)}, and {type_.name} is "
                )
                message += (
                    f"both given ({type_.inputs[0]}) and answered ({type_.outputs[0]}): all must have the same values"
                )
                self._add("ENUM_VALUE_MISMATCH", message, coordinate, type_.by)

    def _check_directives(self) -> None:
        for directive in self._merged.directives.values():
            self._check_arguments(directive.arguments, f"@{directive.name}")
            if directive.composed:
                self._check_composed(directive)
        self._check_composed_names()

    def _check_composed(self, directive: MergedDirective) -> None:
        composing = {graph: here for graph, here in directive.by.items() if here.composed}
        coordinate, features = f"@{directive.name}", self._features(composing)
        if len({identity for identity, _, _ in features}) > 1:
            message = f"{coordinate} is not of the same feature in {self._in(composing)}: @link the same one everywhere"
            self._add("DIRECTIVE_COMPOSITION_ERROR", message, coordinate, composing)
        if len({major for _, major, _ in features}) > 1:
            message = f"{coordinate} is linked in more than one major version in {self._in(composing)}: agree on one"
            self._add("DIRECTIVE_COMPOSITION_ERROR", message, coordinate, composing)
        common = set.intersection(*(set(here.locations) for here in composing.values()))
        if not common - EXECUTABLE:
            message = f"{coordinate} has no place in common in {self._in(composing)}: define it alike"
            self._add("DIRECTIVE_COMPOSITION_ERROR", message, coordinate, composing)

    def _features(self, composing: Mapping[str, Directive]) -> list[tuple[str, str, str]]:
        found = [linked_directive(self._merged.graphs[g].names.links, here.name) for g, here in composing.items()]
        return [(link.identity, (link.version or "").split(".")[0], name) for link, name in filter(None, found)]

    def _check_composed_names(self) -> None:
        """One directive of a feature has one name in all subgraphs that compose it."""
        names: dict[tuple[str, str], set[str]] = {}
        for directive in self._merged.directives.values():
            composing = {graph: here for graph, here in directive.by.items() if here.composed}
            for identity, _, original in self._features(composing):
                names.setdefault((identity, original), set()).add(f"@{directive.name}")
        for (identity, original), found in names.items():
            if len(found) > 1:
                message = f"{original} of {identity} is called {' and '.join(sorted(found))}: import it by one name"
                self._add("DIRECTIVE_COMPOSITION_ERROR", message, original, self._merged.graphs)
