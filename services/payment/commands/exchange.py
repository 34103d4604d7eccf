"""One currency into another, over the tenant's nostro wallets, at a rate that was quoted before."""

from dataclasses import dataclass
from datetime import timedelta

from libs.core.context import Context
from libs.core.errors import InvalidInput, Refusal
from libs.core.money import Money
from libs.core.tenants import SystemWallet
from services.payment import store
from services.payment.commands.payment import Asked, Payment, operation, system_end
from services.payment.domain import End, Leg, Outcome, Quoted, TransferKind, refusals
from services.payment.domain.exchange import Quote, converted, decimal, effective_rate
from services.payment.settings import PaymentConfig


@dataclass(frozen=True, slots=True)
class NewQuote:
    id: str
    source: Money
    target_currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewExchange(Asked):
    """`id` is the quote's: a quote is taken up once, however often that is asked for."""

    source_id: str
    destination_id: str


async def quote(payment: Payment, context: Context, new: NewQuote) -> Quote | Refusal:
    """What an amount buys, for as long as the tenant keeps a rate. Asked again under one id, it is the same quote."""
    platform, tenant_id = payment.platform, context.tenant_id
    source = await platform.tenants.currency(tenant_id, new.source.currency)
    target = await platform.tenants.currency(tenant_id, new.target_currency)
    config = platform.config.get(PaymentConfig, tenant_id)
    rate = config.rates.get(f"{source.code}/{target.code}")
    if rate is None:
        return Refusal(
            "RATE_UNAVAILABLE",
            f"{source.code} is not exchanged into {target.code}",
            rule="exchange.rate",
            source=source.code,
            target=target.code,
        )
    exact = effective_rate(rate.rate, rate.spread_basis_points)
    try:
        bought = converted(new.source.amount_minor, exact, source.scale, target.scale)
    except OverflowError:
        raise InvalidInput("this is more than a balance can hold", field="input.amount") from None
    if not bought:
        return Refusal("AMOUNT_TOO_SMALL", "this buys less than one minor unit", rule="exchange.amount")
    now = platform.clock.now()
    fresh = Quote(
        id=new.id,
        tenant_id=tenant_id,
        owner_id=context.caller.user_id,
        source=new.source,
        target=Money(bought, target.code),
        rate=decimal(exact),
        at=now,
        expires_at=now + timedelta(seconds=config.quote_s),
    )
    stored = await store.open_quote(platform.mongo.db, fresh)
    if (stored.owner_id, stored.source, stored.target.currency) != (fresh.owner_id, fresh.source, target.code):
        return refusals.idempotency_mismatch(new.id)
    return stored


async def exchange(payment: Payment, context: Context, new: NewExchange) -> Outcome:
    """Two legs: the one currency to its nostro wallet, the other from its own. Each sums to zero by itself."""
    quoted = await store.quote(payment.platform.mongo.db, context.tenant_id, new.id)
    if quoted is None or quoted.owner_id != context.caller.user_id:
        return refusals.quote_not_found(new.id)
    kind = TransferKind.EXCHANGE
    sold, bought = (system_end(context, SystemWallet.NOSTRO, m.currency) for m in (quoted.source, quoted.target))
    legs = [
        Leg(kind, End(new.source_id), sold, quoted.source),
        Leg(kind, bought, End(new.destination_id), quoted.target),
    ]
    terms = Quoted(quoted.expires_at)
    asked = operation(payment, context, new, "exchange:create", kind, legs, terms=terms)
    return await payment.ledger.post(asked, context.deadline)
