"""An account is there once its owner has shown that a code arrives; nobody learns whether there was one before."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from libs.core.errors import RateLimited, Refusal
from services.auth.commands import codes
from services.auth.commands.devices import Device
from services.auth.commands.flows import Started
from services.auth.commands.registration import Registration, register, verify_registration
from services.auth.commands.tokens import SignedIn
from services.auth.domain.flows import FlowKind
from services.auth.domain.identifiers import Identifier, parse_email, parse_phone, parse_username
from services.auth.domain.users import User
from services.auth.store import users
from tests.auth.conftest import PASSWORD, House

ANN = parse_email("ann@example.com", "email")


async def started(house: House, recipient: Identifier = ANN, **more: str) -> Started:
    username = parse_username(more["username"], "username") if "username" in more else None
    return await register(house.auth, house.context(), Registration(recipient, PASSWORD, username))


async def verified(house: House, token: str, code: str, username: str = "", **context: Any) -> SignedIn:
    result = await verify_registration(
        house.auth, house.context(**context), token, code, username=username, device=Device()
    )
    assert isinstance(result, SignedIn)
    return result


async def resent(house: House, flow: Started) -> Started:
    return await codes.resend(house.auth, house.context(), FlowKind.REGISTRATION, flow.token)


async def refused(asked: Awaitable[object]) -> str:
    with pytest.raises(Refusal) as caught:
        await asked
    return caught.value.code


async def found(house: House, recipient: Identifier = ANN, tenant: str = "demo") -> User | None:
    return await users.by_identifier(house.auth.database, None, tenant, recipient)


class TestRegister:
    async def test_there_is_no_account_before_the_code_was_entered(self, house: House) -> None:
        await started(house)
        assert await found(house) is None

    async def test_with_the_code_there_is_and_its_owner_is_in(self, house: House) -> None:
        flow = await started(house, username="Ann")
        signed_in = await verified(house, flow.token, await house.code())
        user = await found(house)
        assert user
        assert signed_in.user.id == user.id
        assert (user.email, user.username, user.roles) == ("ann@example.com", "ann", ("player",))
        assert [e.type for e in await house.events() if not e.type.startswith("message")] == [
            "user.registered",
            "user.verified",
            "login.succeeded",
        ]

    async def test_by_phone(self, house: House) -> None:
        phone = parse_phone("+43 664 1234567", "phone")
        flow = await started(house, phone)
        assert (await house.sent())[-1].channel == "sms"
        await verified(house, flow.token, await house.code())
        assert await found(house, phone)

    async def test_a_weak_password(self, house: House) -> None:
        asked = register(house.auth, house.context(), Registration(ANN, "password"))
        assert await refused(asked) == "WEAK_PASSWORD"

    async def test_of_an_account_that_exists_only_its_owner_is_told(self, house: House) -> None:
        await house.user("ann")
        flow = await started(house)
        sent = (await house.sent())[-1]
        assert (sent.template, sent.recipient, "code" in sent.params) == (
            "already_registered",
            "ann@example.com",
            False,
        )
        assert await refused(verified(house, flow.token, "123456")) == "CODE_WRONG"

    async def test_the_same_work_is_done_whether_there_is_an_account_or_not(self, house: House) -> None:
        await house.user("ann")
        hashed, queued = house.auth.hasher.computed, house.auth.messages.queued
        await started(house)
        there = house.auth.hasher.computed - hashed, house.auth.messages.queued - queued
        await started(house, parse_email("ben@example.com", "email"))
        both = house.auth.hasher.computed - hashed, house.auth.messages.queued - queued
        assert both == (2 * there[0], 2 * there[1])

    async def test_the_same_address_at_another_tenant_is_somebody_else(self, house: House) -> None:
        await house.user("ann", tenant="other")
        flow = await started(house)
        await verified(house, flow.token, await house.code())

    async def test_messages_are_limited_however_the_address_is_spelt(
        self, new_house: Callable[..., Awaitable[House]]
    ) -> None:
        house = await new_house(sends_per_recipient=[{"messages": 1, "per_s": 3600}])
        await started(house, parse_email("ann.smith@gmail.com", "email"))
        with pytest.raises(RateLimited):
            await started(house, parse_email("AnnSmith+x@googlemail.com", "email"))


class TestVerifyRegistration:
    async def test_a_code_is_good_once(self, house: House) -> None:
        flow, code = await started(house), await house.code()
        await verified(house, flow.token, code)
        assert await refused(verified(house, flow.token, code)) == "FLOW_OVER"

    async def test_twenty_at_once_make_one_account(self, house: House) -> None:
        flow, code = await started(house), await house.code()
        done = await asyncio.gather(*(verified(house, flow.token, code) for _ in range(20)), return_exceptions=True)
        assert sum(isinstance(it, SignedIn) for it in done) == 1
        assert await house.auth.database["users"].count_documents({}) == 1

    async def test_five_tries_and_no_more(self, house: House) -> None:
        flow, code = await started(house), await house.code()
        wrong = "000000" if code != "000000" else "111111"
        assert {await refused(verified(house, flow.token, wrong)) for _ in range(5)} == {"CODE_WRONG"}
        assert await refused(verified(house, flow.token, code)) == "FLOW_OVER"

    async def test_another_code_gives_no_more_tries(self, house: House) -> None:
        flow, code = await started(house), await house.code()
        wrong = "000000" if code != "000000" else "111111"
        for _ in range(4):
            await refused(verified(house, flow.token, wrong))
        again = await resent(house, flow)
        assert again.expires_at == flow.expires_at
        await refused(verified(house, flow.token, wrong))
        assert await refused(verified(house, flow.token, await house.code())) == "FLOW_OVER"

    async def test_the_code_before_is_not_good_after_another_was_sent(self, house: House) -> None:
        flow, code = await started(house), await house.code()
        await resent(house, flow)
        if await house.code() != code:
            assert await refused(verified(house, flow.token, code)) == "CODE_WRONG"
        await verified(house, flow.token, await house.code())

    async def test_after_ten_minutes(self, house: House) -> None:
        flow, code = await started(house), await house.code()
        house.clock.advance(seconds=601)
        assert await refused(verified(house, flow.token, code)) == "FLOW_OVER"

    async def test_the_code_of_another_flow(self, house: House) -> None:
        other = await started(house, parse_email("ben@example.com", "email"))
        code = await house.code()
        flow = await started(house)
        if await house.code() != code:
            assert await refused(verified(house, flow.token, code)) == "CODE_WRONG"
        await verified(house, other.token, code)

    async def test_at_another_tenant(self, house: House) -> None:
        flow, code = await started(house), await house.code()
        assert await refused(verified(house, flow.token, code, tenant="other")) == "FLOW_OVER"

    async def test_a_username_that_is_taken_can_be_replaced(self, house: House) -> None:
        await house.user("ben")
        flow = await started(house, username="ben")
        code = await house.code()
        assert await refused(verified(house, flow.token, code)) == "USERNAME_TAKEN"
        await verified(house, flow.token, code, username="benny")

    async def test_two_who_registered_the_same_address_at_once(self, house: House) -> None:
        first, one = await started(house), await house.code()
        second, two = await started(house), await house.code()
        done = await asyncio.gather(
            verified(house, first.token, one), verified(house, second.token, two), return_exceptions=True
        )
        assert sorted(type(it).__name__ for it in done) == ["Refusal", "SignedIn"]

    async def test_no_code_is_stored(self, house: House) -> None:
        await started(house)
        code = await house.code()
        assert code not in str(await house.auth.database["flows"].find().to_list())
        assert code not in str(await house.auth.database["outbox"].find().to_list())
