"""Random supergraphs: subgraphs that use most of Federation together. Not all compose: the composer says which do.

sdls = supergraph(random.Random(7))    # {"a": "…", "b": "…"}
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

_LINK = (
    'extend schema @link(url: "https://specs.apollo.dev/federation/v2.5", import: ["@key", "@external", "@requires", '
    '"@provides", "@shareable", "@override", "@interfaceObject", "@inaccessible"])'
)
_SCALARS = ("String", "Int", "Float", "Boolean", "ID", "Color")
_ENUM = "enum Color { RED GREEN BLUE }"
_SHAREABLE = "@shareable"


@dataclass(slots=True)
class _Field:
    type: str
    arguments: str = ""
    directives: list[str] = field(default_factory=list)

    @property
    def named(self) -> str:
        return self.type.strip("[]!")


@dataclass(slots=True)
class _Type:
    kind: str = "type"
    keys: list[str] = field(default_factory=list)  # what follows @key
    implements: list[str] = field(default_factory=list)
    directives: list[str] = field(default_factory=list)
    fields: dict[str, _Field] = field(default_factory=dict)

    @property
    def is_stub(self) -> bool:
        """Referred to, and not resolved."""
        return bool(self.keys) and all("resolvable: false" in key for key in self.keys)


@dataclass(slots=True)
class _Subgraph:
    name: str
    first: bool = False  # of Federation 1: no @link, types that others own are extended
    types: dict[str, _Type] = field(default_factory=dict)
    unions: dict[str, list[str]] = field(default_factory=dict)

    def type(self, name: str) -> _Type:
        return self.types.setdefault(name, _Type())

    def sdl(self) -> str:
        parts = [] if self.first else [_LINK]
        parts += [self._print(name, type_) for name, type_ in self.types.items() if type_.fields]
        parts += [f"union {name} = {' | '.join(members)}" for name, members in self.unions.items() if members]
        return "\n".join([*parts, _ENUM])

    def _print(self, name: str, type_: _Type) -> str:
        head = f"{type_.kind} {name}"
        if type_.implements:
            head += " implements " + " & ".join(type_.implements)
        head = " ".join([head, *(f"@key({key})" for key in type_.keys), *type_.directives])
        fields = [self._print_field(field_name, field_) for field_name, field_ in type_.fields.items()]
        return head + " {\n  " + "\n  ".join(fields) + "\n}"

    def _print_field(self, name: str, field_: _Field) -> str:
        directives = [d for d in field_.directives if not (self.first and d == _SHAREABLE)]
        return " ".join([f"{name}{field_.arguments}: {field_.type}", *directives])


def supergraph(random: Random, *, external_on_interface_objects: bool = False) -> dict[str, str]:
    """Hive's composer forgets what is @external to an interface object, and then its subgraph is asked for it."""
    draft = _Draft(random, external_on_interface_objects)
    draft.draw()
    return {subgraph.name: subgraph.sdl() for subgraph in draft.subgraphs}


def _members(home: _Subgraph, name: str) -> set[str]:
    """What an object of this type can be in a subgraph; of an interface with a key also just that."""
    if name in home.unions:
        return set(home.unions[name])
    if name not in home.types:
        return set()
    type_ = home.types[name]
    if type_.kind != "interface":
        return {name}
    return {n for n, other in home.types.items() if name in other.implements} | ({name} if type_.keys else set())


class _Draft:
    def __init__(self, random: Random, external_on_interface_objects: bool) -> None:
        self._random = random
        self._external_on_interface_objects = external_on_interface_objects
        self.subgraphs = [_Subgraph(name) for name in "abcde"[: random.choice((2, 2, 3, 3, 3, 4, 5))]]
        self._entities: dict[str, list[_Subgraph]] = {}
        self._values: dict[str, list[_Subgraph]] = {}
        self._interfaces: dict[str, list[_Subgraph]] = {}
        self._unions: list[str] = []
        self._field_number = 0

    def draw(self) -> None:
        random = self._random
        if random.random() < 0.2:
            self.subgraphs[-1].first = True
        self._draw_values()
        for n in range(random.randint(1, 4)):
            self._draw_entity(f"E{n}")
        if random.random() < 0.4:
            self._draw_media()
        if random.random() < 0.5:
            self._draw_interface("I0")
        if random.random() < 0.5:
            self._draw_union("U0")
        for name, homes in list(self._entities.items()):
            self._draw_fields(name, homes)
        for name, homes in list(self._entities.items()):
            self._draw_requires(name, homes)
            self._draw_override(name, homes)
            self._draw_split(name, homes)
        self._draw_roots()
        self._draw_provides()

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _some(self, items: Sequence[_Subgraph], least: int = 1) -> list[_Subgraph]:
        return self._random.sample(list(items), self._random.randint(min(least, len(items)), len(items)))

    def _fresh(self, prefix: str = "f") -> str:
        self._field_number += 1
        return f"{prefix}{self._field_number}"

    def _draw_values(self) -> None:
        """Types without identity, whose fields are in all subgraphs that have them, or split over these."""
        for n in range(self._random.randint(0, 2)):
            name = f"V{n}"
            homes = self._some(self.subgraphs, 2)
            self._values[name] = homes
            for home in homes:
                home.type(name).fields["same"] = _Field("String", directives=[_SHAREABLE])
            for _ in range(self._random.randint(0, 3)):
                field_ = self._fresh("v")
                type_ = self._leaf()
                for home in self._some(homes) if self._chance(0.25) else homes:
                    home.type(name).fields[field_] = _Field(type_, directives=[_SHAREABLE])

    def _draw_entity(self, name: str) -> None:
        random = self._random
        homes = self._some(self.subgraphs, 2)
        self._entities[name] = homes
        extra = [k for k in ("sku", "compound", "nested") if self._chance(0.3)]
        for home in homes:
            kinds = ["id", *(k for k in extra if home is homes[0] or self._chance(0.7))]
            if len(kinds) > 1 and home is not homes[0] and self._chance(0.3):
                kinds.remove("id")
            type_ = home.type(name)
            for kind in kinds:
                self._add_key(home, type_, kind)
            if home.first:
                type_.kind = "extend type"
                for key_field in type_.fields.values():
                    key_field.directives.append("@external")
            elif home is not homes[0] and self._chance(0.15):
                at = random.randrange(len(type_.keys))
                type_.keys[at] += ", resolvable: false"

    def _add_key(self, home: _Subgraph, type_: _Type, kind: str) -> None:
        fields = {
            "id": {"id": "ID!"},
            "sku": {"sku": "Int!"},
            "compound": {"code": "String!", "region": "ID!"},
            "nested": {"code": "String!", "org": "Org!"},
        }[kind]
        text = {"id": "id", "sku": "sku", "compound": "code region", "nested": "code org { id }"}[kind]
        type_.keys.append(f'fields: "{text}"')
        for name, field_type in fields.items():
            type_.fields.setdefault(name, _Field(field_type, directives=[_SHAREABLE]))
        if kind == "nested":
            home.type("Org").fields["id"] = _Field("ID!", directives=[_SHAREABLE])

    def _draw_media(self) -> None:
        """An interface with a key in one subgraph, and an object that stands for it in others."""
        random = self._random
        home, *others = (
            random.sample([s for s in self.subgraphs if not s.first], 2)
            if len(self.subgraphs) > 2
            else (
                self.subgraphs[0],
                self.subgraphs[1],
            )
        )
        if home.first or others[0].first:
            return
        interface = home.type("Media")
        interface.kind = "interface"
        interface.keys.append('fields: "id"')
        interface.fields["id"] = _Field("ID!")
        title = _Field(self._leaf())
        interface.fields["title"] = title
        for name in ("Book", "Film", "Song")[: random.randint(1, 3)]:
            type_ = home.type(name)
            type_.keys.append('fields: "id"')
            type_.implements.append("Media")
            type_.fields |= {"id": _Field("ID!"), "title": _Field(title.type), self._fresh("m"): _Field(self._leaf())}
        for other in others:
            type_ = other.type("Media")
            type_.keys.append('fields: "id"')
            type_.directives.append("@interfaceObject")
            type_.fields["id"] = _Field("ID!")
            type_.fields[self._fresh("m")] = _Field(self._leaf())
            if self._external_on_interface_objects and self._chance(0.4):
                type_.fields["title"] = _Field(title.type, directives=["@external"])
                type_.fields[self._fresh("m")] = _Field("String", directives=['@requires(fields: "title")'])
            if self._chance(0.4) and any(other in homes for homes in self._entities.values()):
                entity = random.choice([n for n, homes in self._entities.items() if other in homes])
                type_.fields[self._fresh("m")] = _Field(self._wrapped(entity))
        self._interfaces["Media"] = [home, *others]

    def _draw_interface(self, name: str) -> None:
        for home in self._some(self.subgraphs):
            members = [n for n, homes in (self._entities | self._values).items() if home in homes and self._chance(0.7)]
            if not members:
                continue
            interface = home.type(name)
            interface.kind = "interface"
            interface.fields["label"] = _Field("String")
            for member in members:
                home.type(member).implements.append(name)
                home.type(member).fields["label"] = _Field("String", directives=[_SHAREABLE])
            self._interfaces.setdefault(name, []).append(home)

    def _draw_union(self, name: str) -> None:
        for home in self._some(self.subgraphs):
            types = [n for n, homes in (self._entities | self._values).items() if home in homes and self._chance(0.8)]
            if types:
                home.unions[name] = types
                self._unions.append(name)

    def _leaf(self) -> str:
        return self._wrapped(self._random.choice(_SCALARS), lists=0.2)

    def _wrapped(self, name: str, lists: float = 0.4) -> str:
        text = name + self._random.choice(("", "", "!"))
        if self._chance(lists):
            text = f"[{text}]" + self._random.choice(("", "!"))
            if self._chance(0.15):
                text = f"[{text}]"
        return text

    def _composite(self, home: _Subgraph) -> str | None:
        """The name of an object, interface or union that this subgraph has."""
        names = [n for n, homes in (self._entities | self._values | self._interfaces).items() if home in homes]
        names += list(home.unions)
        return self._random.choice(names) if names else None

    def _draw_fields(self, name: str, homes: list[_Subgraph]) -> None:
        for _ in range(self._random.randint(2, 6)):
            owner = self._random.choice([home for home in homes if not home.type(name).is_stub] or homes)
            field_name = self._fresh()
            owner.type(name).fields[field_name] = drawn = self._draw_field(owner)
            if self._chance(0.25) and len(homes) > 1:
                self._share(owner, name, field_name, drawn, homes)

    def _draw_field(self, owner: _Subgraph) -> _Field:
        composite = self._composite(owner) if self._chance(0.5) else None
        arguments = self._random.choice(("", "", "", "(n: Int)", '(text: String = "x", n: Int!)', "(colors: [Color!])"))
        return _Field(self._wrapped(composite) if composite else self._leaf(), arguments)

    def _share(self, owner: _Subgraph, name: str, field_name: str, drawn: _Field, homes: list[_Subgraph]) -> None:
        """The same field in another subgraph that has its type, and can answer with some of the same objects."""
        other = self._random.choice([home for home in homes if home is not owner])
        if drawn.named in _SCALARS or _members(owner, drawn.named) & _members(other, drawn.named):
            drawn.directives.append(_SHAREABLE)
            other.type(name).fields[field_name] = _Field(drawn.type, drawn.arguments, [_SHAREABLE])

    def _draw_requires(self, name: str, homes: list[_Subgraph]) -> None:
        for home in homes:
            if not self._chance(0.5) or home.type(name).is_stub:
                continue
            foreign = self._foreign(name, home, homes)
            if not foreign:
                continue
            chosen = self._random.sample(foreign, min(len(foreign), self._random.choice((1, 1, 2))))
            texts = [text for field_name in chosen if (text := self._required(home, name, field_name, homes))]
            if texts:
                required = f'@requires(fields: "{" ".join(texts)}")'.replace("'", '\\"')
                kept = self._wrapped("String", lists=0.2)
                composite = self._composite(home) if self._chance(0.2) else None
                home.type(name).fields[self._fresh("r")] = _Field(composite or kept, directives=[required])

    def _foreign(self, name: str, home: _Subgraph, homes: list[_Subgraph]) -> list[str]:
        mine = home.type(name).fields
        return sorted(
            {
                field_name
                for other in homes
                if other is not home
                for field_name, field_ in other.type(name).fields.items()
                if field_name not in mine
                and self._can_be_external(field_name)
                and not any(d.startswith(("@external", "@override")) for d in field_.directives)
            }
        )

    def _can_be_external(self, field_name: str) -> bool:
        """Hive's composer takes keys for resolvable in all subgraphs as soon as one is of Federation 1."""
        return not self.subgraphs[-1].first or field_name not in ("id", "sku", "code", "region", "org")

    def _required(self, home: _Subgraph, name: str, field_name: str, homes: list[_Subgraph]) -> str | None:
        """The field made external at home, and what is required of it."""
        owner = next(other for other in homes if field_name in other.type(name).fields)
        theirs = owner.type(name).fields[field_name]
        nested = None
        if theirs.named not in _SCALARS:
            nested = self._nested_requirement(home, owner, theirs.named)
            if nested is None:
                return None
        home.type(name).fields[field_name] = _Field(theirs.type, theirs.arguments, ["@external"])
        given = ""
        if "n: Int!" in theirs.arguments or (theirs.arguments.startswith("(n") and self._chance(0.7)):
            given = f"(n: {self._random.randint(1, 3)})"
        return f"{field_name}{given}" + (f" {{ {nested} }}" if nested else "")

    def _nested_requirement(self, home: _Subgraph, owner: _Subgraph, type_name: str) -> str | None:
        """A leaf of a value type or an entity that home has to know of, too."""
        their = owner.types.get(type_name)
        if their is None or their.kind == "interface" or type_name not in home.types:
            return None
        leaves = [
            n
            for n, f in their.fields.items()
            if f.named in _SCALARS and f.directives[:1] != ["@external"] and not f.arguments
        ]
        mine = home.type(type_name)
        leaves = [leaf for leaf in leaves if leaf in mine.fields or self._can_be_external(leaf)]
        if mine.kind == "interface" or not leaves:
            return None
        leaf = self._random.choice(leaves)
        mine.fields.setdefault(leaf, _Field(their.fields[leaf].type, directives=["@external"]))
        return leaf

    def _draw_override(self, name: str, homes: list[_Subgraph]) -> None:
        if len(homes) < 2 or not self._chance(0.3):
            return
        source, target = self._random.sample(homes, 2)
        if target.first or target.type(name).is_stub:
            return
        plain = [n for n, f in source.type(name).fields.items() if f.named in _SCALARS and not f.directives]
        plain = [n for n in plain if n not in target.type(name).fields]
        if plain:
            moved = self._random.choice(plain)
            theirs = source.type(name).fields[moved]
            override = f'@override(from: "{source.name}")'
            target.type(name).fields[moved] = _Field(theirs.type, theirs.arguments, [override])

    def _draw_split(self, name: str, homes: list[_Subgraph]) -> None:
        """A value whose fields are each in one subgraph: it is fetched through its entity again, by each of them."""
        homes = [home for home in homes if not home.type(name).is_stub]
        if len(homes) < 2 or not self._chance(0.25):
            return
        value, field_name, type_ = f"S{name}", self._fresh(), self._wrapped(f"S{name}")
        for home in homes:
            home.type(name).fields[field_name] = _Field(type_, directives=[_SHAREABLE])
            home.type(value).fields[self._fresh("s")] = _Field(self._leaf())

    def _draw_roots(self) -> None:
        for home in self.subgraphs:
            for _ in range(self._random.randint(1, 3)):
                composite = self._composite(home)
                if composite:
                    arguments = "(first: Int)" if self._chance(0.2) else ""
                    home.type("Query").fields[self._fresh("q")] = _Field(self._wrapped(composite), arguments)
        if self._chance(0.3):
            self._share_root()
        if self._chance(0.3):
            self._draw_subscription()
        if self._chance(0.3):
            for home in self.subgraphs:
                composite = self._composite(home)
                if composite:
                    drawn = _Field(self._wrapped(composite, lists=0.2), "(n: Int)")
                    home.type("Mutation").fields[self._fresh("do")] = drawn

    def _draw_subscription(self) -> None:
        home = self._random.choice(self.subgraphs)
        composite = self._composite(home)
        if composite:
            home.type("Subscription").fields[self._fresh("on")] = _Field(self._wrapped(composite), "(n: Int)")

    def _share_root(self) -> None:
        """A root field in several subgraphs, of a type whose fields they share out."""
        name = self._random.choice([*self._entities, *self._values])
        homes = (self._entities | self._values)[name]
        type_ = self._wrapped(name)
        field_name = self._fresh("q")
        for home in homes:
            home.type("Query").fields[field_name] = _Field(type_, directives=[_SHAREABLE])

    def _draw_provides(self) -> None:
        """At some fields, a leaf of what they lead to that is another subgraph's."""
        for home in self.subgraphs:
            for type_ in list(home.types.values()):
                for field_ in list(type_.fields.values()):
                    self._provide(home, field_)

    def _provide(self, home: _Subgraph, field_: _Field) -> None:
        homes = self._entities.get(field_.named, [])
        if home.first or home not in homes or not self._chance(0.15) or field_.directives:
            return
        foreign = self._foreign(field_.named, home, homes)
        owners = {n: [o for o in homes if n in o.type(field_.named).fields] for n in foreign}
        leaves = [n for n in foreign if self._is_plain_leaf(owners[n][0].type(field_.named).fields[n])]
        if not leaves:
            return
        leaf = self._random.choice(leaves)
        theirs = owners[leaf][0].type(field_.named).fields[leaf]
        for owner in owners[leaf]:
            directives = owner.type(field_.named).fields[leaf].directives
            if _SHAREABLE not in directives and "@external" not in directives:
                directives.append(_SHAREABLE)
        home.type(field_.named).fields[leaf] = _Field(theirs.type, directives=["@external"])
        field_.directives.append(f'@provides(fields: "{leaf}")')

    def _is_plain_leaf(self, field_: _Field) -> bool:
        return (
            field_.named in _SCALARS
            and not field_.arguments
            and not any("@re" in d or "@o" in d for d in field_.directives)
        )
