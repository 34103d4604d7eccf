"""Payment's documents, and the indexes over them.

wallets        {_id: tenant:id, …}          a wallet's state; a system wallet has a stripe per lane: …:lane
transfers      {_id: tenant:id, …}          an accepted movement; the first of an operation has the id of the caller
transactions   {_id: wallet key:position}   the ledger's lines; position and sequence are gapless and unique
accounts       {_id: tenant:owner}          what is per owner: the number of its last event, status, limits, counters
holds          {_id: tenant:id, …}          money set aside, and what became of it
reversals      {_id: transfer key}          how much of a transfer was reversed
quotes         {_id: tenant:id, …}          what an amount of one currency buys of another
adjustment_requests                         what a second operator has to approve
journal        {_id: lane:sequence}         a block for each group: see `domain/journal.py`

Transfers, transactions and blocks are only ever inserted. What of them is hashed into the journal are the bytes that
are stored, so each has a `salt`: without one, who knows all else of a stranger's line could try out balances.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from libs.core.migrations import Index
from libs.core.money import Money
from libs.core.mongo import Document
from services.payment.domain import (
    Account,
    Direction,
    Hold,
    HoldStatus,
    Transaction,
    Transfer,
    Wallet,
    wallet_key,
)
from services.payment.domain.limits import (
    AccountStatus,
    Limit,
    LimitOperation,
    LimitSource,
    LimitWindow,
    PendingChange,
)

# An exchange is answered for as long as its quote is there.
QUOTES_KEPT_S = 400 * 24 * 3600

INDEXES = (
    Index("wallets", (("tenant_id", 1), ("is_stripe", 1), ("created_at", -1), ("_id", -1))),
    Index("wallets", (("tenant_id", 1), ("owner_id", 1), ("created_at", -1), ("_id", -1))),
    Index("transfers", (("tenant_id", 1), ("parties", 1), ("at", -1), ("_id", -1))),
    Index("transfers", (("tenant_id", 1), ("at", -1), ("_id", -1))),
    Index("transactions", (("wallet", 1), ("bucket", 1), ("sequence", -1)), unique=True),
    # A system wallet's lines are spread over its stripes, so that they need an order of their own: time.
    Index(
        "transactions", (("system_wallet", 1), ("at", -1), ("_id", -1)), partial={"system_wallet": {"$exists": True}}
    ),
    Index("accounts"),
    Index("holds", (("wallet", 1), ("expires_at", 1)), partial={"status": HoldStatus.OPEN.value}),
    Index("holds", (("expires_at", 1),), partial={"status": HoldStatus.OPEN.value}),
    Index("holds", (("tenant_id", 1), ("owner_id", 1), ("placed_at", -1), ("_id", -1))),
    Index("reversals"),
    Index("quotes", (("expires_at", 1),), ttl_s=QUOTES_KEPT_S),
    Index("adjustment_requests", (("tenant_id", 1), ("requested_at", -1), ("_id", -1))),
    Index("journal"),
)


def wallet_from(row: Mapping[str, Any]) -> Wallet:
    return Wallet(
        key=row["_id"],
        id=row["id"],
        tenant_id=row["tenant_id"],
        owner_id=row["owner_id"],
        kind=row["kind"],
        category=row["category"],
        currency=row["currency"],
        created_at=row["created_at"],
        at=row["at"],
        status=row["status"],
        buckets=row["buckets"],
        sequences=row["sequences"],
        position=int(row["position"]),
        lots=row["lots"],
        credit_limit=int(row["credit_limit"]),
        hold_due=row["hold_due"],
    )


def wallet_row(wallet: Wallet) -> Document:
    return {"_id": wallet.key, **wallet_identity(wallet), **wallet_state(wallet)}


def wallet_identity(wallet: Wallet) -> Document:
    """The part of a wallet's document that groups leave alone: what never changes, and what commands decide."""
    return {
        "id": wallet.id,
        "tenant_id": wallet.tenant_id,
        "owner_id": wallet.owner_id,
        "kind": wallet.kind,
        "category": wallet.category,
        "currency": wallet.currency,
        "is_stripe": wallet.key != wallet_key(wallet.tenant_id, wallet.id),
        "created_at": wallet.created_at,
        "status": wallet.status,
        "credit_limit": wallet.credit_limit,
    }


def wallet_state(wallet: Wallet) -> Document:
    """The part of a wallet's document that changes with every transfer."""
    return {
        "at": wallet.at,
        "buckets": wallet.buckets,
        "sequences": wallet.sequences,
        "position": wallet.position,
        "lots": wallet.lots,
        "hold_due": wallet.hold_due,
    }


def account_from(row: Mapping[str, Any]) -> Account:
    return Account(
        key=row["_id"],
        tenant_id=row["tenant_id"],
        owner_id=row["owner_id"],
        at=row["at"],
        events=int(row["events"]),
        status=row.get("status", AccountStatus.ACTIVE),
        excluded_until=row.get("excluded_until"),
        limits=[limit_from(limit) for limit in row["limits"]] if row.get("limits") else [],
        counters=row.get("counters") or {},
    )


def limit_from(row: Mapping[str, Any]) -> Limit:
    pending = row.get("pending")
    return Limit(
        operation=LimitOperation(row["operation"]),
        window=LimitWindow(row["window"]),
        source=LimitSource(row["source"]),
        currency=row["currency"],
        amount_minor=int(row["amount"]),
        since=row["since"],
        scope=row["scope"],
        pending=PendingChange(_amount(pending["amount"]), pending["at"]) if pending else None,
    )


def _amount(number: int | None) -> int | None:
    return None if number is None else int(number)


def limit_row(limit: Limit) -> Document:
    return {
        "operation": str(limit.operation),
        "window": str(limit.window),
        "source": str(limit.source),
        "currency": limit.currency,
        "amount": limit.amount_minor,
        "since": limit.since,
        "scope": limit.scope,
        "pending": {"amount": limit.pending.amount_minor, "at": limit.pending.at} if limit.pending else None,
    }


def account_state(account: Account) -> Document:
    """The part that groups write; status and limits are written by those who decide them."""
    return {"events": account.events, "at": account.at, "counters": account.counters}


def hold_from(row: Mapping[str, Any]) -> Hold:
    return Hold(
        key=row["_id"],
        id=row["id"],
        tenant_id=row["tenant_id"],
        wallet_key=row["wallet"],
        wallet_id=row["wallet_id"],
        owner_id=row["owner_id"],
        currency=row["currency"],
        amount=int(row["amount"]),
        purpose=row["purpose"],
        expires_at=row["expires_at"],
        placed_at=row["placed_at"],
        captured=int(row["captured"]),
        released=int(row["released"]),
        status=row["status"],
    )


def hold_row(hold: Hold) -> Document:
    return {
        "_id": hold.key,
        "id": hold.id,
        "tenant_id": hold.tenant_id,
        "wallet": hold.wallet_key,
        "wallet_id": hold.wallet_id,
        "owner_id": hold.owner_id,
        "currency": hold.currency,
        "amount": hold.amount,
        "purpose": str(hold.purpose),
        "expires_at": hold.expires_at,
        "placed_at": hold.placed_at,
        "captured": hold.captured,
        "released": hold.released,
        "status": str(hold.status),
    }


def transaction_row(transfer: Transfer, line: Transaction) -> Document:
    row = {
        "_id": line.key,
        "tenant_id": transfer.tenant_id,
        "wallet": line.wallet_key,
        "wallet_id": line.wallet_id,
        "owner_id": line.owner_id,
        "bucket": line.bucket,
        "direction": line.direction,
        "currency": transfer.money.currency,
        "transfer_id": transfer.id,
        "kind": transfer.kind,
        "reference": transfer.reference,
        "at": transfer.at,
        "sequence": line.sequence,
        "position": line.position,
        "amount": line.amount_minor,
        "balance_after": line.balance_after,
    }
    if line.lot:
        row["lot"] = line.lot
    if line.is_system:
        row["system_wallet"] = wallet_key(transfer.tenant_id, line.wallet_id)
    return row


def transfer_row(transfer: Transfer, metadata: str | None = None) -> Document:
    """Holds both lines too, so that asking again for an id is one read. `metadata` spares its encoding anew."""
    debit, credit = transfer.debit, transfer.credit
    row = {
        "_id": transfer.key,
        "id": transfer.id,
        "tenant_id": transfer.tenant_id,
        "kind": transfer.kind,
        "amount": transfer.money.amount_minor,
        "currency": transfer.money.currency,
        "debit": _line_row(debit),
        "credit": _line_row(credit),
        "parties": sorted({line.owner_id for line in (debit, credit) if not line.is_system}),
        "at": transfer.at,
        "actor": transfer.actor,
        "reference": transfer.reference,
        # A text: its names mean nothing to MongoDB.
        "metadata": orjson.dumps(transfer.metadata).decode() if metadata is None else metadata,
        "fingerprint": transfer.fingerprint,
    }
    if transfer.legs > 1:
        row |= {"operation_id": transfer.operation_id, "leg": transfer.leg, "legs": transfer.legs}
    if transfer.hold_id:
        row["hold_id"] = transfer.hold_id
    if transfer.reverses:
        row["reverses"] = transfer.reverses
    return row


def transfer_from(row: Mapping[str, Any]) -> Transfer:
    return Transfer(
        key=row["_id"],
        id=row["id"],
        tenant_id=row["tenant_id"],
        kind=row["kind"],
        money=Money(int(row["amount"]), row["currency"]),
        debit=_line_from(row, Direction.DEBIT),
        credit=_line_from(row, Direction.CREDIT),
        at=row["at"],
        actor=row["actor"],
        reference=row["reference"],
        metadata=orjson.loads(row["metadata"]),
        fingerprint=row["fingerprint"],
        operation_id=row.get("operation_id") or row["id"],
        leg=row.get("leg", 0),
        legs=row.get("legs", 1),
        hold_id=row.get("hold_id", ""),
        reverses=row.get("reverses", ""),
    )


def _line_row(line: Transaction) -> Document:
    row = {
        "wallet": line.wallet_key,
        "wallet_id": line.wallet_id,
        "owner_id": line.owner_id,
        "is_system": line.is_system,
        "bucket": line.bucket,
        "sequence": line.sequence,
        "position": line.position,
        "balance_after": line.balance_after,
    }
    if line.lot:
        row["lot"] = line.lot
    return row


def _line_from(row: Mapping[str, Any], direction: Direction) -> Transaction:
    line = row[direction]
    return Transaction(
        wallet_key=line["wallet"],
        wallet_id=line["wallet_id"],
        owner_id=line["owner_id"],
        is_system=line["is_system"],
        bucket=line["bucket"],
        lot=line.get("lot", ""),
        direction=direction,
        amount_minor=int(row["amount"]),
        balance_after=int(line["balance_after"]),
        sequence=int(line["sequence"]),
        position=int(line["position"]),
    )
