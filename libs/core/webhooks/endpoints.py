"""A tenant's endpoints: where to send which events, and the secrets to sign them with.

webhook_endpoints   {_id: tenant:id, tenant_id, url, subscriptions: [{type, since}], secrets: [{sealed, key, …}], …}

Every change has an audit row, in the tenant's log `webhooks.<tenant>`, which knows neither secrets nor what follows the
host in a URL.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import structlog
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from libs.core.audit import AuditLog
from libs.core.clock import Clock
from libs.core.crypto import SecretBox
from libs.core.errors import InvalidInput, Misconfigured, NotFound, Refusal
from libs.core.events import Event, EventData, Outbox
from libs.core.ids import new_id
from libs.core.migrations import Index
from libs.core.mongo import Document, Mongo, Session
from libs.core.pagination import Page, PageArgs, Paginator
from libs.core.webhooks.signing import new_secret
from libs.core.webhooks.targets import UNREACHABLE, Resolver, Unreachable, parse_url

COLLECTION = "webhook_endpoints"
INDEXES = (
    Index(COLLECTION, (("tenant_id", 1), ("created_at", -1), ("_id", -1))),
    Index(COLLECTION, (("tenant_id", 1), ("url", 1)), unique=True),
)

ENDPOINTS_PER_TENANT = 20
DESCRIPTION_CHARS = 200
OVERLAP_HOURS_MAX = 7 * 24
_LOOK_UP_WITHIN_S = 5.0
# More than a few make a long header, and a rotation that never ends: the oldest stop earlier.
_SECRETS_MAX = 4
# What happens while an endpoint is disabled is noted for so long, to be sent on demand. Then it is forgotten.
NOTED_WHILE_DISABLED = timedelta(days=7)
# An event may carry the time of a process whose clock is behind that of the one where its endpoint was made.
_CLOCKS_DIFFER = timedelta(minutes=1)

# by_hand: somebody did. gone: the receiver answered 410. failing: a day of failures. backlog: it cannot keep up.
DisabledReason = Literal["by_hand", "gone", "failing", "backlog"]

log = structlog.get_logger(__name__)


class WebhookDisabled(EventData, type="webhook.disabled"):
    """An endpoint gets nothing any more, until it is enabled again. Not published for what somebody did by hand."""

    endpoint_id: str
    description: str
    reason: Literal["gone", "failing", "backlog"]
    disabled_at: datetime


class WebhookTested(EventData, type="webhook.tested"):
    """Sent on demand to one endpoint, and to nobody else."""

    endpoint_id: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`subscriptions`: each event type, and since when it is wanted. `signs_until` of a secret: None for the newest."""

    key: str
    id: str
    tenant_id: str
    url: str
    description: str
    subscriptions: dict[str, datetime]
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: DisabledReason | None
    last_success_at: datetime | None
    secrets: tuple["SealedSecret", ...]

    @property
    def enabled(self) -> bool:
        return self.disabled_at is None

    def wants(self, event: Event) -> bool:
        """An event from before the subscription may come when the relay sends a lost week again: it is not wanted."""
        since = self.subscriptions.get(event.type)
        return self.tenant_id == event.tenant_id and since is not None and event.time >= since - _CLOCKS_DIFFER


@dataclass(frozen=True, slots=True)
class SealedSecret:
    sealed: bytes
    signs_until: datetime | None


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    url: str
    event_types: Sequence[str]
    description: str = ""


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """What is None stays as it is."""

    url: str | None = None
    event_types: Sequence[str] | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Revealed:
    """The one time that a secret is shown."""

    endpoint: Endpoint
    secret: str


class Endpoints:
    """Finds and changes them. `event_types` are those that may be subscribed to, `source` is who publishes them."""

    def __init__(
        self,
        mongo: Mongo,
        outbox: Outbox,
        clock: Clock,
        box: SecretBox,
        resolver: Resolver,
        *,
        source: str,
        event_types: Collection[str],
        development: bool,
    ) -> None:
        self.event_types = frozenset(event_types)
        self._mongo = mongo
        self._outbox = outbox
        self._clock = clock
        self._box = box
        self._resolver = resolver
        self._source = source
        self._development = development
        self._documents = mongo.db[COLLECTION]

    async def find(self, tenant_id: str, endpoint_id: str) -> Endpoint:
        """`NotFound` for another tenant's as for one that does not exist."""
        row = await self._documents.find_one(_where(tenant_id, endpoint_id))
        if row is None:
            raise _not_found(endpoint_id)
        return endpoint_from(row)

    async def page(self, paginator: Paginator, scope: Document, args: PageArgs) -> Page[Endpoint]:
        """Newest first. `scope` is what `Scope.query(owner=None, id="id")` says, which names the tenant."""
        page = await paginator.page(self._documents, scope, args, order=[("created_at", -1), ("_id", -1)])
        return page.map(endpoint_from)

    async def by_key(self, key: str) -> Endpoint | None:
        row = await self._documents.find_one({"_id": key})
        return endpoint_from(row) if row else None

    async def wanting(self, events: Sequence[Event]) -> list[tuple[Endpoint, Event]]:
        """Who is to be told of which of `events`, in their order."""
        wanted = {
            "tenant_id": {"$in": sorted({event.tenant_id for event in events})},
            "subscriptions.type": {"$in": sorted({event.type for event in events})},
        }
        forgotten_at = self._clock.now() - NOTED_WHILE_DISABLED
        endpoints = [endpoint_from(row) async for row in self._documents.find(wanted)]
        return [
            (endpoint, event)
            for event in events
            for endpoint in endpoints
            if endpoint.wants(event) and (endpoint.disabled_at is None or endpoint.disabled_at > forgotten_at)
        ]

    async def create(self, tenant_id: str, new: NewEndpoint, *, actor: str) -> Revealed:
        """`Refusal` `WEBHOOK_LIMIT` for the tenant's 21st, `WEBHOOK_URL_TAKEN` for a second one of the same URL;
        `InvalidInput` for a URL that webhooks are not sent to, or an event type that nobody publishes."""
        url = await self._checked_url(new.url)
        secret, now = new_secret(), self._clock.now()
        endpoint_id = new_id()
        key = endpoint_key(tenant_id, endpoint_id)
        row: Document = {
            "_id": key,
            "id": endpoint_id,
            "tenant_id": tenant_id,
            "url": url,
            "description": _checked_description(new.description),
            "subscriptions": self._subscriptions(new.event_types, {}, now),
            "created_at": now,
            "disabled_at": None,
            "disabled_reason": None,
            "last_success_at": None,
            "secrets": [self._sealed(secret, key)],
        }

        async def insert(session: Session) -> Endpoint:
            # First: of two that create at once, one conflicts here and then counts what the other has made.
            await self._note(session, "webhook.create", row, actor)
            if await self._documents.count_documents({"tenant_id": tenant_id}, session=session) >= ENDPOINTS_PER_TENANT:
                raise Refusal(
                    "WEBHOOK_LIMIT",
                    f"a tenant has at most {ENDPOINTS_PER_TENANT} webhook endpoints",
                    rule="webhook.limit",
                    limit=ENDPOINTS_PER_TENANT,
                )
            await self._documents.insert_one(row, session=session)
            return endpoint_from(row)

        return Revealed(await self._unique_url(insert), secret)

    async def update(self, tenant_id: str, endpoint_id: str, change: EndpointChange, *, actor: str) -> Endpoint:
        """Checks and refuses as `create`. Deliveries that are under way go to the new URL."""
        url = None if change.url is None else await self._checked_url(change.url)
        description = None if change.description is None else _checked_description(change.description)
        now = self._clock.now()

        def changed(row: Document) -> Document:
            fields: Document = {}
            if url is not None:
                fields["url"] = url
            if description is not None:
                fields["description"] = description
            if change.event_types is not None:
                fields["subscriptions"] = self._subscriptions(change.event_types, _since(row), now)
            return fields

        return await self._change(tenant_id, endpoint_id, "webhook.update", changed, actor)

    async def rotate(self, tenant_id: str, endpoint_id: str, *, overlap_hours: int, actor: str) -> Revealed:
        """A new secret. For `overlap_hours` messages are signed with the old ones too, none of which lives longer."""
        if not 0 <= overlap_hours <= OVERLAP_HOURS_MAX:
            raise InvalidInput(f"overlapHours is from 0 to {OVERLAP_HOURS_MAX}", field="overlapHours")
        secret, now = new_secret(), self._clock.now()
        ends_at = now + timedelta(hours=overlap_hours)

        def changed(row: Document) -> Document:
            old = [{**kept, "signs_until": min(kept["signs_until"] or ends_at, ends_at)} for kept in row["secrets"]]
            still = [kept for kept in old if kept["signs_until"] > now]
            return {"secrets": [self._sealed(secret, row["_id"]), *still][:_SECRETS_MAX]}

        return Revealed(await self._change(tenant_id, endpoint_id, "webhook.rotate_secret", changed, actor), secret)

    async def enable(self, tenant_id: str, endpoint_id: str, *, actor: str) -> Endpoint:
        """From now on events are sent to it. What it missed can be replayed."""

        def changed(row: Document) -> Document:
            return {"disabled_at": None, "disabled_reason": None} if row["disabled_at"] else {}

        return await self._change(tenant_id, endpoint_id, "webhook.enable", changed, actor)

    async def disable(self, tenant_id: str, endpoint_id: str, *, reason: DisabledReason, actor: str) -> bool:
        """Whether it was enabled until now. Told of as `webhook.disabled` unless the reason is `by_hand`."""
        now = self._clock.now()
        fields: Document = {"disabled_at": now, "disabled_reason": reason}

        async def work(session: Session) -> bool:
            row = await self._documents.find_one_and_update(
                {**_where(tenant_id, endpoint_id), "disabled_at": None}, {"$set": fields}, session=session
            )
            if row is None:
                return False
            await self._note(session, "webhook.disable", {**row, **fields}, actor, before=row)
            if reason != "by_hand":
                notice = WebhookDisabled(
                    endpoint_id=endpoint_id, description=row["description"], reason=reason, disabled_at=now
                )
                await self._outbox.append(session, [self._event(tenant_id, endpoint_id, notice)])
            return True

        disabled = await self._mongo.transaction(work)
        self._outbox.kick()
        return disabled

    async def delete(self, tenant_id: str, endpoint_id: str, *, actor: str) -> None:
        async def work(session: Session) -> None:
            row = await self._documents.find_one_and_delete(_where(tenant_id, endpoint_id), session=session)
            if row is None:
                raise _not_found(endpoint_id)
            await self._note(session, "webhook.delete", None, actor, before=row)

        await self._mongo.transaction(work)

    async def succeeded(self, key: str, at: datetime) -> None:
        await self._documents.update_one({"_id": key}, {"$max": {"last_success_at": at}})

    def keys_of(self, endpoint: Endpoint) -> list[str]:
        """The secrets to sign with now, the newest first. `Misconfigured` if they cannot be opened."""
        now = self._clock.now()
        return [
            self._box.open(secret.sealed, owner=endpoint.key)
            for secret in endpoint.secrets
            if secret.signs_until is None or secret.signs_until > now
        ]

    def test_event(self, endpoint: Endpoint) -> Event:
        return self._event(endpoint.tenant_id, endpoint.id, WebhookTested(endpoint_id=endpoint.id))

    async def reseal(self) -> int:
        """Seals again what was sealed with an older key than the newest; how many endpoints had such secrets."""
        resealed = 0
        async for row in self._documents.find({"secrets.key": {"$ne": self._box.key_id}}):
            try:
                fresh = [self._resealed(secret, row["_id"]) for secret in row["secrets"]]
            except Misconfigured as error:  # one that nobody can open must not keep a service from starting
                log.error("webhook secret cannot be opened", endpoint=row["_id"], error=error.message)
                continue
            unchanged = {"_id": row["_id"], "secrets": row["secrets"]}
            result = await self._documents.update_one(unchanged, {"$set": {"secrets": fresh}})
            resealed += result.modified_count
        return resealed

    async def _change(
        self, tenant_id: str, endpoint_id: str, action: str, changed: Callable[[Document], Document], actor: str
    ) -> Endpoint:
        """The endpoint afterwards: with the fields that `changed` says, audited if there are any."""

        async def work(session: Session) -> Endpoint:
            row = await self._documents.find_one(_where(tenant_id, endpoint_id), session=session)
            if row is None:
                raise _not_found(endpoint_id)
            fields = changed(row)
            if not fields:
                return endpoint_from(row)
            after = await self._documents.find_one_and_update(
                {"_id": row["_id"]}, {"$set": fields}, session=session, return_document=ReturnDocument.AFTER
            )
            assert after is not None
            await self._note(session, action, after, actor, before=row)
            return endpoint_from(after)

        return await self._unique_url(work)

    async def _unique_url(self, work: Callable[[Session], Any]) -> Endpoint:
        try:
            endpoint: Endpoint = await self._mongo.transaction(work)
        except DuplicateKeyError as error:
            if "url" not in (error.details or {}).get("keyPattern", {}):
                raise
            raise Refusal(
                "WEBHOOK_URL_TAKEN", "there is an endpoint with this URL", rule="webhook.url_unique"
            ) from None
        return endpoint

    async def _note(
        self, session: Session, action: str, after: Document | None, actor: str, *, before: Document | None = None
    ) -> None:
        row = after or before
        assert row is not None
        await AuditLog(self._mongo.db, f"webhooks.{row['tenant_id']}", clock=self._clock).append(
            session,
            actor=actor,
            action=action,
            resource=row["id"],
            tenant_id=row["tenant_id"],
            before=_told(before),
            after=_told(after),
        )

    async def _checked_url(self, text: str) -> str:
        url = parse_url(text, development=self._development)
        try:
            async with asyncio.timeout(_LOOK_UP_WITHIN_S):
                await self._resolver.addresses(url.raw_host.decode("ascii"), url.port or 443)
        except (Unreachable, TimeoutError):
            raise InvalidInput(UNREACHABLE, field="url") from None
        return str(url)

    def _subscriptions(
        self, event_types: Sequence[str], since: dict[str, datetime], now: datetime
    ) -> list[dict[str, Any]]:
        """What was subscribed to before keeps its instant."""
        wanted = sorted(set(event_types))
        unknown = [name for name in wanted if name not in self.event_types]
        if unknown or not wanted:
            raise InvalidInput(
                f"eventTypes are one or more of: {', '.join(sorted(self.event_types))}", field="eventTypes"
            )
        return [{"type": name, "since": since.get(name, now)} for name in wanted]

    def _sealed(self, secret: str, key: str) -> Document:
        return {"sealed": self._box.seal(secret, owner=key), "key": self._box.key_id, "signs_until": None}

    def _resealed(self, secret: Document, key: str) -> Document:
        return {**self._sealed(self._box.open(secret["sealed"], owner=key), key), "signs_until": secret["signs_until"]}

    def _event(self, tenant_id: str, endpoint_id: str, data: EventData) -> Event:
        return Event.new(
            data,
            source=self._source,
            subject=endpoint_id,
            tenant_id=tenant_id,
            partition_key=endpoint_id,  # no colon: never the key of an account
            actor=self._source,
            time=self._clock.now(),
        )


def endpoint_key(tenant_id: str, endpoint_id: str) -> str:
    return f"{tenant_id}:{endpoint_id}"


def endpoint_from(row: Document) -> Endpoint:
    return Endpoint(
        key=row["_id"],
        id=row["id"],
        tenant_id=row["tenant_id"],
        url=row["url"],
        description=row["description"],
        subscriptions=_since(row),
        created_at=row["created_at"],
        disabled_at=row["disabled_at"],
        disabled_reason=row["disabled_reason"],
        last_success_at=row["last_success_at"],
        secrets=tuple(SealedSecret(secret["sealed"], secret["signs_until"]) for secret in row["secrets"]),
    )


def _where(tenant_id: str, endpoint_id: str) -> Document:
    return {"_id": endpoint_key(tenant_id, endpoint_id), "tenant_id": tenant_id}


def _not_found(endpoint_id: str) -> NotFound:
    return NotFound("there is no such webhook endpoint", id=endpoint_id)


def _since(row: Document) -> dict[str, datetime]:
    return {subscription["type"]: subscription["since"] for subscription in row["subscriptions"]}


def _told(row: Document | None) -> Document | None:
    """What the audit log knows: no secrets, and of the URL no more than the host, since people put tokens in there."""
    if row is None:
        return None
    return {
        "host": parse_url(row["url"], development=True).host,
        "description": row["description"],
        "event_types": sorted(_since(row)),
        "disabled": row["disabled_reason"],
        "secrets": len(row["secrets"]),
    }


def _checked_description(text: str) -> str:
    if len(text) > DESCRIPTION_CHARS or not (text.isprintable() or not text):
        raise InvalidInput(f"a description is at most {DESCRIPTION_CHARS} printable characters", field="description")
    return text
