"""A wallet's past."""

from datetime import datetime

import strawberry
from strawberry import ID, Info

from libs.core.access import Requires
from libs.core.context import Context
from libs.core.ids import parse_id
from services.payment.commands import history
from services.payment.schema.common import payment_of
from services.payment.schema.wallets import WalletBalance


@strawberry.type
class HistoryQueries:
    @strawberry.field(
        description="What a wallet held at an instant; it never changes. Zero before there was the wallet; null if "
        "there is none, or none that you may see.",
        extensions=[Requires("transaction:read")],
    )
    async def balance_at(self, info: Info[Context], wallet_id: ID, at: datetime) -> WalletBalance | None:
        found = await history.balance_at(payment_of(info), info.context, parse_id(wallet_id, "walletId"), at)
        return WalletBalance.of(found) if found else None
