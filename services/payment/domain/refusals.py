"""Why an operation is refused, in order of precedence: the first that applies is the answer.

    FEE_EXCEEDS_AMOUNT        nothing would be left after the fee that is taken out of the amount
    HOLD_NOT_FOUND            there is no such hold, or it is not the caller's to act on: one answer
    TRANSFER_NOT_FOUND        there is no such transfer to reverse, or it is not the caller's to see: one answer
    QUOTE_NOT_FOUND           there is no such quote, or it is somebody else's: one answer
    IDEMPOTENCY_MISMATCH      the id was used before for something else
    WALLET_NOT_FOUND          a wallet does not exist in this tenant, or is not the caller's to act on: one answer
    NOT_REVERSIBLE            a transfer of this kind is not reversed
    REVERSAL_EXCEEDED         the reversals of a transfer would sum to more than its amount
    HOLD_CLOSED               the hold is captured, voided or expired
    HOLD_EXCEEDED             more would be captured than is left of the hold
    HOLD_OVERDUE              a hold cannot be placed to expire in the past
    QUOTE_EXPIRED             the rate was quoted for a time that is over
    SAME_BUCKET               the two ends are the same bucket (or lot) of the same wallet
    CURRENCY_MISMATCH         a wallet holds another currency than the amount's
    WALLET_NOT_ACTIVE         a wallet is frozen or closed
    ACCOUNT_SUSPENDED         the owner may not pay, nor be paid in
    SELF_EXCLUDED             the player has excluded themselves from playing
    LIMIT_REACHED             a limit leaves less than the amount
    INSUFFICIENT_FUNDS        a guarded bucket or lot would go below zero, or below the wallet's credit limit
    BALANCE_LIMIT             a balance would leave the range of a 64-bit integer
    STEP_UP_REQUIRED          the player has to confirm this with a fresh factor: asked for only what would be done
    STEP_UP_INVALID           the token that was to confirm this is of another operation or session, or expired
    LINKED_OPERATION_REFUSED  another operation of the same all-or-nothing set was refused

Each has a row in `docs/reference/errors.md`.
"""

from datetime import datetime
from typing import TYPE_CHECKING

from libs.core.errors import Refusal
from libs.core.money import Money

if TYPE_CHECKING:
    from services.payment.domain.operations import Hold, Leg, Operation, Transfer
    from services.payment.domain.wallets import Account, Wallet


def idempotency_mismatch(id: str) -> Refusal:  # noqa: A002
    return Refusal(
        "IDEMPOTENCY_MISMATCH", f"the id {id} was used before for another operation", rule="operation.id", id=id
    )


def hold_not_found(hold_id: str) -> Refusal:
    return Refusal(
        "HOLD_NOT_FOUND", "there is no such hold, or it is not yours to use", rule="hold.access", holdId=hold_id
    )


def transfer_not_found(transfer_id: str) -> Refusal:
    return Refusal(
        "TRANSFER_NOT_FOUND",
        "there is no such transfer, or it is not yours to see",
        rule="transfer.access",
        transferId=transfer_id,
    )


def quote_not_found(quote_id: str) -> Refusal:
    return Refusal("QUOTE_NOT_FOUND", "there is no such quote of yours", rule="quote.access", quoteId=quote_id)


def wallet_not_found(operation: "Operation") -> Refusal:
    return Refusal(
        "WALLET_NOT_FOUND",
        "a wallet of this transfer does not exist, or is not yours to use",
        rule="wallet.access",
        walletIds=[operation.source.wallet_id, operation.destination.wallet_id],
    )


def not_reversible(original: "Transfer") -> Refusal:
    return Refusal(
        "NOT_REVERSIBLE",
        f"a transfer of kind {original.kind} is not reversed",
        rule="reversal.kind",
        kind=original.kind,
    )


def reversal_exceeded(original: "Transfer", reversed_minor: int, asked: Money) -> Refusal:
    return Refusal(
        "REVERSAL_EXCEEDED",
        f"of {original.money} only {original.money.amount_minor - reversed_minor} is not reversed yet",
        rule="reversal.amount",
        transferId=original.id,
        amountMinor=str(original.money.amount_minor),
        reversedMinor=str(reversed_minor),
        requestedMinor=str(asked.amount_minor),
    )


def fee_exceeds_amount(fee_minor: int, money: Money) -> Refusal:
    return Refusal(
        "FEE_EXCEEDS_AMOUNT",
        f"nothing of {money} would be left after the fee",
        rule="fee.deducted",
        feeMinor=str(fee_minor),
        requestedMinor=str(money.amount_minor),
    )


def hold_closed(hold: "Hold") -> Refusal:
    return Refusal(
        "HOLD_CLOSED", f"the hold is {hold.status}", rule="hold.status", holdId=hold.id, status=str(hold.status)
    )


def hold_exceeded(hold: "Hold", asked: Money) -> Refusal:
    return Refusal(
        "HOLD_EXCEEDED",
        f"only {hold.rest} of the hold is left",
        rule="hold.amount",
        holdId=hold.id,
        restMinor=str(hold.rest),
        requestedMinor=str(asked.amount_minor),
    )


def hold_overdue(expires_at: datetime) -> Refusal:
    return Refusal(
        "HOLD_OVERDUE",
        "a hold cannot be placed to expire in the past",
        rule="hold.expiry",
        expiresAt=expires_at.isoformat(),
    )


def quote_expired(expires_at: datetime) -> Refusal:
    return Refusal(
        "QUOTE_EXPIRED", "this rate does not hold any more", rule="quote.expiry", expiredAt=expires_at.isoformat()
    )


def same_bucket(leg: "Leg") -> Refusal:
    return Refusal(
        "SAME_BUCKET",
        "the two ends of a transfer must differ",
        rule="transfer.ends",
        walletId=leg.source.wallet_id,
    )


def currency_mismatch(wallet: "Wallet", money: Money) -> Refusal:
    return Refusal(
        "CURRENCY_MISMATCH",
        f"wallet {wallet.id} holds {wallet.currency}, not {money.currency}",
        rule="wallet.currency",
        walletId=wallet.id,
        currency=wallet.currency,
    )


def wallet_not_active(wallet: "Wallet") -> Refusal:
    return Refusal(
        "WALLET_NOT_ACTIVE",
        f"wallet {wallet.id} is {wallet.status}",
        rule="wallet.status",
        walletId=wallet.id,
        status=str(wallet.status),
    )


def account_suspended(account: "Account") -> Refusal:
    return Refusal("ACCOUNT_SUSPENDED", "this account is suspended", rule="account.status", ownerId=account.owner_id)


def self_excluded(account: "Account", until: datetime) -> Refusal:
    return Refusal(
        "SELF_EXCLUDED",
        "this player has excluded themselves",
        rule="account.exclusion",
        ownerId=account.owner_id,
        until=until.isoformat(),
    )


def insufficient_funds(wallet: "Wallet", leg: "Leg", available: int) -> Refusal:
    return Refusal(
        "INSUFFICIENT_FUNDS",
        f"wallet {wallet.id} holds less than {leg.money}",
        rule="wallet.balance",
        walletId=wallet.id,
        bucket=str(leg.source.bucket),
        availableMinor=str(available),
        requestedMinor=str(leg.money.amount_minor),
    )


def balance_limit() -> Refusal:
    return Refusal("BALANCE_LIMIT", "a balance would leave the range of 64 bits", rule="wallet.range")


def linked_to(culprit: "Operation", refusal: Refusal) -> Refusal:
    return Refusal(
        "LINKED_OPERATION_REFUSED",
        f"nothing was done, because operation {culprit.id} was refused: {refusal.code}",
        rule=refusal.rule,
        id=culprit.id,
        refusal=refusal.code,
    )
