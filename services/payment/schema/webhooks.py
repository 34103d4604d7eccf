"""Webhooks: a tenant's own systems are told of what happens."""

from datetime import datetime
from typing import Annotated, Self

import strawberry
from strawberry import ID, Info

from libs.core.access import Requires
from libs.core.context import Context
from libs.core.errors import NotFound, Refusal
from libs.core.graphql import Problem
from libs.core.ids import parse_id
from libs.core.pagination import Connection, Page, PageArgs
from libs.core.webhooks import Delivery, DeliveryStatus, Endpoint, EndpointChange, NewEndpoint, Revealed, Webhooks
from services.payment.schema.common import payment_of, scope_of, within

READ, MANAGE = "webhook:read", "webhook:manage"

strawberry.enum(
    DeliveryStatus,
    name="WebhookDeliveryStatus",
    description="Pending: not arrived yet, and tried again. Failed: not tried again, unless it is replayed.",
)


@strawberry.type(description="Where to, and which events. Each is sent at least once, as a signed POST.")
class WebhookEndpoint:
    id: ID
    url: str
    description: str
    event_types: list[str]
    enabled: bool
    disabled_at: datetime | None
    disabled_reason: str | None = strawberry.field(
        description="by_hand; gone: the receiver answered 410; failing: nothing arrived in a day; backlog: it is too "
        "slow for what happens."
    )
    created_at: datetime
    last_success_at: datetime | None = strawberry.field(description="To a minute or so.")
    secrets: int = strawberry.field(description="How many secrets sign now: two or more while one is being replaced.")

    @classmethod
    def of(cls, endpoint: Endpoint, now: datetime) -> Self:
        return cls(
            id=ID(endpoint.id),
            url=endpoint.url,
            description=endpoint.description,
            event_types=sorted(endpoint.subscriptions),
            enabled=endpoint.enabled,
            disabled_at=endpoint.disabled_at,
            disabled_reason=endpoint.disabled_reason,
            created_at=endpoint.created_at,
            last_success_at=endpoint.last_success_at,
            secrets=sum(s.signs_until is None or s.signs_until > now for s in endpoint.secrets),
        )


@strawberry.type(description="The one time that a secret is shown: keep it where the receiver can read it.")
class WebhookSecret:
    secret: str = strawberry.field(description="whsec_ and base64, as the Standard Webhooks specification has it.")
    endpoint: WebhookEndpoint


@strawberry.type(description="One request to a receiver, and what came of it.")
class WebhookAttempt:
    at: datetime
    took_ms: int
    status: int | None = strawberry.field(description="HTTP's; null without an answer.")
    error: str
    answer: str = strawberry.field(description="The beginning of the answer's body, 1 KB at most.")


@strawberry.type(description="One event on its way to one endpoint. Kept for 30 days.")
class WebhookDelivery:
    id: ID
    endpoint_id: ID
    event_id: ID = strawberry.field(description="The receiver's webhook-id: the same whenever it is sent again.")
    event_type: str
    status: DeliveryStatus
    created_at: datetime
    next_attempt_at: datetime | None
    error: str = strawberry.field(description="Why it has not arrived, or had not before it did.")
    attempts: list[WebhookAttempt] = strawberry.field(description="The last 15, the oldest first.")

    @strawberry.field(description="The body, as it is sent.", extensions=[Requires(READ)])
    async def payload(self, info: Info[Context]) -> str:
        _, body = await _webhooks(info).deliveries.find(info.context.tenant_id, self.id)
        return body.decode()

    @classmethod
    def of(cls, delivery: Delivery) -> Self:
        return cls(
            id=ID(delivery.id),
            endpoint_id=ID(delivery.endpoint_id),
            event_id=ID(delivery.event_id),
            event_type=delivery.event_type,
            status=delivery.status,
            created_at=delivery.created_at,
            next_attempt_at=delivery.due_at,
            error=delivery.error,
            attempts=[
                WebhookAttempt(at=a.at, took_ms=a.took_ms, status=a.status, error=a.error, answer=a.answer)
                for a in delivery.attempts
            ],
        )


@strawberry.type(description="How many are on their way again.")
class WebhookReplay:
    replayed: int


@strawberry.input
class CreateWebhookEndpointInput:
    url: str = strawberry.field(description="https, port 443 or 8443, a host that is public.")
    event_types: list[str]
    description: str = ""


@strawberry.input(description="What is left out stays as it is.")
class UpdateWebhookEndpointInput:
    id: ID
    url: str | None = None
    event_types: list[str] | None = None
    description: str | None = None


WebhookSecretResult = Annotated[WebhookSecret | Problem, strawberry.union("WebhookSecretResult")]
WebhookEndpointResult = Annotated[WebhookEndpoint | Problem, strawberry.union("WebhookEndpointResult")]
WebhookDeliveryResult = Annotated[WebhookDelivery | Problem, strawberry.union("WebhookDeliveryResult")]
WebhookReplayResult = Annotated[WebhookReplay | Problem, strawberry.union("WebhookReplayResult")]


@strawberry.type
class WebhookQueries:
    @strawberry.field(description="What can be subscribed to.", extensions=[Requires(READ)])
    def webhook_event_types(self, info: Info[Context]) -> list[str]:
        return sorted(_webhooks(info).endpoints.event_types)

    @strawberry.field(description="Newest first.", extensions=[Requires(READ)])
    async def webhook_endpoints(
        self,
        info: Info[Context],
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[WebhookEndpoint]:
        sight = scope_of(info, READ).query(owner=None, id="id")
        args = PageArgs(first, after, last, before)
        page = await _webhooks(info).endpoints.page(payment_of(info).paginator, sight, args)
        return Connection.of(page, lambda endpoint: _shown(info, endpoint))

    @strawberry.field(
        description="An endpoint's delivery log, newest first; also that of a deleted one.", extensions=[Requires(READ)]
    )
    async def webhook_deliveries(
        self,
        info: Info[Context],
        endpoint_id: ID,
        status: DeliveryStatus | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[WebhookDelivery]:
        parse_id(endpoint_id, "endpointId")
        args = PageArgs(first, after, last, before)
        if not _permits(info, READ, endpoint_id):
            return Connection.of(Page.empty(), WebhookDelivery.of)
        page = await _webhooks(info).deliveries.page(
            payment_of(info).paginator, info.context.tenant_id, endpoint_id, status, args
        )
        return Connection.of(page, WebhookDelivery.of)


@strawberry.type
class WebhookMutations:
    @strawberry.mutation(
        description="The secret is shown in this answer, and never again. At most 20, each with a URL of its own.",
        extensions=[Requires(MANAGE)],
    )
    async def create_webhook_endpoint(
        self,
        info: Info[Context],
        input: CreateWebhookEndpointInput,  # noqa: A002
    ) -> WebhookSecretResult:
        _demand(info, None)
        new = NewEndpoint(input.url, input.event_types, input.description)
        try:
            with within("input"):
                made = await _webhooks(info).endpoints.create(info.context.tenant_id, new, actor=_actor(info))
        except Refusal as refusal:
            return Problem.of(refusal)
        return _revealed(info, made)

    @strawberry.mutation(description="What is under way goes to the new URL.", extensions=[Requires(MANAGE)])
    async def update_webhook_endpoint(
        self,
        info: Info[Context],
        input: UpdateWebhookEndpointInput,  # noqa: A002
    ) -> WebhookEndpointResult:
        endpoint_id = _demand(info, input.id)
        change = EndpointChange(input.url, input.event_types, input.description)
        try:
            with within("input"):
                endpoint = await _webhooks(info).endpoints.update(
                    info.context.tenant_id, endpoint_id, change, actor=_actor(info)
                )
        except Refusal as refusal:
            return Problem.of(refusal)
        return _shown(info, endpoint)

    @strawberry.mutation(
        description="What waits for it fails. Its log stays for as long as any.", extensions=[Requires(MANAGE)]
    )
    async def delete_webhook_endpoint(self, info: Info[Context], id: ID) -> bool:  # noqa: A002
        await _webhooks(info).delete(info.context.tenant_id, _demand(info, id), actor=_actor(info))
        return True

    @strawberry.mutation(
        description="A new secret, shown in this answer alone. For so many hours, 0 to 168, the old ones sign too.",
        extensions=[Requires(MANAGE)],
    )
    async def rotate_webhook_secret(
        self,
        info: Info[Context],
        id: ID,  # noqa: A002
        overlap_hours: int = 24,
    ) -> WebhookSecret:
        rotated = await _webhooks(info).endpoints.rotate(
            info.context.tenant_id, _demand(info, id), overlap_hours=overlap_hours, actor=_actor(info)
        )
        return _revealed(info, rotated)

    @strawberry.mutation(
        description="From now on it gets events again. replayWebhookDeliveries sends what it missed meanwhile.",
        extensions=[Requires(MANAGE)],
    )
    async def enable_webhook_endpoint(self, info: Info[Context], id: ID) -> WebhookEndpoint:  # noqa: A002
        endpoint = await _webhooks(info).endpoints.enable(info.context.tenant_id, _demand(info, id), actor=_actor(info))
        return _shown(info, endpoint)

    @strawberry.mutation(
        description="What happens from now on is noted for 7 days, and not sent.", extensions=[Requires(MANAGE)]
    )
    async def disable_webhook_endpoint(self, info: Info[Context], id: ID) -> WebhookEndpoint:  # noqa: A002
        endpoint = await _webhooks(info).disable(info.context.tenant_id, _demand(info, id), actor=_actor(info))
        return _shown(info, endpoint)

    @strawberry.mutation(
        description="Sends webhook.tested to this endpoint alone; ask for the delivery to see what came of it.",
        extensions=[Requires(MANAGE)],
    )
    async def send_test_webhook(self, info: Info[Context], endpoint_id: ID) -> WebhookDeliveryResult:
        try:
            return WebhookDelivery.of(await _webhooks(info).test(info.context.tenant_id, _demand(info, endpoint_id)))
        except Refusal as refusal:
            return Problem.of(refusal)

    @strawberry.mutation(
        description="Sends one again, whatever became of it, with a whole day of attempts.",
        extensions=[Requires(MANAGE)],
    )
    async def replay_webhook_delivery(self, info: Info[Context], id: ID) -> WebhookDeliveryResult:  # noqa: A002
        webhooks, tenant_id = _webhooks(info), info.context.tenant_id
        delivery, _ = await webhooks.deliveries.find(tenant_id, parse_id(id, "id"))
        _demand(info, ID(delivery.endpoint_id))
        try:
            return WebhookDelivery.of(await webhooks.replay(tenant_id, delivery.id))
        except Refusal as refusal:
            return Problem.of(refusal)

    @strawberry.mutation(
        description="Sends again what failed since then, and what happened while the endpoint was disabled. The oldest "
        "10,000: ask until it is none.",
        extensions=[Requires(MANAGE)],
    )
    async def replay_webhook_deliveries(
        self, info: Info[Context], endpoint_id: ID, since: datetime
    ) -> WebhookReplayResult:
        try:
            return WebhookReplay(
                replayed=await _webhooks(info).replay_failed(info.context.tenant_id, _demand(info, endpoint_id), since)
            )
        except Refusal as refusal:
            return Problem.of(refusal)


def _webhooks(info: Info[Context]) -> Webhooks:
    return payment_of(info).webhooks


def _permits(info: Info[Context], action: str, endpoint_id: str | None) -> bool:
    return scope_of(info, action).permits(owner_id=None, tenant_id=info.context.tenant_id, id=endpoint_id)


def _demand(info: Info[Context], endpoint_id: ID | None) -> str:
    """The id, well-formed and within what the caller may change; `NotFound` else, as for one that does not exist."""
    if endpoint_id is not None:
        parse_id(endpoint_id, "id")
    if not _permits(info, MANAGE, endpoint_id):
        raise NotFound("there is no such webhook endpoint", id=endpoint_id)
    return endpoint_id or ""


def _actor(info: Info[Context]) -> str:
    return info.context.caller.user_id


def _shown(info: Info[Context], endpoint: Endpoint) -> WebhookEndpoint:
    return WebhookEndpoint.of(endpoint, info.context.platform.clock.now())


def _revealed(info: Info[Context], revealed: Revealed) -> WebhookSecret:
    return WebhookSecret(secret=revealed.secret, endpoint=_shown(info, revealed.endpoint))
