"""A GraphQL endpoint: HTTP, WebSocket and server-sent events over one engine.

    endpoint = GraphQLEndpoint(build_schema(Query, Mutation), context, development=settings.development)

`context` is awaited as `context(scope, headers, connection_params)` for every request and every operation on a socket.
"""

from libs.core.graphql.endpoint import GraphQLEndpoint
from libs.core.graphql.engine import ContextFactory, Engine, Prepared, Request
from libs.core.graphql.execution import SchemaEngine
from libs.core.graphql.limits import LimitExceeded, Limits
from libs.core.graphql.schema import BigInt, Problem, build_schema

__all__ = [
    "BigInt",
    "ContextFactory",
    "Engine",
    "GraphQLEndpoint",
    "LimitExceeded",
    "Limits",
    "Prepared",
    "Problem",
    "Request",
    "SchemaEngine",
    "build_schema",
]
