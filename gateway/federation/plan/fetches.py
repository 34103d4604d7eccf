"""The requests of a plan while it is made, and their text."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from graphql import OperationType, print_ast

from gateway.federation.plan.operation import used_variables
from gateway.federation.plan.spots import Place, Slot, Spot
from gateway.federation.supergraph import FieldSet, Member


@dataclass(slots=True, eq=False)
class Chosen:
    """A field in a request."""

    slot: Slot
    below: "Selection | None"


@dataclass(slots=True, eq=False)
class Selection:
    """What a request asks for at one spot: fields, each for one type or for all."""

    fields: dict[tuple[str | None, str], Chosen] = field(default_factory=dict)
    typename: bool = False

    def text(self) -> str:
        by_type: dict[str | None, list[str]] = {None: ["__typename"]} if self.typename else {}
        for (type_, raw), chosen in self.fields.items():
            by_type.setdefault(type_, []).append(_field_text(raw, chosen))
        parts = by_type.pop(None, [])
        parts += [f"... on {type_} {{ {' '.join(fields)} }}" for type_, fields in by_type.items()]
        return f"{{ {' '.join(parts) or '__typename'} }}"

    def chosen(self) -> Iterator[Chosen]:
        for chosen in self.fields.values():
            yield chosen
            if chosen.below:
                yield from chosen.below.chosen()


def _field_text(raw: str, chosen: Chosen) -> str:
    slot = chosen.slot
    name = slot.name if raw == slot.name else f"{raw}: {slot.name}"
    directives = "".join(f" {print_ast(directive)}" for directive in slot.directives)
    below = f" {chosen.below.text()}" if chosen.below else ""
    return f"{name}{slot.arguments_text}{directives}{below}"


@dataclass(frozen=True, slots=True)
class Shape:
    """What an answer to selections can hold of an object, of whatever type: these names, and `below` them the same."""

    names: frozenset[str]
    below: Mapping[str, "Shape"]

    @classmethod
    def of(cls, selections: Iterable[Selection]) -> Self:
        names, below = {"__typename"}, dict[str, list[Selection]]()
        for selection in selections:
            for (_, raw), chosen in selection.fields.items():
                names.add(raw)
                if chosen.below:
                    below.setdefault(raw, []).append(chosen.below)
        return cls(frozenset(names), {raw: cls.of(each) for raw, each in below.items()})


@dataclass(slots=True, eq=False)
class Target:
    """How objects of one type are named in a request for entities: by `typename` and these fields."""

    place: Place
    typename: str
    key: FieldSet
    requires: list[FieldSet] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Fetch:
    """One request. It asks for `selection` at the root (of the operation, or of a Query at `spot`), or else for the
    entities at `spot`: `targets` by the type that an object has, None for all of them."""

    member: Member
    operation: OperationType
    depth: int
    spot: Spot
    selection: Selection | None = None
    entities: dict[str, Selection] = field(default_factory=dict)
    targets: dict[str | None, Target] = field(default_factory=dict)
    after: set["Fetch"] = field(default_factory=set)
    group: int = 0  # of mutations, which follow one another

    def selections(self) -> Iterable[Selection]:
        """Of the root, or of each type of entities."""
        return [self.selection] if self.selection is not None else self.entities.values()

    def variables(self) -> set[str]:
        """The names of the client's variables that it uses."""
        found: set[str] = set()
        for selection in self.selections():
            for chosen in selection.chosen():
                found.update(_variables_of(chosen.slot))
        return found

    def text(self, definitions: Iterable[str], representations: str) -> str:
        """The document, given the text of its variables' definitions and the name of the one for representations."""
        declared = ", ".join(definitions)
        if self.selection is not None:
            return f"{self.operation.value}{f'({declared}) ' if declared else ' '}{self.selection.text()}"
        fragments = " ".join(f"... on {type_} {selection.text()}" for type_, selection in self.entities.items())
        more = f", {declared}" if declared else ""
        return (
            f"query(${representations}: [_Any!]!{more}) "
            f"{{ _entities(representations: ${representations}) {{ {fragments} }} }}"
        )


def _variables_of(slot: Slot) -> Iterable[str]:
    for argument in slot.arguments:
        yield from used_variables(argument.value)
    for directive in slot.directives:
        for argument in directive.arguments or ():
            yield from used_variables(argument.value)


@dataclass(slots=True, eq=False)
class Node:
    """A state as part of a request: where fields are added to its selection, and for which type."""

    fetch: Fetch
    selection: Selection
    type: str | None
