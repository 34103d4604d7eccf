"""Random operations that are valid against a schema: fragments, aliases, variables, conditions, and members of unions
that say different things by one name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    get_named_type,
    is_composite_type,
    is_required_argument,
    parse,
    validate,
)

_ATTEMPTS = 60
_MOST_FIELDS = 40


@dataclass(frozen=True, slots=True)
class Query:
    text: str
    variables: Mapping[str, Any]


def query(random: Random, schema: GraphQLSchema, operation: str = "query") -> Query:
    for _ in range(_ATTEMPTS):
        draft = _Draft(random, schema)
        drawn = draft.draw(operation)
        if not validate(schema, parse(drawn.text)):
            return drawn
    raise AssertionError("no valid query was found")


@dataclass(slots=True)
class _Draft:
    random: Random
    schema: GraphQLSchema
    variables: dict[str, tuple[str, Any]] = field(default_factory=dict)
    fragments: dict[str, str] = field(default_factory=dict)
    fields: int = 0

    def draw(self, operation: str) -> Query:
        roots = {"query": self.schema.query_type, "mutation": self.schema.mutation_type}
        root = roots.get(operation, self.schema.subscription_type)
        assert root is not None
        depth = self.random.randint(2, 5)
        body = f"{{ {self._field(root, depth)} }}" if operation == "subscription" else self._selections(root, depth)
        declared = ", ".join(f"${name}: {type_}" for name, (type_, _) in self.variables.items())
        text = f"{operation}{f' ({declared})' if declared else ''} {body}"
        text = "\n".join([text, *self.fragments.values()])
        values = {name: value for name, (_, value) in self.variables.items() if value is not ...}
        return Query(text, values)

    def _selections(self, type_: Any, depth: int) -> str:
        wanted = self.random.randint(1, 4)
        parts = [self._selection(type_, depth) for _ in range(wanted)]
        parts = [part for part in parts if part] or ["__typename"]
        return "{ " + " ".join(parts) + " }"

    def _selection(self, type_: Any, depth: int) -> str:
        chance = self.random.random()
        is_root = type_ in (self.schema.query_type, self.schema.mutation_type)
        if isinstance(type_, GraphQLUnionType) or (isinstance(type_, GraphQLInterfaceType) and chance < 0.5):
            return self._fragment(type_, depth) if chance < 0.9 else "__typename"
        if chance < 0.08 and not is_root:
            return "__typename"
        if chance < 0.2:
            return self._fragment(type_, depth)
        return self._field(type_, depth)

    def _fragment(self, type_: Any, depth: int) -> str:
        if self.fields > _MOST_FIELDS:
            return ""
        on = self._narrower(type_)
        body = self._selections(on, depth)
        if self.random.random() < 0.3:
            name = f"F{len(self.fragments)}"
            self.fragments[name] = f"fragment {name} on {on.name} {body}"
            if self.random.random() < 0.3:
                return f"...{name} ...{name}{self._condition()}"
            return f"...{name}{self._condition()}"
        return f"... on {on.name}{self._condition()} {body}"

    def _narrower(self, type_: Any) -> Any:
        """A type that an object of this type can be."""
        if isinstance(type_, GraphQLObjectType):
            return self.random.choice([type_, *type_.interfaces, type_])
        possible = self.schema.get_possible_types(type_)
        wider = [i for o in possible for i in o.interfaces] if self.random.random() < 0.2 else []
        return self.random.choice([*possible, *wider])

    def _field(self, type_: GraphQLObjectType | GraphQLInterfaceType, depth: int) -> str:
        fields = [n for n, f in type_.fields.items() if depth > 0 or not is_composite_type(get_named_type(f.type))]
        fields = [n for n in fields if not n.startswith("_")]
        if not fields or self.fields > _MOST_FIELDS:
            return "__typename"
        self.fields += 1
        name = self.random.choice(fields)
        definition = type_.fields[name]
        arguments = self._arguments(definition)
        alias = ""
        if arguments or self.random.random() < 0.1:
            alias = f"a{self.fields}: "
        elif self.random.random() < 0.1:
            alias = f"{self.random.choice('xy')}: "
        named = get_named_type(definition.type)
        body = " " + self._selections(named, depth - 1) if is_composite_type(named) else ""
        return f"{alias}{name}{arguments}{self._condition()}{body}"

    def _condition(self) -> str:
        if self.random.random() > 0.08:
            return ""
        directive = self.random.choice(("skip", "include"))
        yes = self.random.random() < 0.5
        text = self._variable("Boolean!", yes) if self.random.random() < 0.7 else str(yes).lower()
        return f" @{directive}(if: {text})"

    def _arguments(self, definition: GraphQLField) -> str:
        given = []
        for name, argument in definition.args.items():
            if is_required_argument(argument) or self.random.random() < 0.6:
                given.append(f"{name}: {self._value(argument.type)}")
        return f"({', '.join(given)})" if given else ""

    def _value(self, type_: GraphQLInputType) -> str:
        literal, value = self._drawn(type_)
        return self._variable(str(type_), value) if self.random.random() < 0.4 else literal

    def _variable(self, type_: str, value: Any) -> str:
        name = f"v{len(self.variables)}"
        self.variables[name] = (type_, value)
        return f"${name}"

    def _drawn(self, type_: GraphQLInputType) -> tuple[str, Any]:
        if isinstance(type_, GraphQLNonNull):
            return self._drawn(type_.of_type)
        if isinstance(type_, GraphQLList):
            items = [self._drawn(type_.of_type) for _ in range(self.random.randint(0, 2))]
            return f"[{', '.join(literal for literal, _ in items)}]", [value for _, value in items]
        if isinstance(type_, GraphQLEnumType):
            chosen = self.random.choice(list(type_.values))
            return chosen, chosen
        if type_.name == "Int":
            number = self.random.randint(0, 3)
            return str(number), number
        word = self.random.choice(("x", "y"))
        return f'"{word}"', word
