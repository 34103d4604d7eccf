"""What is to be done for an operation, ready to be executed again and again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from graphql import print_ast

from gateway.federation.plan.fetches import Fetch, Shape
from gateway.federation.plan.operation import Operation
from gateway.federation.plan.representation import Representation, representation
from gateway.federation.plan.spots import Spot

# The names to follow in subgraphs' answers, each with the types of the objects that it is followed on; None: all.
Path = tuple[tuple[str, frozenset[str] | None], ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One request, after those in `after` have been answered. With `representations` it asks for the entities at
    `paths`, named by the type of each object (None: whatever its type is); without, it asks at the root.
    """

    id: int
    subgraph: str
    operation: str
    query: str
    variables: tuple[str, ...]
    representations: Mapping[str | None, Representation] | None
    representations_variable: str
    paths: tuple[Path, ...]
    after: tuple[int, ...]
    depth: int
    body: bytes  # of the request, up to its variables
    shape: Shape  # of the answer, or of each entity in it


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Plan:
    """`layout` is the answer's form, of so many `fields`."""

    operation: Operation
    steps: tuple[Step, ...]
    layout: Spot
    fields: int

    @property
    def hops(self) -> int:
        """How many requests follow one another."""
        return max((step.depth for step in self.steps), default=0)


def compiled(operation: Operation, layout: Spot, fetches: Sequence[Fetch]) -> Plan:
    definitions = {name: print_ast(node) for name, node in operation.variables.items()}
    known: dict[Any, _Draft] = {}
    place_of: dict[Fetch, _Draft] = {}
    for fetch in sorted(fetches, key=lambda fetch: (fetch.group, fetch.depth)):
        draft = _draft(fetch, definitions)
        draft = known.setdefault(draft.same if fetch.selection is None else fetch, draft)
        draft.paths.append(fetch.spot.path())
        draft.after.extend(place_of[before] for before in fetch.after)
        place_of[fetch] = draft
    ids = {id(draft): n for n, draft in enumerate(known.values())}
    steps = tuple(_step(draft, ids) for draft in known.values())
    return Plan(operation, steps, layout, layout.settle())


@dataclass(slots=True, eq=False)
class _Draft:
    fetch: Fetch
    query: str
    variables: tuple[str, ...]
    representations: Mapping[str | None, Representation] | None
    representations_variable: str
    paths: list[Path]
    after: "list[_Draft]"

    @property
    def same(self) -> Any:
        """What two requests have in common that can be one: entities at several spots, asked for at the same time."""
        representations = tuple((self.representations or {}).items())
        return self.fetch.member.id, self.fetch.group, self.fetch.depth, self.query, representations


def _draft(fetch: Fetch, definitions: Mapping[str, str]) -> _Draft:
    used = fetch.variables()
    names = tuple(name for name in definitions if name in used)
    variable = "representations"
    while variable in definitions:
        variable = f"_{variable}"
    representations = None
    if fetch.selection is None:
        representations = {
            type_: representation(target.place, target.typename, target.key, target.requires)
            for type_, target in fetch.targets.items()
        }
    text = fetch.text([definitions[name] for name in names], variable)
    return _Draft(fetch, text, names, representations, variable, [], [])


def _step(draft: _Draft, ids: Mapping[int, int]) -> Step:
    return Step(
        id=ids[id(draft)],
        subgraph=draft.fetch.member.name,
        operation=draft.fetch.operation.value,
        query=draft.query,
        variables=draft.variables,
        representations=draft.representations,
        representations_variable=draft.representations_variable,
        paths=tuple(dict.fromkeys(draft.paths)),
        after=tuple(sorted({ids[id(before)] for before in draft.after})),
        depth=draft.fetch.depth,
        body=b'{"query":' + orjson.dumps(draft.query),
        shape=Shape.of(draft.fetch.selections()),
    )


def explain(plan: Plan) -> str:
    """The plan for people: a line for each request, with what it comes after, where its entities are, and its text."""
    lines = [f"{len(plan.steps)} requests, {plan.hops} one after the other"]
    for step in plan.steps:
        after = f" after {', '.join(str(n + 1) for n in step.after)}" if step.after else ""
        lines.append(f"{step.id + 1}. {step.subgraph}{after}{_where(step)}: {step.query}")
    return "\n".join(lines)


def _where(step: Step) -> str:
    if step.representations is None:
        return ""
    at = ", ".join(_path_text(path) for path in step.paths)
    named = "; ".join(_named(type_, each) for type_, each in step.representations.items())
    return f" for the {named} at {at}"


def _path_text(path: Path) -> str:
    return ".".join(name if types is None else f"{name}|{'|'.join(sorted(types))}" for name, types in path)


def _named(type_: str | None, representation: Representation) -> str:
    fields = " ".join(part.name for part in representation.parts)
    on = "" if type_ in (None, representation.typename) else f"{type_} as "
    return f"{on}{representation.typename} {{{fields}}}"
