"""From what is asked for to requests: as few one after the other as can be, and as few as that allows.

First everything that is asked for is laid out (`Demand`): each leaf has a least depth, and the plan cannot be shallower
than the deepest of those. Then each leaf, the deepest first, gets the subgraph that costs the fewest requests more
within that depth.
"""

from collections.abc import Iterable, Mapping, Sequence

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationType,
    SelectionSetNode,
)

from gateway.federation.plan.fetches import Chosen, Fetch, Node, Selection, Target
from gateway.federation.plan.operation import Operation, arguments_text, included
from gateway.federation.plan.search import Search
from gateway.federation.plan.spots import UNREACHABLE, Leaf, Place, Slot, Spot, State, Way
from gateway.federation.supergraph import FieldSet, Jump, Supergraph

# Looking ahead further than this for what a way costs is not worth its time.
_AHEAD = 4
_MANY = 1_000
# Scalars that have one spelling.
_COMPARABLE = {"ID", "String", "Int"}


class Unreachable(Exception):
    """No subgraph can answer a field that the supergraph has: it was composed without a check of that."""


class PlanTooLarge(Exception):
    """A document whose fragments spread out to more than a plan may hold."""


Asked = list[tuple[frozenset[str], FieldNode]]


class Demand:
    """Lays out what an operation asks for, as slots at places, and lists the leaves."""

    def __init__(
        self,
        search: Search,
        fragments: Mapping[str, FragmentDefinitionNode],
        conditions: Mapping[str, bool],
        *,
        most: int,
        apart: bool,
    ) -> None:
        """`apart`: interfaces' fields are asked of each type by itself, which finds ways that asking all at once does
        not."""
        self._search = search
        self._graph = search.graph
        self._fragments = fragments
        self._conditions = conditions
        self._left = most
        self._apart = apart
        self.leaves: list[Leaf] = []

    def lay_out(self, spot: Spot, selections: Sequence[SelectionSetNode]) -> None:
        asked: dict[str, Asked] = {}
        everything = frozenset(self._graph.possible(spot.type))
        for selection_set in selections:
            self._gather(selection_set, everything, asked, set())
        self._search.states(spot.common)
        for key, nodes in asked.items():
            spot.keys[key] = nodes[0][1].name.value
        apart = False
        for key, nodes in asked.items():
            named = [types for types, node in nodes if node.name.value == "__typename"]
            if named:
                spot.typenames[key] = frozenset().union(*named)
            others = [(types, node) for types, node in nodes if node.name.value != "__typename"]
            if others and others[0][1].name.value.startswith("__"):
                spot.introspection += [node for _, node in others]
            elif others:
                apart |= self._ask(spot, key, others, everything)
        nothing_else = len(spot.typenames) == len(asked)
        if nothing_else or (spot.abstract and (apart or spot.typenames)):
            self.leaves.append((spot.common, spot.typename))

    def _gather(
        self,
        selections: SelectionSetNode,
        types: frozenset[str],
        asked: dict[str, Asked],
        seen: set[tuple[str, frozenset[str]]],
    ) -> None:
        for node in selections.selections:
            if not included(node, self._conditions):
                continue
            if isinstance(node, FieldNode):
                self._left -= 1
                if self._left < 0:
                    raise PlanTooLarge("the operation asks for too many fields")
                key = node.alias.value if node.alias else node.name.value
                asked.setdefault(key, []).append((types, node))
            elif isinstance(node, InlineFragmentNode):
                if among := self._of(node, types):
                    self._gather(node.selection_set, among, asked, seen)
            elif isinstance(node, FragmentSpreadNode):
                fragment = self._fragments[node.name.value]
                among = self._of(fragment, types)
                if among and (node.name.value, among) not in seen:
                    seen.add((node.name.value, among))
                    self._gather(fragment.selection_set, among, asked, seen)

    def _of(self, node: InlineFragmentNode | FragmentDefinitionNode, types: frozenset[str]) -> frozenset[str]:
        on = node.type_condition
        return types if on is None else types.intersection(self._graph.possible(on.name.value))

    def _ask(self, spot: Spot, key: str, nodes: Asked, everything: frozenset[str]) -> bool:
        """True if it was asked of types apart."""
        if all(len(types) == len(everything) for types, _ in nodes):
            fields = [node for _, node in nodes]
            if not spot.abstract or self._can_be_common(spot, fields[0].name.value):
                self._add(spot.common, key, fields)
                return False
        for type_ in self._graph.possible(spot.type):
            fields = [node for types, node in nodes if type_ in types]
            if fields and self._search.states(place := spot.place(type_)):
                self._add(place, key, fields)
        return True

    def _can_be_common(self, spot: Spot, name: str) -> bool:
        """Whether all types at once can be asked for a field, and that is no detour."""
        if name not in self._graph.types[spot.type].fields:
            return False
        together = self._search.depth(spot.common, name)
        if together >= UNREACHABLE or (self._apart and not self._only_opaque(spot)):
            return False
        nearest = min((state.depth for state in self._search.states(spot.common)), default=UNREACHABLE)
        return together == nearest or together <= self._apart_depth(spot, name)

    def _only_opaque(self, spot: Spot) -> bool:
        return all(state.opaque for state in self._search.states(spot.common))

    def _apart_depth(self, spot: Spot, name: str) -> int:
        deepest = 0
        for type_ in self._graph.possible(spot.type):
            place = spot.place(type_)
            if self._search.states(place):
                deepest = max(deepest, self._search.depth(place, name))
        return deepest

    def _add(self, place: Place, key: str, nodes: Sequence[FieldNode]) -> None:
        slot = self._search.slot(place, key, nodes[0].name.value, nodes)
        place.slots[key] = slot
        if slot.child is None:
            self.leaves.append((place, slot))
        else:
            self.lay_out(slot.child, [node.selection_set for node in nodes if node.selection_set])


class Choice:
    """Chooses ways for leaves, and builds the requests."""

    def __init__(self, search: Search, operation: OperationType) -> None:
        self._search = search
        self._operation = operation
        self._before: tuple[Fetch, ...] = ()
        self._group = 0
        self.fetches: list[Fetch] = []
        self._at: dict[tuple[int, str], list[Fetch]] = {}  # by their spot, and their subgraph

    def take(self, leaves: Sequence[Leaf]) -> None:
        """Adds the requests for all `leaves`; `Unreachable` if one of them cannot be had."""
        depths = {id(leaf): self._search.leaf_depth(leaf) for leaf in leaves}
        for leaf in leaves:
            if depths[id(leaf)] >= UNREACHABLE:
                place, slot = leaf
                raise Unreachable(f"no subgraph can answer {place.type}.{slot.name} here")
        budget = max(depths.values(), default=0)
        options = {id(leaf): len(self._search.leaf_options(leaf)) for leaf in leaves}
        for leaf in sorted(leaves, key=lambda leaf: (-depths[id(leaf)], min(options[id(leaf)], 2))):
            self._take(leaf, budget)

    def group(self) -> None:
        """What is taken from now on comes after all that was: the next of several mutations."""
        self._before = tuple(self.fetches)
        self._group += 1

    def _take(self, leaf: Leaf, budget: int) -> Node:
        place, slot = leaf
        there = [node for node in slot.chosen if node.fetch.depth <= budget]
        if there:
            return min(there, key=lambda node: node.fetch.depth)
        options = [(depth, state) for depth, state in self._search.leaf_options(leaf) if depth <= budget]
        if len(options) == 1:
            state = options[0][1]
        else:
            state = min(options, key=lambda option: (self._cost(option[1], budget, _AHEAD), option[0]))[1]
        node = self._enter(state, budget)
        if slot.name == "__typename":
            node.selection.typename |= place.spot.abstract
            slot.chosen.append(node)
        else:
            self._select(node, slot)
        return node

    def _cost(self, state: State, budget: int, ahead: int) -> int:
        """How many requests more it takes to get to a state, roughly."""
        if any(node.fetch.depth <= budget for node in state.nodes):
            return 0
        if ahead == 0:
            return 1
        return min(
            (self._way_cost(state, way, budget, ahead) for way in state.ways if way.depth <= budget), default=_MANY
        )

    def _way_cost(self, state: State, way: Way, budget: int, ahead: int) -> int:
        if way.kind == "root":
            return 1
        if way.kind != "jump":
            assert way.state is not None
            return self._cost(way.state, budget, ahead - 1 if way.kind == "field" else ahead)
        own = 0 if self._joinable(state, way, way.depth, budget) else 1
        return own + sum(self._leaf_cost(leaf, budget - 1, ahead - 1) for leaf in self._needed(state, way))

    def _leaf_cost(self, leaf: Leaf, budget: int, ahead: int) -> int:
        if any(node.fetch.depth <= budget for node in leaf[1].chosen):
            return 0
        options = self._search.leaf_options(leaf)
        return min((self._cost(state, budget, ahead) for depth, state in options if depth <= budget), default=_MANY)

    def _enter(self, state: State, budget: int) -> Node:
        """The state as part of a request of at most this depth; of a new one, if need be."""
        for node in state.nodes:
            if node.fetch.depth <= budget:
                return node
        ways = [way for way in state.ways if way.depth <= budget]
        way = ways[0] if len(ways) == 1 else min(ways, key=lambda way: self._way_cost(state, way, budget, _AHEAD))
        node = self._go(state, way, budget)
        state.nodes.append(node)
        return node

    def _go(self, state: State, way: Way, budget: int) -> Node:
        if way.kind == "root":
            return self._begin(state)
        if way.kind == "jump":
            return self._jump(state, way, budget)
        assert way.state is not None
        above = self._enter(way.state, budget)
        if way.kind == "narrow":
            narrower = state.local is not way.state.local
            return Node(above.fetch, above.selection, state.place.type if narrower else above.type)
        assert way.slot is not None
        chosen = self._select(above, way.slot)
        assert chosen.below is not None
        if state.place.spot.abstract and not state.opaque:
            chosen.below.typename = True
        return Node(above.fetch, chosen.below, None)

    def _begin(self, state: State) -> Node:
        selection, before = Selection(), set(self._before)
        fetch = Fetch(state.member, self._operation, 1, state.place.spot, selection, after=before, group=self._group)
        self.fetches.append(fetch)
        return Node(fetch, selection, None)

    def _select(self, node: Node, slot: Slot) -> Chosen:
        raw = slot.place.spot.name(slot)
        chosen = node.selection.fields.get((node.type, raw))
        if chosen is None:
            chosen = Chosen(slot, Selection() if slot.child else None)
            node.selection.fields[node.type, raw] = chosen
        if node not in slot.chosen:
            slot.chosen.append(node)
        return chosen

    # Jumps

    def _needed(self, state: State, way: Way) -> list[Leaf]:
        place = state.place
        if way.jump is None:
            return [(place.spot.common, place.spot.typename), *place.typed]
        leaves = list(self._search.leaves(place, way.jump.key.fields))
        if way.requires:
            leaves += self._search.leaves(place, way.requires)
        return leaves or [(place.spot.common, place.spot.typename)]

    def _jump(self, state: State, way: Way, budget: int) -> Node:
        place = state.place
        sources = {self._take(leaf, budget - 1).fetch for leaf in self._needed(state, way)}
        depth = 1 + max(fetch.depth for fetch in sources)
        fetch = self._joinable(state, way, depth, budget)
        if fetch is None:
            fetch = Fetch(state.member, OperationType.QUERY, depth, place.spot, group=self._group)
            self.fetches.append(fetch)
            self._at.setdefault((id(place.spot), state.member.id), []).append(fetch)
        fetch.after |= sources
        if way.jump is None:
            fetch.selection = fetch.selection or Selection()
            return Node(fetch, fetch.selection, None)
        node = Node(fetch, self._aim(fetch, state, way.jump, way), None)
        self._ask_who(node, state, way.jump)
        return node

    def _aim(self, fetch: Fetch, state: State, jump: Jump, way: Way) -> Selection:
        place = state.place
        of = None if place.common else place.type
        target = fetch.targets.get(of)
        if target is None:
            target = fetch.targets[of] = Target(place, jump.local_type, jump.key.fields)
        elif target.key is not jump.key.fields:
            target.requires.append(jump.key.fields)
        if way.requires and way.requires not in target.requires:
            target.requires.append(way.requires)
        selection = fetch.entities.setdefault(jump.local_type, Selection())
        if place.general and state.local.kind != "object":
            selection.typename = True
        return selection

    def _ask_who(self, node: Node, state: State, jump: Jump) -> None:
        """Has the key answered too, where that is plain to compare: a subgraph that mixes entities up is found out."""
        for leaf in self._search.leaves(state.place, jump.key.fields):
            place, slot = leaf
            comparable = place is state.place and slot.definition.type in _COMPARABLE
            if comparable and self._search.local_field(state, slot.name):
                self._select(node, slot)

    def _joinable(self, state: State, way: Way, depth: int, budget: int) -> Fetch | None:
        """A request to the same subgraph for the same spot, which comes late enough and early enough."""
        place = state.place
        of = None if place.common else place.type
        for fetch in self._at.get((id(place.spot), state.member.id), ()):
            if not depth <= fetch.depth <= budget:
                continue
            if way.jump is None:
                if fetch.selection is not None:
                    return fetch
            elif fetch.selection is None and (None in fetch.targets) == (of is None):
                target = fetch.targets.get(of)
                if target is None or (target.typename == way.jump.local_type and not _clashes(target, way.requires)):
                    return fetch
        return None

    def in_order(self) -> None:
        """Puts what one request changes in the order in which the client wants it changed."""
        for fetch in self.fetches:
            if fetch.operation is OperationType.MUTATION and fetch.selection is not None:
                keys = list(fetch.spot.keys)
                fields = sorted(fetch.selection.fields.items(), key=lambda field: keys.index(field[1].slot.key))
                fetch.selection.fields = dict(fields)


def _clashes(target: Target, requires: FieldSet | None) -> bool:
    """Whether a representation would have to hold one field with different arguments."""
    if requires is None:
        return False
    known = dict(field for each in target.requires for field in _with_arguments(each))
    return any(known.get(path, text) != text for path, text in _with_arguments(requires))


def _with_arguments(selections: FieldSet, above: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], str]]:
    for node in selections.selections:
        path = above
        if isinstance(node, FieldNode):
            path = (*above, node.name.value)
            yield path, arguments_text(node.arguments)
        below: SelectionSetNode | None = getattr(node, "selection_set", None)
        if below is not None:
            yield from _with_arguments(below, path)


def choose(
    graph: Supergraph, operation: Operation, conditions: Mapping[str, bool], *, most: int, apart: bool = False
) -> tuple[Spot, list[Fetch]]:
    """The layout of the answer, and the requests, in an order in which each comes after those that it needs."""
    search = Search(graph)
    demand = Demand(search, operation.fragments, conditions, most=most, apart=apart)
    root = search.root(operation.type)
    demand.lay_out(root, [operation.node.selection_set])
    choice = Choice(search, operation.type)
    leaves = [leaf for leaf in demand.leaves if leaf[1] is not root.typename]
    if operation.type is OperationType.MUTATION:
        for group in _in_series(search, root.common, leaves):
            for state in search.states(root.common):
                state.nodes.clear()
            choice.take(group)
            choice.group()
        choice.in_order()
    else:
        choice.take(leaves)
    return root, choice.fetches


def _in_series(search: Search, place: Place, leaves: Iterable[Leaf]) -> Iterable[list[Leaf]]:
    """The leaves by root field, in their order. Neighbours go together if one subgraph answers them, which it does in
    series, and all of them but the last: what another is asked about one must not tell of the next."""
    by_slot: dict[int, list[Leaf]] = {id(slot): [] for slot in place.slots.values()}
    for leaf in leaves:
        by_slot[id(_root_slot(leaf))].append(leaf)
    group: list[Leaf] = []
    among: set[str] = set()
    for slot in place.slots.values():
        members = {state.member.id for _, state, _ in search.options(place, slot.name)}
        if group and (not among & members or any(search.leaf_depth(leaf) > 1 for leaf in group)):
            yield group
            group, among = [], set()
        among = among & members if among else members
        group += by_slot[id(slot)]
    if group:
        yield group


def _root_slot(leaf: Leaf) -> Slot:
    slot = leaf[1]
    spot = leaf[0].spot
    while spot.slot is not None:
        slot = spot.slot
        spot = slot.place.spot
    return slot
