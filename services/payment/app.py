"""Payment, put together. Run with `python -m libs.core.server services.payment.app:app`."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from libs.core.app import Platform, create_app
from libs.core.audit import INDEXES as AUDIT_INDEXES
from libs.core.events import Subscriber
from libs.core.graphql import Limits
from libs.core.pagination import Paginator
from libs.core.webhooks import INDEXES as WEBHOOK_INDEXES, Webhooks, event_types
from services.payment import events, jobs, routes, store, subscribers
from services.payment.balances import Balances
from services.payment.commands import Payment
from services.payment.commands.limits import tenant_rules
from services.payment.ledger import Ledger
from services.payment.schema import schema
from services.payment.settings import PaymentConfig, PaymentSettings
from services.payment.store import journal
from services.payment.turns import Turns
from services.payment.verify.watch import Watch

settings = PaymentSettings.load()


@asynccontextmanager
async def open_payment(platform: Platform) -> AsyncIterator[Payment]:
    keys = settings.journal_keys()
    async with (
        Turns(platform.redis) as turns,
        Ledger(platform.mongo, platform.outbox, platform.clock, tenant_rules(platform), turns) as ledger,
        Balances(platform.mongo, platform.live) as balances,
        Watch(platform.mongo, platform.outbox, platform.clock, keys) as watch,
        _webhooks(platform) as webhooks,
    ):
        platform.health.add("lane", ledger.health)
        platform.health.add("money", watch.health)
        yield Payment(
            platform,
            ledger,
            balances,
            Paginator(settings.cursor_secret.get_secret_value()),
            keys=keys,
            watch=watch,
            webhooks=webhooks,
        )


def payment_subscribers(platform: Platform, payment: Payment) -> Iterable[Subscriber]:
    return [subscribers.of_tenants(platform, payment), payment.webhooks.subscriber()]


def _webhooks(platform: Platform) -> Webhooks:
    return Webhooks(
        platform.mongo,
        platform.redis,
        platform.outbox,
        platform.clock,
        keys=settings.webhook_key.get_secret_value(),
        source=settings.service,
        event_types=event_types(events),
        development=settings.development,
    )


app = create_app(
    settings,
    schema=schema,
    indexes=(*store.INDEXES, *journal.INDEXES, *AUDIT_INDEXES, *WEBHOOK_INDEXES),
    configs=[PaymentConfig],
    routers=[routes.router],
    open=open_payment,
    subscribers=payment_subscribers,
    jobs=jobs.of_payment,
    limits=Limits(variable_values=20_000),  # a thousand transfers with some metadata each
)
