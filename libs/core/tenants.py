"""Tenants, their brands and currencies, and the names of their system wallets.

A tenant is an operator's walled garden: every document belongs to one, and no query leaves out which. They live in
`core_service`, which all services read, and are few: each process holds them all in memory, is told of changes over
Redis pub/sub, and reads them all again every half minute in case it was not told.

The wallets of the house (`SystemWallet`) are payment's documents. Their ids follow from tenant, kind and currency, so
that payment, on hearing of a currency, creates what anyone else could already name.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo

import structlog
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from libs.core.audit import AuditLog
from libs.core.clock import Clock
from libs.core.errors import Forbidden, InvalidInput, NotFound, Refusal
from libs.core.events.event import Event, EventData
from libs.core.events.outbox import Outbox
from libs.core.ids import ID_PATTERN, derived_id, parse_id
from libs.core.migrations import Index
from libs.core.money import CURRENCY_PATTERN
from libs.core.mongo import Document, Mongo, Session
from libs.core.pubsub import follow, tell
from libs.core.redis import Redis
from libs.core.tasks import ended

COLLECTION = "tenants"
INDEXES = (Index(COLLECTION, (("hosts", 1),), unique=True, partial={"hosts.0": {"$exists": True}}),)

# int64 minor units of 18 decimals still hold 9 whole ones: the finest that any coin uses.
MAX_SCALE = 18
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII)

log = structlog.get_logger(__name__)

Status = Literal["active", "suspended"]


class SystemWallet(StrEnum):
    """The kinds of wallet that every tenant has, one of each kind per currency."""

    HOUSE = "house"
    PROVIDER = "provider"
    FEE = "fee"
    BONUS_POOL = "bonus_pool"
    NOSTRO = "nostro"
    RECEIVABLE = "receivable"


def system_wallet_id(tenant_id: str, kind: SystemWallet, currency: str) -> str:
    """The id of the tenant's wallet of that kind and currency, whether it exists yet or not."""
    return derived_id("system-wallet", tenant_id, kind, currency)


@dataclass(frozen=True, slots=True)
class Currency:
    """`scale`: how many decimals the minor unit is away from the major one. EUR 2, JPY 0, BTC 8."""

    code: str
    scale: int

    def __post_init__(self) -> None:
        if not CURRENCY_PATTERN.fullmatch(self.code):
            raise InvalidInput("a currency is 3 to 12 upper-case letters or digits, such as EUR", field="currency")
        if type(self.scale) is not int or not 0 <= self.scale <= MAX_SCALE:
            raise InvalidInput(f"a currency's scale is a whole number from 0 to {MAX_SCALE}", field="scale")


@dataclass(frozen=True, slots=True)
class Brand:
    """A name that a tenant trades under."""

    id: str
    name: str

    def __post_init__(self) -> None:
        parse_id(self.id, "brand.id")
        _check_name(self.name, "brand.name")


@dataclass(frozen=True, slots=True)
class Tenant:
    """`hosts` are the addresses that are this tenant's alone; `time_zone` (IANA) is where its calendar days begin."""

    id: str
    name: str
    time_zone: str = "UTC"
    hosts: tuple[str, ...] = ()
    currencies: Mapping[str, Currency] = field(default_factory=dict)
    brands: Mapping[str, Brand] = field(default_factory=dict)
    status: Status = "active"

    def __post_init__(self) -> None:
        parse_id(self.id, "id")
        _check_name(self.name, "name")
        _check_time_zone(self.time_zone)
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise InvalidInput("a host is a lower-case DNS name without scheme or port", field="hosts", host=host)

    @property
    def active(self) -> bool:
        return self.status == "active"


class TenantCreated(EventData, type="tenant.created"):
    """Its currencies and brands follow in the same instant, each as its own event."""

    name: str
    time_zone: str


class CurrencyAdded(EventData, type="tenant.currency_added"):
    """Payment creates the `SystemWallet`s of it."""

    code: str
    scale: int


class BrandAdded(EventData, type="tenant.brand_added"):
    id: str
    name: str


class TenantSuspended(EventData, type="tenant.suspended"):
    """Nothing is answered for it any more, and nothing of it is lost."""

    reason: str


class TenantResumed(EventData, type="tenant.resumed"):
    reason: str


class Tenants:
    """Finds tenants, in memory, and changes them, in the database. Every change has an audit row and an event.

    While it is open (`async with`) the memory is kept up to date; what only changes tenants need not open it.

    `default` is the tenant of a request that neither its header nor its address assigns to one; "" for none.
    """

    def __init__(
        self,
        mongo: Mongo,
        redis: Redis,
        outbox: Outbox,
        *,
        clock: Clock | None = None,
        default: str = "",
        poll_s: float = 30.0,
    ) -> None:
        """`outbox` is that of `core_service`."""
        self._mongo = mongo
        self._redis = redis
        self._channel = redis.key("tenants")
        self._poll_s = poll_s
        self._documents = mongo.core[COLLECTION]
        self._outbox = outbox
        self._audit = AuditLog(mongo.core, "tenants", clock=clock)
        self._default = default
        self._by_id: dict[str, Tenant] = {}
        self._by_host: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        await self.reload()
        self._following = asyncio.create_task(follow(self._redis, self._channel, self.reload, poll_s=self._poll_s))
        return self

    async def __aexit__(self, *_: object) -> None:
        await ended(self._following)

    async def resolve(self, host: str, header: str | None) -> Tenant:
        """The tenant of a request without a token: by its `x-tenant` header, else its address, else the default.

        A tenant's own address answers for that tenant alone. `NotFound`, in the same words, for one that is unknown,
        suspended or named on another's address: who asks learns nothing about who else is served here.
        """
        own = self._by_host.get(host_name(host))
        named = header or own or self._default
        tenant = await self._find(named) if own in (None, named) else None
        if tenant is None or not tenant.active:
            raise NotFound("no tenant is served here under this address and x-tenant header")
        return tenant

    async def admit(self, tenant_id: str, host: str, header: str | None) -> Tenant:
        """The tenant that a verified token names, which always wins: `Forbidden` if header or address say another,
        or if the tenant is suspended or gone.
        """
        if header not in (None, "", tenant_id) or self._by_host.get(host_name(host), tenant_id) != tenant_id:
            raise Forbidden("the token belongs to another tenant than the address or the x-tenant header")
        tenant = await self._find(tenant_id)
        if tenant is None or not tenant.active:
            raise Forbidden("the token's tenant is not active")
        return tenant

    async def get(self, tenant_id: str) -> Tenant:
        """`NotFound` if there is none; one that is suspended is returned."""
        tenant = await self._find(tenant_id)
        if tenant is None:
            raise NotFound("there is no such tenant", tenant=tenant_id)
        return tenant

    async def currency(self, tenant_id: str, code: str) -> Currency:
        """`InvalidInput` for a currency that the tenant does not have."""
        tenant = await self.get(tenant_id)
        if code not in tenant.currencies and CURRENCY_PATTERN.fullmatch(code):
            tenant = await self._read(tenant_id) or tenant  # it may be seconds old, and the news of it late
        if code not in tenant.currencies:
            raise InvalidInput("this currency is not in use here", field="currency")
        return tenant.currencies[code]

    def time_zone(self, tenant_id: str) -> str:
        """For rules, which wait for nothing: from memory. UTC for a tenant that nobody has told us of yet."""
        tenant = self._by_id.get(tenant_id)
        return tenant.time_zone if tenant else "UTC"

    async def all(self) -> list[Tenant]:
        """Every tenant, by id, as the database has them now."""
        return [_tenant(row) async for row in self._documents.find({}, sort=[("_id", 1)])]

    async def _find(self, tenant_id: str) -> Tenant | None:
        return self._by_id.get(tenant_id) or await self._read(tenant_id)

    async def _read(self, tenant_id: str) -> Tenant | None:
        """A tenant is known everywhere from the moment it was created. Not kept in memory, where it could take the
        place of what a reload has found since.
        """
        row = await self._documents.find_one({"_id": tenant_id}) if ID_PATTERN.fullmatch(tenant_id) else None
        return _tenant(row) if row else None

    async def reload(self) -> None:
        """Reads them all again. On an error those that are known stay."""
        tenants = await self.all()
        self._by_id = {tenant.id: tenant for tenant in tenants}
        self._by_host = {host: tenant.id for tenant in tenants for host in tenant.hosts}

    async def create(self, tenant: Tenant, *, actor: str) -> Tenant:
        """`Refusal` `TENANT_EXISTS` if the id is in use, `HOST_TAKEN` if a host is another tenant's."""
        facts: list[EventData] = [TenantCreated(name=tenant.name, time_zone=tenant.time_zone)]
        facts += [CurrencyAdded(code=c.code, scale=c.scale) for c in tenant.currencies.values()]
        facts += [BrandAdded(id=b.id, name=b.name) for b in tenant.brands.values()]
        document = _document(tenant)

        async def work(session: Session) -> Tenant:
            await self._documents.insert_one(document, session=session)
            await self._audit.append(
                session, actor=actor, action="tenant.create", resource=tenant.id, tenant_id=tenant.id, after=document
            )
            await self._tell(session, tenant.id, actor, facts)
            return tenant

        try:
            return await self._commit(work)
        except DuplicateKeyError as error:
            if "hosts" in (error.details or {}).get("keyPattern", {}):
                raise Refusal("HOST_TAKEN", "a host belongs to another tenant", rule="tenant.host_unique") from error
            raise Refusal("TENANT_EXISTS", "there is a tenant of this id", rule="tenant.id_unique") from error

    async def add_currency(self, tenant_id: str, currency: Currency, *, actor: str) -> Tenant:
        """Adds it, or does nothing if it is there. Its scale can never change: `Refusal` `CURRENCY_SCALE_IMMUTABLE`."""
        fact = CurrencyAdded(code=currency.code, scale=currency.scale)
        change = _Change("tenant.add_currency", f"currencies.{currency.code}", currency.scale, fact)
        tenant = await self._change(tenant_id, change, actor)
        if tenant.currencies[currency.code] != currency:
            raise Refusal(
                "CURRENCY_SCALE_IMMUTABLE",
                f"{currency.code} has {tenant.currencies[currency.code].scale} decimals here, which cannot change",
                rule="currency.scale",
            )
        return tenant

    async def add_brand(self, tenant_id: str, brand: Brand, *, actor: str) -> Tenant:
        """Adds it, or does nothing if it is there; `Refusal` `BRAND_EXISTS` if its id has another name."""
        fact = BrandAdded(id=brand.id, name=brand.name)
        change = _Change("tenant.add_brand", f"brands.{brand.id}", brand.name, fact)
        tenant = await self._change(tenant_id, change, actor)
        if tenant.brands[brand.id] != brand:
            raise Refusal("BRAND_EXISTS", "there is a brand of this id", rule="tenant.brand_unique")
        return tenant

    async def suspend(self, tenant_id: str, *, actor: str, reason: str) -> Tenant:
        """No request is answered for it from now on. Does nothing if it is suspended."""
        fact = TenantSuspended(reason=reason)
        change = _Change("tenant.suspend", "status", "suspended", fact, expected="active", reason=reason)
        return await self._change(tenant_id, change, actor)

    async def resume(self, tenant_id: str, *, actor: str, reason: str) -> Tenant:
        """Takes a suspension back. Does nothing if there is none."""
        fact = TenantResumed(reason=reason)
        change = _Change("tenant.resume", "status", "active", fact, expected="suspended", reason=reason)
        return await self._change(tenant_id, change, actor)

    async def _change(self, tenant_id: str, change: "_Change", actor: str) -> Tenant:
        """The tenant afterwards: changed, audited and told if it was as `change` expects it, else as it is."""

        async def work(session: Session) -> Tenant:
            row = await self._documents.find_one_and_update(
                {"_id": tenant_id, change.path: change.expected},
                {"$set": {change.path: change.value}},
                session=session,
                return_document=ReturnDocument.AFTER,
            )
            if row is None:
                return await self._as_it_is(session, tenant_id)
            await self._audit.append(
                session,
                actor=actor,
                action=change.action,
                resource=tenant_id,
                tenant_id=tenant_id,
                after={change.path: change.value},
                reason=change.reason,
            )
            await self._tell(session, tenant_id, actor, [change.fact])
            return _tenant(row)

        return await self._commit(work)

    async def _as_it_is(self, session: Session, tenant_id: str) -> Tenant:
        row = await self._documents.find_one({"_id": tenant_id}, session=session)
        if row is None:
            raise NotFound("there is no such tenant", tenant=tenant_id)
        return _tenant(row)

    async def _tell(self, session: Session, tenant_id: str, actor: str, facts: Sequence[EventData]) -> None:
        events = [
            Event.new(fact, source="core", subject=tenant_id, tenant_id=tenant_id, partition_key=tenant_id, actor=actor)
            for fact in facts
        ]
        await self._outbox.append(session, events)

    async def _commit(self, work: Callable[[Session], Awaitable[Tenant]]) -> Tenant:
        tenant = await self._mongo.transaction(work)
        self._by_id[tenant.id] = tenant
        self._by_host.update(dict.fromkeys(tenant.hosts, tenant.id))
        self._outbox.kick()
        await tell(self._redis, self._channel)
        return tenant


@dataclass(frozen=True, slots=True)
class _Change:
    """Sets `path` to `value` where `expected` matches it: by default where nothing is, so that no race overwrites."""

    action: str
    path: str
    value: Any
    fact: EventData
    expected: Any = field(default_factory=lambda: {"$exists": False})
    reason: str = ""


def host_name(host: str) -> str:
    """The name in a `Host` header: `Play.Example.com:8080` is `play.example.com`."""
    return host.partition(":")[0].rstrip(".").lower()


def _tenant(row: Document) -> Tenant:
    return Tenant(
        id=row["_id"],
        name=row["name"],
        time_zone=row["time_zone"],
        hosts=tuple(row["hosts"]),
        currencies={code: Currency(code, scale) for code, scale in row["currencies"].items()},
        brands={brand_id: Brand(brand_id, name) for brand_id, name in row["brands"].items()},
        status=row["status"],
    )


def _document(tenant: Tenant) -> Document:
    return {
        "_id": tenant.id,
        "name": tenant.name,
        "time_zone": tenant.time_zone,
        "hosts": list(tenant.hosts),
        "currencies": {currency.code: currency.scale for currency in tenant.currencies.values()},
        "brands": {brand.id: brand.name for brand in tenant.brands.values()},
        "status": tenant.status,
    }


def _check_name(name: str, field_name: str) -> None:
    if not 1 <= len(name) <= 120 or not name.isprintable():
        raise InvalidInput(f"{field_name} is 1 to 120 printable characters", field=field_name)


def _check_time_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InvalidInput("a time zone is an IANA name such as Europe/Malta", field="timeZone") from None
