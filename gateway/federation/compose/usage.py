"""How a subgraph uses directives: known ones, where they belong, with the arguments that they take."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from graphql import (
    ConstDirectiveNode,
    DirectiveDefinitionNode,
    DirectiveNode,
    InputValueDefinitionNode,
    NonNullTypeNode,
    print_ast,
    value_from_ast_untyped,
)

from gateway.federation.compose import spec
from gateway.federation.compose.errors import SubgraphReport
from gateway.federation.compose.link import Names
from gateway.federation.compose.model import Schema
from gateway.federation.compose.values import fits


@dataclass(frozen=True, slots=True)
class Applied:
    """A directive as it is applied: `meaning` is Federation's or GraphQL's name for it, empty if it is neither's."""

    name: str
    meaning: str
    values: dict[str, Any]
    node: DirectiveNode | ConstDirectiveNode


class Usage:
    def __init__(self, names: Names, own: Iterable[DirectiveDefinitionNode], report: SubgraphReport) -> None:
        self._names = names
        self._report = report
        self._definitions = {**spec.BUILT_IN, **spec.LINK}
        self._definitions |= {name: spec.definition(m, names.version) for name, m in names.directives.items()}
        self._waiting: list[tuple[DirectiveNode | ConstDirectiveNode, InputValueDefinitionNode, str]] = []
        seen = set()
        for node in own:
            if node.name.value in seen:
                report.invalid(f"the directive @{node.name.value} is defined twice", f"@{node.name.value}")
            seen.add(node.name.value)
            if node.name.value in names.directives:
                self._check_definition(node)
            self._definitions[node.name.value] = node

    def applied(
        self,
        nodes: Iterable[DirectiveNode | ConstDirectiveNode] | None,
        location: str,
        coordinate: str,
        seen: set[str] | None = None,
    ) -> Iterator[Applied]:
        """`seen` is given where several declarations are of one thing: what is not repeatable is there once in all."""
        seen = set() if seen is None else seen
        for node in nodes or ():
            name = node.name.value
            definition = self._definitions.get(name)
            if definition is None:
                self._report.invalid(
                    f"the directive @{name} on {coordinate} is unknown{self._advice(name)}", coordinate
                )
                continue
            if name in seen and not definition.repeatable:
                self._report.invalid(f"@{name} is on {coordinate} more than once, and is not repeatable", coordinate)
            seen.add(name)
            if all(place.value != location for place in definition.locations):
                self._report.invalid(f"@{name} cannot be used on {coordinate}: it is not for {location}", coordinate)
            elif self._check_arguments(node, definition, coordinate):
                yield Applied(name, self._meaning(name), _values(node), node)

    def check_values(self, schema: Schema) -> None:
        """To be called once all types are known."""
        for node, argument, coordinate in self._waiting:
            value = next(each.value for each in node.arguments or () if each.name.value == argument.name.value)
            if not fits(value, print_ast(argument.type), schema):
                where = f"@{node.name.value}({argument.name.value}:) on {coordinate}"
                self._report.invalid(f"{print_ast(value)} is no {print_ast(argument.type)}, for {where}", coordinate)

    def _meaning(self, name: str) -> str:
        return self._names.directives.get(name) or (name if name in spec.BUILT_IN or name in spec.LINK else "")

    def _advice(self, name: str) -> str:
        if name not in spec.FEDERATION:
            return ": define it, or link the feature that it comes from"
        if self._names.federation_1:
            return f': @link "{spec.IDENTITY}/v2.x" to use it, importing "@{name}"'
        if name not in self._names.directives.values():
            major, minor = spec.SINCE[name]
            return f": it needs Federation v{major}.{minor}"
        return f': import "@{name}" with the @link of Federation, or call it @federation__{name}'

    def _check_arguments(
        self, node: DirectiveNode | ConstDirectiveNode, definition: DirectiveDefinitionNode, coordinate: str
    ) -> bool:
        problems = list(self._argument_problems(node, definition, coordinate))
        for problem in problems:
            self._report.invalid(problem, coordinate)
        return not problems

    def _argument_problems(
        self, node: DirectiveNode | ConstDirectiveNode, definition: DirectiveDefinitionNode, coordinate: str
    ) -> Iterator[str]:
        known = {argument.name.value: argument for argument in definition.arguments or ()}
        given = [argument.name.value for argument in node.arguments or ()]
        name = node.name.value
        for argument in dict.fromkeys(given):
            if argument not in known:
                yield f"@{name} on {coordinate} has no argument {argument}"
            elif given.count(argument) > 1:
                yield f"@{name} on {coordinate} is given {argument} twice"
            elif argument != _FIELD_SET or name not in self._names.directives:  # field sets have their own errors
                self._waiting.append((node, known[argument], coordinate))
        for argument, defined in known.items():
            if argument not in given and isinstance(defined.type, NonNullTypeNode) and defined.default_value is None:
                yield f"@{name} on {coordinate} needs the argument {argument}"

    def _check_definition(self, node: DirectiveDefinitionNode) -> None:
        """Subgraphs may define what Federation defines, in the same way."""
        name, known = node.name.value, spec.FEDERATION[self._names.directives[node.name.value]]
        arguments = {argument.name.value: argument for argument in node.arguments or ()}
        for argument in known.arguments or ():
            found = arguments.get(argument.name.value)
            if found is None and isinstance(argument.type, NonNullTypeNode):
                self._bad_definition(name, f"it lacks the argument {argument.name.value}")
            elif found is not None and not self._is_like(found, argument):
                self._bad_definition(name, f"{argument.name.value} must be {print_ast(argument.type)}")
        locations = {location.value for location in known.locations}
        if all(location.value not in locations for location in node.locations):
            self._bad_definition(name, f"it must be on {' | '.join(sorted(locations))}")

    def _bad_definition(self, name: str, problem: str) -> None:
        message = f"@{name} is not defined as Federation does: {problem}; or leave the definition out"
        self._report.add("DIRECTIVE_DEFINITION_INVALID", message, f"@{name}")

    def _is_like(self, found: InputValueDefinitionNode, known: InputValueDefinitionNode) -> bool:
        if known.name.value == "fields":
            type_ = print_ast(found.type)
            inner = type_.removesuffix("]!").removeprefix("[") if type_.startswith("[") else type_
            nullable_too = {"String"} if self._names.federation_1 else set()
            return inner in {"FieldSet!", "federation__FieldSet!", "_FieldSet!", "String!", *nullable_too}
        if known.name.value == "resolvable":
            return found.default_value is not None and print_ast(found.default_value) == "true"
        return True


_FIELD_SET = "fields"


def _values(node: DirectiveNode | ConstDirectiveNode) -> dict[str, Any]:
    return {argument.name.value: value_from_ast_untyped(argument.value) for argument in node.arguments or ()}
