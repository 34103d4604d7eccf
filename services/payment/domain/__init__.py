"""The rules of money, with nothing that waits: what a wallet is, what an operation asks for, and what is refused.

A `Book` is what one group commit has loaded. `Book.post(operations, at)` decides them in order against each other's
effects; the ledger then writes exactly what the book says has changed.

What refuses an operation, in order of precedence (the first that applies is the answer):

    IDEMPOTENCY_MISMATCH      the id was used before for something else
    WALLET_NOT_FOUND          a wallet does not exist in this tenant, or is not the caller's to act on: one answer
    SAME_BUCKET               the two ends are the same bucket of the same wallet
    CURRENCY_MISMATCH         a wallet holds another currency than the amount's
    WALLET_NOT_ACTIVE         a wallet is frozen or closed
    INSUFFICIENT_FUNDS        a guarded bucket would go below zero
    BALANCE_LIMIT             a balance would leave the range of a 64-bit integer
    LINKED_OPERATION_REFUSED  another operation of the same all-or-nothing set was refused
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import orjson

from libs.core.access import Scope
from libs.core.errors import InvalidInput, Refusal
from libs.core.ids import derived_id
from libs.core.money import INT64_MAX, Money
from libs.core.tenants import SystemWallet, system_wallet_id

METADATA_LIMIT_BYTES = 4096
# orjson writes 254 levels, and an answer adds its own: deeper metadata would make the other party's history unreadable.
METADATA_LIMIT_DEPTH = 32
REFERENCE_LIMIT = 200
SYSTEM_OWNER = "@system"  # no user can have this id: theirs begin with a letter or digit
TICK = timedelta(milliseconds=1)


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


class TransferKind(StrEnum):
    TRANSFER = "transfer"
    DEPOSIT = "deposit"


class Direction(StrEnum):
    DEBIT = "debit"
    CREDIT = "credit"


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

    @property
    def is_system(self) -> bool:
        return self.kind != WalletKind.USER

    @property
    def account_key(self) -> str:
        return account_key(self.tenant_id, self.owner_id)

    def snapshot(self) -> "Wallet":
        twin = copy(self)
        twin.buckets, twin.sequences = dict(self.buckets), dict(self.sequences)
        return twin


@dataclass(slots=True)
class Account:
    """What is kept per owner: `events` numbers what is told of them, in the order in which it happened."""

    key: str
    tenant_id: str
    owner_id: str
    at: datetime
    events: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """One end of a transfer. A system end is striped by lane, so that no two processes write the same document."""

    wallet_id: str
    bucket: Bucket = Bucket.REAL
    system: SystemWallet | None = None

    @classmethod
    def of_system(cls, tenant_id: str, kind: SystemWallet, currency: str) -> "End":
        return cls(system_wallet_id(tenant_id, kind, currency), system=kind)

    def key(self, tenant_id: str, lane: int) -> str:
        return stripe_key(tenant_id, self.wallet_id, lane) if self.system else wallet_key(tenant_id, self.wallet_id)


@dataclass(frozen=True, slots=True)
class Operation:
    """One movement of money, asked for. `scope` is what the caller may act on, `sight` which wallets they may see."""

    id: str
    tenant_id: str
    kind: TransferKind
    source: End
    destination: End
    money: Money
    actor: str
    scope: Scope
    sight: Scope
    reference: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    # Names the all-or-nothing set this belongs to, as part of what is asked for: see `linked`.
    set_id: str = ""

    @property
    def key(self) -> str:
        return f"{self.tenant_id}:{self.id}"

    @property
    def acts_on(self) -> Direction:
        """The end that the caller needs to have a say over: whose money leaves, or for a deposit, who is credited."""
        return Direction.CREDIT if self.kind is TransferKind.DEPOSIT else Direction.DEBIT

    def fingerprint(self) -> bytes:
        """Equal for equal content: what tells a retry from another operation under the same id."""
        content = (
            self.kind,
            (self.source.wallet_id, self.source.bucket),
            (self.destination.wallet_id, self.destination.bucket),
            self.money.amount_minor,
            self.money.currency,
            self.reference,
            self.metadata,
            self.set_id,
        )
        return hashlib.blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Transaction:
    """One line of the ledger: what a transfer did to one bucket, numbered without gaps in its wallet and bucket."""

    wallet_key: str
    wallet_id: str
    owner_id: str
    is_system: bool
    bucket: str
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
    """An operation that was accepted, as it is stored and as every later asking for its id is answered."""

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

    @property
    def owner_id(self) -> str:
        """Whose event this is: the player who paid, or who was paid by the system."""
        return self.credit.owner_id if self.debit.is_system else self.debit.owner_id

    def visible_to(self, scope: Scope) -> bool:
        return any(
            scope.permits(owner_id=end.owner_id, tenant_id=self.tenant_id, id=end.wallet_id)
            for end in (self.debit, self.credit)
        )


Outcome = Transfer | Refusal


def linked(operations: Sequence[Operation]) -> list[Operation]:
    """The same operations as members of one all-or-nothing set, named after the ids of all: a retry is the same set."""
    name = hashlib.blake2b("\n".join(o.id for o in operations).encode(), digest_size=16).hexdigest()
    return [replace(o, set_id=name) for o in operations]


def wallet_key(tenant_id: str, wallet_id: str) -> str:
    """A document's id begins with its tenant, so no id that a caller can write reaches into another tenant."""
    return f"{tenant_id}:{wallet_id}"


def account_key(tenant_id: str, owner_id: str) -> str:
    return f"{tenant_id}:{owner_id}"


def stripe_key(tenant_id: str, wallet_id: str, lane: int) -> str:
    return f"{tenant_id}:{wallet_id}:{lane}"


def check_storable(reference: str, metadata: object) -> None:
    """Refuses what the database could not store, before it can meet others in a group: `InvalidInput`."""
    if not isinstance(metadata, dict):
        raise InvalidInput("metadata is an object", field="metadata")
    if len(reference) > REFERENCE_LIMIT:
        raise InvalidInput(f"a reference has at most {REFERENCE_LIMIT} characters", field="reference")
    try:
        encoded = orjson.dumps((reference, metadata))
    except TypeError as error:
        raise InvalidInput(f"this cannot be stored: {error}", field="metadata") from None
    if len(encoded) > METADATA_LIMIT_BYTES:
        raise InvalidInput(f"metadata and reference have at most {METADATA_LIMIT_BYTES} bytes", field="metadata")
    if _depth(metadata) > METADATA_LIMIT_DEPTH:
        raise InvalidInput(f"metadata is nested at most {METADATA_LIMIT_DEPTH} deep", field="metadata")


def _depth(value: object) -> int:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput("a number in metadata is finite", field="metadata")  # JSON would make it null
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


class Book:
    """What one transaction has read, changed by every operation that is accepted.

    It must have been given whatever the operations name and the database has: wallets, transfers of these ids, and the
    wallets' accounts. `touched` are the keys of wallets, `told` those of accounts, that have to be written.
    """

    def __init__(
        self, lane: int, wallets: Iterable[Wallet], transfers: Iterable[Transfer], accounts: Iterable[Account]
    ) -> None:
        self.lane = lane
        self.wallets = {wallet.key: wallet for wallet in wallets}
        self.transfers = {transfer.key: transfer for transfer in transfers}
        self.accounts = {account.key: account for account in accounts}
        self.touched: set[str] = set()
        self.told: set[str] = set()
        self.accepted: list[Transfer] = []

    def next_instant(self, now: datetime) -> datetime:
        """Now, or just after the last thing that happened to anything in here: no wallet's time runs backwards."""
        last = max((it.at for group in (self.wallets, self.accounts) for it in group.values()), default=now - TICK)
        return max(now, last + TICK)

    def next_event(self, tenant_id: str, owner_id: str, at: datetime) -> int:
        """The number of the event that tells `owner_id` of something: gapless, in the order of their commits."""
        key = account_key(tenant_id, owner_id)
        account = self.accounts.setdefault(key, Account(key, tenant_id, owner_id, at))
        account.events += 1
        account.at = at
        self.told.add(key)
        return account.events

    def owner_of(self, operation: Operation) -> str | None:
        """The player whose wallet an operation would have moved money of, or to."""
        for end in (operation.source, operation.destination):
            wallet = self.wallets.get(end.key(operation.tenant_id, self.lane))
            if wallet and not wallet.is_system:
                return wallet.owner_id
        return None

    def post(self, operations: Sequence[Operation], at: datetime) -> list[Outcome]:
        """Decides a set of operations that stand or fall together; one that stands alone is a set of one."""
        if len(operations) == 1:
            return [self._decide(operations[0], at)]
        return self._all_or_none(operations, at)

    def _all_or_none(self, operations: Sequence[Operation], at: datetime) -> list[Outcome]:
        keys = {end.key(o.tenant_id, self.lane) for o in operations for end in (o.source, o.destination)}
        before = {key: self.wallets[key].snapshot() for key in keys if key in self.wallets}
        accepted_before = len(self.accepted)
        for culprit in operations:
            refusal = self._decide(culprit, at)
            if isinstance(refusal, Refusal):
                self._take_back(keys, before, accepted_before)
                return [refusal if o is culprit else _linked_to(culprit, refusal) for o in operations]
        return [self.transfers[o.key] for o in operations]

    def _take_back(self, keys: set[str], before: dict[str, Wallet], accepted_before: int) -> None:
        for key in keys - before.keys():
            self.wallets.pop(key, None)
            self.touched.discard(key)
        self.wallets.update(before)
        for transfer in self.accepted[accepted_before:]:
            del self.transfers[transfer.key]
        del self.accepted[accepted_before:]

    def _decide(self, operation: Operation, at: datetime) -> Outcome:
        stored = self.transfers.get(operation.key)
        if stored:
            return _replay(operation, stored)
        source = self._wallet(operation, operation.source, at)
        destination = self._wallet(operation, operation.destination, at)
        refusal = _refusal(operation, source, destination)
        if refusal or source is None or destination is None:
            return refusal or _not_found(operation)
        transfer = self._accept(operation, source, destination, at)
        self.transfers[transfer.key] = transfer
        self.accepted.append(transfer)
        return transfer

    def _wallet(self, operation: Operation, end: End, at: datetime) -> Wallet | None:
        key = end.key(operation.tenant_id, self.lane)
        wallet = self.wallets.get(key)
        if wallet is None and end.system:  # this lane's stripe, used for the first time
            wallet = system_wallet(operation.tenant_id, end.system, operation.money.currency, at)
            wallet.key = key
            self.wallets[key] = wallet
        return wallet

    def _accept(self, operation: Operation, source: Wallet, destination: Wallet, at: datetime) -> Transfer:
        amount = operation.money.amount_minor
        return Transfer(
            key=operation.key,
            id=operation.id,
            tenant_id=operation.tenant_id,
            kind=operation.kind,
            money=operation.money,
            debit=self._enter(source, operation.source.bucket, Direction.DEBIT, amount, at),
            credit=self._enter(destination, operation.destination.bucket, Direction.CREDIT, amount, at),
            at=at,
            actor=operation.actor,
            reference=operation.reference,
            metadata=operation.metadata,
            fingerprint=operation.fingerprint(),
        )

    def _enter(self, wallet: Wallet, bucket: Bucket, direction: Direction, amount: int, at: datetime) -> Transaction:
        wallet.buckets[bucket] += amount if direction is Direction.CREDIT else -amount
        wallet.sequences[bucket] += 1
        wallet.position += 1
        wallet.at = at
        self.touched.add(wallet.key)
        return Transaction(
            wallet_key=wallet.key,
            wallet_id=wallet.id,
            owner_id=wallet.owner_id,
            is_system=wallet.is_system,
            bucket=bucket,
            direction=direction,
            amount_minor=amount,
            balance_after=wallet.buckets[bucket],
            sequence=wallet.sequences[bucket],
            position=wallet.position,
        )


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


def _refusal(operation: Operation, source: Wallet | None, destination: Wallet | None) -> Refusal | None:
    """The first rule, in the order of precedence above, that this operation breaks."""
    if source is None or destination is None or not _may_act(operation, source, destination):
        return _not_found(operation)
    if source.is_system != (operation.source.system is not None):
        return _not_found(operation)
    if destination.is_system != (operation.destination.system is not None):
        return _not_found(operation)
    if operation.source == operation.destination:
        return Refusal(
            "SAME_BUCKET", "the two ends of a transfer must differ", rule="transfer.ends", walletId=source.id
        )
    for wallet in (source, destination):
        if wallet.currency != operation.money.currency:
            return Refusal(
                "CURRENCY_MISMATCH",
                f"wallet {wallet.id} holds {wallet.currency}, not {operation.money.currency}",
                rule="wallet.currency",
                walletId=wallet.id,
                currency=wallet.currency,
            )
    for wallet in (source, destination):
        if wallet.status != WalletStatus.ACTIVE:
            return Refusal(
                "WALLET_NOT_ACTIVE",
                f"wallet {wallet.id} is {wallet.status}",
                rule="wallet.status",
                walletId=wallet.id,
                status=str(wallet.status),
            )
    return _funds_refusal(operation, source, destination)


def _funds_refusal(operation: Operation, source: Wallet, destination: Wallet) -> Refusal | None:
    amount = operation.money.amount_minor
    rest = source.buckets[operation.source.bucket] - amount
    if rest < 0 and not source.is_system:
        return Refusal(
            "INSUFFICIENT_FUNDS",
            f"wallet {source.id} holds less than {operation.money}",
            rule="wallet.balance",
            walletId=source.id,
            availableMinor=str(source.buckets[operation.source.bucket]),
            requestedMinor=str(amount),
        )
    if rest < -INT64_MAX or destination.buckets[operation.destination.bucket] + amount > INT64_MAX:
        return Refusal("BALANCE_LIMIT", "a balance would leave the range of 64 bits", rule="wallet.range")
    return None


def _may_act(operation: Operation, source: Wallet, destination: Wallet) -> bool:
    wallet = source if operation.acts_on is Direction.DEBIT else destination
    return operation.scope.permits(owner_id=wallet.owner_id, tenant_id=wallet.tenant_id, id=wallet.id)


def _not_found(operation: Operation) -> Refusal:
    return Refusal(
        "WALLET_NOT_FOUND",
        "a wallet of this transfer does not exist, or is not yours to use",
        rule="wallet.access",
        walletIds=[operation.source.wallet_id, operation.destination.wallet_id],
    )


def _replay(operation: Operation, stored: Transfer) -> Outcome:
    """The stored outcome for the same content; to a caller who may not see the original, the id is simply taken."""
    same = operation.fingerprint() == stored.fingerprint
    if same and (operation.actor == stored.actor or stored.visible_to(operation.sight)):
        return stored
    return Refusal(
        "IDEMPOTENCY_MISMATCH",
        f"the id {operation.id} was used before for another operation",
        rule="operation.id",
        id=operation.id,
    )


def _linked_to(culprit: Operation, refusal: Refusal) -> Refusal:
    return Refusal(
        "LINKED_OPERATION_REFUSED",
        f"nothing was done, because operation {culprit.id} was refused: {refusal.code}",
        rule=refusal.rule,
        id=culprit.id,
        refusal=refusal.code,
    )
