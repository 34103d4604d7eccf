"""What commands work with, and how they make an operation of what was asked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from libs.core.app import Platform
from libs.core.context import Context
from libs.core.errors import InvalidInput
from libs.core.money import Money
from libs.core.pagination import Paginator
from libs.core.tenants import SystemWallet
from libs.core.webhooks import Webhooks
from services.payment.balances import Balances
from services.payment.domain import REFERENCE_LIMIT, End, Leg, Operation, Terms, TransferKind, Unproven
from services.payment.keys import JournalKeys
from services.payment.ledger import Ledger
from services.payment.verify.watch import Watch


@dataclass(frozen=True, slots=True)
class Payment:
    """What commands and queries work with."""

    platform: Platform
    ledger: Ledger
    balances: Balances
    paginator: Paginator
    keys: JournalKeys
    watch: Watch
    webhooks: Webhooks


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What every request to move money has. With `dry_run` the verdict is the same, and nothing is written."""

    id: str
    reference: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    dry_run: bool = False


def operation(
    payment: Payment,
    context: Context,
    asked: Asked,
    action: str,
    kind: TransferKind,
    legs: Sequence[Leg],
    *,
    amount: Money | None = None,
    terms: Terms | None = None,
    unproven: Unproven | None = None,
) -> Operation:
    """`action` is what the caller must be allowed to do with the wallets; `amount` what they said, if legs differ."""
    access, caller = payment.platform.access, context.caller
    return Operation(
        id=asked.id,
        tenant_id=context.tenant_id,
        kind=kind,
        legs=tuple(legs),
        actor=caller.user_id,
        scope=access.scope(caller, action),
        sight=access.scope(caller, "transfer:read"),
        asked=amount,
        terms=terms,
        unproven=unproven,
        reference=asked.reference,
        metadata=asked.metadata,
        dry_run=asked.dry_run,
    )


def amount_of(amount_minor: int, currency: str) -> Money:
    """Where the currency is not the caller's to say."""
    try:
        return Money(amount_minor, currency)
    except InvalidInput as error:
        raise InvalidInput(error.message, field="input.amount") from None


def system_end(context: Context, kind: SystemWallet, currency: str) -> End:
    return End.of_system(context.tenant_id, kind, currency)


def check_reason(reason: str, *, field: str = "input.reason", limit: int = REFERENCE_LIMIT) -> None:
    """What is decided by a person has a reason: `InvalidInput` without one."""
    if not 0 < len(reason.strip()) <= limit:
        raise InvalidInput(f"a reason has 1 to {limit} characters", field=field)
