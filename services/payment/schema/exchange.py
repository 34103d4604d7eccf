"""One currency into another, at a rate that was quoted."""

from datetime import datetime
from typing import Annotated, Self

import strawberry
from strawberry import ID, Info
from strawberry.scalars import JSON

from libs.core.access import Requires
from libs.core.context import Context
from libs.core.errors import Refusal
from libs.core.graphql import BigInt, Problem
from libs.core.ids import parse_id
from services.payment import commands
from services.payment.commands import NewExchange, NewQuote
from services.payment.domain.exchange import Quote
from services.payment.schema.common import metadata_of, money_of, payment_of
from services.payment.schema.transfers import TransferResult, transfer_result


@strawberry.type(description="What an amount buys, until it expires. The last unit is rounded down.")
class ExchangeQuote:
    id: ID
    source_amount: BigInt
    source_currency: str
    target_amount: BigInt
    target_currency: str
    rate: str = strawberry.field(description="Major units of the target for one of the source, the spread taken off.")
    expires_at: datetime

    @classmethod
    def of(cls, quote: Quote) -> Self:
        return cls(
            id=ID(quote.id),
            source_amount=BigInt(quote.source.amount_minor),
            source_currency=quote.source.currency,
            target_amount=BigInt(quote.target.amount_minor),
            target_currency=quote.target.currency,
            rate=quote.rate,
            expires_at=quote.expires_at,
        )


@strawberry.input
class QuoteExchangeInput:
    id: ID = strawberry.field(description="Yours to choose: the quote's, and that of the exchange which takes it up.")
    amount: BigInt
    source_currency: str
    target_currency: str


@strawberry.input
class ExchangeInput:
    quote_id: ID = strawberry.field(description="Taken up once, however often this is sent.")
    source_wallet_id: ID
    destination_wallet_id: ID
    reference: str = ""
    metadata: JSON = strawberry.field(default_factory=dict)
    dry_run: bool = False


QuoteResult = Annotated[ExchangeQuote | Problem, strawberry.union("ExchangeQuoteResult")]


@strawberry.type
class ExchangeMutations:
    @strawberry.mutation(
        description="What an amount of one currency buys of another now.", extensions=[Requires("exchange:create")]
    )
    async def quote_exchange(self, info: Info[Context], input: QuoteExchangeInput) -> QuoteResult:  # noqa: A002
        new = NewQuote(
            parse_id(input.id, "input.id"),
            money_of(input.amount, input.source_currency, "input"),
            input.target_currency,
        )
        quoted = await commands.quote(payment_of(info), info.context, new)
        return Problem.of(quoted) if isinstance(quoted, Refusal) else ExchangeQuote.of(quoted)

    @strawberry.mutation(
        description="Takes up a quote: both currencies move, or neither.", extensions=[Requires("exchange:create")]
    )
    async def exchange(self, info: Info[Context], input: ExchangeInput) -> TransferResult:  # noqa: A002
        new = NewExchange(
            id=parse_id(input.quote_id, "input.quoteId"),
            reference=input.reference,
            metadata=metadata_of(input.reference, input.metadata, "input"),
            dry_run=input.dry_run,
            source_id=parse_id(input.source_wallet_id, "input.sourceWalletId"),
            destination_id=parse_id(input.destination_wallet_id, "input.destinationWalletId"),
        )
        return transfer_result(info, await commands.exchange(payment_of(info), info.context, new))
