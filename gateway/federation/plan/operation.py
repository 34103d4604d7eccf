"""An operation as the planner takes it, and what of it a plan depends on."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from graphql import (
    ArgumentNode,
    BooleanValueNode,
    DocumentNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    ListValueNode,
    Node,
    ObjectValueNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    print_ast,
    value_from_ast_untyped,
)


class Operation:
    """One operation of a document that is valid against `api_schema`, with the fragments that it may spread.

    `normalised` is its text without its name, comments and layout: operations of equal text share their plans.
    """

    def __init__(self, node: OperationDefinitionNode, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self.node = node
        self.type = node.operation
        self.fragments = fragments
        used = _spread(node.selection_set, fragments)
        self.variables = {d.variable.name.value: d for d in node.variable_definitions or ()}
        self._conditions = tuple(sorted(_conditions([node.selection_set, *(fragments[n].selection_set for n in used)])))
        text = [self.type.value, *(print_ast(d) for d in self.variables.values()), print_ast(node.selection_set)]
        self.normalised = "\n".join([*text, *(print_ast(fragments[name]) for name in sorted(used))])

    @classmethod
    def of(cls, document: DocumentNode, name: str | None = None) -> "Operation":
        """The operation called `name`, or the only one there is; `LookupError` if that is not so."""
        operations = [d for d in document.definitions if isinstance(d, OperationDefinitionNode)]
        named = [d for d in operations if name is None or (d.name and d.name.value == name)]
        if len(named) != 1:
            raise LookupError(f"the document has {len(named)} operations of that name")
        fragments = {d.name.value: d for d in document.definitions if isinstance(d, FragmentDefinitionNode)}
        return cls(named[0], fragments)

    def conditions(self, variables: Mapping[str, Any]) -> dict[str, bool]:
        """What `variables` make of those that @skip and @include ask for."""
        return {name: self._value(name, variables) for name in self._conditions}

    def _value(self, name: str, variables: Mapping[str, Any]) -> bool:
        if name in variables:
            return variables[name] is True
        definition = self.variables.get(name)
        default = definition.default_value if definition else None
        return default is not None and value_from_ast_untyped(default) is True


def included(node: SelectionNode, conditions: Mapping[str, bool]) -> bool:
    """Whether @skip and @include let it in."""
    for directive in node.directives or ():
        if directive.name.value in ("skip", "include"):
            wanted = directive.name.value == "include"
            for argument in directive.arguments or ():
                value = argument.value
                given = value.value if isinstance(value, BooleanValueNode) else _given(value, conditions)
                if given is not wanted:
                    return False
    return True


def _given(value: ValueNode, conditions: Mapping[str, bool]) -> bool:
    return isinstance(value, VariableNode) and conditions.get(value.name.value, False)


def used_variables(node: ValueNode) -> Iterator[str]:
    """The names of the variables in an argument's value."""
    if isinstance(node, VariableNode):
        yield node.name.value
    elif isinstance(node, ListValueNode):
        for item in node.values:
            yield from used_variables(item)
    elif isinstance(node, ObjectValueNode):
        for field in node.fields:
            yield from used_variables(field.value)


def arguments_text(arguments: Iterable[ArgumentNode] | None) -> str:
    """The same for the same arguments in whatever order: `(a: 1, b: $x)`, or nothing."""
    printed = sorted(print_ast(argument) for argument in arguments or ())
    return f"({', '.join(printed)})" if printed else ""


def _spread(selections: SelectionSetNode, fragments: Mapping[str, FragmentDefinitionNode]) -> set[str]:
    found: set[str] = set()
    waiting: list[Node] = [selections]
    while waiting:
        for node in waiting.pop().selections:  # type: ignore[attr-defined]
            if isinstance(node, FragmentSpreadNode):
                name = node.name.value
                if name not in found and name in fragments:
                    found.add(name)
                    waiting.append(fragments[name].selection_set)
            elif node.selection_set:
                waiting.append(node.selection_set)
    return found


def _conditions(selection_sets: list[SelectionSetNode]) -> set[str]:
    found: set[str] = set()
    waiting = list(selection_sets)
    while waiting:
        for node in waiting.pop().selections:
            for directive in node.directives or ():
                if directive.name.value in ("skip", "include"):
                    found.update(n for a in directive.arguments or () for n in used_variables(a.value))
            below = getattr(node, "selection_set", None)
            if below:
                waiting.append(below)
    return found
