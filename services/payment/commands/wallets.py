"""Wallets: opened, frozen, closed, and how far they may go below zero."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from libs.core.audit import AuditLog
from libs.core.context import Context
from libs.core.errors import Forbidden, InvalidInput, Refusal
from libs.core.events import EventData
from libs.core.money import INT64_MAX
from libs.core.mongo import Session
from libs.core.tenants import SystemWallet
from services.payment import facts, store
from services.payment.commands.payment import Payment, check_reason
from services.payment.domain import Wallet, WalletStatus, refusals, system_wallet, user_wallet, wallet_key
from services.payment.events import CreditLimitChanged, WalletClosed, WalletCreated, WalletFrozen, WalletUnfrozen
from services.payment.settings import PaymentConfig


@dataclass(frozen=True, slots=True)
class NewWallet:
    owner_id: str
    category: str
    currency: str


async def create_wallet(payment: Payment, context: Context, new: NewWallet) -> Wallet:
    """An owner has one wallet per category and currency, so that asking twice gives the same one."""
    platform, tenant_id = payment.platform, context.tenant_id
    scope = platform.access.scope(context.caller, "wallet:create")
    if not scope.permits(owner_id=new.owner_id, tenant_id=tenant_id, id=None):
        raise Forbidden("you may not create a wallet for this owner", ownerId=new.owner_id)
    categories = platform.config.get(PaymentConfig).wallet_categories
    if new.category not in categories:
        raise InvalidInput(f"a category is one of: {', '.join(categories)}", field="input.category")
    await platform.tenants.currency(tenant_id, new.currency)
    wallet = user_wallet(tenant_id, new.owner_id, new.category, new.currency, platform.clock.now())
    return await _open(payment, wallet, actor=context.caller.user_id)


async def open_system_wallets(payment: Payment, tenant_id: str, currency: str) -> None:
    for kind in SystemWallet:
        wallet = system_wallet(tenant_id, kind, currency, payment.platform.clock.now())
        await _open(payment, wallet, actor="payment")


async def _open(payment: Payment, wallet: Wallet, actor: str) -> Wallet:
    platform = payment.platform

    async def open_once(session: Session) -> Wallet:
        there = await store.load_wallet(platform.mongo.db, session, wallet.key)
        if there:
            return there
        at, number = await store.next_event(platform.mongo.db, session, wallet, platform.clock.now())
        created = WalletCreated(
            wallet_id=wallet.id,
            owner_id=wallet.owner_id,
            kind=wallet.kind,
            category=wallet.category,
            currency=wallet.currency,
            created_at=wallet.created_at,
        )
        event = facts.about_owner(
            created, wallet.tenant_id, wallet.owner_id, wallet.id, actor=actor, at=at, number=number
        )
        await store.insert_wallet(platform.mongo.db, session, wallet)
        await platform.outbox.append(session, [event], at=at)
        return wallet

    opened = await platform.mongo.transaction(open_once)
    platform.outbox.kick()
    return opened


async def freeze(payment: Payment, context: Context, wallet_id: str, reason: str) -> Wallet | Refusal:
    """Nothing leaves it and nothing comes in but corrections, and what is held for it can still be released."""

    frozen = _unless_closed(status=WalletStatus.FROZEN)
    return await _change(payment, context, "wallet:freeze", wallet_id, reason, frozen, lambda w: WalletFrozen(**w))


async def unfreeze(payment: Payment, context: Context, wallet_id: str, reason: str) -> Wallet | Refusal:
    active = _unless_closed(status=WalletStatus.ACTIVE)
    return await _change(payment, context, "wallet:freeze", wallet_id, reason, active, lambda w: WalletUnfrozen(**w))


async def close(payment: Payment, context: Context, wallet_id: str, reason: str) -> Wallet | Refusal:
    """For good, and only once nothing is in it."""

    def closed(wallet: Wallet) -> Wallet | Refusal:
        if any(wallet.buckets.values()):
            return Refusal("WALLET_NOT_EMPTY", "there is still money in it", rule="wallet.balance", walletId=wallet.id)
        return replace(wallet, status=WalletStatus.CLOSED)

    return await _change(payment, context, "wallet:close", wallet_id, reason, closed, lambda w: WalletClosed(**w))


async def set_credit_limit(
    payment: Payment, context: Context, wallet_id: str, limit_minor: int, reason: str
) -> Wallet | Refusal:
    """How far below zero the real bucket may go. Lowered under what is owed, it only keeps more from being owed."""
    if not 0 <= limit_minor <= INT64_MAX:
        raise InvalidInput("a credit limit is a whole number of minor units from 0 to 2^63-1", field="input.amount")

    return await _change(
        payment,
        context,
        "wallet:credit",
        wallet_id,
        reason,
        _unless_closed(credit_limit=limit_minor),
        lambda w: CreditLimitChanged(**w, credit_limit=str(limit_minor)),
    )


async def _change(
    payment: Payment,
    context: Context,
    action: str,
    wallet_id: str,
    reason: str,
    decide: Callable[[Wallet], Wallet | Refusal],
    fact: Callable[[dict[str, str]], EventData],
) -> Wallet | Refusal:
    """Decided on the wallet's own document, which every debit writes: none that was decided before can come after."""
    check_reason(reason)
    platform, tenant_id, actor = payment.platform, context.tenant_id, context.caller.user_id
    scope = platform.access.scope(context.caller, action)

    async def work(session: Session) -> Wallet | Refusal:
        before = await store.load_wallet(platform.mongo.db, session, wallet_key(tenant_id, wallet_id))
        permitted = before and scope.permits(owner_id=before.owner_id, tenant_id=tenant_id, id=before.id)
        if before is None or before.is_system or not permitted:
            return Refusal(
                "WALLET_NOT_FOUND",
                "there is no such wallet, or it is not yours to change",
                rule="wallet.access",
                walletIds=[wallet_id],
            )
        after = decide(before)
        if isinstance(after, Refusal) or after == before:
            return after
        at, number = await store.next_event(platform.mongo.db, session, after, platform.clock.now())
        await store.save_standing(platform.mongo.db, session, after)
        data = fact({"wallet_id": after.id, "owner_id": after.owner_id, "reason": reason})
        event = facts.about_owner(data, tenant_id, after.owner_id, after.id, actor=actor, at=at, number=number)
        await platform.outbox.append(session, [event], at=at)
        await AuditLog(platform.mongo.db, f"payment.{tenant_id}", clock=platform.clock).append(
            session,
            actor=actor,
            action=event.type,
            resource=after.id,
            tenant_id=tenant_id,
            before={"status": before.status, "creditLimit": before.credit_limit},
            after={"status": after.status, "creditLimit": after.credit_limit},
            reason=reason,
        )
        return after

    changed = await platform.mongo.transaction(work)
    platform.outbox.kick()
    return changed


def _unless_closed(**changes: Any) -> Callable[[Wallet], Wallet | Refusal]:
    def changed(wallet: Wallet) -> Wallet | Refusal:
        closed = wallet.status == WalletStatus.CLOSED
        return refusals.wallet_not_active(wallet) if closed else replace(wallet, **changes)

    return changed
