"""What holds money, and whose it is: wallets, their buckets and lots, and the account of each owner."""

from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Self

from libs.core.ids import derived_id
from libs.core.tenants import SystemWallet, system_wallet_id
from services.payment.domain.limits import AccountStatus, Counters, Limit

SYSTEM_OWNER = "@system"  # no user can have this id: theirs begin with a letter or digit


class Bucket(StrEnum):
    REAL = "real"
    BONUS = "bonus"
    LOCKED = "locked"


class WalletKind(StrEnum):
    """A player's, or one of the tenant's own: see `SystemWallet`."""

    USER = "user"
    HOUSE = SystemWallet.HOUSE.value
    PROVIDER = SystemWallet.PROVIDER.value
    FEE = SystemWallet.FEE.value
    BONUS_POOL = SystemWallet.BONUS_POOL.value
    NOSTRO = SystemWallet.NOSTRO.value
    RECEIVABLE = SystemWallet.RECEIVABLE.value


class WalletStatus(StrEnum):
    ACTIVE = "active"
    FROZEN = "frozen"
    CLOSED = "closed"


@dataclass(slots=True)
class Wallet:
    """The state of a wallet, or of one stripe of a system wallet. `key` is its document, `id` what callers know."""

    key: str
    id: str
    tenant_id: str
    owner_id: str
    kind: str
    category: str
    currency: str
    created_at: datetime
    at: datetime
    status: str = WalletStatus.ACTIVE
    buckets: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Bucket, 0))
    # How many transactions there are, in each bucket and in all: both number them without gaps.
    sequences: dict[str, int] = field(default_factory=lambda: dict.fromkeys(Bucket, 0))
    position: int = 0
    # What the bonus bucket is made of: one lot per grant. One that is used up is not kept.
    lots: dict[str, int] = field(default_factory=dict)
    # How far below zero the real bucket may go.
    credit_limit: int = 0
    # No open hold is due before this; none has been placed if None. Too early costs one look, too late cannot be.
    hold_due: datetime | None = None
    is_system: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_system = self.kind != WalletKind.USER

    @property
    def account_key(self) -> str:
        return account_key(self.tenant_id, self.owner_id)

    @property
    def total(self) -> int:
        return sum(self.buckets.values())

    def snapshot(self) -> Self:
        twin = copy(self)
        twin.buckets, twin.sequences, twin.lots = dict(self.buckets), dict(self.sequences), dict(self.lots)
        return twin


@dataclass(slots=True)
class Account:
    """What is kept per owner, and written by every debit that it guards: a debit cannot overtake a restriction.

    `events` numbers what is told of them, in the order in which it happened. `limits` and `counters` have the shapes
    of `domain/limits.py`.
    """

    key: str
    tenant_id: str
    owner_id: str
    at: datetime
    events: int = 0
    status: str = AccountStatus.ACTIVE
    excluded_until: datetime | None = None
    limits: list[Limit] = field(default_factory=list)
    counters: Counters = field(default_factory=dict)

    def snapshot(self) -> Self:
        twin = copy(self)
        twin.counters = dict(self.counters)  # its rows are replaced, never changed
        return twin


def wallet_key(tenant_id: str, wallet_id: str) -> str:
    """A document's id begins with its tenant, so no id that a caller can write reaches into another tenant."""
    return f"{tenant_id}:{wallet_id}"


def account_key(tenant_id: str, owner_id: str) -> str:
    return f"{tenant_id}:{owner_id}"


def stripe_key(tenant_id: str, wallet_id: str, lane: int) -> str:
    return f"{tenant_id}:{wallet_id}:{lane}"


def user_wallet(tenant_id: str, owner_id: str, category: str, currency: str, at: datetime) -> Wallet:
    """Empty. The id follows from the rest, because an owner has one wallet of a category and currency."""
    wallet_id = derived_id("wallet", tenant_id, owner_id, category, currency)
    return Wallet(
        key=wallet_key(tenant_id, wallet_id),
        id=wallet_id,
        tenant_id=tenant_id,
        owner_id=owner_id,
        kind=WalletKind.USER,
        category=category,
        currency=currency,
        created_at=at,
        at=at,
    )


def system_wallet(tenant_id: str, kind: SystemWallet, currency: str, at: datetime) -> Wallet:
    """Empty. It may go below zero, because it carries the other side of the players' money."""
    wallet_id = system_wallet_id(tenant_id, kind, currency)
    return Wallet(
        key=wallet_key(tenant_id, wallet_id),
        id=wallet_id,
        tenant_id=tenant_id,
        owner_id=SYSTEM_OWNER,
        kind=kind,
        category="main",
        currency=currency,
        created_at=at,
        at=at,
    )
