"""Webhooks: a tenant is told of events over HTTPS, signed, and as often as it takes within a day.

    events ─ Subscriber ─> webhook_deliveries (MongoDB) ─ Worker ─> the tenant's receiver

    async with Webhooks(mongo, redis, outbox, clock, keys=…, source="payment", event_types=…) as webhooks:
        made = await webhooks.endpoints.create(tenant_id, NewEndpoint(url, ["transfer.completed"]), actor=…)
        made.secret                     # shown this once

The body is the event's CloudEvents JSON, `webhook-id` is the event's id. A receiver gets each event at least once, in
most cases in order, and tells repetitions by the id. `docs/howto/webhooks.md` is written for receivers.
"""

from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from types import ModuleType
from typing import Self

import structlog

from libs.core.clock import Clock
from libs.core.crypto import SecretBox
from libs.core.errors import Refusal
from libs.core.events import Event, EventData, Outbox, Subscriber
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.webhooks.deliveries import (
    CLAIM_S,
    DISABLED,
    INDEXES as DELIVERY_INDEXES,
    Deliveries,
    Delivery,
    DeliveryStatus,
    delivery_id,
)
from libs.core.webhooks.endpoints import (
    INDEXES as ENDPOINT_INDEXES,
    Endpoint,
    EndpointChange,
    Endpoints,
    NewEndpoint,
    Revealed,
    WebhookDisabled,
    WebhookTested,
)
from libs.core.webhooks.sending import TOTAL_S, Sender
from libs.core.webhooks.signing import verify
from libs.core.webhooks.targets import Lookup, Resolver
from libs.core.webhooks.worker import POLL_S, Worker

__all__ = [
    "INDEXES",
    "Delivery",
    "DeliveryStatus",
    "Endpoint",
    "EndpointChange",
    "NewEndpoint",
    "Revealed",
    "WebhookDisabled",
    "Webhooks",
    "event_types",
    "verify",
]

# A service with webhooks adds these to its own; and those of the audit log.
INDEXES = (*ENDPOINT_INDEXES, *DELIVERY_INDEXES)

# Sealed secrets of every installation open with this one: it never changes.
_PURPOSE = "webhook secrets"

log = structlog.get_logger(__name__)


def event_types(*modules: ModuleType) -> set[str]:
    """What a service that publishes the `EventData` of these modules can tell of by webhook."""
    names = {WebhookDisabled.__module__, *(module.__name__ for module in modules)}
    published = {data.event_type for data in EventData.__subclasses__() if data.__module__ in names}
    return published - {WebhookTested.event_type}


class Webhooks:
    """Those of one service. While it is open (`async with`) it sends; `subscriber` is what feeds it."""

    def __init__(
        self,
        mongo: Mongo,
        redis: Redis,
        outbox: Outbox,
        clock: Clock,
        *,
        keys: str,
        source: str,
        event_types: Collection[str],
        development: bool = False,
        lookup: Lookup | None = None,
        claim_s: float = CLAIM_S,
        total_s: float = TOTAL_S,
        poll_s: float = POLL_S,
    ) -> None:
        """`keys` seal the secrets (see `SecretBox`). `development` allows http and loopback. `lookup` is DNS."""
        self._mongo, self._redis, self._source = mongo, redis, source
        resolver = Resolver(development=development, lookup=lookup)
        self.endpoints = Endpoints(
            mongo,
            outbox,
            clock,
            SecretBox(keys, purpose=_PURPOSE),
            resolver,
            source=source,
            event_types=event_types,
            development=development,
        )
        self.deliveries = Deliveries(mongo.db, clock, claim_s=claim_s)
        self._sender = Sender(resolver, development=development, total_s=total_s)
        self._worker = Worker(self.endpoints, self.deliveries, self._sender, clock, poll_s=poll_s)
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if resealed := await self.endpoints.reseal():
            log.info("webhook secrets sealed with the newest key", endpoints=resealed)
        await self._open.enter_async_context(self._sender)
        await self._open.enter_async_context(self._worker)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    def subscriber(self) -> Subscriber:
        """Not one with an inbox: a delivery's id follows from endpoint and event, and what nobody wants, which is most
        of it in most installations, then costs no write at all."""
        return Subscriber(
            self._mongo,
            self._redis,
            group="webhooks",
            source=self._source,
            idempotent=dict.fromkeys(self.endpoints.event_types, self.enqueue),
        )

    async def enqueue(self, events: Sequence[Event]) -> None:
        """Has `events` sent to whoever subscribed to them; each once, however often it is called."""
        if wanted := await self.endpoints.wanting(events):
            await self.deliveries.add(wanted)
            self._worker.kick()

    async def disable(self, tenant_id: str, endpoint_id: str, *, actor: str) -> Endpoint:
        """By hand: nothing is sent any more, and what waits fails, to be replayed."""
        await self.endpoints.disable(tenant_id, endpoint_id, reason="by_hand", actor=actor)
        endpoint = await self.endpoints.find(tenant_id, endpoint_id)
        await self.deliveries.abandon(endpoint.key, DISABLED)
        return endpoint

    async def delete(self, tenant_id: str, endpoint_id: str, *, actor: str) -> None:
        """Its delivery log can still be read, until it has expired."""
        endpoint = await self.endpoints.find(tenant_id, endpoint_id)
        await self.endpoints.delete(tenant_id, endpoint_id, actor=actor)
        await self.deliveries.abandon(endpoint.key, "the endpoint was deleted")

    async def test(self, tenant_id: str, endpoint_id: str) -> Delivery:
        """Sends `webhook.tested` to this endpoint alone."""
        endpoint = await self._enabled(tenant_id, endpoint_id)
        event = self.endpoints.test_event(endpoint)
        await self.deliveries.add([(endpoint, event)])
        self._worker.kick()
        return (await self.deliveries.find(tenant_id, delivery_id(endpoint, event)))[0]

    async def replay(self, tenant_id: str, wanted_id: str) -> Delivery:
        """Sends one again, whatever became of it, under the same `webhook-id`."""
        delivery, _ = await self.deliveries.find(tenant_id, wanted_id)
        await self._enabled(tenant_id, delivery.endpoint_id)
        replayed = await self.deliveries.replay(tenant_id, wanted_id)
        self._worker.kick()
        return replayed

    async def replay_failed(self, tenant_id: str, endpoint_id: str, since: datetime) -> int:
        """Sends again what failed since then, and what happened while the endpoint was disabled; the oldest 10,000."""
        endpoint = await self._enabled(tenant_id, endpoint_id)
        replayed = await self.deliveries.replay_failed(endpoint, since)
        self._worker.kick()
        return replayed

    async def _enabled(self, tenant_id: str, endpoint_id: str) -> Endpoint:
        endpoint = await self.endpoints.find(tenant_id, endpoint_id)
        if not endpoint.enabled:
            raise Refusal(
                "WEBHOOK_DISABLED",
                "this endpoint is disabled: enable it first",
                rule="webhook.enabled",
                endpointId=endpoint_id,
                reason=endpoint.disabled_reason,
            )
        return endpoint
