"""Who may see a field must be allowed to see what it `@requires`."""

from collections.abc import Iterator

from graphql import FieldNode, InlineFragmentNode, SelectionSetNode

from gateway.federation.compose.errors import Report
from gateway.federation.compose.field_sets import parse_fields
from gateway.federation.compose.marks import merged_marks
from gateway.federation.compose.merged import Merged, MergedComposite, MergedField
from gateway.federation.compose.model import Groups, Marks, named


def check_access(merged: Merged, report: Report) -> None:
    for type_ in merged.objects():
        for field in type_.fields.values():
            granted = merged_marks([type_.marks, field.marks])
            for graph, here in field.by.items():
                selections = parse_fields(here.requires) if here.requires else None
                wanted = _selected(type_, selections, merged) if selections else iter(())
                lacking = next((coordinate for coordinate, marks in wanted if not _covers(granted, marks)), None)
                if lacking:
                    coordinate = f"{type_.name}.{field.name}"
                    where = merged.graphs[graph].name
                    message = (
                        f"{coordinate} @requires {lacking} in {where}, which asks for permissions that it does not ask "
                    )
                    message += f"for: repeat {lacking}'s @authenticated, @requiresScopes and @policy"
                    report.add("MISSING_TRANSITIVE_AUTH_REQUIREMENTS", message, (coordinate, lacking), where)


def _selected(type_: MergedComposite, selections: SelectionSetNode, merged: Merged) -> Iterator[tuple[str, Marks]]:
    yield type_.name, type_.marks
    for node in selections.selections:
        if isinstance(node, FieldNode):
            found = _field(type_, node.name.value, merged)
            if found:
                yield f"{type_.name}.{found.name}", found.marks
                inner = merged.types.get(named(found.type))
                if inner:
                    yield f"{type_.name}.{found.name}", inner.marks
                if node.selection_set and isinstance(inner, MergedComposite):
                    yield from _selected(inner, node.selection_set, merged)
                elif node.selection_set:
                    yield from _in_fragments(node.selection_set, merged)
        elif isinstance(node, InlineFragmentNode):
            on = merged.composite(node.type_condition.name.value) if node.type_condition else type_
            if on:
                yield from _selected(on, node.selection_set, merged)


def _in_fragments(selections: SelectionSetNode, merged: Merged) -> Iterator[tuple[str, Marks]]:
    """Of a union."""
    for node in selections.selections:
        if isinstance(node, InlineFragmentNode) and node.type_condition:
            on = merged.composite(node.type_condition.name.value)
            if on:
                yield from _selected(on, node.selection_set, merged)


def _field(type_: MergedComposite, name: str, merged: Merged) -> MergedField | None:
    if name in type_.fields:
        return type_.fields[name]
    return next((i.fields[name] for i in merged.interfaces_of(type_) if name in i.fields), None)


def _covers(granted: Marks, wanted: Marks) -> bool:
    if wanted.authenticated and not granted.authenticated:
        return False
    return _covers_groups(granted.scopes, wanted.scopes) and _covers_groups(granted.policies, wanted.policies)


def _covers_groups(granted: Groups, wanted: Groups) -> bool:
    return all(any(set(group) <= set(mine) for mine in granted) for group in wanted)
