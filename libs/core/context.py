"""Who asks, for which tenant, under which correlation id, and until when."""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from libs.core.errors import DeadlineExceeded, Unauthenticated

if TYPE_CHECKING:
    from libs.core.app import Platform

CallerKind = Literal["user", "service", "anonymous"]

# Follows a request through logs, events and traces; set by the HTTP layer and by the event subscriber.
correlation_id: ContextVar[str] = ContextVar("correlation_id", default="")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever a request acts for, as its verified token says. Anonymous callers have a tenant and no roles."""

    tenant_id: str
    subject: str = ""
    roles: tuple[str, ...] = ()
    session_id: str = ""
    kind: CallerKind = "anonymous"
    expires_at: datetime | None = None
    # How many factors were proven for this session, and when the last of them was.
    level: int = 0
    authenticated_at: datetime | None = None
    # What an API key is narrowed to, as permissions `resource:action:target`. None: nothing but the roles says.
    scopes: tuple[str, ...] | None = None
    brand_id: str = ""

    @property
    def user_id(self) -> str:
        """The subject's id; `Unauthenticated` for an anonymous caller."""
        if self.kind == "anonymous":
            raise Unauthenticated("this needs a token")
        return self.subject


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request came from: its IP address, past the proxies that are trusted, and its User-Agent."""

    address: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Deadline:
    """An instant on the monotonic clock by which an answer is still wanted."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        return cls(time.monotonic() + seconds)

    @property
    def remaining_s(self) -> float:
        return self.at - time.monotonic()

    def check(self) -> None:
        """`DeadlineExceeded` once it has passed."""
        if self.remaining_s <= 0:
            raise DeadlineExceeded("the time for this request ran out before it was begun")


@dataclass(slots=True)
class Context:
    """What every resolver and route is handed. `service` is what the service's `open` yielded (see `create_app`)."""

    caller: Caller
    correlation_id: str
    deadline: Deadline
    platform: "Platform"
    service: Any = None
    client: Client = Client()
    # As they came, for whoever asks another service for the caller: a token that was verified, and a W3C traceparent.
    authorization: str = field(default="", repr=False)
    traceparent: str = ""

    @property
    def tenant_id(self) -> str:
        return self.caller.tenant_id
