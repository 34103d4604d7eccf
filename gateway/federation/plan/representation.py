"""How an entity is named to a subgraph: made from what other subgraphs answered about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphql import FieldNode

from gateway.federation.plan.operation import arguments_text
from gateway.federation.plan.spots import Place, Spot
from gateway.federation.supergraph import FieldSet, narrowed

Json = dict[str, Any]


class Incomplete(Exception):
    """What is known of an object does not suffice to ask for it elsewhere: it is left as it is."""


@dataclass(frozen=True, slots=True)
class Part:
    """A field of a representation: found as `raw`, sent as `name`; `below` says what of an object, if it is one."""

    name: str
    raw: str
    required: bool
    below: "Below | None" = None


@dataclass(frozen=True, slots=True)
class Below:
    """Of the objects in a field: of every type the same parts, or for each type its own and the type's name."""

    parts: tuple[Part, ...]
    by_type: tuple[tuple[str, tuple[Part, ...]], ...] = ()

    def take(self, value: Any) -> Any:
        if value is None:
            return None
        if type(value) is list:
            return [self.take(item) for item in value]
        if type(value) is not dict:
            raise Incomplete
        if not self.by_type:
            return take(self.parts, value, {})
        type_ = value.get("__typename")
        for name, parts in self.by_type:
            if name == type_:
                return take(parts, value, {"__typename": type_})
        return {"__typename": type_}


@dataclass(frozen=True, slots=True)
class Representation:
    """`keys` are those of `parts` that are of the key: were they all null, they would name nobody."""

    typename: str
    parts: tuple[Part, ...]
    keys: tuple[str, ...]

    def of(self, value: Mapping[str, Any]) -> Json:
        """`Incomplete` if something is missing."""
        made = take(self.parts, value, {"__typename": self.typename})
        if self.keys and all(made[key] is None for key in self.keys):
            raise Incomplete
        return made

    def is_of(self, representation: Json, entity: Json) -> bool:
        """Whether an entity is the one that was asked for, as far as it says."""
        return all(
            part.below is not None or _same(representation[part.name], entity.get(part.raw))
            for part in self.parts
            if part.name in self.keys
        )


def _same(asked: Any, answered: Any) -> bool:
    return answered is None or asked is None or asked == answered or str(asked) == str(answered)


def take(parts: tuple[Part, ...], value: Mapping[str, Any], into: Json) -> Json:
    for part in parts:
        found = value.get(part.raw, Incomplete)
        if found is Incomplete or (found is None and part.required):
            raise Incomplete
        into[part.name] = found if part.below is None else part.below.take(found)
    return into


def representation(place: Place, typename: str, key: FieldSet, requires: Sequence[FieldSet]) -> Representation:
    parts = _parts(place, [key, *requires])
    of_key = {node.name.value for node in narrowed(key, place.type, place.spot.graph)}
    return Representation(typename, parts, tuple(part.name for part in parts if part.name in of_key))


def _parts(place: Place, selections: Sequence[FieldSet]) -> tuple[Part, ...]:
    nodes: dict[str, list[FieldNode]] = {}
    for selection in selections:
        for node in narrowed(selection, place.type, place.spot.graph):
            if node.name.value != "__typename":
                nodes.setdefault(node.name.value, []).append(node)
    return tuple(_part(place, name, same) for name, same in nodes.items())


def _part(place: Place, name: str, nodes: Sequence[FieldNode]) -> Part:
    slot = place.internal[name, arguments_text(nodes[0].arguments)]
    below = [node.selection_set for node in nodes if node.selection_set]
    return Part(name, slot.raw, not slot.definition.nullable, _below(slot.child, below) if slot.child else None)


def _below(spot: Spot, selections: Sequence[FieldSet]) -> Below:
    if not spot.abstract:
        return Below(_parts(spot.common, selections))
    return Below((), tuple((type_, _parts(place, selections)) for type_, place in spot.places.items() if place.states))
