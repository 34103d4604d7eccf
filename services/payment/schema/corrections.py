"""Reversals, and adjustments with four eyes."""

from datetime import datetime
from typing import Annotated, Self

import strawberry
from strawberry import ID, Info

from libs.core.access import Requires
from libs.core.context import Context
from libs.core.errors import Refusal
from libs.core.graphql import BigInt, Problem
from libs.core.ids import parse_id
from libs.core.pagination import Connection, PageArgs
from services.payment import commands, domain, store
from services.payment.commands import NewAdjustment, NewReversal, Shortfall
from services.payment.domain import Direction, parse_transfer_id
from services.payment.domain.requests import AdjustmentRequest as Asked, RequestStatus
from services.payment.schema.common import metadata_of, money_of, payment_of, scope_of
from services.payment.schema.transfers import OPERATION_ID, Transfer, TransferResult, transfer_result

strawberry.enum(Shortfall, description="What to do if the money is not there any more: see RECEIVABLE.")
strawberry.enum(RequestStatus, name="AdjustmentRequestStatus")


@strawberry.type(description="An adjustment that waits for a second operator, or did.")
class AdjustmentRequest:
    id: ID
    wallet_id: ID
    direction: Direction
    amount: BigInt
    currency: str
    reason: str
    status: RequestStatus
    requested_by: ID
    created_at: datetime
    decided_by: ID | None
    decided_at: datetime | None

    @classmethod
    def of(cls, request: Asked) -> Self:
        return cls(
            id=ID(request.id),
            wallet_id=ID(request.wallet_id),
            direction=Direction(request.direction),
            amount=BigInt(request.money.amount_minor),
            currency=request.money.currency,
            reason=request.reason,
            status=request.status,
            requested_by=ID(request.requested_by),
            created_at=request.requested_at,
            decided_by=ID(request.decided_by) if request.decided_by else None,
            decided_at=request.decided_at,
        )


@strawberry.input
class CorrectionInput:
    id: ID = strawberry.field(description=OPERATION_ID)
    reason: str
    dry_run: bool = False


@strawberry.input
class ReverseTransferInput(CorrectionInput):
    transfer_id: ID
    amount: BigInt | None = strawberry.field(default=None, description="Left out: all of it.")
    shortfall: Shortfall = Shortfall.REFUSE


@strawberry.input
class AdjustInput(CorrectionInput):
    wallet_id: ID
    direction: Direction = strawberry.field(description="CREDIT gives to the wallet, DEBIT takes from it.")
    amount: BigInt
    currency: str


AdjustResult = Annotated[Transfer | AdjustmentRequest | Problem, strawberry.union("AdjustResult")]
AdjustmentRequestResult = Annotated[AdjustmentRequest | Problem, strawberry.union("AdjustmentRequestResult")]


@strawberry.type
class CorrectionQueries:
    @strawberry.field(description="Newest first.", extensions=[Requires("adjustment:approve")])
    async def adjustment_requests(
        self,
        info: Info[Context],
        status: RequestStatus | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[AdjustmentRequest]:
        payment, scope = payment_of(info), scope_of(info, "adjustment:approve")
        args = PageArgs(first, after, last, before)
        page = await store.requests(payment.platform.mongo.db, payment.paginator, scope, status, args)
        return Connection.of(page, AdjustmentRequest.of)


@strawberry.type
class CorrectionMutations:
    @strawberry.mutation(
        description="Moves a transfer's money back, all or a part. The reversals of one sum to at most its amount.",
        extensions=[Requires("transfer:reverse")],
    )
    async def reverse_transfer(self, info: Info[Context], input: ReverseTransferInput) -> TransferResult:  # noqa: A002
        new = NewReversal(
            id=parse_id(input.id, "input.id"),
            reference=_reason(input),
            dry_run=input.dry_run,
            transfer_id=parse_transfer_id(input.transfer_id, "input.transferId"),
            amount_minor=input.amount,
            shortfall=input.shortfall,
        )
        return transfer_result(info, await commands.reverse(payment_of(info), info.context, new))

    @strawberry.mutation(
        description="Gives to a wallet, or takes from it. Above the tenant's threshold another operator approves it.",
        extensions=[Requires("adjustment:create")],
    )
    async def adjust(self, info: Info[Context], input: AdjustInput) -> AdjustResult:  # noqa: A002
        new = NewAdjustment(
            id=parse_id(input.id, "input.id"),
            reference=_reason(input),
            dry_run=input.dry_run,
            wallet_id=parse_id(input.wallet_id, "input.walletId"),
            direction=input.direction,
            money=money_of(input.amount, input.currency, "input"),
        )
        outcome = await commands.adjust(payment_of(info), info.context, new)
        return AdjustmentRequest.of(outcome) if isinstance(outcome, Asked) else _moved(info, outcome)

    @strawberry.mutation(
        description="Does what was asked for. By another than who asked.", extensions=[Requires("adjustment:approve")]
    )
    async def approve_adjustment(self, info: Info[Context], id: ID) -> TransferResult:  # noqa: A002
        outcome = await commands.approve(payment_of(info), info.context, parse_id(id, "id"))
        return transfer_result(info, outcome)

    @strawberry.mutation(extensions=[Requires("adjustment:approve")])
    async def reject_adjustment(self, info: Info[Context], id: ID) -> AdjustmentRequestResult:  # noqa: A002
        decided = await commands.reject(payment_of(info), info.context, parse_id(id, "id"))
        return Problem.of(decided) if isinstance(decided, Refusal) else AdjustmentRequest.of(decided)


def _reason(given: CorrectionInput) -> str:
    metadata_of(given.reason, {}, "input")
    return given.reason


def _moved(info: Info[Context], outcome: domain.Outcome) -> Transfer | Problem:
    return Transfer.of(info, outcome) if isinstance(outcome, domain.Transfer) else Problem.of(outcome)
