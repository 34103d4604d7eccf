"""Makes a failing case smaller: takes away what it fails without, of the query and of the subgraphs."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    Node,
    OperationDefinitionNode,
    SelectionSetNode,
    Visitor,
    parse,
    print_ast,
    visit,
)

_PARTS = (
    "definitions",
    "selections",
    "fields",
    "directives",
    "interfaces",
    "types",
    "arguments",
    "variable_definitions",
)


def shrunk_query(text: str, fails: Callable[[str], bool]) -> str:
    """`fails` is asked about other queries, and says no to those that are not valid."""
    return _shrunk(_inlined(text), fails, lambda text: map(_tidy, _smaller(parse(text, no_location=True))))


def shrunk_subgraphs(sdls: Mapping[str, str], fails: Callable[[Mapping[str, str]], bool]) -> Mapping[str, str]:
    """`fails` says no to subgraphs that do not compose."""
    smaller = dict(sdls)
    for name in sdls:
        if len(smaller) > 1 and fails(without := {n: sdl for n, sdl in smaller.items() if n != name}):
            smaller = without
    for name in smaller:
        smaller[name] = _shrunk(
            smaller[name],
            lambda text, name=name: fails({**smaller, name: text}),  # type: ignore[misc]
            lambda text: map(print_ast, _smaller(parse(text, no_location=True))),
        )
    return smaller


def _shrunk(text: str, fails: Callable[[str], bool], smaller: Callable[[str], Iterator[str]]) -> str:
    while True:
        found = next((candidate for candidate in smaller(text) if candidate and fails(candidate)), None)
        if found is None:
            return text
        text = found


def _inlined(text: str) -> str:
    """With fragments where they are spread."""
    document = parse(text, no_location=True)
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    return print_ast(visit(replace(document, definitions=tuple(operations)), _Inliner(fragments)))


class _Inliner(Visitor):
    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        super().__init__()
        self._fragments = fragments

    def enter_fragment_spread(self, node: FragmentSpreadNode, *_: Any) -> InlineFragmentNode:
        fragment = self._fragments[node.name.value]
        body = visit(fragment.selection_set, self)
        return InlineFragmentNode(
            type_condition=fragment.type_condition, directives=node.directives, selection_set=body
        )


def _tidy(document: DocumentNode) -> str:
    """Without variables that nothing uses."""
    text = print_ast(document)
    for node in document.definitions:
        if isinstance(node, OperationDefinitionNode):
            used = set(re.findall(r"\$(\w+)(?!\w*:)", text))
            kept = tuple(v for v in node.variable_definitions or () if v.variable.name.value in used)
            document = DocumentNode(definitions=(replace(node, variable_definitions=kept),))
    return print_ast(document)


def _smaller(node: Any) -> Iterator[Any]:
    """The node without one of its parts, the largest first; fragments give way to what is in them."""
    for name in node.keys:
        part = getattr(node, name)
        if isinstance(part, tuple) and name in _PARTS:
            yield from (replace(node, **{name: rest}) for rest in _without_one(node, name, part))
        for at, child in enumerate(part if isinstance(part, tuple) else ()):
            for smaller in _smaller(child) if isinstance(child, Node) else ():
                yield replace(node, **{name: (*part[:at], smaller, *part[at + 1 :])})
        if isinstance(part, SelectionSetNode):
            yield from (replace(node, **{name: smaller}) for smaller in _smaller(part))


def _without_one(node: Any, name: str, part: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    for at, child in enumerate(part):
        if isinstance(child, InlineFragmentNode):
            yield (*part[:at], *child.selection_set.selections, *part[at + 1 :])
        if isinstance(child, FieldNode) and child.alias:
            yield (*part[:at], replace(child, alias=None), *part[at + 1 :])
        if not isinstance(child, OperationDefinitionNode) and (len(part) > 1 or name not in ("selections", "fields")):
            yield (*part[:at], *part[at + 1 :])
