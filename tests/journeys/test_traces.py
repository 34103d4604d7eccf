"""One trace from a request to what other services did about it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from libs.core.events import Outbox
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.tenants import Currency, Tenants
from libs.core.testing import eventually
from tests.collector import Collector, collector
from tests.live import Live, callers, payment_process


@contextmanager
def traced() -> Iterator[bytes]:
    """Within it, whatever happens belongs to the trace of this id."""
    with TracerProvider().get_tracer("test").start_as_current_span("test") as span:
        yield span.get_span_context().trace_id.to_bytes(16, "big")


def exported(trace_id: bytes, name: bytes) -> bool:
    return any(trace_id in body and name in body for _, body in Collector.received)


@pytest.fixture
def live(tmp_path: Path, mongo_url: str, redis_url: str, namespace: str) -> Iterator[Live]:
    with (
        collector() as endpoint,
        payment_process(tmp_path, mongo_url, redis_url, namespace, OTEL_ENDPOINT=endpoint) as live,
    ):
        yield live


class TestTrace:
    async def test_goes_from_an_event_to_its_subscriber(self, live: Live, mongo: Mongo, redis: Redis) -> None:
        tenants = Tenants(mongo, redis, Outbox(mongo.core))
        with traced() as trace_id:
            await tenants.add_currency("demo", Currency("GBP", 2), actor="test")
        await eventually(lambda: exported(trace_id, b"handle tenant.currency_added"), within_s=15)

    async def test_goes_from_a_request_into_its_event(self, live: Live, mongo: Mongo, namespace: str) -> None:
        trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
        async with callers(live) as as_:
            ann = as_("ann")
            ann.client.headers["traceparent"] = f"00-{trace_id}-00f067aa0ba902b7-01"
            await ann.ask('mutation { createWallet(input: {currency: "EUR"}) { __typename } }')
        outbox = mongo.client[f"{namespace}_payment_service"]["outbox"]
        told = await outbox.find({"events": {"$regex": "wallet.created"}}).to_list()
        assert any(trace_id in row["events"] for row in told)
        await eventually(lambda: exported(bytes.fromhex(trace_id), b"POST /graphql"), within_s=15)
