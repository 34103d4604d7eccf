"""What can be asked of the ledger, and what it writes: operations, transfers, transactions, holds."""

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

import orjson

from libs.core.access import Scope
from libs.core.errors import InvalidInput, Refusal
from libs.core.ids import ID_PATTERN
from libs.core.money import Money
from libs.core.tenants import SystemWallet, system_wallet_id
from services.payment.domain.wallets import Bucket, stripe_key, wallet_key

METADATA_LIMIT_BYTES = 4096
# orjson writes 254 levels, and an answer adds its own: deeper metadata would make the other party's history unreadable.
METADATA_LIMIT_DEPTH = 32
REFERENCE_LIMIT = 200

# What the ledger names by itself has a dot, which no caller's id can have: nobody takes such an id before it does.
EXPIRY_PART = "expiry"
_TRANSFER_ID = re.compile(rf"{ID_PATTERN.pattern}(\.([1-9][0-9]{{0,3}}|{EXPIRY_PART}))?", re.ASCII)


class TransferKind(StrEnum):
    TRANSFER = "transfer"
    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    BET = "bet"
    WIN = "win"
    HOLD = "hold"
    CAPTURE = "capture"
    VOID = "void"
    EXPIRY = "expiry"
    REVERSAL = "reversal"
    FEE = "fee"
    EXCHANGE = "exchange"
    ADJUSTMENT = "adjustment"
    BONUS_GRANT = "bonus_grant"
    BONUS_CONVERSION = "bonus_conversion"
    BONUS_FORFEIT = "bonus_forfeit"


class Direction(StrEnum):
    DEBIT = "debit"
    CREDIT = "credit"


@dataclass(frozen=True, slots=True)
class End:
    """One end of a transfer. A system end is striped by lane, so that no two processes write the same document."""

    wallet_id: str
    bucket: Bucket = Bucket.REAL
    lot: str = ""
    system: SystemWallet | None = None

    def __post_init__(self) -> None:
        """Every unit of bonus money is in a lot, so that it can be followed from its grant to its end."""
        if bool(self.lot) != (self.bucket is Bucket.BONUS and self.system is None):
            raise InvalidInput("a lot is named for the bonus bucket, and for nothing else", field="lot")

    @classmethod
    def of_system(cls, tenant_id: str, kind: SystemWallet, currency: str) -> Self:
        return cls(system_wallet_id(tenant_id, kind, currency), system=kind)

    def key(self, tenant_id: str, lane: int) -> str:
        return stripe_key(tenant_id, self.wallet_id, lane) if self.system else wallet_key(tenant_id, self.wallet_id)


@dataclass(frozen=True, slots=True)
class Leg:
    """One movement of an operation. The first leg's transfer has the operation's id, each other one of its own."""

    kind: TransferKind
    source: End
    destination: End
    money: Money


@dataclass(frozen=True, slots=True)
class Place:
    """Of a hold: when it is released by itself, and what it is for (which limits it counts against)."""

    expires_at: datetime
    purpose: TransferKind
    # Whether the caller said so; else a retry, whose default is a later instant, is still the same hold.
    asked: bool = True


@dataclass(frozen=True, slots=True)
class Capture:
    """Of a capture. `final`: what is left is released."""

    hold_id: str
    final: bool


@dataclass(frozen=True, slots=True)
class Release:
    """Of a void or an expiry: all that is left of the hold goes back. The leg's amount is not looked at."""

    hold_id: str


@dataclass(frozen=True, slots=True)
class Reverse:
    """Of a reversal. With `receivable`, what is not there any more is owed: it comes from that wallet."""

    transfer_id: str
    receivable: End | None
    # If that was a capture: whose purpose says what it counted against.
    hold_id: str = ""


@dataclass(frozen=True, slots=True)
class Quoted:
    """Of an exchange: until when its rate holds."""

    expires_at: datetime


Terms = Place | Capture | Release | Reverse | Quoted


@dataclass(frozen=True, slots=True)
class Unproven:
    """Why it is not known that the caller, in person, wants this. It refuses what they send away of their own, and with

    `operators` what they send of anybody's.
    """

    refusal: Refusal
    operators: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Something to be done whole or not at all. `scope` is what the caller may act on, `sight` which wallets they see.

    `asked` is what the caller wrote, where our own rules (fees) make other amounts of it: only it tells a retry from
    another operation under the same id.
    """

    id: str
    tenant_id: str
    kind: TransferKind
    legs: tuple[Leg, ...]
    actor: str
    scope: Scope
    sight: Scope
    asked: Money | None = None
    terms: Terms | None = None
    reference: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    # Not part of what is asked for: an operation that was done is answered as it was, confirmed anew or not.
    unproven: Unproven | None = None
    # Names the all-or-nothing set this belongs to, as part of what is asked for: see `linked`.
    set_id: str = ""
    dry_run: bool = False
    key: str = field(init=False)
    size_bytes: int = field(init=False)
    # Equal for equal content: what tells a retry from another operation under the same id. Made when the operation is
    # asked for, while MongoDB is busy with those before it.
    fingerprint: bytes = field(init=False)

    def __post_init__(self) -> None:
        """`InvalidInput` for what could never be stored."""
        object.__setattr__(self, "size_bytes", check_storable(self.reference, self.metadata))
        object.__setattr__(self, "key", f"{self.tenant_id}:{self.id}")
        object.__setattr__(self, "fingerprint", self._fingerprint())

    @classmethod
    def of(cls, kind: TransferKind, source: End, destination: End, money: Money, **others: Any) -> Self:
        """One of a single leg."""
        return cls(kind=kind, legs=(Leg(kind, source, destination, money),), **others)

    @property
    def source(self) -> End:
        return self.legs[0].source

    @property
    def destination(self) -> End:
        return self.legs[0].destination

    @property
    def money(self) -> Money:
        return self.asked or self.legs[0].money

    def wallet_keys(self, lane: int) -> Iterator[str]:
        for leg in self.legs:
            yield leg.source.key(self.tenant_id, lane)
            yield leg.destination.key(self.tenant_id, lane)
        if isinstance(self.terms, Reverse) and self.terms.receivable:
            yield self.terms.receivable.key(self.tenant_id, lane)

    def leg_id(self, number: int) -> str:
        return leg_id(self.id, number)

    def _fingerprint(self) -> bytes:
        content = (
            self.kind,
            self._movements,
            self.reference,
            self.metadata,
            self.set_id,
            _content(self.terms),
        )
        return hashlib.blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()

    @property
    def _movements(self) -> Sequence[object]:
        """What money goes where, as far as the caller said so: what is released, say, is whatever is left."""
        if isinstance(self.terms, Release):
            return []
        asked = [_movement(leg) for leg in self.legs]
        return [*asked[0][:-1], self.asked.amount_minor] if self.asked else asked


def _movement(leg: Leg) -> tuple[object, ...]:
    source, destination = leg.source, leg.destination
    return (
        (source.wallet_id, source.bucket, source.lot),
        (destination.wallet_id, destination.bucket, destination.lot),
        leg.money.currency,
        leg.money.amount_minor,
    )


def _content(terms: Terms | None) -> tuple[object, ...]:
    match terms:
        case Place(expires_at, purpose, asked):
            return expires_at if asked else None, purpose
        case Capture(hold_id, final):
            return hold_id, final
        case Release(hold_id):
            return (hold_id,)
        case Reverse(transfer_id, receivable):
            return transfer_id, receivable is not None
    return ()


@dataclass(frozen=True, slots=True)
class Transaction:
    """One line of the ledger: what a transfer did to one bucket, numbered without gaps in its wallet and bucket."""

    wallet_key: str
    wallet_id: str
    owner_id: str
    is_system: bool
    bucket: str
    lot: str
    direction: str
    amount_minor: int
    balance_after: int
    sequence: int
    position: int

    @property
    def key(self) -> str:
        """Sorts by position within the wallet."""
        return f"{self.wallet_key}:{self.position:012d}"


@dataclass(frozen=True, slots=True)
class Transfer:
    """A movement that was accepted, as it is stored and as every later asking for its id is answered.

    `operation_id` is the id that the caller chose; the transfers of one operation share it. `hold_id` and `reverses`
    name what a capture, void, expiry or reversal is of.
    """

    key: str
    id: str
    tenant_id: str
    kind: str
    money: Money
    debit: Transaction
    credit: Transaction
    at: datetime
    actor: str
    reference: str
    metadata: dict[str, Any]
    fingerprint: bytes
    operation_id: str
    leg: int = 0
    legs: int = 1
    hold_id: str = ""
    reverses: str = ""

    @property
    def owner_id(self) -> str:
        """Whose event this is: the player who paid, or who was paid by the system."""
        return self.credit.owner_id if self.debit.is_system else self.debit.owner_id

    @property
    def leg_ids(self) -> list[str]:
        """The ids of all transfers of the operation, this one's among them."""
        return [leg_id(self.operation_id, number) for number in range(self.legs)]

    def visible_to(self, scope: Scope) -> bool:
        return any(
            scope.permits(owner_id=end.owner_id, tenant_id=self.tenant_id, id=end.wallet_id)
            for end in (self.debit, self.credit)
        )


class HoldStatus(StrEnum):
    OPEN = "open"
    CAPTURED = "captured"
    VOIDED = "voided"
    EXPIRED = "expired"


@dataclass(slots=True)
class Hold:
    """Money that is set aside in the locked bucket. Its id is that of the operation which placed it."""

    key: str
    id: str
    tenant_id: str
    wallet_key: str
    wallet_id: str
    owner_id: str
    currency: str
    amount: int
    purpose: str
    expires_at: datetime
    placed_at: datetime
    captured: int = 0
    released: int = 0
    status: str = HoldStatus.OPEN

    @property
    def rest(self) -> int:
        return self.amount - self.captured - self.released

    def snapshot(self) -> Self:
        return copy(self)


Outcome = Transfer | Refusal


def leg_id(operation_id: str, number: int) -> str:
    return f"{operation_id}.{number}" if number else operation_id


def expiry_id(hold_id: str) -> str:
    return f"{hold_id}.{EXPIRY_PART}"


def parse_transfer_id(value: object, field: str) -> str:
    """`value` if a transfer can have this id, be it a caller's or the ledger's own; else `InvalidInput`."""
    if not isinstance(value, str) or not _TRANSFER_ID.fullmatch(value):
        raise InvalidInput(f"{field} is no transfer's id", field=field)
    return value


def linked(operations: Sequence[Operation]) -> list[Operation]:
    """The same operations as members of one all-or-nothing set, named after the ids of all: a retry is the same set."""
    name = hashlib.blake2b("\n".join(o.id for o in operations).encode(), digest_size=16).hexdigest()
    return [replace(o, set_id=name) for o in operations]


def check_storable(reference: str, metadata: object) -> int:
    """How many bytes these take. Refuses what the database could not store, before it can meet others in a group:

    `InvalidInput`.
    """
    if not isinstance(metadata, dict):
        raise InvalidInput("metadata is an object", field="metadata")
    if len(reference) > REFERENCE_LIMIT:
        raise InvalidInput(f"a reference has at most {REFERENCE_LIMIT} characters", field="reference")
    if not metadata and reference.isascii():
        return len(reference)
    try:
        encoded = orjson.dumps((reference, metadata))
    except TypeError as error:
        raise InvalidInput(f"this cannot be stored: {error}", field="metadata") from None
    if len(encoded) > METADATA_LIMIT_BYTES:
        raise InvalidInput(f"metadata and reference have at most {METADATA_LIMIT_BYTES} bytes", field="metadata")
    if _depth(metadata) > METADATA_LIMIT_DEPTH:
        raise InvalidInput(f"metadata is nested at most {METADATA_LIMIT_DEPTH} deep", field="metadata")
    return len(encoded)


def _depth(value: object) -> int:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput("a number in metadata is finite", field="metadata")  # JSON would make it null
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)
