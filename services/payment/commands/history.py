"""A wallet's past, as it is answered once and for all: what is not settled is waited for, and nothing foretold."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from libs.core.context import Context, Deadline
from libs.core.errors import InvalidInput, NotFound, Unavailable
from libs.core.mongo import Document
from services.payment import store
from services.payment.commands.payment import Payment
from services.payment.domain import Direction, Wallet

SETTLED_WITHIN_S = 5.0
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Statement:
    """What happened to a wallet: its lines with `since` <= at < `until`. `scale` is its currency's."""

    wallet: Wallet
    scale: int
    since: datetime
    until: datetime
    opening: Mapping[str, int]
    closing: Mapping[str, int]


async def balance_at(payment: Payment, context: Context, wallet_id: str, at: datetime) -> Mapping[str, int] | None:
    """By bucket; None for a wallet that the caller may not see, as for one that does not exist."""
    wallet = await _visible(payment, context, wallet_id)
    if wallet is None:
        return None
    await _settle(payment, context, at, "at")
    after = at.replace(microsecond=at.microsecond // 1000 * 1000) + _MILLISECOND
    return await store.balances_before(payment.platform.mongo.db, wallet, after)


async def open_statement(
    payment: Payment, context: Context, wallet_id: str, since: datetime | None, until: datetime | None
) -> Statement:
    """From the wallet's beginning, or `since`, up to what is settled, or `until`. `NotFound` for a wallet that the

    caller may not see.
    """
    database = payment.platform.mongo.db
    wallet = await _visible(payment, context, wallet_id)
    if wallet is None:
        raise NotFound("there is no such wallet, or it is not yours to see")
    since = _whole(since or await store.begun_at(database, wallet))
    if until:
        until = _whole(until)
        await _settle(payment, context, until, "until")
    else:
        until = max(since, await store.settled_until(database) + _MILLISECOND)
    if since > until:
        raise InvalidInput("from is not after until", field="from")
    currency = await payment.platform.tenants.currency(wallet.tenant_id, wallet.currency)
    return Statement(
        wallet=wallet,
        scale=currency.scale,
        since=since,
        until=until,
        opening=await store.balances_before(database, wallet, since),
        closing=await store.balances_before(database, wallet, until),
    )


async def lines_of(payment: Payment, statement: Statement) -> AsyncIterator[list[Document]]:
    """Pages of lines, the oldest first. `balance_after` is that of the whole wallet, also where it has stripes.

    Every balance is computed anew, and must be what the ledger says: a statement that does not add up breaks off.
    """
    wallet, balances = statement.wallet, dict(statement.opening)
    # Read after what it starts and ends with was: a user's wallet has at least these lines by now.
    current = (await store.wallets_by_key(payment.platform.mongo.db, [wallet.key]))[0]
    async for page in store.lines_between(payment.platform.mongo.db, current, statement.since, statement.until):
        for line in page:
            sign = 1 if line["direction"] == Direction.CREDIT else -1
            balances[line["bucket"]] += sign * line["amount"]
            if not wallet.is_system and balances[line["bucket"]] != line["balance_after"]:
                raise ArithmeticError(f"line {line['_id']} does not follow from those before it")
            line["balance_after"] = balances[line["bucket"]]
        yield page
    if balances != dict(statement.closing):
        raise ArithmeticError(f"the lines of {wallet.key} do not lead to its balance")


async def _visible(payment: Payment, context: Context, wallet_id: str) -> Wallet | None:
    scope = payment.platform.access.scope(context.caller, "transaction:read")
    for wallet in await store.wallets_by_id(payment.platform.mongo.db, context.tenant_id, [wallet_id]):
        if scope.permits(owner_id=wallet.owner_id, tenant_id=wallet.tenant_id, id=wallet.id):
            return wallet
    return None


async def _settle(payment: Payment, context: Context, at: datetime, field: str) -> None:
    if at > payment.platform.clock.now():
        raise InvalidInput("this lies in the future", field=field)
    deadline = Deadline.after(min(SETTLED_WITHIN_S, context.deadline.remaining_s))
    if not await payment.ledger.settled(at, deadline):
        raise Unavailable("this instant is not settled yet: try again in a moment")


def _whole(instant: datetime) -> datetime:
    """The first whole millisecond from there on: the ledger knows no others."""
    return instant + timedelta(microseconds=-instant.microsecond % 1000)
