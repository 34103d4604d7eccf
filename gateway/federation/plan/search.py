"""Which subgraphs get to a place, and after how many requests.

Every place has a state for each subgraph that can get there: along a field from a state of the place above, or by a
key, which costs a request after those that bring the key. States hold every way of the fewest requests one after the
other; which of them is taken is decided later (`choice.py`), when all that is asked for is known.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from graphql import FieldNode, InlineFragmentNode, OperationType

from gateway.federation.plan.operation import arguments_text
from gateway.federation.plan.spots import UNREACHABLE, Leaf, Option, Place, Slot, Spot, State, Way
from gateway.federation.supergraph import FieldSet, Jump, LocalField, LocalType, Member, Supergraph, narrowed

# Keys within keys within keys.
_KEYS_DEEP = 4


@dataclass(frozen=True, slots=True)
class _Requirer:
    member: Member
    local: LocalType
    field: LocalField


class Search:
    """The states of one plan's places, found as they are asked for."""

    def __init__(self, graph: Supergraph) -> None:
        self.graph = graph
        self._deciding: set[tuple[int, str, str, str]] = set()
        self._keys_deep = 0

    def root(self, operation: OperationType) -> Spot:
        spot = Spot(self.graph, self.graph.root(operation), None)
        place = spot.common
        place.states = {}
        for member in self.graph.subgraphs.values():
            if local := member.types.get(place.type):
                self._reach(place, member, local, (), Way("root", 1))
        return spot

    # States

    def states(self, place: Place) -> Iterable[State]:
        if place.states is None:
            place.states = {}
            if place.common:
                self._arrive(place)
            else:
                self._narrow(place)
            self._jump(place)
        return place.states.values()

    def _arrive(self, place: Place) -> None:
        slot = place.spot.slot
        assert slot is not None
        for depth, state, field in self.options(slot.place, slot.name):
            local = state.member.types.get(field.type)
            if local is not None:
                provided = tuple(self._provided_below(state, field))
                self._reach(place, state.member, local, provided, Way("field", depth, state=state, slot=slot))

    def _provided_below(self, state: State, field: LocalField) -> Iterator[FieldSet]:
        if field.provides:
            yield field.provides
        for provided in state.provided:
            for node in narrowed(provided, state.place.type, self.graph):
                if node.name.value == field.name and node.selection_set:
                    yield node.selection_set

    def _narrow(self, place: Place) -> None:
        if not self._occurs(place):
            return
        for state in self.states(place.spot.common):
            local: LocalType | None = state.local
            if not state.opaque:
                if place.type not in state.local.possible:
                    continue
                local = state.member.types.get(place.type)
            if local is not None:
                self._reach(place, state.member, local, state.provided, Way("narrow", state.depth, state=state))

    def _occurs(self, place: Place) -> bool:
        """Whether all who answer the field can answer with such an object: those who share a field give the same."""
        slot = place.spot.slot
        assert slot is not None
        for _, state, field in self.options(slot.place, slot.name):
            local = state.member.types.get(field.type)
            if local is not None and not local.interface_object and place.type not in local.possible:
                return False
        return True

    def _reach(self, place: Place, member: Member, local: LocalType, provided: tuple[FieldSet, ...], way: Way) -> None:
        """Adds a way if it is as short as those that are known, in the place of those that are longer."""
        assert place.states is not None
        key = (member.id, tuple(map(id, provided)))
        state = place.states.get(key)
        if state is None:
            place.states[key] = State(place, member, local, way.depth, provided, [way])
            return
        if way.depth > state.depth:
            return
        if way.depth < state.depth:
            state.depth, state.ways = way.depth, []
        if local is state.local:
            state.ways.append(way)

    # Keys

    def _jump(self, place: Place) -> None:
        jumps = [jump for jump in self.graph.jumps(place.type) if self._possible(jump, place)]
        roots = self.graph.roots.get(OperationType.QUERY) == place.type
        if roots and place.spot.slot is not None:
            self._reach_roots(place)
        ways: dict[int, int] = {}
        changed = bool(jumps)
        while changed:
            changed = False
            for n, jump in enumerate(jumps):
                depth = self._key_depth(place, jump)
                if depth < ways.get(n, UNREACHABLE):
                    ways[n], changed = depth, True
                    member = self.graph.subgraphs[jump.subgraph]
                    self._reach(place, member, member.types[jump.local_type], (), Way("jump", depth, jump=jump))

    def _possible(self, jump: Jump, place: Place) -> bool:
        """Several types at once can be asked for only where their interface is an object, or is all that is known."""
        if not place.general or jump.into_interface_object:
            return True
        assert place.states is not None
        return any(state.opaque for state in place.states.values())

    def _reach_roots(self, place: Place) -> None:
        """Whoever has a Query can be asked for it from anywhere."""
        assert place.states is not None
        if not place.states:
            return
        depth = 1 + min(state.depth for state in place.states.values())
        for member in self.graph.subgraphs.values():
            if local := member.types.get(place.type):
                self._reach(place, member, local, (), Way("jump", depth))

    def _key_depth(self, place: Place, jump: Jump) -> int:
        """The depth of a request by this key. Other ways in are not looked for beneath the key's own fields, unless
        there is no other."""
        depth = max(map(self.leaf_depth, place.typed), default=0)
        for path in _paths(jump.key.fields):
            depth = max(depth, self._path_depth(place, path))
        if depth >= UNREACHABLE and any(len(path) > 1 for path in _paths(jump.key.fields)):
            depth = self._deep_depth(place, jump.key.fields)
        return depth + 1 if depth < UNREACHABLE else UNREACHABLE

    def _deep_depth(self, place: Place, key: FieldSet) -> int:
        if self._keys_deep >= _KEYS_DEEP:
            return UNREACHABLE
        self._keys_deep += 1
        try:
            known = place.leaves.copy(), place.internal.copy()
            depth = max((self.leaf_depth(leaf) for leaf in self.leaves(place, key)), default=UNREACHABLE)
            place.leaves, place.internal = known  # more may be reached later: this was not the last word
        finally:
            self._keys_deep -= 1
        return depth

    def _path_depth(self, place: Place, path: tuple[str, ...]) -> int:
        assert place.states is not None
        least = UNREACHABLE
        for state in place.states.values():
            if state.depth < least and self._is_local_path(state, path):
                least = state.depth
        return least

    def _is_local_path(self, state: State, path: tuple[str, ...]) -> bool:
        local, provided = state.local, state.provided
        for n, name in enumerate(path):
            if name.startswith("..."):
                below = state.member.types.get(name[3:])
                if below is None:
                    return False
                local = below
                continue
            if n == 0:
                field = self.local_field(state, name)
            else:
                field = local.fields.get(name)
                if field and (field.requires or (field.external and name not in _named(provided))):
                    field = None
            if field is None:
                return False
            if n + 1 < len(path):
                provided = (*_beneath(provided, name), *((field.provides,) if field.provides else ()))
                deeper = state.member.types.get(field.type)
                if deeper is None:
                    return False
                local = deeper
        return True

    # Fields

    def local_field(self, state: State, name: str) -> LocalField | None:
        """The field, if this state's subgraph resolves it right here."""
        field = state.local.fields.get(name)
        if field is None or field.requires or (field.external and not self._is_provided(state, name)):
            return None
        if state.place.general and state.local.kind == "interface":
            for type_ in state.local.possible:
                of_object = state.member.types[type_].fields.get(name)
                if of_object is None or of_object.requires:
                    return None
                if of_object.external and not self._is_provided(state, name, type_):
                    return None
        return field

    def _is_provided(self, state: State, name: str, type_: str | None = None) -> bool:
        return any(
            node.name.value == name
            for provided in state.provided
            for node in narrowed(provided, type_ or state.place.type, self.graph)
        )

    def options(self, place: Place, name: str) -> list[Option]:
        """Where a field of a place can be asked for."""
        found = place.options.get(name)
        if found is None:
            found = [(s.depth, s, field) for s in self.states(place) if (field := self.local_field(s, name))]
            for requirer in self._requirers(place, name):
                state = self._requiring(place, requirer)
                if state is not None:
                    found.append((state.depth, state, requirer.field))
            if not self._deciding and not self._keys_deep:
                place.options[name] = found
        return found

    def depth(self, place: Place, name: str) -> int:
        """The least there is for a field of a place."""
        return min((depth for depth, _, _ in self.options(place, name)), default=UNREACHABLE)

    def _requirers(self, place: Place, name: str) -> Iterator[_Requirer]:
        for member, local in self.graph.seen_as(place.type):
            field = local.fields.get(name)
            if field and field.requires and not field.external and (local.interface_object or not place.general):
                yield _Requirer(member, local, field)

    def _requiring(self, place: Place, requirer: _Requirer) -> State | None:
        """The state in which what a field requires has been collected."""
        id_ = (requirer.member.id, requirer.local.name, requirer.field.requires_text)
        if id_ in place.requiring:
            return place.requiring[id_]
        deciding = (id(place), *id_)
        if deciding in self._deciding:
            return None
        self._deciding.add(deciding)
        state = self._requiring_anew(place, requirer)
        self._deciding.discard(deciding)
        if state is not None or not self._deciding:
            place.requiring[id_] = state
        return state

    def _requiring_anew(self, place: Place, requirer: _Requirer) -> State | None:
        requires = requirer.field.requires
        assert requires is not None
        required = max((self.leaf_depth(leaf) for leaf in self.leaves(place, requires)), default=0)
        if required >= UNREACHABLE:
            return None
        ways = []
        for jump in self.graph.jumps(place.type):
            if jump.subgraph == requirer.member.id and jump.local_type == requirer.local.name:
                depth = max(self._key_depth(place, jump), required + 1)
                if depth < UNREACHABLE:
                    ways.append(Way("jump", depth, jump=jump, requires=requires))
        if not ways:
            return None
        depth = min(way.depth for way in ways)
        ways = [way for way in ways if way.depth == depth]
        return State(place, requirer.member, requirer.local, depth, ways=ways)

    # Selections

    def leaf_depth(self, leaf: Leaf) -> int:
        return min((depth for depth, _ in self.leaf_options(leaf)), default=UNREACHABLE)

    def leaf_options(self, leaf: Leaf) -> Sequence[tuple[int, State]]:
        place, slot = leaf
        if slot.name == "__typename":
            return [(s.depth, s) for s in self.states(place) if not (place.spot.abstract and s.opaque)]
        return [(depth, state) for depth, state, _ in self.options(place, slot.name)]

    def leaves(self, place: Place, selections: FieldSet) -> list[Leaf]:
        """What has to be there for a key, or for what is required, of a place."""
        found = place.leaves.get(id(selections))
        if found is None:
            found = place.leaves[id(selections)] = []
            for node in narrowed(selections, place.type, self.graph):
                found.extend(self._leaves_of(place, node))
            found.extend(place.typed)
        return found

    def _leaves_of(self, place: Place, node: FieldNode) -> Iterator[Leaf]:
        if node.name.value == "__typename":
            return
        slot = self.internal(place, node)
        if slot.child is None:
            yield place, slot
        elif node.selection_set:
            yield from self._leaves_below(slot.child, node.selection_set)

    def _leaves_below(self, spot: Spot, selections: FieldSet) -> Iterator[Leaf]:
        if not spot.abstract:
            yield from self.leaves(spot.common, selections)
            return
        yield spot.common, spot.typename
        everywhere = {type_ for state in self.states(spot.common) for type_ in state.local.possible}
        for type_ in spot.graph.possible(spot.type):
            if type_ in everywhere:
                place = spot.place(type_)
                if self.states(place):
                    yield from self.leaves(place, selections)

    def internal(self, place: Place, node: FieldNode) -> Slot:
        """The slot of a field that a plan needs for itself; the client's, if it asked for just the same."""
        signature = (node.name.value, arguments_text(node.arguments))
        slot = place.internal.get(signature)
        if slot is None:
            slot = next((s for s in place.slots.values() if (s.name, s.arguments_text) == signature), None)
            slot = slot or self.slot(place, node.name.value, node.name.value, [node], asked=False)
            place.internal[signature] = slot
        return slot

    def slot(self, place: Place, key: str, name: str, nodes: Sequence[FieldNode], *, asked: bool = True) -> Slot:
        field = self.graph.types[place.type].fields[name]
        first = nodes[0]
        directives = tuple(d for d in first.directives or () if d.name.value not in ("skip", "include"))
        slot = Slot(
            place,
            key,
            field,
            tuple(first.arguments or ()),
            arguments_text(first.arguments),
            directives if asked else (),
            tuple(nodes) if asked else (),
        )
        if field.type in self.graph.types:
            slot.child = Spot(self.graph, field.type, slot)
        return slot


_known_paths: dict[int, tuple[FieldSet, tuple[tuple[str, ...], ...]]] = {}


def _paths(selections: FieldSet) -> tuple[tuple[str, ...], ...]:
    """A field set as the paths to its leaves: ("organization", "id"). A fragment's step is "...Type"."""
    known = _known_paths.get(id(selections))
    if known is None or known[0] is not selections:
        if len(_known_paths) > 10_000:
            _known_paths.clear()
        known = _known_paths[id(selections)] = (selections, tuple(_paths_of(selections)))
    return known[1]


def _paths_of(selections: FieldSet) -> Iterator[tuple[str, ...]]:
    for node in selections.selections:
        if isinstance(node, FieldNode):
            if node.selection_set:
                for path in _paths_of(node.selection_set):
                    yield (node.name.value, *path)
            elif node.name.value != "__typename":
                yield (node.name.value,)
        elif isinstance(node, InlineFragmentNode):
            on = f"...{node.type_condition.name.value}" if node.type_condition else ""
            for path in _paths_of(node.selection_set):
                yield (on, *path) if on else path


def _named(provided: tuple[FieldSet, ...]) -> set[str]:
    return {n.name.value for each in provided for n in each.selections if isinstance(n, FieldNode)}


def _beneath(provided: tuple[FieldSet, ...], name: str) -> tuple[FieldSet, ...]:
    return tuple(
        n.selection_set
        for each in provided
        for n in each.selections
        if isinstance(n, FieldNode) and n.name.value == name and n.selection_set
    )
