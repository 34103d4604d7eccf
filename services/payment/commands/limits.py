"""What an account is held to, and who may change it: limits, suspension, self-exclusion.

Each change is one transaction: the account's own fields, an audit row, an event. It writes the document that every
guarded debit writes, so that a debit which is under way is decided again, and one that comes after knows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from libs.core.app import Platform
from libs.core.audit import AuditLog
from libs.core.context import Context
from libs.core.errors import Forbidden, InvalidInput
from libs.core.events import EventData
from libs.core.mongo import Session
from services.payment import events, facts
from services.payment.commands.payment import Payment, check_reason
from services.payment.domain import Account, TenantRules
from services.payment.domain.limits import (
    ALL_WALLETS,
    AccountStatus,
    Limit,
    LimitOperation,
    LimitSource,
    LimitUse,
    LimitWindow,
    Standing,
    calendar_at,
    check_amount,
    excluded,
    in_force,
    use_of,
    with_limit,
    without_limit,
)
from services.payment.settings import PaymentConfig
from services.payment.store import accounts

REASON_LIMIT = 500


@dataclass(frozen=True, slots=True)
class LimitOf:
    """Which limit. `source` is the player for one that they set for themselves."""

    owner_id: str
    operation: LimitOperation
    window: LimitWindow
    source: LimitSource
    currency: str
    scope: str = ALL_WALLETS


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """An account's standing, and what is left of the limits in force, the product's included."""

    owner_id: str
    standing: Standing
    limits: Sequence[LimitUse]


# What a change makes of a standing at an instant, and what is to be told of it.
Decide = Callable[[Standing, datetime], Standing]
Tell = Callable[[Standing, datetime], EventData]


def tenant_rules(platform: Platform) -> TenantRules:
    """What the ledger has to know of tenants: their calendars, and the limits that all of their accounts have."""
    tenants, config = platform.tenants, platform.config
    return TenantRules(
        calendar=lambda tenant_id, at: calendar_at(tenants.time_zone(tenant_id), at),
        limits=lambda tenant_id: config.get(PaymentConfig, tenant_id).product_limits,
    )


async def limits_of(payment: Payment, context: Context, owner_id: str) -> AccountLimits | None:
    """None for an owner whose limits the caller may not see."""
    platform, tenant_id = payment.platform, context.tenant_id
    if not _permits(payment, context, "limit:read", owner_id):
        return None
    account = await accounts.load_account(platform.mongo.db, tenant_id, owner_id, platform.clock.now())
    return await _with_use(payment, account, _standing(account))


async def _with_use(payment: Payment, account: Account, standing: Standing) -> AccountLimits:
    platform, now = payment.platform, payment.platform.clock.now()
    products = platform.config.get(PaymentConfig, account.tenant_id).product_limits
    limits = in_force(standing.limits, products, now)
    counters = account.counters
    if any(limit.operation is LimitOperation.BALANCE for limit in limits):
        counters = counters | await accounts.balances_of(platform.mongo.db, account.tenant_id, account.owner_id)
    tenant = await platform.tenants.get(account.tenant_id)
    calendar = calendar_at(tenant.time_zone, now)
    return AccountLimits(account.owner_id, standing, [use_of(limit, counters, calendar) for limit in limits])


async def set_limit(payment: Payment, context: Context, of: LimitOf, amount_minor: int, reason: str) -> AccountLimits:
    """Not the player's own: the law's (kyc), the operator's, or an exception from the product's. In force at once."""
    _demand(payment, context, "limit:manage", of.owner_id)
    _check_source_and_reason(of, reason)
    return await _set(payment, context, of, amount_minor, reason)


async def remove_limit(payment: Payment, context: Context, of: LimitOf, reason: str) -> AccountLimits:
    _demand(payment, context, "limit:manage", of.owner_id)
    _check_source_and_reason(of, reason)
    return await _remove(payment, context, of, reason)


async def set_my_limit(payment: Payment, context: Context, of: LimitOf, amount_minor: int) -> AccountLimits:
    """The caller's own: stricter at once, laxer after the cooling-off."""
    _demand(payment, context, "limit:set", of.owner_id)
    return await _set(payment, context, of, amount_minor, "")


async def remove_my_limit(payment: Payment, context: Context, of: LimitOf) -> AccountLimits:
    _demand(payment, context, "limit:set", of.owner_id)
    return await _remove(payment, context, of, "")


async def suspend_account(payment: Payment, context: Context, owner_id: str, reason: str) -> AccountLimits:
    """No debit by the owner, and no deposit, until `resume_account`. Does nothing if it is suspended."""
    _demand(payment, context, "account:manage", owner_id)
    check_reason(reason, field="reason", limit=REASON_LIMIT)
    change = _Change(
        "account.suspend",
        decide=lambda standing, _: replace(standing, status=AccountStatus.SUSPENDED),
        tell=lambda _, at: events.AccountSuspended(owner_id=owner_id, reason=reason, at=at),
        reason=reason,
    )
    return await _apply(payment, context, owner_id, change)


async def resume_account(payment: Payment, context: Context, owner_id: str, reason: str) -> AccountLimits:
    """Takes a suspension back, and leaves a self-exclusion as it is. Does nothing if there is none."""
    _demand(payment, context, "account:manage", owner_id)
    check_reason(reason, field="reason", limit=REASON_LIMIT)
    change = _Change(
        "account.resume",
        decide=lambda standing, _: replace(standing, status=AccountStatus.ACTIVE),
        tell=lambda _, at: events.AccountResumed(owner_id=owner_id, reason=reason, at=at),
        reason=reason,
    )
    return await _apply(payment, context, owner_id, change)


async def exclude_myself(payment: Payment, context: Context, until: datetime) -> AccountLimits:
    """No deposit and no wager until then. Can be made longer, never shorter: `Refusal` EXCLUSION_IS_LONGER."""
    owner_id = context.caller.user_id
    _demand(payment, context, "limit:set", owner_id)
    until = until.replace(microsecond=until.microsecond // 1000 * 1000)  # as it will be stored
    change = _Change(
        "account.exclude",
        decide=lambda standing, at: excluded(standing, until, at),
        tell=lambda _, at: events.AccountSelfExcluded(owner_id=owner_id, until=until, at=at),
    )
    return await _apply(payment, context, owner_id, change)


async def _set(payment: Payment, context: Context, of: LimitOf, amount_minor: int, reason: str) -> AccountLimits:
    config = payment.platform.config.get(PaymentConfig, context.tenant_id)
    check_amount(amount_minor)
    wanted = _limit(of, amount_minor)
    if of.scope not in (ALL_WALLETS, *config.wallet_categories):
        raise InvalidInput(f"a scope is * or one of: {', '.join(config.wallet_categories)}", field="scope")
    await payment.platform.tenants.currency(context.tenant_id, of.currency)
    change = _Change(
        "limit.set",
        decide=lambda standing, at: with_limit(standing, replace(wanted, since=at), at, config.limit_cooling_off),
        tell=lambda standing, at: _limit_changed(of, standing.limit(wanted.key), at),
        reason=reason,
        balances_in=of.currency if of.operation is LimitOperation.BALANCE else None,
    )
    return await _apply(payment, context, of.owner_id, change)


async def _remove(payment: Payment, context: Context, of: LimitOf, reason: str) -> AccountLimits:
    config = payment.platform.config.get(PaymentConfig, context.tenant_id)
    key = _limit(of, 0).key
    change = _Change(
        "limit.remove",
        decide=lambda standing, at: without_limit(standing, key, at, config.limit_cooling_off),
        tell=lambda standing, at: _limit_changed(of, standing.limit(key), at),
        reason=reason,
    )
    return await _apply(payment, context, of.owner_id, change)


@dataclass(frozen=True, slots=True)
class _Change:
    """`balances_in`: the currency whose balances have to be known from now on."""

    action: str
    decide: Decide
    tell: Tell
    reason: str = ""
    balances_in: str | None = None


async def _apply(payment: Payment, context: Context, owner_id: str, change: _Change) -> AccountLimits:
    platform, tenant_id = payment.platform, context.tenant_id
    database, actor = platform.mongo.db, context.caller.user_id
    audit = AuditLog(database, f"accounts.{tenant_id}", clock=platform.clock)

    async def work(session: Session) -> tuple[Account, Standing]:
        account = await accounts.load_account(database, tenant_id, owner_id, platform.clock.now(), session)
        before = _standing(account)
        standing = change.decide(before, account.at)
        if standing == before:
            return account, standing
        currency = change.balances_in
        noted = await accounts.note_balances(database, session, account, currency) if currency else {}
        number = await accounts.save_standing(database, session, account, standing, noted)
        event = facts.about_owner(
            change.tell(standing, account.at), tenant_id, owner_id, owner_id, actor=actor, at=account.at, number=number
        )
        await platform.outbox.append(session, [event], at=account.at)
        await audit.append(
            session,
            actor=actor,
            action=change.action,
            resource=f"account:{owner_id}",
            tenant_id=tenant_id,
            before=_as_json(before),
            after=_as_json(standing),
            reason=change.reason,
        )
        return account, standing

    account, standing = await platform.mongo.transaction(work)
    platform.outbox.kick()
    return await _with_use(payment, account, standing)


def _standing(account: Account) -> Standing:
    return Standing(AccountStatus(account.status), account.excluded_until, tuple(account.limits))


def _limit(of: LimitOf, amount_minor: int) -> Limit:
    return Limit(of.operation, of.window, of.source, of.currency, amount_minor, scope=of.scope)


def _limit_changed(of: LimitOf, now: Limit | None, at: datetime) -> EventData:
    pending = now.pending if now else None
    return events.LimitChanged(
        owner_id=of.owner_id,
        operation=of.operation,
        window=of.window,
        limit_source=of.source,
        currency=of.currency,
        scope=of.scope,
        amount=_text(now.amount_minor) if now else None,
        pending=events.PendingLimit(amount=_text(pending.amount_minor), at=pending.at) if pending else None,
        at=at,
    )


def _text(amount: int | None) -> str | None:
    return None if amount is None else str(amount)


def _as_json(standing: Standing) -> dict[str, Any]:
    """For the audit log."""
    until = standing.excluded_until
    return {
        "status": standing.status,
        "excluded_until": until.isoformat() if until else None,
        "limits": {limit.key: _terms(limit) for limit in standing.limits},
    }


def _terms(limit: Limit) -> dict[str, Any]:
    pending = limit.pending
    waits = {"amount": pending.amount_minor, "at": pending.at.isoformat()} if pending else None
    return {"amount": limit.amount_minor, "pending": waits}


def _permits(payment: Payment, context: Context, action: str, owner_id: str) -> bool:
    scope = payment.platform.access.scope(context.caller, action)
    return scope.permits(owner_id=owner_id, tenant_id=context.tenant_id, id=None)


def _demand(payment: Payment, context: Context, action: str, owner_id: str) -> None:
    if not _permits(payment, context, action, owner_id):
        raise Forbidden(f"you may not do this to the account of this owner: {action}", ownerId=owner_id)


def _check_source_and_reason(of: LimitOf, reason: str) -> None:
    if of.source is LimitSource.PLAYER:
        raise InvalidInput("a player's own limit is the player's to set", field="source")
    check_reason(reason, field="reason", limit=REASON_LIMIT)
