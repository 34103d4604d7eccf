"""What is right: a query answered from the world's facts by one schema, with no subgraphs or requests between."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graphql import (
    DefinitionNode,
    DocumentNode,
    FieldDefinitionNode,
    FieldNode,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    InlineFragmentNode,
    ObjectTypeDefinitionNode,
    SelectionSetNode,
    TypeDefinitionNode,
    build_ast_schema,
    get_argument_values,
    graphql_sync,
    parse,
)

from tests.gateway.federation.judges.sdl import root_name
from tests.gateway.federation.judges.world import EVENTS, Facts, Node, World, canonical


class Truth:
    """`api` is the SDL that clients see. `resolvers` of the world are not known to it."""

    def __init__(self, world: World, api: str) -> None:
        self._requires = _Requires(world)
        self.schema = _client_schema(api)
        self._mutated: list[str] = []

    def answer(self, query: str, variables: Mapping[str, Any] | None = None, event: int = 0) -> dict[str, Any]:
        result = graphql_sync(
            self.schema,
            query,
            root_value=event,
            variable_values=dict(variables or {}),
            field_resolver=self._resolve,
            type_resolver=lambda value, info, type_: value.type,
        )
        assert not result.errors, result.errors
        return {"data": result.data}

    def mutations(self, query: str, variables: Mapping[str, Any]) -> list[str]:
        """What a world has `mutated`, in order, when this was answered."""
        self._mutated.clear()
        self.answer(query, variables)
        return list(self._mutated)

    def events(self, query: str, variables: Mapping[str, Any]) -> list[dict[str, Any]]:
        """All answers to a subscription."""
        return [self.answer(query, variables, event) for event in range(EVENTS)]

    def _resolve(self, source: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
        root = root_name(self.schema, info.parent_type)
        if root == "Mutation":
            self._mutated.append(info.field_name + canonical(arguments))
        node = source if root is None else Node(root, source)
        return self._requires.value(node, info.field_name, arguments)


class _Requires:
    """Values of fields, those that require others too."""

    def __init__(self, world: World) -> None:
        self._facts: Facts = world.facts
        self._readings = world.facts.readings

    def value(self, node: Node, name: str, arguments: Mapping[str, Any]) -> Any:
        requires = self._find(node.type, name)
        return self._facts.value(node, name, arguments, self._pick(requires, node) if requires else None)

    def _find(self, type_name: str, name: str) -> SelectionSetNode | None:
        owners = [type_name, *(i for i, members in self._facts.members.items() if type_name in members)]
        for reading in self._readings.values():
            for owner in owners:
                note = reading.fields.get((owner, name))
                if note and note.requires and (owner == type_name or owner in reading.interface_objects):
                    return note.requires
        return None

    def _pick(self, selections: SelectionSetNode, value: Any) -> Any:
        if isinstance(value, list):
            return [self._pick(selections, item) for item in value]
        if not isinstance(value, Node):
            return value
        picked: dict[str, Any] = {}
        for node in selections.selections:
            if isinstance(node, FieldNode):
                if node.name.value == "__typename":
                    continue
                child = self.value(value, node.name.value, self._arguments(value.type, node))
                picked[node.name.value] = self._pick(node.selection_set, child) if node.selection_set else child
            elif isinstance(node, InlineFragmentNode) and self._applies(node, value.type):
                picked |= self._pick(node.selection_set, value)
        return picked

    def _arguments(self, type_name: str, node: FieldNode) -> dict[str, Any]:
        """With their defaults."""
        for reading in self._readings.values():
            type_ = reading.schema.type_map.get(type_name)
            if isinstance(type_, GraphQLObjectType) and node.name.value in type_.fields:
                return get_argument_values(type_.fields[node.name.value], node)
        return {}

    def _applies(self, node: InlineFragmentNode, type_name: str) -> bool:
        on = node.type_condition.name.value if node.type_condition else type_name
        return on == type_name or type_name in self._facts.members.get(on, ())


def _client_schema(api: str) -> GraphQLSchema:
    """Hive prints introspection's own types and fields with it, which no SDL may have."""
    kept = [_without_introspection(d) for d in parse(api).definitions if not _is_introspection(d)]
    return build_ast_schema(DocumentNode(definitions=tuple(kept)), assume_valid_sdl=True)


def _without_introspection(definition: DefinitionNode) -> DefinitionNode:
    if not isinstance(definition, ObjectTypeDefinitionNode):
        return definition
    return replace(definition, fields=tuple(f for f in definition.fields or () if not _is_introspection(f)))


def _is_introspection(node: Any) -> bool:
    return isinstance(node, TypeDefinitionNode | FieldDefinitionNode) and node.name.value.startswith("__")
