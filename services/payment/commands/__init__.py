"""What payment can be asked to do, one function each."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from libs.core.app import Platform
from libs.core.context import Context
from libs.core.errors import CoreError, Forbidden, InvalidInput, Refusal
from libs.core.events import Event
from libs.core.money import Money
from libs.core.mongo import Session
from libs.core.pagination import Paginator
from libs.core.tenants import SystemWallet
from services.payment import store
from services.payment.balances import Balances
from services.payment.domain import End, Operation, Outcome, TransferKind, Wallet, system_wallet, user_wallet
from services.payment.events import WalletCreated
from services.payment.ledger import SET_LIMIT, Ledger
from services.payment.settings import PaymentConfig


@dataclass(frozen=True, slots=True)
class Payment:
    """What commands and queries work with."""

    platform: Platform
    ledger: Ledger
    balances: Balances
    paginator: Paginator


@dataclass(frozen=True, slots=True)
class NewWallet:
    owner_id: str
    category: str
    currency: str


@dataclass(frozen=True, slots=True)
class NewDeposit:
    id: str
    wallet_id: str
    money: Money
    reference: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewTransfer:
    id: str
    source_id: str
    destination_id: str
    money: Money
    reference: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


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
        created = Event.new(
            WalletCreated(
                wallet_id=wallet.id,
                owner_id=wallet.owner_id,
                kind=wallet.kind,
                category=wallet.category,
                currency=wallet.currency,
                created_at=wallet.created_at,
            ),
            source="payment",
            subject=wallet.id,
            tenant_id=wallet.tenant_id,
            partition_key=wallet.account_key,
            time=at,
            actor=actor,
            sequence=number,
        )
        await store.insert_wallet(platform.mongo.db, session, wallet)
        await platform.outbox.append(session, [created], at=at)
        return wallet

    opened = await platform.mongo.transaction(open_once)
    platform.outbox.kick()
    return opened


async def deposit(payment: Payment, context: Context, new: NewDeposit) -> Outcome:
    """Money from outside: the other side is the tenant's nostro wallet, which shows what its bank should hold."""
    await payment.platform.tenants.currency(context.tenant_id, new.money.currency)
    nostro = End.of_system(context.tenant_id, SystemWallet.NOSTRO, new.money.currency)
    operation = _operation(payment, context, new, TransferKind.DEPOSIT, nostro, End(new.wallet_id))
    return await payment.ledger.post(operation, context.deadline)


async def transfer(payment: Payment, context: Context, new: NewTransfer) -> Outcome:
    return await payment.ledger.post(_transfer(payment, context, new), context.deadline)


async def transfer_each(payment: Payment, context: Context, news: Sequence[NewTransfer]) -> list[Outcome]:
    """Many transfers, each with an answer of its own: one that could not be done for now does not hide the others'."""
    ledger, deadline = payment.ledger, context.deadline
    posts = (ledger.post(_transfer(payment, context, new), deadline) for new in _some(news))
    return [_outcome(answer) for answer in await asyncio.gather(*posts, return_exceptions=True)]


def _outcome(answer: Outcome | BaseException) -> Outcome:
    if isinstance(answer, CoreError) and not isinstance(answer, Refusal):
        return Refusal(answer.code, answer.message, rule="service", **answer.details)
    if isinstance(answer, BaseException) and not isinstance(answer, Refusal):
        raise answer
    return answer


async def transfer_all(payment: Payment, context: Context, news: Sequence[NewTransfer]) -> list[Outcome]:
    """Many transfers of which either all are done or none."""
    operations = [_transfer(payment, context, new) for new in _some(news)]
    return await payment.ledger.post_all(operations, context.deadline)


def _some(news: Sequence[NewTransfer]) -> Sequence[NewTransfer]:
    if not 0 < len(news) <= SET_LIMIT:
        raise InvalidInput(f"1 to {SET_LIMIT} transfers at a time", field="input.transfers")
    if len({new.id for new in news}) < len(news):
        raise InvalidInput("each transfer needs an id of its own", field="input.transfers")
    return news


def _transfer(payment: Payment, context: Context, new: NewTransfer) -> Operation:
    """A player's own transfer is real → real; only the system moves between buckets."""
    return _operation(payment, context, new, TransferKind.TRANSFER, End(new.source_id), End(new.destination_id))


def _operation(
    payment: Payment,
    context: Context,
    new: NewDeposit | NewTransfer,
    kind: TransferKind,
    source: End,
    destination: End,
) -> Operation:
    access, caller = payment.platform.access, context.caller
    return Operation.of(
        kind,
        source,
        destination,
        new.money,
        id=new.id,
        tenant_id=context.tenant_id,
        actor=caller.user_id,
        scope=access.scope(caller, f"{kind}:create"),
        sight=access.scope(caller, "transfer:read"),
        reference=new.reference,
        metadata=new.metadata,
    )
