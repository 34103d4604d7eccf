"""The tree of what subgraphs have answered: merged, searched, and seen as the client will see it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from graphql import ListTypeNode, NonNullTypeNode, TypeNode

from gateway.federation.plan.fetches import Shape
from gateway.federation.plan.plan import Path
from gateway.federation.plan.spots import Place, Slot, Spot

Json = dict[str, Any]


def only(value: Any, shape: Shape) -> Any:
    """What was asked for of an answer, which may be changed: the rest could pass for what another subgraph says."""
    if type(value) is list:
        return [only(item, shape) for item in value]
    if type(value) is not dict:
        return value
    if not value.keys() <= shape.names:
        value = {name: value[name] for name in value.keys() & shape.names}
    for name, below in shape.below.items():
        if (found := value.get(name)) is not None:
            value[name] = only(found, below)
    return value


def merge(into: Json, other: Json) -> None:
    """Adds what `other` says of the same object. Lists are of the same things in the same order."""
    for name, value in other.items():
        known = into.get(name)
        if known is None:
            into[name] = value
        else:
            _merge_values(known, value)


def _merge_values(known: Any, other: Any) -> None:
    if type(known) is dict and type(other) is dict:
        merge(known, other)
    elif type(known) is list and type(other) is list:
        for n, (item, value) in enumerate(zip(known, other, strict=False)):
            if item is None:
                known[n] = value
            else:
                _merge_values(item, value)


def objects_at(root: Json, path: Path) -> list[Json]:
    """The objects at the end of a path, those in lists one by one."""
    current = [root]
    for name, types in path:
        found: list[Json] = []
        for each in current:
            if types is None or each.get("__typename") in types:
                value = each.get(name)
                if type(value) is dict:
                    found.append(value)
                elif type(value) is list:
                    _flatten(value, found)
        current = found
    return current


def _flatten(values: list[Any], into: list[Json]) -> None:
    for value in values:
        if type(value) is dict:
            into.append(value)
        elif type(value) is list:
            _flatten(value, into)


def where(root: Json, paths: Iterable[Path], wanted: Json) -> list[str | int]:
    """The path of one object, with the positions in lists. For errors: it looks at everything on the way."""
    for path in paths:
        for found, at in _walk(root, path, []):
            if found is wanted:
                return at
    return []


def _walk(value: Any, path: Path, at: list[str | int]) -> Iterator[tuple[Json, list[str | int]]]:
    if type(value) is list:
        for n, item in enumerate(value):
            yield from _walk(item, path, [*at, n])
    elif type(value) is dict:
        if not path:
            yield value, at
        elif path[0][1] is None or value.get("__typename") in path[0][1]:
            yield from _walk(value.get(path[0][0]), path[1:], [*at, path[0][0]])


def shown(layout: Spot, path: Iterable[Any]) -> list[str | int]:
    """A path in subgraphs' answers as one in the client's: by its own names, as far as it asked for what is there.

    A step without a position, where there is a list, ends it.
    """
    seen: list[str | int] = []
    spot: Spot | None = layout
    lists = 0
    for step in path:
        name = step[0] if isinstance(step, tuple) else step
        if isinstance(name, int):
            if lists == 0:
                return seen
            lists -= 1
            seen.append(name)
            continue
        slot = _slot(spot, name) if spot is not None and not lists else None
        if slot is None:
            return seen
        seen.append(slot.key)
        lists, spot = _depth_of_lists(slot.definition.node), slot.child
    return seen


def _slot(spot: Spot, raw: str) -> Slot | None:
    places: Sequence[Place] = [spot.common, *spot.places.values()]
    return next((slot for place in places for slot in place.slots.values() if slot.raw == raw), None)


def _depth_of_lists(node: TypeNode) -> int:
    depth = 0
    while isinstance(node, ListTypeNode | NonNullTypeNode):
        depth += isinstance(node, ListTypeNode)
        node = node.type
    return depth
