"""Payment's GraphQL: types, queries, mutations, subscriptions, a room for each noun."""

import strawberry

from libs.core.graphql import build_schema
from services.payment.schema.corrections import CorrectionMutations, CorrectionQueries
from services.payment.schema.exchange import ExchangeMutations
from services.payment.schema.history import HistoryQueries
from services.payment.schema.holds import HoldMutations, HoldQueries
from services.payment.schema.journal import JournalMutations, JournalQueries
from services.payment.schema.limits import LimitMutations, LimitQueries
from services.payment.schema.lots import LotMutations
from services.payment.schema.transfers import TransferMutations, TransferQueries
from services.payment.schema.wallets import User, WalletMutations, WalletQueries, WalletSubscriptions
from services.payment.schema.webhooks import WebhookMutations, WebhookQueries


@strawberry.type
class Query(
    WalletQueries,
    TransferQueries,
    HistoryQueries,
    HoldQueries,
    CorrectionQueries,
    LimitQueries,
    JournalQueries,
    WebhookQueries,
):
    pass


@strawberry.type
class Mutation(
    WalletMutations,
    TransferMutations,
    HoldMutations,
    LotMutations,
    ExchangeMutations,
    CorrectionMutations,
    LimitMutations,
    JournalMutations,
    WebhookMutations,
):
    pass


@strawberry.type
class Subscription(WalletSubscriptions):
    pass


schema = build_schema(Query, Mutation, Subscription, types=[User])
