"""Fields that several subgraphs resolve must say that they are shared: `@shareable`, everywhere."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateway.federation.compose.errors import Report
from gateway.federation.compose.merged import Merged, MergedComposite, MergedField
from gateway.federation.compose.model import Field


@dataclass(frozen=True, slots=True)
class _Resolver:
    graph: str
    shares: bool
    through: str = ""  # the interface whose interface object it is a field of


def check_sharing(merged: Merged, report: Report) -> None:
    for type_ in merged.composites():
        for field in type_.fields.values():
            if type_.name == "Subscription":
                _check_subscription(field, merged, report)
            elif not (field.by and all(here.key for here in field.by.values())):
                resolvers = list(_resolvers(type_, field, merged))
                _check(f"{type_.name}.{field.name}", resolvers, merged, report)


def _check_subscription(field: MergedField, merged: Merged, report: Report) -> None:
    if len(field.by) > 1:
        where = merged.names(field.by)
        message = f"Subscription.{field.name} is in {', '.join(where)}: what is subscribed to cannot be shared"
        report.add("INVALID_FIELD_SHARING", f"{message}: keep it in one", f"Subscription.{field.name}", where)


def _resolvers(type_: MergedComposite, field: MergedField, merged: Merged) -> Iterator[_Resolver]:
    for graph, here in field.by.items():
        if type_.interface and not type_.by[graph].interface_object:
            continue
        if not _leaves(here, field, merged):
            old = type_.entity and merged.graphs[graph].federation_1 and here.in_extension
            yield _Resolver(graph, here.shareable or here.key or old, type_.name if type_.interface else "")
    if not type_.interface:
        yield from _through_interface_objects(type_, field, merged)


def _through_interface_objects(type_: MergedComposite, field: MergedField, merged: Merged) -> Iterator[_Resolver]:
    for interface in merged.interfaces_of(type_):
        added = interface.fields.get(field.name)
        if added is None or added.key:
            continue
        for graph, here in added.by.items():
            if interface.by[graph].interface_object and not _leaves(here, field, merged):
                yield _Resolver(graph, here.shareable, interface.name)


def _leaves(here: Field, field: MergedField, merged: Merged) -> bool:
    """External, or resolved in place of another subgraph, whose own field counts."""
    return here.external or (here.override is not None and merged.id(here.override) in field.by)


def _check(coordinate: str, resolvers: list[_Resolver], merged: Merged, report: Report) -> None:
    owning = [resolver for resolver in resolvers if not resolver.shares]
    if not owning or len(resolvers) < 2:
        return
    if all(resolver.through for resolver in resolvers) and "." in coordinate and len({r.graph for r in resolvers}) < 2:
        return
    where = _texts(resolvers, merged)
    message = f"{coordinate} is resolved in {where}, and not @shareable in {_texts(owning, merged)}"
    message += ": mark it @shareable in all of them, or keep it in one"
    report.add("INVALID_FIELD_SHARING", message, coordinate, merged.names(dict.fromkeys(r.graph for r in resolvers)))


def _texts(resolvers: Iterable[_Resolver], merged: Merged) -> str:
    texts = []
    for resolver in resolvers:
        through = f" (by the interface object {resolver.through})" if resolver.through else ""
        texts.append(merged.graphs[resolver.graph].name + through)
    return ", ".join(texts)
