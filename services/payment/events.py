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


class WalletFrozen(EventData, type="wallet.frozen", version=1):
    wallet_id: str
    owner_id: str
    reason: str


class WalletUnfrozen(EventData, type="wallet.unfrozen", version=1):
    wallet_id: str
    owner_id: str
    reason: str


class WalletClosed(EventData, type="wallet.closed", version=1):
    wallet_id: str
    owner_id: str
    reason: str


class CreditLimitChanged(EventData, type="wallet.credit_limit_changed", version=1):
    """How far below zero the wallet's real bucket may go from now on."""

    wallet_id: str
    owner_id: str
    reason: str
    credit_limit: str


class TransferEnd(BaseModel, frozen=True):
    """What a transfer did to one bucket. `sequence` is the transaction's, gapless in its wallet and bucket."""

    wallet_id: str
    owner_id: str
    bucket: Literal["real", "bonus", "locked"]
    lot: str
    balance_after: str
    sequence: int


class TransferCompleted(EventData, type="transfer.completed", version=1):
    """A movement of money, whatever it is for. The transfers of one operation share its id, and each is told.

    `hold_id` and `reverses` name what a capture, void, expiry or reversal is of; else they are empty.
    """

    transfer_id: str
    operation_id: str
    hold_id: str
    reverses: str
    kind: str
    amount: str
    currency: str
    debit: TransferEnd
    credit: TransferEnd
    reference: str
    at: datetime


class Movement(BaseModel, frozen=True):
    """A player's money that was moved. A fee is a transfer of its own, and so is each lot's part of a stake."""

    transfer_id: str
    wallet_id: str
    owner_id: str
    amount: str
    currency: str
    reference: str
    at: datetime


class DepositCompleted(Movement, EventData, type="deposit.completed", version=1):
    pass


class DepositReversed(Movement, EventData, type="deposit.reversed", version=1):
    reverses: str


class WithdrawalCompleted(Movement, EventData, type="withdrawal.completed", version=1):
    pass


class WithdrawalReversed(Movement, EventData, type="withdrawal.reversed", version=1):
    reverses: str


class BetPlaced(Movement, EventData, type="bet.placed", version=1):
    """A stake, or the part of one that a lot pays: `bucket` says which."""

    bucket: Literal["real", "bonus"]
    lot: str


class BetSettled(Movement, EventData, type="bet.settled", version=1):
    """What was won."""

    bucket: Literal["real", "bonus"]
    lot: str


class BetRolledBack(Movement, EventData, type="bet.rolled_back", version=1):
    reverses: str


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


# No tenant's: what is true of the whole platform. No tenant can have this id: theirs begin with a letter or digit.
PLATFORM = "@platform"


class JournalHeadSigned(EventData, type="journal.head_signed", version=1):
    """Keep these elsewhere: with one, anybody can tell whether the journal up to its last block is still the same.

    Hashes, root and signature are hex; see `docs/howto/verify-the-ledger.md`.
    """

    lane: int
    number: int
    first: int
    last: int
    previous: str
    root: str
    hash: str
    signed_at: datetime
    key_id: str
    signature: str


class LedgerDiverged(EventData, type="ledger.diverged", version=1):
    """Money does not add up, or what is stored is not what was: `where`, as far as it is known. `tenant_id` is empty

    where it is no single tenant's.
    """

    kind: str
    where: str
    expected: str
    found: str
    tenant_id: str
    found_at: datetime
