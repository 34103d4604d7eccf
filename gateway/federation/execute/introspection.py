"""`__schema` and `__type`, which no subgraph is asked for."""

from collections.abc import Mapping
from typing import Any

from graphql import (
    DocumentNode,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    execute_sync,
)

from gateway.federation.plan import Plan


def introspect(schema: GraphQLSchema, plan: Plan, variables: Mapping[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """`data` with what the operation asks of the schema itself, in its order."""
    operation = OperationDefinitionNode(
        operation=OperationType.QUERY,
        selection_set=SelectionSetNode(selections=tuple(plan.layout.introspection)),
        variable_definitions=plan.operation.node.variable_definitions,
    )
    document = DocumentNode(definitions=(operation, *plan.operation.fragments.values()))
    found = execute_sync(schema, document, variable_values=dict(variables)).data or {}
    return {key: data[key] if key in data else found.get(key) for key in plan.layout.keys}
