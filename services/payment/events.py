"""The facts that payment publishes. Amounts are decimal strings of minor units, as everywhere outside the database."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from libs.core.events.event import EventData


class WalletCreated(EventData, type="wallet.created", version=1):
    wallet_id: str
    owner_id: str
    kind: str
    category: str
    currency: str
    created_at: datetime


class TransferEnd(BaseModel, frozen=True):
    """What a transfer did to one bucket. `sequence` is the transaction's, gapless in its wallet and bucket."""

    wallet_id: str
    owner_id: str
    bucket: Literal["real", "bonus", "locked"]
    balance_after: str
    sequence: int


class TransferCompleted(EventData, type="transfer.completed", version=1):
    transfer_id: str
    kind: str
    amount: str
    currency: str
    debit: TransferEnd
    credit: TransferEnd
    reference: str
    at: datetime


class TransferRefused(EventData, type="transfer.refused", version=1):
    """A business rule said no. `rule` is what refused; ids that were refused may be used again."""

    transfer_id: str
    kind: str
    amount: str
    currency: str
    source_wallet_id: str
    destination_wallet_id: str
    code: str
    rule: str
    at: datetime


class PendingLimit(BaseModel, frozen=True):
    """What a limit will be at an instant: another amount, or with null none at all."""

    amount: str | None
    at: datetime


class LimitChanged(EventData, type="limit.changed", version=1):
    """A limit is `amount` now, null if it is none any more, or will be something else: `pending`."""

    owner_id: str
    operation: Literal["deposit", "withdrawal", "wager", "loss", "balance", "transfer"]
    window: Literal["single", "daily", "weekly", "monthly", "lifetime"]
    limit_source: Literal["kyc", "operator", "product", "player"]
    currency: str
    scope: str
    amount: str | None
    pending: PendingLimit | None
    at: datetime


class AccountSuspended(EventData, type="account.suspended", version=1):
    """An operator lets nothing leave this owner's wallets, and nothing be paid in."""

    owner_id: str
    reason: str
    at: datetime


class AccountResumed(EventData, type="account.resumed", version=1):
    owner_id: str
    reason: str
    at: datetime


class AccountSelfExcluded(EventData, type="account.self_excluded", version=1):
    """The owner wants to be kept from paying in and from playing until then. Told again if the end becomes later."""

    owner_id: str
    until: datetime
    at: datetime
