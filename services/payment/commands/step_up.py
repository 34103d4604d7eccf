"""A player's own money that goes away, above an amount: they show anew that it is them, for this payment alone."""

import asyncio
from dataclasses import dataclass

from libs.core.context import Context
from libs.core.errors import Refusal
from libs.core.money import Money
from libs.core.stepup import SensitiveOperation, confirm
from services.payment.commands.payment import Asked, Payment
from services.payment.domain import Unproven
from services.payment.settings import PaymentConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmable(Asked):
    """What may have to be confirmed: see `libs/core/stepup.py`."""

    step_up_token: str = ""


async def unproven(
    payment: Payment, context: Context, new: Confirmable, action: str, money: Money, *, source: str, payee: str = ""
) -> Unproven | None:
    """What is missing, if it turns out to be needed: only the ledger knows whose wallets these are, and whether this

    was done before. `action` is the mutation's name.
    """
    config = payment.platform.config.get(PaymentConfig, context.tenant_id)
    threshold = config.step_up_threshold(money.currency)
    # Services have no second factor. Whose money they move has asked them to, somewhere else.
    if threshold is None or money.amount_minor <= threshold or context.caller.kind == "service":
        return None
    operation = SensitiveOperation(
        action=action,
        id=new.id,
        amount_minor=money.amount_minor,
        currency=money.currency,
        source=source,
        payee=payee,
    )
    try:
        if new.step_up_token:
            await asyncio.sleep(0)  # a list may have a thousand signatures to check: others come between
        await confirm(payment.platform.identity, new.step_up_token, context.caller, operation)
    except Refusal as refusal:
        return Unproven(refusal, operators=config.step_up_operators)
    return None
