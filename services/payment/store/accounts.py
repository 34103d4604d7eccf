"""The part of an account's document that commands write: limits, status, self-exclusion.

The ledger writes the other part (`events`, `at`, `counters`) of the same document. That both are one document is what
makes a limit hold: of two transactions that write it at once MongoDB lets only one through, and the other reads again.
"""

from datetime import datetime

from libs.core.mongo import Database, Document, Session
from services.payment.domain import Account, account_key
from services.payment.domain.book import TICK
from services.payment.domain.limits import Counters, Standing, note_balance
from services.payment.store.documents import account_from, limit_row
from services.payment.store.groups import update


async def load_account(
    database: Database, tenant_id: str, owner_id: str, now: datetime, session: Session | None = None
) -> Account:
    """As it is, or as it would begin. Its `at` is the instant of what changes it now: none comes before the last."""
    key = account_key(tenant_id, owner_id)
    row = await database["accounts"].find_one({"_id": key}, session=session)
    account = account_from(row) if row else Account(key, tenant_id, owner_id, now - TICK)
    account.at = max(now, account.at + TICK)
    return account


async def save_standing(
    database: Database, session: Session, account: Account, standing: Standing, noted: Counters
) -> int:
    """Writes `standing`, and of `noted` what it counts; the number of the event that tells of it."""
    changed: Document = {
        "tenant_id": account.tenant_id,
        "owner_id": account.owner_id,
        "status": standing.status,
        "excluded_until": standing.excluded_until,
        "limits": [limit_row(limit) for limit in standing.limits],
        "at": account.at,
        "events": account.events + 1,
    }
    change: Document = {"$set": changed, "$setOnInsert": {"counters": {}}}
    if noted:
        change = {"$set": changed | {"counters": account.counters | noted}}
    await update(database, session, "accounts", [{"q": {"_id": account.key}, "u": change, "upsert": True}])
    return account.events + 1


async def note_balances(database: Database, session: Session, account: Account, currency: str) -> Counters:
    """What the owner's wallets hold, as counters. Writes the wallets too: nothing comes or goes while it is noted."""
    noted: Counters = {}
    own = {"tenant_id": account.tenant_id, "owner_id": account.owner_id, "is_stripe": False, "currency": currency}
    wallets = database["wallets"]
    for wallet in await wallets.find(own, session=session).to_list():
        note_balance(noted, wallet["category"], currency, wallet["buckets"]["real"] + wallet["buckets"]["locked"])
        await wallets.update_one({"_id": wallet["_id"]}, {"$set": {"noted_at": account.at}}, session=session)
    return noted


async def balances_of(database: Database, tenant_id: str, owner_id: str) -> Counters:
    """The same for a reader, in all currencies."""
    noted: Counters = {}
    async for wallet in database["wallets"].find({"tenant_id": tenant_id, "owner_id": owner_id, "is_stripe": False}):
        owned = wallet["buckets"]["real"] + wallet["buckets"]["locked"]
        note_balance(noted, wallet["category"], wallet["currency"], owned)
    return noted
