"""Where a plan looks at things: the places of an answer, what is asked for there, and how a subgraph gets there.

An answer is a tree. Each of its objects, or each list of them, is a `Spot`. Objects of different types at one spot
differ in what is asked of them and in who knows it, so a spot has a `Place` for each type that is looked at by itself,
and a `common` one for what is asked of all of them. A field that is asked for at a place is a `Slot`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from zlib import crc32

from graphql import ArgumentNode, DirectiveNode, FieldNode, parse_type

from gateway.federation.supergraph import FieldSet, GlobalField, Jump, LocalField, LocalType, Member, Supergraph

if TYPE_CHECKING:
    from gateway.federation.plan.fetches import Node

# More than any plan is deep: what cannot be reached.
UNREACHABLE = 1 << 20

Leaf = tuple["Place", "Slot"]


@dataclass(slots=True, eq=False)
class Way:
    """How a state is reached: `root`, from the operation itself; `field`, along `slot` from a state of the place above;
    `narrow`, as one of the types of the common place; `jump`, by a key, with a request of its own."""

    kind: Literal["root", "field", "narrow", "jump"]
    depth: int
    state: "State | None" = None
    slot: "Slot | None" = None
    jump: Jump | None = None
    requires: FieldSet | None = None


@dataclass(slots=True, eq=False)
class State:
    """A place as seen by one subgraph. `depth` is how many requests, one after the other, it takes to get there."""

    place: "Place"
    member: Member
    local: LocalType
    depth: int
    provided: tuple[FieldSet, ...] = ()
    ways: list[Way] = field(default_factory=list)
    nodes: list["Node"] = field(default_factory=list)

    @property
    def opaque(self) -> bool:
        """Whether this subgraph does not know which type an object here has."""
        return self.local.interface_object


@dataclass(slots=True, eq=False)
class Slot:
    """A field at a place. `raw` is its name in the answers of subgraphs, where it may have to differ from `key`."""

    place: "Place"
    key: str
    definition: GlobalField
    arguments: tuple[ArgumentNode, ...] = ()
    arguments_text: str = ""
    directives: tuple[DirectiveNode, ...] = ()
    nodes: tuple[FieldNode, ...] = ()
    raw: str = ""
    child: "Spot | None" = None
    chosen: list["Node"] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def asked(self) -> bool:
        """Whether the client asked for it, and not the plan."""
        return bool(self.nodes)


Option = tuple[int, State, LocalField]


@dataclass(slots=True, eq=False)
class Place:
    """A spot seen as one type: an object's, or for the common place the declared one."""

    spot: "Spot"
    type: str
    common: bool
    states: dict[tuple[str, tuple[int, ...]], State] | None = None
    slots: dict[str, Slot] = field(default_factory=dict)
    internal: dict[tuple[str, str], Slot] = field(default_factory=dict)
    requiring: dict[tuple[str, str, str], State | None] = field(default_factory=dict)
    options: dict[str, list[Option]] = field(default_factory=dict)
    leaves: dict[int, list[Leaf]] = field(default_factory=dict)
    # The types that must be known to find objects of this place: its own, and those on the way to it.
    typed: list[Leaf] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.spot.slot is not None:
            self.typed = list(self.spot.slot.place.typed)
        if not self.common:
            self.typed.append((self.spot.common, self.spot.typename))

    @property
    def general(self) -> bool:
        """Whether it stands for objects of several types."""
        return self.common and self.spot.abstract

    def settle(self) -> int:
        """See `Spot.settle`."""
        self.states = None
        for found in (self.internal, self.requiring, self.options, self.leaves, self.typed):
            found.clear()
        fields = len(self.slots)
        for slot in self.slots.values():
            slot.chosen.clear()
            if slot.child:
                fields += slot.child.settle()
        return fields


@dataclass(slots=True)
class _Raw:
    """A name in the answers of subgraphs, and what it must not be shared with."""

    signature: tuple[str, str]
    nodes: tuple[FieldNode, ...]
    leaf: bool
    shapes: dict[str, str]


class Spot:
    """`slot` leads to it; None at the root."""

    def __init__(self, graph: Supergraph, type_: str, slot: Slot | None) -> None:
        self.graph = graph
        self.type = type_
        self.slot = slot
        self.abstract = graph.types[type_].abstract
        self.common = Place(self, type_, common=True)
        self.places: dict[str, Place] = {}
        self.keys: dict[str, str] = {}  # response keys in the order of the answer, and the names of their fields
        self.typenames: dict[str, frozenset[str]] = {}  # keys of `__typename`, and the types that it is asked of
        self.introspection: list[FieldNode] = []  # `__schema` and `__type`, at the root
        self.typename = Slot(self.common, "__typename", _TYPENAME, raw="__typename")
        self._raws: dict[str, _Raw] = {"__typename": _Raw(("__typename", ""), (), True, {})}

    def place(self, type_: str) -> Place:
        """The place of an object type."""
        if not self.abstract:
            return self.common
        if type_ not in self.places:
            self.places[type_] = Place(self, type_, common=False)
        return self.places[type_]

    def seen_by(self, type_: str) -> Iterable[Place]:
        """The places that objects of this type belong to."""
        yield self.common
        if type_ in self.places:
            yield self.places[type_]

    def settle(self) -> int:
        """Forgets, here and below, what is of no use once everything is chosen: most of what a plan would take. How
        many fields are left."""
        self._raws.clear()
        return self.common.settle() + sum(place.settle() for place in self.places.values())

    def path(self) -> tuple[tuple[str, frozenset[str] | None], ...]:
        """The steps from the root: names in subgraphs' answers, each with the types that it is taken on, if not all."""
        if self.slot is None:
            return ()
        place = self.slot.place
        types = frozenset((place.type,)) if place.spot.abstract and not place.common else None
        return (*place.spot.path(), (self.slot.raw, types))

    def name(self, slot: Slot) -> str:
        """`slot.raw`, chosen now if it has none: as the client calls it, unless two fields that GraphQL would not let
        have one name in one document, or that are merged apart, would get it."""
        if not slot.raw:
            for name in self._candidates(slot):
                if self._fits(name, slot):
                    slot.raw = name
                    break
        return slot.raw

    def _candidates(self, slot: Slot) -> Iterable[str]:
        yield slot.key
        apart = f"{slot.place.type} {slot.arguments_text}"
        n = 0
        while True:
            yield f"_{slot.key}_{crc32(f'{apart} {n}'.encode()):08x}"
            n += 1

    def _fits(self, name: str, slot: Slot) -> bool:
        if not slot.asked and self.keys.get(name, slot.name) != slot.name:
            return False
        if name != slot.key and name in self.keys:
            return False
        signature, leaf = (slot.name, slot.arguments_text), slot.child is None
        shapes = self._shapes(slot)
        known = self._raws.get(name)
        if known is None:
            self._raws[name] = _Raw(signature, slot.nodes, leaf, shapes)
            return True
        if known.signature != signature or leaf != known.leaf:
            return False
        if not leaf and not (slot.nodes and _same(slot.nodes, known.nodes)):
            return False
        if any(known.shapes.get(member, shape) != shape for member, shape in shapes.items()):
            return False
        known.shapes.update(shapes)
        return True

    def _shapes(self, slot: Slot) -> dict[str, str]:
        """The field's type in each subgraph: there, answers of one name must have one shape."""
        found = {}
        for member in self.graph.subgraphs.values():
            local = member.types.get(slot.place.type)
            if local and slot.name in local.fields:
                found[member.id] = local.fields[slot.name].shape
        return found


def _same(one: tuple[FieldNode, ...], other: tuple[FieldNode, ...]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


_TYPENAME = GlobalField("__typename", "String", parse_type("String!", no_location=True))
