"""Whether every field of a supergraph can be answered wherever a client can ask for it.

Walks what clients may ask, each type once for each set of subgraphs that gets there, with the planner's own search:
what passes here can be planned.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from graphql import (
    FieldNode,
    GraphQLInterfaceType,
    GraphQLObjectType,
    NameNode,
    OperationType,
    SelectionSetNode,
    print_ast,
)

from gateway.federation.plan.search import Search
from gateway.federation.plan.spots import UNREACHABLE, Place, Slot, Spot
from gateway.federation.supergraph import FieldSet, Jump, Supergraph

_MOST = 50


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """A field that no subgraph answers at `path`, or an interface whose type none can tell. `message` says why, and
    what helps; `subgraphs` are those that get there."""

    coordinate: str
    path: tuple[str, ...]
    message: str
    subgraphs: tuple[str, ...]


def unsatisfiable(supergraph: Supergraph) -> list[Unsatisfiable]:
    """Empty if all is well; at most the first 50."""
    return _Walk(supergraph).walk()


class _Walk:
    def __init__(self, supergraph: Supergraph) -> None:
        self._graph = supergraph
        self._search = Search(supergraph)
        self._seen: set[tuple[str, frozenset[tuple[str, tuple[int, ...]]]]] = set()
        self._told: set[tuple[str, tuple[str, ...]]] = set()
        self._found: list[Unsatisfiable] = []

    def walk(self) -> list[Unsatisfiable]:
        waiting: list[tuple[Place, tuple[str, ...]]]
        waiting = [(self._search.root(operation).common, (operation.value,)) for operation in self._operations()]
        while waiting and len(self._found) < _MOST:
            place, path = waiting.pop(0)
            for slot in self._fields(place, path):
                if slot.child is not None:
                    waiting += ((p, (*path, slot.name)) for p in self._places(slot.child, (*path, slot.name)))
        return self._found

    def _operations(self) -> Iterable[OperationType]:
        return [operation for operation in OperationType if operation in self._graph.roots]

    def _places(self, spot: Spot, path: tuple[str, ...]) -> Iterator[Place]:
        """One for each type that may come, seen by this set of subgraphs for the first time."""
        if spot.abstract and self._search.leaf_depth((spot.common, spot.typename)) >= UNREACHABLE:
            self._tell_type(spot, path)
            return
        for type_ in self._graph.possible(spot.type):
            place = spot.place(type_)
            states = frozenset((s.member.id, tuple(map(id, s.provided))) for s in self._search.states(place))
            if states and (type_, states) not in self._seen and type_ in self._graph.api_schema.type_map:
                self._seen.add((type_, states))
                yield place

    def _fields(self, place: Place, path: tuple[str, ...]) -> Iterator[Slot]:
        shown = self._graph.api_schema.type_map[place.type]
        assert isinstance(shown, GraphQLObjectType | GraphQLInterfaceType)
        for name in shown.fields:
            if self._search.options(place, name):
                slot = self._search.slot(place, name, name, [FieldNode(name=NameNode(value=name))])
                yield slot
            else:
                self._tell_field(place, name, path)

    def _tell_type(self, spot: Spot, path: tuple[str, ...]) -> None:
        here = self._here(spot.common)
        message = (
            f"which {spot.type} it is cannot be told at {_text(path)}: {_list(here)} has it as an interface object, "
            f"and no subgraph that has it as an interface can be asked: give the interface a resolvable @key there, "
            f"with fields that {_list(here)} can give"
        )
        self._add(spot.type, path, message, here)

    def _tell_field(self, place: Place, name: str, path: tuple[str, ...]) -> None:
        here = self._here(place)
        reasons = "; ".join(self._reasons(place, name)) or "no subgraph has it"
        message = (
            f"{place.type}.{name} cannot be answered at {_text(path)}, which {_list(here)} can be asked for: {reasons}"
        )
        self._add(f"{place.type}.{name}", path, message, here)

    def _add(self, coordinate: str, path: tuple[str, ...], message: str, here: tuple[str, ...]) -> None:
        if (coordinate, here) not in self._told:
            self._told.add((coordinate, here))
            self._found.append(Unsatisfiable(coordinate, path, message, here))

    def _here(self, place: Place) -> tuple[str, ...]:
        return tuple(sorted({state.member.name for state in self._search.states(place)}))

    def _reasons(self, place: Place, name: str) -> Iterator[str]:
        for member, local in self._graph.seen_as(place.type):
            field = local.fields.get(name)
            if field is None:
                continue
            if field.external:
                yield f"in {member.name} it is @external"
                continue
            jumps = [j for j in self._graph.jumps(place.type) if j.subgraph == member.id]
            yield from self._missing(place, member.name, jumps)
            if field.requires and jumps:
                yield f"in {member.name} it requires {_fields_text(field.requires)}, which cannot be had here"

    def _missing(self, place: Place, name: str, jumps: list[Jump]) -> Iterator[str]:
        if not jumps:
            yield f"{name} has it, and {place.type} has no resolvable @key there: add one, or make the field @shareable"
        for jump in jumps:
            leaves = self._search.leaves(place, jump.key.fields)
            lacking = sorted({leaf[1].name for leaf in leaves if self._search.leaf_depth(leaf) >= UNREACHABLE})
            if lacking:
                yield f"{name} has it by the key {jump.key.text!r}, whose {', '.join(lacking)} cannot be had here"


def _fields_text(selections: FieldSet) -> str:
    return " ".join(print_ast(SelectionSetNode(selections=selections.selections)).split())


def _text(path: tuple[str, ...]) -> str:
    return ".".join(path)


def _list(names: tuple[str, ...]) -> str:
    return " or ".join(names) or "no subgraph"
