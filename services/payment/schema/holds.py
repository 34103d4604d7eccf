"""Money that is set aside, captured and released."""

from datetime import datetime
from enum import Enum
from typing import Self

import strawberry
from strawberry import ID, Info

from libs.core.access import Requires
from libs.core.context import Context
from libs.core.graphql import BigInt
from libs.core.ids import parse_id
from libs.core.pagination import Connection, PageArgs
from services.payment import commands, domain, store
from services.payment.commands import NewCapture, NewHold, NewVoid
from services.payment.domain import HoldStatus, TransferKind
from services.payment.schema.common import money_of, payment_of, scope_of
from services.payment.schema.transfers import (
    ConfirmableInput,
    OperationInput,
    TransferResult,
    asked,
    transfer_result,
)

strawberry.enum(HoldStatus)


@strawberry.enum(description="What a hold is for: it counts against these limits when it is placed.")
class HoldPurpose(Enum):
    WITHDRAWAL = TransferKind.WITHDRAWAL.value
    BET = TransferKind.BET.value
    TRANSFER = TransferKind.TRANSFER.value


@strawberry.type(description="Money that is set aside. Its id is that of its operation.")
class Hold:
    id: ID
    wallet_id: ID
    owner_id: ID
    purpose: HoldPurpose
    status: HoldStatus
    amount: BigInt
    currency: str
    captured: BigInt
    released: BigInt
    rest: BigInt = strawberry.field(description="What can still be captured or voided.")
    expires_at: datetime = strawberry.field(description="When what is left goes back by itself.")
    created_at: datetime

    @classmethod
    def of(cls, hold: domain.Hold) -> Self:
        return cls(
            id=ID(hold.id),
            wallet_id=ID(hold.wallet_id),
            owner_id=ID(hold.owner_id),
            purpose=HoldPurpose(hold.purpose),
            status=HoldStatus(hold.status),
            amount=BigInt(hold.amount),
            currency=hold.currency,
            captured=BigInt(hold.captured),
            released=BigInt(hold.released),
            rest=BigInt(hold.rest),
            expires_at=hold.expires_at,
            created_at=hold.placed_at,
        )


@strawberry.input(description="What is left out does not narrow.")
class HoldFilter:
    wallet_id: ID | None = None
    owner_id: ID | None = None
    status: HoldStatus | None = None


@strawberry.input
class HoldInput(ConfirmableInput):
    wallet_id: ID
    amount: BigInt
    currency: str
    purpose: HoldPurpose
    expires_at: datetime | None = strawberry.field(default=None, description="Left out: the tenant's usual time.")


@strawberry.input
class CaptureInput(ConfirmableInput):
    hold_id: ID
    amount: BigInt = strawberry.field(description="At most what is left. A hold can be captured in several parts.")
    destination_wallet_id: ID | None = strawberry.field(
        default=None, description="Left out, a withdrawal leaves for outside, and a bet goes to the house."
    )
    final: bool = strawberry.field(default=False, description="What is left after this is released.")


@strawberry.input
class VoidHoldInput(OperationInput):
    hold_id: ID


@strawberry.type
class HoldQueries:
    @strawberry.field(
        description="Null if there is none, or none that you may see.", extensions=[Requires("wallet:read")]
    )
    async def hold(self, info: Info[Context], id: ID) -> Hold | None:  # noqa: A002
        scope = scope_of(info, "wallet:read")
        found = await store.hold(payment_of(info).platform.mongo.db, info.context.tenant_id, parse_id(id, "id"))
        if found and scope.permits(owner_id=found.owner_id, tenant_id=found.tenant_id, id=found.wallet_id):
            return Hold.of(found)
        return None

    @strawberry.field(description="Newest first.", extensions=[Requires("wallet:read")])
    async def holds(
        self,
        info: Info[Context],
        filter: HoldFilter | None = None,  # noqa: A002
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[Hold]:
        payment, wanted = payment_of(info), filter or HoldFilter()
        page = await store.holds(
            payment.platform.mongo.db,
            payment.paginator,
            scope_of(info, "wallet:read"),
            {"wallet_id": wanted.wallet_id, "owner_id": wanted.owner_id, "status": wanted.status},
            PageArgs(first, after, last, before),
        )
        return Connection.of(page, Hold.of)


@strawberry.type
class HoldMutations:
    @strawberry.mutation(
        description="Sets money aside: real to locked. It is not available until it is captured or released.",
        extensions=[Requires("hold:create")],
    )
    async def hold(self, info: Info[Context], input: HoldInput) -> TransferResult:  # noqa: A002
        new = NewHold(
            **asked(input),
            step_up_token=input.step_up_token,
            wallet_id=parse_id(input.wallet_id, "input.walletId"),
            money=money_of(input.amount, input.currency, "input"),
            purpose=TransferKind(input.purpose.value),
            expires_at=input.expires_at,
        )
        return transfer_result(info, await commands.hold(payment_of(info), info.context, new))

    @strawberry.mutation(description="Takes what was held, or a part of it.", extensions=[Requires("hold:capture")])
    async def capture(self, info: Info[Context], input: CaptureInput) -> TransferResult:  # noqa: A002
        destination = input.destination_wallet_id
        new = NewCapture(
            **asked(input),
            step_up_token=input.step_up_token,
            hold_id=parse_id(input.hold_id, "input.holdId"),
            amount_minor=input.amount,
            destination_id=None if destination is None else parse_id(destination, "input.destinationWalletId"),
            final=input.final,
        )
        return transfer_result(info, await commands.capture(payment_of(info), info.context, new))

    @strawberry.mutation(description="Gives back all that is left of a hold.", extensions=[Requires("hold:void")])
    async def void_hold(self, info: Info[Context], input: VoidHoldInput) -> TransferResult:  # noqa: A002
        new = NewVoid(**asked(input), hold_id=parse_id(input.hold_id, "input.holdId"))
        return transfer_result(info, await commands.void(payment_of(info), info.context, new))
