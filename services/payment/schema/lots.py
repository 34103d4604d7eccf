"""Bonus money, lot by lot."""

import strawberry
from strawberry import ID, Info

from libs.core.access import Requires
from libs.core.context import Context
from libs.core.graphql import BigInt
from libs.core.ids import parse_id
from services.payment import commands
from services.payment.commands import NewLotMovement
from services.payment.schema.common import money_of, payment_of
from services.payment.schema.transfers import OperationInput, TransferResult, asked, transfer_result


@strawberry.input
class LotInput(OperationInput):
    wallet_id: ID
    lot: ID = strawberry.field(description="The grant that this money is of.")
    amount: BigInt
    currency: str


@strawberry.type
class LotMutations:
    @strawberry.mutation(
        description="Bonus money for a wallet, from the bonus pool.", extensions=[Requires("lot:manage")]
    )
    async def grant_lot(self, info: Info[Context], input: LotInput) -> TransferResult:  # noqa: A002
        return transfer_result(info, await commands.grant_lot(payment_of(info), info.context, _movement(input)))

    @strawberry.mutation(description="Bonus money becomes real money.", extensions=[Requires("lot:manage")])
    async def convert_lot(self, info: Info[Context], input: LotInput) -> TransferResult:  # noqa: A002
        return transfer_result(info, await commands.convert_lot(payment_of(info), info.context, _movement(input)))

    @strawberry.mutation(description="Bonus money goes back to the bonus pool.", extensions=[Requires("lot:manage")])
    async def forfeit_lot(self, info: Info[Context], input: LotInput) -> TransferResult:  # noqa: A002
        return transfer_result(info, await commands.forfeit_lot(payment_of(info), info.context, _movement(input)))


def _movement(given: LotInput) -> NewLotMovement:
    return NewLotMovement(
        **asked(given),
        wallet_id=parse_id(given.wallet_id, "input.walletId"),
        lot=parse_id(given.lot, "input.lot"),
        money=money_of(given.amount, given.currency, "input"),
    )
