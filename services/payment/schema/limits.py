"""Limits, suspension and self-exclusion."""

from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Annotated, Self

import strawberry
from strawberry import ID, Info

from libs.core.access import Requires
from libs.core.context import Context
from libs.core.errors import Refusal
from libs.core.graphql import BigInt, Problem
from libs.core.ids import parse_id
from services.payment.commands import limits as commands
from services.payment.commands.limits import AccountLimits, LimitOf
from services.payment.domain.limits import (
    ALL_WALLETS,
    AccountStatus,
    LimitOperation,
    LimitSource,
    LimitUse,
    LimitWindow,
)
from services.payment.schema.common import payment_of, within

strawberry.enum(
    LimitOperation,
    description="What is limited. A loss is what was wagered less what was won; a balance is what wallets hold, bonus "
    "money not counted.",
)
strawberry.enum(LimitWindow, description="Days, weeks (from Monday) and months of the tenant's time zone.")
strawberry.enum(LimitSource, description="Who set it.")
strawberry.enum(AccountStatus)


@strawberry.type(
    description="At most so much in each window, and what is left of it. Of several, the least rest counts."
)
class Limit:
    operation: LimitOperation
    window: LimitWindow
    source: LimitSource
    scope: str = strawberry.field(description="A category of wallets, or * for all in the currency.")
    currency: str
    amount: BigInt
    used: BigInt = strawberry.field(description="Negative for losses, if more was won.")
    rest: BigInt
    resets_at: datetime | None = strawberry.field(description="In UTC. Null if it never does.")
    resets_at_local: str | None = strawberry.field(
        description="The same in the tenant's time zone: 2026-11-24T00:00:00+01:00."
    )
    since: datetime | None = strawberry.field(description="Null for what all accounts have.")
    pending_from: datetime | None = strawberry.field(description="When it will change; null if that is not planned.")
    pending_amount: BigInt | None = strawberry.field(
        description="What it will be then; null beside a `pendingFrom` means that it will end."
    )

    @classmethod
    def of(cls, left: LimitUse) -> Self:
        limit, pending, resets_at = left.limit, left.limit.pending, left.resets_at
        new_amount = pending.amount_minor if pending else None
        return cls(
            operation=limit.operation,
            window=limit.window,
            source=limit.source,
            scope=limit.scope,
            currency=limit.currency,
            amount=BigInt(limit.amount_minor),
            used=BigInt(left.used),
            rest=BigInt(left.rest),
            resets_at=resets_at.astimezone(UTC) if resets_at else None,
            resets_at_local=resets_at.isoformat() if resets_at else None,
            since=limit.since,
            pending_from=pending.at if pending else None,
            pending_amount=None if new_amount is None else BigInt(new_amount),
        )


@strawberry.type(description="What an owner's account is held to.")
class AccountStanding:
    owner_id: ID
    status: AccountStatus
    excluded_until: datetime | None = strawberry.field(
        description="By their own wish, no deposits and no wagers until then. It may be over."
    )
    limits: list[Limit]

    @classmethod
    def of(cls, account: AccountLimits) -> Self:
        return cls(
            owner_id=ID(account.owner_id),
            status=account.standing.status,
            excluded_until=account.standing.excluded_until,
            limits=[Limit.of(left) for left in account.limits],
        )


@strawberry.input(description="Which limit: there is one for each combination of these and its source.")
class MyLimitInput:
    operation: LimitOperation
    window: LimitWindow
    currency: str
    scope: str = ALL_WALLETS

    def of(self, owner_id: str) -> LimitOf:
        return LimitOf(owner_id, self.operation, self.window, LimitSource.PLAYER, self.currency, self.scope)


@strawberry.input
class SetMyLimitInput(MyLimitInput):
    amount: BigInt


@strawberry.input(description="Which limit of whose, and why.")
class LimitInput:
    owner_id: ID
    source: LimitSource
    operation: LimitOperation
    window: LimitWindow
    currency: str
    reason: str
    scope: str = ALL_WALLETS

    def of(self) -> LimitOf:
        owner_id = parse_id(self.owner_id, "ownerId")
        return LimitOf(owner_id, self.operation, self.window, self.source, self.currency, self.scope)


@strawberry.input
class SetLimitInput(LimitInput):
    amount: BigInt


@strawberry.input
class AccountInput:
    owner_id: ID
    reason: str


AccountResult = Annotated[AccountStanding | Problem, strawberry.union("AccountResult")]


@strawberry.type
class LimitQueries:
    @strawberry.field(
        description="Yours: those that you set, those that were set for you, those that all accounts have.",
        extensions=[Requires("limit:read")],
    )
    async def my_limits(self, info: Info[Context]) -> list[Limit]:
        return await _limits(info, info.context.caller.user_id)

    @strawberry.field(
        description="Empty for an owner whose limits you may not see.", extensions=[Requires("limit:read")]
    )
    async def limits(self, info: Info[Context], owner_id: ID) -> list[Limit]:
        return await _limits(info, owner_id)

    @strawberry.field(
        description="Yours, if left out; null for an owner whose limits you may not see.",
        extensions=[Requires("limit:read")],
    )
    async def account_standing(self, info: Info[Context], owner_id: ID | None = None) -> AccountStanding | None:
        found = await _found(info, owner_id or info.context.caller.user_id)
        return AccountStanding.of(found) if found else None


@strawberry.type
class LimitMutations:
    @strawberry.mutation(
        description="For yourself. Stricter is at once, laxer after the time to cool off: see `pendingFrom`.",
        extensions=[Requires("limit:set")],
    )
    async def set_my_limit(self, info: Info[Context], input: SetMyLimitInput) -> AccountResult:  # noqa: A002
        of = input.of(info.context.caller.user_id)
        with within("input"):
            return await _result(commands.set_my_limit(payment_of(info), info.context, of, input.amount))

    @strawberry.mutation(
        description="It ends after the time to cool off: see `pendingFrom`.", extensions=[Requires("limit:set")]
    )
    async def remove_my_limit(self, info: Info[Context], input: MyLimitInput) -> AccountResult:  # noqa: A002
        of = input.of(info.context.caller.user_id)
        with within("input"):
            return await _result(commands.remove_my_limit(payment_of(info), info.context, of))

    @strawberry.mutation(
        description="Keeps you from paying in and from playing until then; what is yours can be withdrawn. Can be made "
        "longer, never shorter.",
        extensions=[Requires("limit:set")],
    )
    async def exclude_myself(self, info: Info[Context], until: datetime) -> AccountResult:
        return await _result(commands.exclude_myself(payment_of(info), info.context, until))

    @strawberry.mutation(
        description="For an account, at once: the law's (KYC), the operator's, or an exception from the PRODUCT's.",
        extensions=[Requires("limit:manage")],
    )
    async def set_limit(self, info: Info[Context], input: SetLimitInput) -> AccountResult:  # noqa: A002
        with within("input"):
            of = input.of()
            return await _result(commands.set_limit(payment_of(info), info.context, of, input.amount, input.reason))

    @strawberry.mutation(description="At once.", extensions=[Requires("limit:manage")])
    async def remove_limit(self, info: Info[Context], input: LimitInput) -> AccountResult:  # noqa: A002
        with within("input"):
            of = input.of()
            return await _result(commands.remove_limit(payment_of(info), info.context, of, input.reason))

    @strawberry.mutation(
        description="Nothing leaves the owner's wallets by their wish, and nothing is paid in.",
        extensions=[Requires("account:manage")],
    )
    async def suspend_account(self, info: Info[Context], input: AccountInput) -> AccountResult:  # noqa: A002
        with within("input"):
            owner_id = parse_id(input.owner_id, "ownerId")
            return await _result(commands.suspend_account(payment_of(info), info.context, owner_id, input.reason))

    @strawberry.mutation(
        description="Ends a suspension; a self-exclusion stays.", extensions=[Requires("account:manage")]
    )
    async def resume_account(self, info: Info[Context], input: AccountInput) -> AccountResult:  # noqa: A002
        with within("input"):
            owner_id = parse_id(input.owner_id, "ownerId")
            return await _result(commands.resume_account(payment_of(info), info.context, owner_id, input.reason))


async def _found(info: Info[Context], owner_id: str) -> AccountLimits | None:
    return await commands.limits_of(payment_of(info), info.context, parse_id(owner_id, "ownerId"))


async def _limits(info: Info[Context], owner_id: str) -> list[Limit]:
    found = await _found(info, owner_id)
    return [Limit.of(left) for left in found.limits] if found else []


async def _result(asked: Awaitable[AccountLimits]) -> AccountResult:
    try:
        return AccountStanding.of(await asked)
    except Refusal as refusal:
        return Problem.of(refusal)
