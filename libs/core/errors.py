"""Everything that can go wrong, as one tree.

    CoreError
    ├── InvalidInput        BAD_USER_INPUT      400  the request is malformed; `field` names what
    ├── Unauthenticated     UNAUTHENTICATED     401  no token, or one that is not accepted
    ├── Forbidden           FORBIDDEN           403  the caller is known and may not
    ├── NotFound            NOT_FOUND           404  does not exist, or not for this caller
    ├── Refusal             (its own code)      200  a business rule said no; GraphQL answers it as `Problem`
    ├── RateLimited         RATE_LIMITED        429  `retry_after_s` says when to come back
    ├── Unavailable         UNAVAILABLE         503  nothing was done: safe to try again
    ├── DeadlineExceeded    DEADLINE_EXCEEDED   504  nothing was done in the time given: safe to try again
    ├── OutcomeUnknown      UNKNOWN             503  it may have been done: ask again with the same id
    ├── LeaseLost           LEASE_LOST          500  this process no longer owns what it was writing
    └── Misconfigured       MISCONFIGURED       500  refused at start-up, or a configuration value refused

A `Refusal` is an answer and travels as data; all others travel as errors with `extensions.code`. Anything that is not
in this tree is a surprise: it is logged with its correlation id and shown as `INTERNAL`.
"""

from typing import Any, ClassVar


class CoreError(Exception):
    """The root. `message` is for a person, `code` for a program, `details` carry the offending values."""

    code: str = "INTERNAL"
    status: ClassVar[int] = 500

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidInput(CoreError):
    """`field` is the argument's path as the caller wrote it, e.g. `input.amount`."""

    code = "BAD_USER_INPUT"
    status = 400

    def __init__(self, message: str, *, field: str | None = None, **details: Any) -> None:
        super().__init__(message, **({"field": field} if field else {}), **details)
        self.field = field


class Unauthenticated(CoreError):
    code = "UNAUTHENTICATED"
    status = 401


class Forbidden(CoreError):
    code = "FORBIDDEN"
    status = 403


class NotFound(CoreError):
    code = "NOT_FOUND"
    status = 404


class Refusal(CoreError):
    """A business rule's no. `rule` names what refused, so that "why was this blocked" has an answer."""

    status = 200

    def __init__(self, code: str, message: str, *, rule: str, **details: Any) -> None:
        super().__init__(message, **details)
        self.code = code
        self.rule = rule


class RateLimited(CoreError):
    code = "RATE_LIMITED"
    status = 429

    def __init__(self, message: str, *, retry_after_s: float, **details: Any) -> None:
        super().__init__(message, retryAfterSeconds=retry_after_s, **details)
        self.retry_after_s = retry_after_s


class Unavailable(CoreError):
    code = "UNAVAILABLE"
    status = 503


class DeadlineExceeded(CoreError):
    code = "DEADLINE_EXCEEDED"
    status = 504


class OutcomeUnknown(CoreError):
    code = "UNKNOWN"
    status = 503


class LeaseLost(CoreError):
    code = "LEASE_LOST"


class Misconfigured(CoreError):
    code = "MISCONFIGURED"
