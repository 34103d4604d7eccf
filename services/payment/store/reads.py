"""Queries. No query without a tenant."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from libs.core.access import Scope
from libs.core.mongo import Database, Document
from libs.core.pagination import Page, PageArgs, Paginator
from services.payment.domain import Transfer, Wallet, wallet_key
from services.payment.store.documents import transfer_from, wallet_from
from services.payment.store.settled import settled_until


async def wallets_by_id(database: Database, tenant_id: str, ids: Iterable[str]) -> list[Wallet]:
    return await wallets_by_key(database, [wallet_key(tenant_id, i) for i in ids])


async def wallets_by_key(database: Database, keys: Iterable[str]) -> list[Wallet]:
    """A key carries its tenant."""
    rows = await database["wallets"].find({"_id": {"$in": list(keys)}}).to_list()
    return await _whole(database, [wallet_from(row) for row in rows])


async def wallets_of(database: Database, scope: Scope, owner_id: str) -> list[Wallet]:
    """All that one owner has and `scope` reaches: few, one per category and currency."""
    wanted = {"$and": [{"owner_id": owner_id, "is_stripe": False}, scope.query(id="id")]}
    rows = await database["wallets"].find(wanted, sort=[("created_at", 1)]).to_list()
    return await _whole(database, [wallet_from(row) for row in rows])


async def wallets(
    database: Database, paginator: Paginator, scope: Scope, wanted: Mapping[str, str | None], args: PageArgs
) -> Page[Wallet]:
    """`wanted` names fields and the values they must have; None does not narrow."""
    chosen = {field: value for field, value in wanted.items() if value is not None}
    where = {"$and": [{"is_stripe": False, **chosen}, scope.query(id="id")]}
    page = await paginator.page(database["wallets"], where, args, order=[("created_at", -1), ("_id", -1)])
    whole = await _whole(database, [wallet_from(row) for row in page.items])
    return page.with_items(whole)


async def _whole(database: Database, found: Sequence[Wallet]) -> list[Wallet]:
    """What a system wallet holds is spread over its stripes."""
    spread = [wallet for wallet in found if wallet.is_system]
    if spread:
        by_key = {wallet.key: wallet for wallet in spread}
        ranges = [{"_id": {"$gt": f"{key}:", "$lt": f"{key};"}} for key in by_key]  # ';' follows ':'
        async for row in database["wallets"].find({"$or": ranges}):
            wallet = by_key[wallet_key(row["tenant_id"], row["id"])]
            wallet.at = max(wallet.at, row["at"])
            for bucket, amount in row["buckets"].items():
                wallet.buckets[bucket] += amount
    return list(found)


async def transactions(
    database: Database, paginator: Paginator, wallet: Wallet, bucket: str | None, args: PageArgs
) -> Page[Document]:
    """Newest first, by what numbers them: position in the wallet, or sequence in the bucket. A system wallet's lines,

    spread over its stripes, are in the order of time.
    """
    lines = database["transactions"]
    if wallet.is_system:
        where: Document = {"system_wallet": wallet.key} | ({"bucket": bucket} if bucket else {})
        settled = {"at": {"$lte": await settled_until(database)}}
        return await paginator.page(lines, where, args, order=[("at", -1), ("_id", -1)], also=settled)
    if bucket:
        where = {"wallet": wallet.key, "bucket": bucket}
        return await paginator.page(lines, where, args, order=[("sequence", -1)])
    where = {"wallet": wallet.key, "_id": {"$gt": f"{wallet.key}:", "$lt": f"{wallet.key};"}}
    return await paginator.page(lines, where, args, order=[("_id", -1)])


async def transfers_by_id(database: Database, tenant_id: str, ids: Iterable[str]) -> dict[str, Transfer]:
    keys = [f"{tenant_id}:{i}" for i in ids]
    rows = await database["transfers"].find({"_id": {"$in": keys}, "tenant_id": tenant_id}).to_list()
    return {row["id"]: transfer_from(row) for row in rows}


async def operation(database: Database, tenant_id: str, operation_id: str) -> list[Transfer]:
    """All transfers of an operation, in the order of its legs."""
    first = (await transfers_by_id(database, tenant_id, [operation_id])).get(operation_id)
    if first is None or first.legs == 1:
        return [first] if first else []
    found = await transfers_by_id(database, tenant_id, first.leg_ids)
    return sorted(found.values(), key=lambda transfer: transfer.leg)


async def transfer_history(
    database: Database,
    paginator: Paginator,
    scope: Scope,
    owner_id: str | None,
    span: tuple[datetime | None, datetime | None],
    args: PageArgs,
) -> Page[Transfer]:
    """Newest first: transfers that `owner_id`, or without one anybody that `scope` reaches, is a party of.

    What is not settled yet is held back, as what comes to light later might have to stand before it.
    """
    since, until = span
    time = {operator: at for operator, at in (("$gte", since), ("$lt", until)) if at}
    chosen: Document = ({"parties": owner_id} if owner_id else {}) | ({"at": time} if time else {})
    where = {"$and": [chosen, scope.query(owner="parties", id="id")]}
    settled = {"at": {"$lte": await settled_until(database)}}
    page = await paginator.page(database["transfers"], where, args, order=[("at", -1), ("_id", -1)], also=settled)
    return page.map(transfer_from)
