"""A world of data that all subgraphs of a supergraph agree on: any plan that is right gives one and the same answer.

    world = World({"products": sdl, "reviews": sdl})
    world.answer("reviews", "{ topReview { text } }", {})    # {"data": …}, as the subgraph would answer over HTTP

A value follows from the type, the entity and the field (and the arguments, and what it @requires), never from the
subgraph that is asked. A subgraph is strict: it does not resolve what is @external to it or overridden, and an entity
only by a key of its own.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from typing import Any

from graphql import (
    FieldNode,
    GraphQLError,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLOutputType,
    GraphQLResolveInfo,
    GraphQLUnionType,
    InlineFragmentNode,
    SelectionSetNode,
    get_named_type,
    graphql_sync,
    is_enum_type,
    is_leaf_type,
)

from tests.gateway.federation.judges import sdl
from tests.gateway.federation.judges.sdl import FieldNote, Reading

PER_TYPE = 5  # entities of each type
EVENTS = 3  # of each subscription


@dataclass(frozen=True, slots=True)
class Node:
    """An object: the `n`-th of its concrete `type`, or of the entities that share an interface's keys."""

    type: str
    n: int
    provided: SelectionSetNode | None = None
    representation: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Type:
    """What is agreed on about a field. `nullable`: of its lists, outermost first, and of what is in them."""

    nullable: tuple[bool, ...]
    named: str
    subgraphs: tuple[str, ...]


@dataclass(slots=True)
class Answered:
    subgraph: str
    query: str
    variables: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Quirks:
    """Where the world is not as it should be: `nulls` are the fields of entities that are null though they are keys
    ("Book.1.upc"), `absent` the entities that a subgraph does not know ("b.Book.1"), and `failing` the fields that it
    answers with errors ("b.Book.title")."""

    nulls: Collection[str] = ()
    absent: Collection[str] = ()
    failing: Collection[str] = ()


@dataclass(slots=True)
class World:
    """`mutated` are the mutations that were made."""

    sdls: Mapping[str, str]
    quirks: Quirks = field(default_factory=Quirks)
    asked: list[Answered] = field(default_factory=list)
    mutated: list[str] = field(default_factory=list)
    subgraphs: dict[str, "Subgraph"] = field(init=False)
    facts: "Facts" = field(init=False)

    def __post_init__(self) -> None:
        readings = {name: sdl.read(name, text) for name, text in self.sdls.items()}
        self.facts = Facts(readings, self.quirks.nulls)
        self.subgraphs = {name: Subgraph(self, reading) for name, reading in readings.items()}

    def answer(self, subgraph: str, query: str, variables: Mapping[str, Any] | None) -> dict[str, Any]:
        """`query` is refused, with errors and no data, unless it is valid against the subgraph's schema."""
        self.asked.append(Answered(subgraph, query, variables or {}))
        return self.subgraphs[subgraph].answer(query, dict(variables or {}))

    def events(self, subgraph: str, query: str, variables: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """All events of a subscription."""
        self.asked.append(Answered(subgraph, query, variables or {}))
        return [self.subgraphs[subgraph].answer(query, dict(variables or {}), event) for event in range(EVENTS)]


class Facts:
    """What is true in the world, whichever subgraph is asked."""

    def __init__(self, readings: Mapping[str, Reading], nulls: Collection[str] = ()) -> None:
        self.readings = readings
        self._nulls = nulls
        self._objects = {name: sdl.objects(reading.schema) for name, reading in readings.items()}
        self._interface_objects = {name for reading in readings.values() for name in reading.interface_objects}
        self._keyed_interfaces = {
            name
            for reading in readings.values()
            for name in reading.keys
            if isinstance(reading.schema.type_map.get(name), GraphQLInterfaceType)
        }
        self._key_fields = set(self._find_key_fields())
        self.members: dict[str, tuple[str, ...]] = self._find_members()
        self._types: dict[tuple[str, str], _Type] = {}
        self._index: dict[tuple[str, str], dict[str, int]] = {}

    def _find_members(self) -> dict[str, tuple[str, ...]]:
        """The objects of each interface and union, over all subgraphs."""
        found: dict[str, set[str]] = {}
        for reading in self.readings.values():
            for name, type_ in reading.schema.type_map.items():
                if isinstance(type_, GraphQLInterfaceType | GraphQLUnionType) and not name.startswith("_"):
                    possible = {object_.name for object_ in reading.schema.get_possible_types(type_)}
                    found.setdefault(name, set()).update(possible - self._interface_objects)
        return {name: tuple(sorted(possible)) for name, possible in found.items()}

    def _find_key_fields(self) -> Iterator[tuple[str, str]]:
        for reading in self.readings.values():
            for name, keys in reading.keys.items():
                for key in keys:
                    yield from self._walk_key(reading, name, key.fields)

    def _walk_key(self, reading: Reading, type_name: str, fields: SelectionSetNode) -> Iterator[tuple[str, str]]:
        type_ = reading.schema.type_map[type_name]
        possible = [type_name]
        if isinstance(type_, GraphQLInterfaceType):
            possible += [object_.name for object_ in reading.schema.get_possible_types(type_)]
        for node in fields.selections:
            assert isinstance(node, FieldNode)
            for name in possible:
                yield name, node.name.value
            if node.selection_set:
                child: Any = get_named_type(type_.fields[node.name.value].type)  # type: ignore[attr-defined]
                yield from self._walk_key(reading, child.name, node.selection_set)

    def family(self, type_name: str) -> str:
        """Whose numbers an entity has: of an interface with keys if it implements one, else its own."""
        if type_name in self._keyed_interfaces:
            return type_name
        return next((i for i in sorted(self._keyed_interfaces) if type_name in self.members.get(i, ())), type_name)

    def is_entity(self, type_name: str) -> bool:
        return any(type_name in reading.keys for reading in self.readings.values()) or (
            self.family(type_name) in self._keyed_interfaces
        )

    def concrete(self, family: str, n: int) -> str:
        members = self.members.get(family)
        return members[n % len(members)] if members else family

    def numbers(self, type_name: str) -> list[int]:
        """The entities of a type or of an interface with keys."""
        family = self.family(type_name)
        every = range(PER_TYPE * len(self.members.get(family, (1,))))
        return [n for n in every if type_name in (family, self.concrete(family, n))]

    def find(self, type_name: str, key: SelectionSetNode, representation: Mapping[str, Any]) -> int | None:
        """The entity that has these values in the key's fields. KeyError if the representation lacks one."""
        values = _picked(key, representation)
        if None in values.values():
            return None
        wanted = canonical(values)
        at = (type_name, print_selection(key))
        if at not in self._index:
            self._index[at] = {canonical(self._key(type_name, n, key)): n for n in self.numbers(type_name)}
        return self._index[at].get(wanted)

    def _key(self, type_name: str, n: int, key: SelectionSetNode) -> dict[str, Any]:
        concrete = self.concrete(self.family(type_name), n)
        values: dict[str, Any] = {}
        for node in key.selections:
            assert isinstance(node, FieldNode)
            value = self.value(Node(concrete, n), node.name.value, {}, None)
            values[node.name.value] = self._nested(value, node.selection_set)
        return values

    def _nested(self, value: Any, selections: SelectionSetNode | None) -> Any:
        if isinstance(value, list):
            return [self._nested(item, selections) for item in value]
        return self._key(value.type, value.n, selections) if isinstance(value, Node) and selections else value

    def value(self, node: Node, name: str, arguments: Mapping[str, Any], required: Any) -> Any:
        """A scalar, a Node, or lists of them; None for null."""
        agreed = self._agreed(node.type, name)
        if f"{node.type}.{node.n}.{name}" in self._nulls:
            return None
        family = self.family(node.type)
        asked = name + (canonical(arguments) if arguments else "") + (canonical(required) if required else "")
        if (node.type, name) in self._key_fields:
            return self._key_value(agreed, node, family, name)
        seed = (family, node.n, asked)
        return self._layer(agreed, seed, f"{family}-{_short(node.n)}.{asked}", 0)

    def _layer(self, agreed: _Type, seed: tuple[Any, ...], text: str, depth: int) -> Any:
        at_root = seed[0] == "Query" and depth == 0  # where nothing would leave nothing to look at
        if agreed.nullable[depth] and not at_root and _hash(*seed, "null") % 7 == 0:
            return None
        if depth + 1 < len(agreed.nullable):
            length = (2 if at_root else 0, 1, 2, 2, 3, 3)[_hash(*seed, "length") % 6]
            return [self._layer(agreed, (*seed, i), f"{text}.{i}", depth + 1) for i in range(length)]
        return self._leaf(agreed, _hash(*seed), text) if self._is_leaf(agreed) else self._object(agreed, seed)

    def _key_value(self, agreed: _Type, node: Node, family: str, name: str) -> Any:
        """Never null, and no two entities have the same."""
        number = node.n * 1000 + _hash(family, node.n, name) % 1000
        found: Any
        if self._is_leaf(agreed):
            found = self._leaf(agreed, number, f"{family}-{_short(node.n)}.{name}")
        else:
            child = self._candidates(agreed)[0]
            numbers = self.numbers(child)
            found = Node(child, numbers[node.n % len(numbers)] if self.is_entity(child) else number)
        for _ in agreed.nullable[1:]:
            found = [found]
        return found

    def _is_leaf(self, agreed: _Type) -> bool:
        return is_leaf_type(self.readings[agreed.subgraphs[0]].schema.type_map.get(agreed.named))

    def _leaf(self, agreed: _Type, number: int, text: str) -> Any:
        if is_enum_type(self.readings[agreed.subgraphs[0]].schema.type_map[agreed.named]):
            common = set.intersection(*(self._values(name, agreed.named) for name in agreed.subgraphs))
            return sorted(common)[number % len(common)]
        whole = number if number < 100_000 else number % 1000
        by_type: dict[str, Any] = {"Int": whole, "Float": whole + 0.5, "Boolean": number % 2 == 0}
        return by_type.get(agreed.named, text)

    def _values(self, subgraph: str, enum: str) -> set[str]:
        return set(self.readings[subgraph].schema.type_map[enum].values)  # type: ignore[attr-defined]

    def _object(self, agreed: _Type, seed: tuple[Any, ...]) -> Node:
        candidates = self._candidates(agreed)
        chosen = candidates[_hash(*seed, "type") % len(candidates)]
        if self.is_entity(chosen):
            numbers = self.numbers(chosen)
            return Node(chosen, numbers[_hash(*seed) % len(numbers)])
        return Node(chosen, _hash(*seed))

    def _candidates(self, agreed: _Type) -> list[str]:
        """What all subgraphs that have the field can say it is; if there is no such type, what the first can."""
        possible = [
            self._possible(name, type_) for name, type_ in zip(agreed.subgraphs, self._named(agreed), strict=True)
        ]
        return sorted(set.intersection(*possible) or possible[0])

    def _named(self, agreed: _Type) -> list[str]:
        return agreed.named.split("|") if "|" in agreed.named else [agreed.named] * len(agreed.subgraphs)

    def _possible(self, subgraph: str, name: str) -> set[str]:
        reading = self.readings[subgraph]
        if name in reading.interface_objects:
            return set(self.members[name])
        type_ = reading.schema.type_map[name]
        if isinstance(type_, GraphQLInterfaceType | GraphQLUnionType):
            objects = {object_.name for object_ in reading.schema.get_possible_types(type_)}
            return {
                o for name in objects for o in (self.members[name] if name in reading.interface_objects else [name])
            }
        return {name}

    def _agreed(self, type_name: str, name: str) -> _Type:
        at = (type_name, name)
        if at not in self._types:
            self._types[at] = self._agree(type_name, name)
        return self._types[at]

    def _agree(self, type_name: str, name: str) -> _Type:
        owners = [type_name, *(i for i in self._interface_objects if type_name in self.members.get(i, ()))]
        found: dict[str, GraphQLOutputType] = {}
        externals: dict[str, GraphQLOutputType] = {}
        for subgraph, objects in self._objects.items():
            for owner in owners:
                if owner in objects and name in objects[owner].fields:
                    note = self.readings[subgraph].fields.get((objects[owner].name, name))
                    (externals if note and note.external else found)[subgraph] = objects[owner].fields[name].type
        types = found or externals
        named = [get_named_type(type_).name for type_ in types.values()]
        layers = [_nullable(type_) for type_ in types.values()]
        nullable = tuple(all(column) for column in zip(*layers, strict=True))
        return _Type(nullable, named[0] if len(set(named)) == 1 else "|".join(named), tuple(types))

    def is_overridden(self, subgraph: str, type_name: str, name: str) -> bool:
        return any(
            note.override == subgraph
            for reading in self.readings.values()
            if (note := reading.fields.get((type_name, name))) is not None
        )


class Subgraph:
    """One subgraph's view of the world."""

    def __init__(self, world: World, reading: Reading) -> None:
        self._world = world
        self._reading = reading
        self._facts = world.facts

    def answer(self, query: str, variables: dict[str, Any], event: int = 0) -> dict[str, Any]:
        result = graphql_sync(
            self._reading.schema,
            query,
            root_value=event,
            variable_values=variables,
            field_resolver=self._resolve,
            type_resolver=self._type_of,
        )
        return result.formatted  # type: ignore[return-value]

    def _resolve(self, source: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
        parent, name = info.parent_type.name, info.field_name
        if name == "_entities":
            return [self._entity(representation) for representation in arguments["representations"]]
        if name == "_service":
            return {"sdl": self._reading.sdl}
        if isinstance(source, dict):
            return source.get(name)
        root = sdl.root_name(self._reading.schema, info.parent_type)
        if root is not None:
            return self._root(Node(root, source), name, info, arguments)
        return self._field(source, parent, name, arguments)

    def _root(self, root: Node, name: str, info: GraphQLResolveInfo[Any], arguments: dict[str, Any]) -> Any:
        if root.type == "Mutation":
            self._world.mutated.append(name + canonical(arguments))
        return self._field(root, info.parent_type.name, name, arguments)

    def _field(self, node: Node, parent: str, name: str, arguments: dict[str, Any]) -> Any:
        if f"{self._reading.name}.{parent}.{name}" in self._world.quirks.failing:
            raise GraphQLError(f"{parent}.{name} of {self._reading.name} fails")
        note = self._reading.fields[parent, name]
        provided = _selection_of(node.provided, name, node.type, self._facts)
        if provided is None:
            self._check_resolvable(parent, name, note)
        value = self._facts.value(node, name, arguments, self._required(node, parent, name, note))
        given = [s for s in (note.provides, provided) if isinstance(s, SelectionSetNode)]
        return _with_provided(value, given)

    def _check_resolvable(self, parent: str, name: str, note: FieldNote) -> None:
        if any(name in sdl.selected(key.fields) for key in self._reading.keys.get(parent, ())):
            return
        if note.external:
            raise GraphQLError(f"{parent}.{name} is external to {self._reading.name}, and not provided here")
        if self._facts.is_overridden(self._reading.name, parent, name):
            raise GraphQLError(f"{parent}.{name} of {self._reading.name} is overridden")

    def _required(self, node: Node, parent: str, name: str, note: FieldNote) -> Any:
        if note.requires is None:
            return None
        if node.representation is None:
            raise GraphQLError(f"{parent}.{name} was asked for without a representation")
        try:
            return _picked(note.requires, node.representation, self._facts)
        except KeyError as missing:
            raise GraphQLError(f"{parent}.{name} requires {missing}, which its representation lacks") from None

    def _entity(self, representation: Mapping[str, Any]) -> Node | None:
        name = representation.get("__typename", "")
        keys = [key for key in self._reading.keys.get(name, ()) if key.resolvable]
        if not keys:
            raise GraphQLError(f"{self._reading.name} resolves no {name} by reference")
        for key in keys:
            try:
                n = self._facts.find(name, key.fields, representation)
            except KeyError:
                continue
            if n is None:
                return None
            concrete = self._facts.concrete(self._facts.family(name), n)
            if f"{self._reading.name}.{concrete}.{n}" in self._world.quirks.absent:
                return None
            return Node(concrete, n, representation=representation)
        raise GraphQLError(f"{canonical(representation)} has no key of {name} in {self._reading.name}")

    def _type_of(self, value: Any, info: GraphQLResolveInfo[Any], abstract: Any) -> str:
        schema = self._reading.schema
        name: str = value["__typename"] if isinstance(value, dict) else value.type
        possible = {type_.name for type_ in schema.get_possible_types(abstract)}
        if name in possible:
            return name
        standing_in = [i for i in self._reading.interface_objects if name in self._facts.members[i] and i in possible]
        if not standing_in:
            raise GraphQLError(f"{name} is no {abstract.name} in {self._reading.name}")
        return standing_in[0]


def _selection_of(selections: SelectionSetNode | None, name: str, type_name: str, facts: Facts) -> Any:
    """None if it is not selected, else what is selected of it, or True."""
    for node in selections.selections if selections else ():
        if isinstance(node, FieldNode) and node.name.value == name:
            return node.selection_set or True
        if isinstance(node, InlineFragmentNode) and _applies(node, type_name, facts):
            found = _selection_of(node.selection_set, name, type_name, facts)
            if found is not None:
                return found
    return None


def _applies(node: InlineFragmentNode, type_name: str | None, facts: Facts | None) -> bool:
    on = node.type_condition.name.value if node.type_condition else type_name
    return type_name is None or on == type_name or (facts is not None and type_name in facts.members.get(str(on), ()))


def _with_provided(value: Any, selections: Sequence[SelectionSetNode]) -> Any:
    if not selections:
        return value
    if isinstance(value, list):
        return [_with_provided(item, selections) for item in value]
    if not isinstance(value, Node):
        return value
    both = SelectionSetNode(selections=tuple(node for s in selections for node in s.selections))
    return Node(value.type, value.n, both, value.representation)


def _picked(selections: SelectionSetNode, value: Any, facts: Facts | None = None) -> Any:
    """A representation's values for a field set. KeyError if it lacks one."""
    if value is None:
        return None
    if isinstance(value, list):
        return [_picked(selections, item, facts) for item in value]
    picked: dict[str, Any] = {}
    for node in selections.selections:
        if isinstance(node, FieldNode):
            if node.name.value == "__typename":
                continue
            child = value[node.name.value]
            picked[node.name.value] = _picked(node.selection_set, child, facts) if node.selection_set else child
        elif isinstance(node, InlineFragmentNode) and _applies(node, value.get("__typename"), facts):
            try:
                picked |= _picked(node.selection_set, value, facts)
            except KeyError:
                if "__typename" in value:
                    raise
    return picked


def print_selection(selections: SelectionSetNode) -> str:
    return " ".join(
        node.name.value + (f"{{{print_selection(node.selection_set)}}}" if node.selection_set else "")
        for node in selections.selections
        if isinstance(node, FieldNode)
    )


def _nullable(type_: GraphQLOutputType) -> list[bool]:
    layers = []
    inner: Any = type_
    while True:
        layers.append(not isinstance(inner, GraphQLNonNull))
        if isinstance(inner, GraphQLNonNull):
            inner = inner.of_type
        if not isinstance(inner, GraphQLList):
            return layers
        inner = inner.of_type


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def _short(n: int) -> str:
    return str(n) if n < 1000 else f"{n % 65536:04x}"


@cache
def _hash(*parts: Any) -> int:
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest())
