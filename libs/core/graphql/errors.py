"""Errors as GraphQL shows them: ours with their code and details, GraphQL's own as they are, surprises masked."""

from collections.abc import Iterable, Mapping
from typing import Any, Self

import structlog
from graphql import GraphQLError, ValueNode

from libs.core.context import correlation_id
from libs.core.errors import CoreError
from libs.core.mongo import unanswered

Formatted = dict[str, Any]

log = structlog.get_logger(__name__)

# JavaScript reads larger numbers wrongly, and JSON encoders refuse those over 64 bits.
_SAFE_INTEGER = 2**53 - 1
_LOCATIONS = 3


class HTTPRefused(CoreError):
    """A request that HTTP's own rules refuse."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status  # type: ignore[misc]
        self.code = code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class RequestRefused(Exception):
    """The request never became an execution: it is answered with `errors` and without `data`.

    What GraphQL itself refuses (`by_graphql`) is status 200 for a client that accepts only application/json.
    """

    def __init__(self, errors: list[Formatted], *, status: int = 400, by_graphql: bool = False) -> None:
        super().__init__(errors)
        self.errors = errors
        self.status = status
        self.by_graphql = by_graphql

    @classmethod
    def of(cls, error: Exception, *, by_graphql: bool = False) -> Self:
        """From whatever stopped the request: a `CoreError` as it is, anything else masked."""
        if isinstance(error, cls):
            return error
        if known := _known(error):
            return cls([_core(known)], status=known.status, by_graphql=by_graphql)
        return cls([_surprise(error)], status=500)

    @classmethod
    def by_rules(cls, errors: Iterable[GraphQLError], code: str) -> Self:
        """From what parsing, validation or variables found wrong. The client wrote it, so it may read it."""
        formatted = [_located(error, {"message": error.message, "extensions": {"code": code}}) for error in errors]
        return cls(formatted, by_graphql=True)


def format_execution_errors(errors: Iterable[GraphQLError]) -> list[Formatted]:
    """What went wrong in resolvers. Everything that is not `_known` is masked and logged."""
    return [_located(error, _execution(error)) for error in errors]


def _execution(error: GraphQLError) -> Formatted:
    cause: BaseException = error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    if known := _known(cause):
        return _core(known)
    # A variable that turns out not to fit its argument (null where a default allowed it): graphql-core points to the
    # argument's value. When it complains about what a resolver returned, and quotes it, it points to the field, if any.
    if isinstance(cause, GraphQLError) and cause.nodes and all(isinstance(node, ValueNode) for node in cause.nodes):
        return {"message": cause.message, "extensions": {"code": "BAD_USER_INPUT"}}
    return _surprise(cause)


def _known(error: BaseException) -> CoreError | None:
    """What is no surprise: our own errors, and a database that is away, of which its client says too much."""
    if isinstance(error, CoreError):
        return error
    if known := unanswered(error):
        log.warning("mongodb does not answer", error=str(error)[:200])
    return known


def _core(error: CoreError) -> Formatted:
    details = {"details": json_safe(error.details)} if error.details else {}
    return {"message": error.message, "extensions": {"code": error.code, **details}}


def _surprise(error: BaseException) -> Formatted:
    correlation = correlation_id.get()
    log.error("graphql.surprise", exc_info=error, correlation_id=correlation)
    return {
        "message": "something went wrong; it was logged under this correlation id",
        "extensions": {"code": "INTERNAL", "correlationId": correlation},
    }


def _located(error: GraphQLError, formatted: Formatted) -> Formatted:
    if error.locations:  # a document can be made to repeat one mistake at thousands of places
        formatted["locations"] = [{"line": at.line, "column": at.column} for at in error.locations[:_LOCATIONS]]
    if error.path:
        formatted["path"] = error.path
    return formatted


def json_safe(value: Any) -> Any:
    """`value` with whatever JSON cannot carry exactly (large integers, dates, objects) as strings."""
    if value is None or isinstance(value, str | bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _SAFE_INTEGER else str(value)
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_safe(item) for item in value]
    return str(value)
