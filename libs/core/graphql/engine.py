"""What the transports ask of whatever answers: a Strawberry schema (`SchemaEngine`), or the gateway's federation."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from graphql import OperationType
from starlette.datastructures import Headers
from starlette.types import Scope

from libs.core.context import Context
from libs.core.errors import InvalidInput
from libs.core.graphql.limits import Limits

# A response as JSON.
Response = bytes

# Awaited as context(scope, headers, connection_params): who asks, or `Unauthenticated`. `connection_params` is the
# payload of a socket's connection_init, None over HTTP.
ContextFactory = Callable[[Scope, Headers, Mapping[str, Any] | None], Awaitable[Context]]


@dataclass(frozen=True, slots=True)
class Request:
    """The parameters of GraphQL over HTTP, whichever way they came."""

    query: str
    variables: dict[str, Any]
    operation_name: str | None
    extensions: dict[str, Any]
    # A GET: it may be prefetched, cached, or sent from another site's page, so it never mutates.
    only_reads: bool = False

    @classmethod
    def parse(cls, parameters: Any, *, only_reads: bool = False) -> "Request":
        """`InvalidInput` naming the parameter that is missing or of the wrong type."""
        if not isinstance(parameters, dict):
            raise InvalidInput("the request must be one JSON object; batches are not accepted")
        return cls(
            _parameter(parameters, "query", str),
            _parameter(parameters, "variables", dict, {}),
            _parameter(parameters, "operationName", str, None),
            _parameter(parameters, "extensions", dict, {}),
            only_reads,
        )


_REQUIRED = object()


def _parameter(parameters: dict[str, Any], name: str, kind: type, default: Any = _REQUIRED) -> Any:
    value = parameters.get(name)
    if value is None and default is not _REQUIRED:
        return default
    if not isinstance(value, kind):
        raise InvalidInput(f"{name} must be {'a string' if kind is str else 'an object'}", field=name)
    return value


class Prepared(Protocol):
    """A request that will be executed."""

    @property
    def type(self) -> OperationType: ...

    async def execute(self) -> Response:
        """A query's or mutation's response; `RequestRefused` if there is none."""

    def responses(self) -> AsyncGenerator[Response, None]:
        """The only response, or a subscription's; `RequestRefused` if it cannot start, or breaks off."""


class Engine(Protocol):
    """What every transport does with a request: `prepare` it, then run what comes of it."""

    @property
    def limits(self) -> Limits: ...

    def prepare(self, request: Request, context: Context) -> Prepared:
        """`RequestRefused` if the document, the operation's name or the variables are wrong, or ask for too much;
        `HTTPRefused` if it may only read, and would mutate.
        """
