from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st
from opentelemetry.sdk.trace import TracerProvider
from pydantic import ValidationError

from libs.core.context import correlation_id
from libs.core.events.event import (
    MAX_EVENT_BYTES,
    PARTITIONS,
    Event,
    EventData,
    EventView,
    Undecodable,
    UnknownVersion,
    partition_of,
)
from tests.core.events.world import ping

ENVELOPE: dict[str, Any] = orjson.loads(ping(1, sequence=7).to_json())


class TestEnvelope:
    def test_survives_the_wire(self) -> None:
        event = ping(3, sequence=2, actor="user:1", causation_id="c", correlation_id="r")
        assert Event.from_json(event.to_json()) == event

    def test_is_cloudevents(self) -> None:
        event = ping(3, id="e1", time=datetime(2026, 3, 1, 12, 0, 0, 5000, tzinfo=UTC), sequence=7)
        assert orjson.loads(event.to_json()) == {
            "specversion": "1.0",
            "id": "e1",
            "source": "pings",
            "type": "ping.sent",
            "subject": "k",
            "time": "2026-03-01T12:00:00.005000Z",
            "datacontenttype": "application/json",
            "dataversion": 1,
            "tenantid": "t",
            "partitionkey": "k",
            "sequence": "00000000000000000007",
            "data": {"n": 3},
        }

    def test_is_one_line(self) -> None:
        assert b"\n" not in ping(1, actor="two\nlines").to_json()

    def test_too_large(self) -> None:
        with pytest.raises(ValueError, match="is the most"):
            ping(actor="x" * MAX_EVENT_BYTES).to_json()

    @pytest.mark.parametrize("missing", ["id", "source", "type", "time", "tenantid", "partitionkey", "data"])
    def test_without_a_required_attribute(self, missing: str) -> None:
        with pytest.raises(Undecodable, match=missing):
            Event.from_json(orjson.dumps({name: value for name, value in ENVELOPE.items() if name != missing}))

    @given(
        st.binary() | st.dictionaries(st.sampled_from([*ENVELOPE]), st.none() | st.integers(-9, 9)).map(orjson.dumps)
    )
    def test_anything_else_is_undecodable(self, line: bytes) -> None:
        with pytest.raises(Undecodable):
            Event.from_json(line)

    def test_carries_the_correlation_id_and_the_trace(self) -> None:
        token = correlation_id.set("req-1")
        with TracerProvider().get_tracer("t").start_as_current_span("publish") as span:
            event = ping()
        correlation_id.reset(token)
        assert event.correlation_id == "req-1"
        assert f"{span.get_span_context().trace_id:032x}" in event.traceparent


class TestPartitionOf:
    @given(st.text())
    def test_is_one_of_them(self, key: str) -> None:
        assert 0 <= partition_of(key) < PARTITIONS

    def test_never_changes(self) -> None:
        """Another answer in a new release would break the order of what is on its way."""
        assert [partition_of(key) for key in ("alice", "bob", "", "ü")] == [7, 0, 0, 5]


class TestEventData:
    @pytest.mark.parametrize(
        "name", ["transfer", "Transfer.Completed", "transfer completed", "transfer.", ".completed"]
    )
    def test_type_must_read_noun_fact(self, name: str) -> None:
        with pytest.raises(TypeError, match=r"noun\.fact"):
            type("Wrong", (EventData,), {}, type=name)


class PingView(EventView, type="ping.sent", versions=(1, 2)):
    n: int


class TestEventView:
    def test_ignores_what_it_does_not_name(self) -> None:
        event = Event.from_json(orjson.dumps({**ENVELOPE, "dataversion": 2, "data": {"n": 4, "later": True}}))
        assert PingView.of(event).n == 4

    def test_unknown_version(self) -> None:
        with pytest.raises(UnknownVersion):
            PingView.of(Event.from_json(orjson.dumps({**ENVELOPE, "dataversion": 3})))

    def test_wrong_data(self) -> None:
        with pytest.raises(ValidationError):
            PingView.of(Event.from_json(orjson.dumps({**ENVELOPE, "data": {"n": "many"}})))
