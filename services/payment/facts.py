"""What is told of a group: an event for each transfer, more for what means more, and for refusals."""

from datetime import datetime

from libs.core.errors import Refusal
from libs.core.events import Event, EventData
from services.payment import events
from services.payment.domain import Book, Bucket, Operation, Transaction, Transfer, TransferKind, account_key

# Said only to who asked: whether these were the caller's wallets was not, or not yet, found out; or it is no more than
# a question back.
UNTOLD = {
    "WALLET_NOT_FOUND",
    "HOLD_NOT_FOUND",
    "TRANSFER_NOT_FOUND",
    "IDEMPOTENCY_MISMATCH",
    "LINKED_OPERATION_REFUSED",
    "STEP_UP_REQUIRED",
}
_OF_KIND: dict[str, type[events.DepositCompleted | events.WithdrawalCompleted]] = {
    TransferKind.DEPOSIT: events.DepositCompleted,
    TransferKind.WITHDRAWAL: events.WithdrawalCompleted,
}
_OF_BETS: dict[str, type[events.BetPlaced | events.BetSettled]] = {
    TransferKind.BET: events.BetPlaced,
    TransferKind.WIN: events.BetSettled,
}
_OF_REVERSALS: dict[str, type[events.DepositReversed | events.WithdrawalReversed | events.BetRolledBack]] = {
    TransferKind.DEPOSIT: events.DepositReversed,
    TransferKind.WITHDRAWAL: events.WithdrawalReversed,
    TransferKind.BET: events.BetRolledBack,
}


def of_transfer(book: Book, transfer: Transfer) -> list[Event]:
    told: list[EventData] = [_completed(transfer)]
    owner_id, at, kind = transfer.owner_id, transfer.at, _meaning(book, transfer)
    player = transfer.credit if transfer.debit.is_system else transfer.debit
    if kind in _OF_KIND:
        told.append(_OF_KIND[kind](**_movement(transfer, player)))
    elif kind in _OF_BETS:
        bucket = Bucket.BONUS if player.lot else Bucket.REAL  # a stake that was held was real before
        told.append(_OF_BETS[kind](**_movement(transfer, player), bucket=bucket, lot=player.lot))
    elif transfer.reverses:
        original = book.transfers[f"{transfer.tenant_id}:{transfer.reverses}"]
        undone = _OF_REVERSALS.get(_meaning(book, original))
        if undone:
            # What is owed moves nothing of the player's, and yet it is their deposit that is undone.
            player = original.credit if original.debit.is_system else original.debit
            owner_id = player.owner_id
            told.append(undone(**_movement(transfer, player), reverses=transfer.reverses))
    return [_event(book, transfer.tenant_id, owner_id, data, transfer.id, transfer.actor, at) for data in told]


def _meaning(book: Book, transfer: Transfer) -> str:
    """What was captured to the system is what the hold was for: a withdrawal, or a bet."""
    hold = book.holds.get(f"{transfer.tenant_id}:{transfer.hold_id}")
    captured = transfer.kind == TransferKind.CAPTURE and transfer.credit.is_system
    return hold.purpose if captured and hold else transfer.kind


def is_told(book: Book, operation: Operation, refusal: Refusal) -> bool:
    """Of a dry run nobody is told."""
    return refusal.code not in UNTOLD and not operation.dry_run and book.owner_of(operation) is not None


def of_refusal(book: Book, operation: Operation, refusal: Refusal, at: datetime) -> list[Event]:
    """Told to the owner of the wallet."""
    owner_id = book.owner_of(operation)
    if owner_id is None or not is_told(book, operation, refusal):
        return []
    data = events.TransferRefused(
        transfer_id=operation.id,
        kind=operation.kind,
        amount=str(operation.money.amount_minor),
        currency=operation.money.currency,
        source_wallet_id=operation.source.wallet_id,
        destination_wallet_id=operation.destination.wallet_id,
        code=refusal.code,
        rule=refusal.rule,
        at=at,
    )
    return [_event(book, operation.tenant_id, owner_id, data, operation.id, operation.actor, at)]


def _event(book: Book, tenant_id: str, owner_id: str, data: EventData, subject: str, actor: str, at: datetime) -> Event:
    number = book.next_event(tenant_id, owner_id, at)
    return about_owner(data, tenant_id, owner_id, subject, actor=actor, at=at, number=number)


def about_owner(
    data: EventData, tenant_id: str, owner_id: str, subject: str, *, actor: str, at: datetime, number: int
) -> Event:
    """Payment's events are ordered by owner, and numbered in the owner's account."""
    return Event.new(
        data,
        source="payment",
        subject=subject,
        tenant_id=tenant_id,
        partition_key=account_key(tenant_id, owner_id),
        time=at,
        actor=actor,
        sequence=number,
    )


def _completed(transfer: Transfer) -> events.TransferCompleted:
    return events.TransferCompleted(
        transfer_id=transfer.id,
        operation_id=transfer.operation_id,
        hold_id=transfer.hold_id,
        reverses=transfer.reverses,
        kind=transfer.kind,
        amount=str(transfer.money.amount_minor),
        currency=transfer.money.currency,
        debit=_end(transfer.debit),
        credit=_end(transfer.credit),
        reference=transfer.reference,
        at=transfer.at,
    )


def _end(line: Transaction) -> events.TransferEnd:
    return events.TransferEnd(
        wallet_id=line.wallet_id,
        owner_id=line.owner_id,
        bucket=line.bucket,
        lot=line.lot,
        balance_after=str(line.balance_after),
        sequence=line.sequence,
    )


def _movement(transfer: Transfer, player: Transaction) -> dict[str, object]:
    return {
        "transfer_id": transfer.id,
        "wallet_id": player.wallet_id,
        "owner_id": player.owner_id,
        "amount": str(transfer.money.amount_minor),
        "currency": transfer.money.currency,
        "reference": transfer.reference,
        "at": transfer.at,
    }
