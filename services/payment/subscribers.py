"""What payment does when other services tell it something."""

from collections.abc import Sequence

from libs.core.app import Platform
from libs.core.events import Event, EventView, Subscriber
from services.payment import commands
from services.payment.commands import Payment


class CurrencyAdded(EventView, type="tenant.currency_added"):
    code: str


def of_tenants(platform: Platform, payment: Payment) -> Subscriber:
    """A tenant's currency needs its system wallets. To open one that is there changes nothing: no inbox."""

    async def on_currency_added(events: Sequence[Event]) -> None:
        for event in events:
            await commands.open_system_wallets(payment, event.tenant_id, CurrencyAdded.of(event).code)

    return Subscriber(
        platform.mongo,
        platform.redis,
        group="payment",
        source="core",
        idempotent={CurrencyAdded.event_type: on_currency_added},
    )
