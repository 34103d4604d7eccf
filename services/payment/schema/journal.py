"""The journal, for those who want proof: receipts, the keys that heads are signed with, whether the ledger adds up."""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Self, cast

import strawberry
from strawberry import ID, Info
from strawberry.scalars import JSON

from libs.core.access import Public, Requires
from libs.core.context import Context
from services.payment.domain import wallet_key
from services.payment.receipts import receipt_of
from services.payment.schema.common import payment_of, scope_of

# A mutation's answer comes well before its deadline; what takes longer goes on without it.
ANSWER_WITHIN_S = 8.0


@strawberry.enum(description="Of the last verification of everything.")
class LedgerVerificationState(Enum):
    NEVER = "never"
    RUNNING = "running"
    OK = "ok"
    DIVERGED = "diverged"
    FAILED = "failed"


@strawberry.type(description="What heads of the journal, and with them receipts, are verified with.")
class JournalKey:
    id: ID
    public_key: str = strawberry.field(description="Ed25519, in hex.")
    current: bool = strawberry.field(description="Whether heads are signed with it now.")


@strawberry.type(
    description="The first thing that was found to be wrong. Of which tenant, nobody is told but that one."
)
class LedgerDivergence:
    kind: str
    where: str
    expected: str | None
    found: str | None
    found_at: datetime

    @classmethod
    def of(cls, row: Mapping[str, Any], tenant_id: str) -> Self | None:
        if row["tenant_id"] not in ("", tenant_id):
            return None
        own = row["tenant_id"] == tenant_id
        return cls(
            kind=row["kind"],
            where=row["where"],
            expected=row["expected"] if own else None,
            found=row["found"] if own else None,
            found_at=row["at"],
        )


@strawberry.type
class LedgerStatus:
    ok: bool = strawberry.field(description="False: money does not add up somewhere, of whichever tenant.")
    verified_at: datetime | None = strawberry.field(description="When something was verified last, by whoever.")
    state: LedgerVerificationState
    step: str | None = strawberry.field(description="What is looked at now: transfers, or transactions.")
    progress: float = strawberry.field(description="Of this step, from 0 to 1.")
    divergence: LedgerDivergence | None

    @classmethod
    def of(cls, status: Mapping[str, Any], tenant_id: str) -> Self:
        divergence, full = status.get("divergence"), status.get("full", {})
        progress = full.get("progress") or {}
        return cls(
            ok=divergence is None,
            verified_at=status.get("verified_at"),
            state=LedgerVerificationState(full.get("state", "never")),
            step=progress.get("step"),
            progress=progress.get("done", 0) / max(progress.get("total", 0), 1),
            divergence=LedgerDivergence.of(divergence, tenant_id) if divergence else None,
        )


@strawberry.type
class JournalQueries:
    @strawberry.field(description="The keys of the journal, former ones too.", extensions=[Public()])
    async def journal_keys(self, info: Info[Context]) -> list[JournalKey]:
        keys = payment_of(info).keys
        return [JournalKey(id=ID(id_), public_key=key.hex(), current=id_ == keys.id) for id_, key in keys.all.items()]

    @strawberry.field(description="Whether the ledger adds up.", extensions=[Requires("ledger:verify")])
    async def ledger_status(self, info: Info[Context]) -> LedgerStatus:
        return LedgerStatus.of(await payment_of(info).watch.status(), info.context.tenant_id)


@strawberry.type
class JournalMutations:
    @strawberry.mutation(
        description="Verifies everything, of all tenants. What takes long goes on: `ledgerStatus` says how far it is.",
        extensions=[Requires("ledger:verify")],
    )
    async def verify_ledger(self, info: Info[Context]) -> LedgerStatus:
        watch = payment_of(info).watch
        await watch.ask_for_everything(answer_within_s=ANSWER_WITHIN_S)
        return LedgerStatus.of(await watch.status(), info.context.tenant_id)


async def receipt_for(info: Info[Context], transfer_id: str) -> JSON | None:
    payment = payment_of(info)
    scope, key = scope_of(info, "transaction:read"), wallet_key(info.context.tenant_id, transfer_id)
    return cast("JSON | None", await receipt_of(payment.platform.mongo.db, payment.keys, scope, key))
