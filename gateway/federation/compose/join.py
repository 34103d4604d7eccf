"""What each subgraph has to do with each type and field of the supergraph: `@join__type` and `@join__field`."""

from collections.abc import Iterator
from dataclasses import replace

from graphql import FieldNode, InlineFragmentNode, SelectionSetNode, print_ast

from gateway.federation.compose.field_sets import parse_fields
from gateway.federation.compose.merged import Join, Merged, MergedComposite, MergedField, TypeJoin
from gateway.federation.compose.model import Composite, Field, Schema, named


def join(merged: Merged) -> None:
    """Sets the joins of all composites and their fields."""
    requirements = _Requirements(merged)
    for type_ in merged.composites():
        joiner = _InterfaceJoiner(merged, type_) if type_.interface else _ObjectJoiner(merged, type_, requirements)
        joiner.join()
    for type_ in merged.objects():
        _add_fields_of_interface_objects(merged, type_)


def _add_fields_of_interface_objects(merged: Merged, type_: MergedComposite) -> None:
    """Objects have what interface objects add to their interfaces."""
    for interface in merged.interfaces_of(type_):
        if interface.has_interface_object:
            for name, field in interface.fields.items():
                if name not in type_.fields:
                    type_.fields[name] = MergedField(name, field.type, field.marks, {}, field.arguments, [])


class _Requirements:
    """Which fields some `@requires` of a subgraph selects, of those that an @override has not taken away from it."""

    def __init__(self, merged: Merged) -> None:
        self._merged = merged
        self._active: set[tuple[str, str]] = set()
        self._overridden: set[tuple[str, str]] = set()
        for type_ in merged.objects():
            for field in type_.fields.values():
                overridden = merged.overridden(field)
                for graph, here in field.by.items():
                    if here.requires is not None:
                        found = self._overridden if graph in overridden else self._active
                        found |= {(graph, each) for each in self._selected(type_, parse_fields(here.requires))}

    def _selected(self, type_: MergedComposite, selections: SelectionSetNode) -> Iterator[str]:
        for node in selections.selections:
            if isinstance(node, FieldNode) and (field := type_.fields.get(node.name.value)):
                yield f"{type_.name}.{field.name}"
                inner = self._merged.composite(named(field.type))
                if node.selection_set and inner:
                    yield from self._selected(inner, node.selection_set)
            elif isinstance(node, InlineFragmentNode):
                on = self._merged.composite(node.type_condition.name.value) if node.type_condition else type_
                if on:
                    yield from self._selected(on, node.selection_set)

    def needs(self, graph: str, coordinate: str, here: Field) -> bool:
        return (graph, coordinate) in self._active or (here.required and not self.needed_only_before(graph, coordinate))

    def needed_only_before(self, graph: str, coordinate: str) -> bool:
        """Before an @override took away what requires it."""
        return (graph, coordinate) in self._overridden and (graph, coordinate) not in self._active


class _InterfaceJoiner:
    def __init__(self, merged: Merged, type_: MergedComposite) -> None:
        self._merged = merged
        self._type = type_

    def join(self) -> None:
        self._type.joins = list(self._type_joins())
        graphs = {join.graph for join in self._type.joins}
        for field in self._type.fields.values():
            has_types = any(here.type != field.type for here in field.by.values())
            joins = [self._field_join(graph, here, has_types) for graph, here in field.by.items()]
            field.joins = _shortened(joins, graphs)

    def _type_joins(self) -> Iterator[TypeJoin]:
        for graph, here in self._type.by.items():
            for key in here.keys:
                yield TypeJoin(graph, key, here.extension, here.interface_object)
            if not here.keys:
                yield TypeJoin(graph, interface_object=here.interface_object)

    def _field_join(self, graph: str, here: Field, has_types: bool) -> Join:
        external = here.external and not (here.key and self._type.by[graph].extension)
        requires = _without_keys(here.requires, self._type.by[graph]) if here.requires else None
        type_ = here.type if has_types else None
        return Join(graph, type_, external, requires, here.provides, here.override, here.label)


class _ObjectJoiner:
    def __init__(self, merged: Merged, type_: MergedComposite, requirements: _Requirements) -> None:
        self._merged = merged
        self._type = type_
        self._requirements = requirements
        self._interface_graphs: dict[str, set[str]] = {}
        for interface in merged.interfaces_of(type_):
            for name, field in interface.fields.items():
                self._interface_graphs.setdefault(name, set()).update(field.by)

    def join(self) -> None:
        self._type.joins = list(self._type_joins())
        graphs = {join.graph for join in self._type.joins}
        for field in list(self._type.fields.values()):
            joins = [join for join in self._field_joins(field) if join.graph in graphs]
            if joins:
                field.joins = _shortened(joins, graphs)
            else:
                del self._type.fields[field.name]  # nobody has it: Federation 1's way to say that another might

    def _type_joins(self) -> Iterator[TypeJoin]:
        if self._type.name == "Query":
            yield from map(TypeJoin, self._merged.graphs)
            return
        for graph, here in self._type.by.items():
            for key in here.keys:
                yield TypeJoin(graph, key, _is_extension(self._merged.graphs[graph], here))
            if not here.keys and (here.defined or any(self._stays(graph, f) for f in self._type.fields.values())):
                yield TypeJoin(graph)

    def _stays(self, graph: str, field: MergedField) -> bool:
        """Whether a field is reason enough for a subgraph's extension of the type to be told."""
        here = field.by.get(graph)
        if here is None:
            return False
        before = self._requirements.needed_only_before(graph, self._coordinate(field))
        extends = self._type.by[graph].extension and not before
        used = here.provided or self._needs(graph, field) or self._is_used_overridden(graph, field)
        return not here.external or used or extends

    def _coordinate(self, field: MergedField) -> str:
        return f"{self._type.name}.{field.name}"

    def _needs(self, graph: str, field: MergedField) -> bool:
        return self._requirements.needs(graph, self._coordinate(field), field.by[graph])

    def _is_in_interface(self, graph: str, field: MergedField) -> bool:
        return graph in self._interface_graphs.get(field.name, ())

    def _is_used_overridden(self, graph: str, field: MergedField) -> bool:
        """Taken away by an @override, and yet needed there: as a key, or for an interface."""
        here = field.by[graph]
        if graph not in self._merged.overridden(field):
            return False
        return (here.key and not here.external) or self._is_in_interface(graph, field)

    def _field_joins(self, field: MergedField) -> Iterator[Join]:
        overridden, labels = self._merged.overridden(field), self._labels(field)
        is_overriding = any(here.override is not None for here in field.by.values())
        has_types = any(here.type != field.type for here in field.by.values())
        for graph, here in field.by.items():
            external = self._is_external(graph, field)
            needed = self._needs(graph, field)
            used = self._is_used_overridden(graph, field)
            used |= graph in overridden and needed and not external
            if is_overriding:
                told = graph not in overridden or graph in labels or used or (external and needed)
            else:
                told = has_types or needed or not self._is_idle(graph, field, external)
            if told:
                type_ = here.type if has_types else None
                requires, provides = self._field_sets(graph, here)
                label = labels.get(graph)
                yield Join(graph, type_, external, requires, provides, here.override, label, used)

    def _is_idle(self, graph: str, field: MergedField, external: bool) -> bool:
        """External, and of no use: extensions may have such fields, and an @override may leave them behind."""
        here = field.by[graph]
        if here.provided or here.requires or here.provides or self._is_in_interface(graph, field):
            return False
        if external:
            return self._type.by[graph].extension
        return here.external and self._requirements.needed_only_before(graph, self._coordinate(field))

    def _is_external(self, graph: str, field: MergedField) -> bool:
        here = field.by[graph]
        if not here.external or self._requirements.needed_only_before(graph, self._coordinate(field)):
            return False
        return here.provided or not (here.key and self._type.by[graph].extension)

    def _labels(self, field: MergedField) -> dict[str, str]:
        """Both who takes a field and whom it is taken from carry the label."""
        labels = {}
        for graph, here in field.by.items():
            source = self._merged.id(here.override)
            if here.label is not None and source in field.by and source is not None:
                labels[graph] = labels[source] = here.label
        return labels

    def _field_sets(self, graph: str, here: Field) -> tuple[str | None, str | None]:
        """Without what need not be asked for: keys come along in any case."""
        requires = here.requires and _without_keys(here.requires, self._type.by[graph])
        provides = here.provides
        target = self._merged.graphs[graph].composite(named(here.type))
        if provides and target and target.extension:
            provides = _without_keys(provides, target)
        return requires or None, provides or None


def _is_extension(schema: Schema, here: Composite) -> bool:
    return here.extends or (here.extension and not here.defined and not schema.federation_1)


def _shortened(joins: list[Join], graphs: set[str]) -> list[Join] | None:
    if {join.graph for join in joins} != graphs:
        return joins
    is_alone = len(graphs) == 1  # so that there is nothing to override
    return None if all((replace(join, override=None) if is_alone else join).plain for join in joins) else joins


def _without_keys(text: str, type_: Composite) -> str | None:
    """A field set without the leaves that are in every key of the type; None if nothing is left."""
    keys = [set(_paths(parse_fields(key.fields))) for key in type_.keys]
    common = set.intersection(*keys) if keys else set()
    return _text(parse_fields(text), common, ()) or None


def _paths(selections: SelectionSetNode, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for node in selections.selections:
        if isinstance(node, FieldNode):
            path = (*above, node.name.value)
            if node.selection_set:
                yield from _paths(node.selection_set, path)
            else:
                yield path


def _text(selections: SelectionSetNode, without: set[tuple[str, ...]], above: tuple[str, ...]) -> str:
    texts = []
    for node in selections.selections:
        if isinstance(node, FieldNode):
            path = (*above, node.name.value)
            if not node.selection_set and path not in without:
                texts.append(" ".join(print_ast(node).split()))
            elif node.selection_set and (inner := _text(node.selection_set, without, path)):
                head = print_ast(FieldNode(name=node.name, arguments=node.arguments))
                texts.append(f"{head} {{ {inner} }}")
        else:
            texts.append(" ".join(print_ast(node).split()))
    return " ".join(texts)
