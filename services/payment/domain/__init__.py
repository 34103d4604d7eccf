"""The rules of money, with nothing that waits: what a wallet is, what can be asked for, and what is refused.

wallets     what holds money, and whose it is        operations  what can be asked, and what is written
limits      how much of what, over which window      refusals    why not, in order of precedence
fees        what an operation costs, and whom        exchange    one currency in another
requests    what a second person has to approve      journal     what makes the ledger hard to rewrite
book        all of it applied to what was loaded
"""

from services.payment.domain.book import Book, Changes, TenantRules, expiry
from services.payment.domain.operations import (
    METADATA_LIMIT_BYTES,
    METADATA_LIMIT_DEPTH,
    REFERENCE_LIMIT,
    Capture,
    Direction,
    End,
    Hold,
    HoldStatus,
    Leg,
    Operation,
    Outcome,
    Place,
    Quoted,
    Release,
    Reverse,
    Terms,
    Transaction,
    Transfer,
    TransferKind,
    Unproven,
    check_storable,
    linked,
    parse_transfer_id,
)
from services.payment.domain.wallets import (
    SYSTEM_OWNER,
    Account,
    Bucket,
    Wallet,
    WalletKind,
    WalletStatus,
    account_key,
    stripe_key,
    system_wallet,
    user_wallet,
    wallet_key,
)

__all__ = [
    "METADATA_LIMIT_BYTES",
    "METADATA_LIMIT_DEPTH",
    "REFERENCE_LIMIT",
    "SYSTEM_OWNER",
    "Account",
    "Book",
    "Bucket",
    "Capture",
    "Changes",
    "Direction",
    "End",
    "Hold",
    "HoldStatus",
    "Leg",
    "Operation",
    "Outcome",
    "Place",
    "Quoted",
    "Release",
    "Reverse",
    "TenantRules",
    "Terms",
    "Transaction",
    "Transfer",
    "TransferKind",
    "Unproven",
    "Wallet",
    "WalletKind",
    "WalletStatus",
    "account_key",
    "check_storable",
    "expiry",
    "linked",
    "parse_transfer_id",
    "stripe_key",
    "system_wallet",
    "user_wallet",
    "wallet_key",
]
