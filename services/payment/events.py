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
