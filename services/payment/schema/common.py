"""What the rooms of this schema share: who asks, and what input becomes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from strawberry import Info

from libs.core.access import Scope
from libs.core.context import Context
from libs.core.errors import InvalidInput
from libs.core.ids import parse_id
from libs.core.money import Money
from services.payment import domain, store
from services.payment.commands import Payment
from services.payment.domain import check_storable


def payment_of(info: Info[Context]) -> Payment:
    return cast("Payment", info.context.service)


def scope_of(info: Info[Context], action: str) -> Scope:
    return info.context.platform.access.scope(info.context.caller, action)


def ids_of(representations: Sequence[Mapping[str, Any]]) -> list[str]:
    return [parse_id(r.get("id"), "representations.id") for r in representations]


async def visible_wallets(
    info: Info[Context], ids: Sequence[str], action: str = "wallet:read"
) -> dict[str, domain.Wallet]:
    payment, scope = payment_of(info), scope_of(info, action)
    found = await store.wallets_by_id(payment.platform.mongo.db, info.context.tenant_id, ids)
    return {w.id: w for w in found if scope.permits(owner_id=w.owner_id, tenant_id=w.tenant_id, id=w.id)}


def money_of(amount: int, currency: str, field: str) -> Money:
    with within(field):
        return Money(amount, currency)


def metadata_of(reference: str, metadata: object, field: str) -> dict[str, Any]:
    """Said here, where the field has a name that the caller knows; the ledger would refuse it too."""
    with within(field):
        check_storable(reference, metadata)
    return cast("dict[str, Any]", metadata)


@contextmanager
def within(field: str) -> Iterator[None]:
    """What is wrong with `amount` in here is wrong with `input.amount`."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(error.message, field=f"{field}.{error.field}") from None
