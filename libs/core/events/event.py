"""The event: its envelope (CloudEvents 1.0, JSON), what a publisher declares, and what a subscriber sees of it."""

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Self

import orjson
from opentelemetry import context as otel_context, propagate, trace
from pydantic import BaseModel, ConfigDict

from libs.core.clock import SystemClock
from libs.core.context import correlation_id as current_correlation_id
from libs.core.ids import new_id

# Fixed for ever: another number would send a key's next event to a stream that is read out of step with the last one.
# It bounds how many processes of one group work at the same time.
PARTITIONS = 8

# The size that every CloudEvents intermediary must forward; a larger fact belongs in a document that the event names.
MAX_EVENT_BYTES = 64 * 1024

_TYPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+", re.ASCII)
_REQUIRED_TEXT = ("id", "source", "type", "subject", "tenantid", "partitionkey")


class Undecodable(ValueError):
    """These bytes are not an event that we could have published."""


class UnknownVersion(ValueError):
    """An event whose `dataversion` this subscriber was not written for."""


def partition_of(key: str) -> int:
    """The stream of a partition key, 0 to PARTITIONS - 1; the same in every process and release."""
    return zlib.crc32(key.encode()) % PARTITIONS


class EventData(BaseModel):
    """What a publisher says: `class TransferCompleted(EventData, type="transfer.completed", version=1)`.

    A change that could break a subscriber needs a new `version`; `scripts/event_schemas.py` refuses it otherwise.
    """

    # Every field is always written, so the schema promises it, default or not.
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_serialization_defaults_required=True)

    event_type: ClassVar[str]
    event_version: ClassVar[int]

    def __init_subclass__(cls, *, type: str, version: int = 1, **kwargs: Any) -> None:  # noqa: A002
        super().__init_subclass__(**kwargs)
        if not _TYPE.fullmatch(type):
            raise TypeError(f"{cls.__name__}: an event's type reads noun.fact, and not {type!r}")
        cls.event_type, cls.event_version = type, version


class EventView(BaseModel):
    """What a subscriber needs of a foreign event: `class Deposit(EventView, type="deposit.completed", versions=(1,))`.

    Fields that it does not name are ignored; `tests/contracts` holds it against the publisher's schema.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    event_type: ClassVar[str]
    versions: ClassVar[tuple[int, ...]]

    def __init_subclass__(cls, *, type: str, versions: tuple[int, ...] = (1,), **kwargs: Any) -> None:  # noqa: A002
        super().__init_subclass__(**kwargs)
        cls.event_type, cls.versions = type, versions

    @classmethod
    def of(cls, event: "Event") -> Self:
        """The event's data. `UnknownVersion` and pydantic's `ValidationError` last: the event becomes a dead letter."""
        if event.data_version not in cls.versions:
            raise UnknownVersion(f"{event.type} {event.id} has dataversion {event.data_version}, not {cls.versions}")
        return cls.model_validate(event.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fact. `sequence` has no gaps within `partition_key` (normally the owner); None until the outbox allots it."""

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    data: dict[str, Any]
    data_version: int
    tenant_id: str
    partition_key: str
    sequence: int | None = None
    actor: str = ""
    correlation_id: str = ""
    causation_id: str = ""
    traceparent: str = ""

    @classmethod
    def new(
        cls,
        data: EventData,
        *,
        source: str,
        subject: str,
        tenant_id: str,
        partition_key: str,
        actor: str = "",
        causation_id: str = "",
        correlation_id: str | None = None,
        sequence: int | None = None,
        id: str = "",  # noqa: A002
        time: datetime | None = None,
    ) -> "Event":
        """A fact that is true once the caller's transaction commits. The trace is the current one, and so is the
        correlation id unless given. `causation_id` is the id of the event that this one answers."""
        return cls(
            id=id or new_id(),
            source=source,
            type=data.event_type,
            subject=subject,
            time=time or SystemClock().now(),
            data=data.model_dump(mode="json"),
            data_version=data.event_version,
            tenant_id=tenant_id,
            partition_key=partition_key,
            sequence=sequence,
            actor=actor,
            correlation_id=current_correlation_id.get() if correlation_id is None else correlation_id,
            causation_id=causation_id,
            traceparent=_current_traceparent(),
        )

    def to_json(self, sequence: int | None = None) -> bytes:
        """One line of JSON, with `sequence` if given. `ValueError` over 64 KB."""
        attributes = {
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": self.time,
            "datacontenttype": "application/json",
            "dataversion": self.data_version,
            "tenantid": self.tenant_id,
            "partitionkey": self.partition_key,
            "data": self.data,
        }
        number = self.sequence if sequence is None else sequence
        if number is not None:
            attributes["sequence"] = f"{number:020d}"  # CloudEvents wants a string that sorts as the numbers do
        if self.actor:
            attributes["actor"] = self.actor
        if self.correlation_id:
            attributes["correlationid"] = self.correlation_id
        if self.causation_id:
            attributes["causationid"] = self.causation_id
        if self.traceparent:
            attributes["traceparent"] = self.traceparent
        line = orjson.dumps(attributes, option=orjson.OPT_UTC_Z)
        if len(line) > MAX_EVENT_BYTES:
            raise ValueError(f"{self.type} {self.id} has {len(line)} bytes, and {MAX_EVENT_BYTES} is the most")
        return line

    @classmethod
    def from_json(cls, line: bytes | str) -> "Event":
        """The event that `to_json` wrote; unknown attributes are ignored. `Undecodable` for anything else."""
        try:
            raw = orjson.loads(line)
            for name in _REQUIRED_TEXT:
                if not isinstance(raw[name], str):
                    raise TypeError(f"{name} is not text")
            if raw["specversion"] != "1.0" or not isinstance(raw["data"], dict):
                raise TypeError("not a CloudEvents 1.0 event with an object as its data")
            return cls(
                id=raw["id"],
                source=raw["source"],
                type=raw["type"],
                subject=raw["subject"],
                time=datetime.fromisoformat(raw["time"]),
                data=raw["data"],
                data_version=int(raw["dataversion"]),
                tenant_id=raw["tenantid"],
                partition_key=raw["partitionkey"],
                sequence=int(raw["sequence"]) if "sequence" in raw else None,
                actor=raw.get("actor", ""),
                correlation_id=raw.get("correlationid", ""),
                causation_id=raw.get("causationid", ""),
                traceparent=raw.get("traceparent", ""),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Undecodable(f"not an event: {type(error).__name__}: {error}") from error

    @property
    def trace_context(self) -> otel_context.Context:
        return propagate.extract({"traceparent": self.traceparent})

    @contextmanager
    def continued(self) -> Iterator[None]:
        """Within it, logs, further events and traces belong to what this event belongs to."""
        correlation = current_correlation_id.set(self.correlation_id)
        token = otel_context.attach(self.trace_context)
        try:
            yield
        finally:
            otel_context.detach(token)
            current_correlation_id.reset(correlation)


def _current_traceparent() -> str:
    if not trace.get_current_span().get_span_context().is_valid:
        return ""  # spares the untraced path the propagators, about 3 µs
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent", "")
