"""Logins: by password and by code; and what is not told to whom."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from libs.core.errors import RateLimited, Refusal
from services.auth.commands.devices import Device
from services.auth.commands.login import login, login_with_code, request_code
from services.auth.commands.sign_in import Challenge
from services.auth.commands.tokens import SignedIn
from services.auth.domain.identifiers import parse_email, parse_identifier
from services.auth.domain.users import User, UserStatus
from services.auth.passwords import Hasher
from services.auth.store import users
from tests.auth.conftest import PASSWORD, House
from tests.auth.test_registration import refused


async def log_in(house: House, who: str = "ann", password: str = PASSWORD, token: str = "", **more: Any) -> SignedIn:
    device = Device(token, more.pop("device", ""))
    identifier = parse_identifier(who, "identifier")
    result = await login(house.auth, house.context(**more), identifier, password, device=device)
    assert isinstance(result, SignedIn)
    return result


async def changed(house: House, user: User, **fields: Any) -> None:
    await house.auth.database["users"].update_one({"_id": user.key}, {"$set": fields})


class TestLogin:
    @pytest.mark.parametrize("who", ["ann", "ANN", "ann@example.com", "Ann@Example.com"])
    async def test_by_any_of_ones_names(self, house: House, who: str) -> None:
        user = await house.user("ann")
        assert (await log_in(house, who)).user.id == user.id

    async def test_the_token_is_the_user(self, house: House) -> None:
        user = await house.user("ann", roles=("player", "operator"))
        caller = (await house.of_token(await log_in(house))).caller
        assert (caller.tenant_id, caller.subject, caller.level) == ("demo", user.id, 1)
        assert caller.roles == ("operator", "player")
        assert caller.authenticated_at == house.clock.now()

    @pytest.mark.parametrize("who", ["ann", "nobody"])
    async def test_a_wrong_password_and_no_account_are_the_same(self, house: House, who: str) -> None:
        await house.user("ann")
        hashed = house.auth.hasher.computed
        with pytest.raises(Refusal) as caught:
            await log_in(house, who, "not the password")
        assert (caught.value.code, caught.value.message) == ("INVALID_CREDENTIALS", "that is not right")
        assert house.auth.hasher.computed - hashed == 1
        assert len(await house.rows("login.failed")) == 1

    async def test_at_another_tenant(self, house: House) -> None:
        await house.user("ann")
        assert await refused(log_in(house, tenant="other")) == "INVALID_CREDENTIALS"

    async def test_of_a_user_without_a_password(self, house: House) -> None:
        await house.user("ann", password="")
        assert await refused(log_in(house, password="")) == "INVALID_CREDENTIALS"

    async def test_suspended_is_told_to_who_has_the_password_alone(self, house: House) -> None:
        user = await house.user("ann")
        await changed(house, user, status=UserStatus.SUSPENDED.value)
        assert await refused(log_in(house)) == "ACCOUNT_SUSPENDED"
        assert await refused(log_in(house, password="wrong")) == "INVALID_CREDENTIALS"

    async def test_a_forced_reset(self, house: House) -> None:
        user = await house.user("ann")
        await changed(house, user, must_reset=True)
        assert await refused(log_in(house)) == "PASSWORD_RESET_REQUIRED"

    async def test_a_second_factor_is_asked_for(self, house: House) -> None:
        await house.user("ann", second_factors=("totp",))
        result = await login(
            house.auth, house.context(), parse_identifier("ann", "identifier"), PASSWORD, device=Device()
        )
        assert isinstance(result, Challenge)
        assert result.methods == ("totp", "recovery_code")
        assert await house.auth.database["sessions"].count_documents({}) == 0

    async def test_a_password_hashed_with_old_parameters_is_hashed_anew(self, house: House) -> None:
        user = await house.user("ann")
        await changed(house, user, password=await _hashed_with(16))
        await log_in(house)
        after = await users.load(house.auth.database, None, "demo", user.id)
        assert after
        assert "m=8," in after.password

    async def test_several_at_once_whose_password_is_hashed_anew(self, house: House) -> None:
        user = await house.user("ann")
        await changed(house, user, password=await _hashed_with(16))
        signed_in = await asyncio.gather(*(log_in(house) for _ in range(4)))
        assert len({each.session_id for each in signed_in}) == 4

    async def test_what_is_logged(self, house: House) -> None:
        user = await house.user("ann")
        signed_in = await log_in(house, device="Ann's phone", address="198.51.100.7")
        [row] = await house.rows("login.succeeded")
        assert (row["actor"], row["resource"], row["origin"]) == (user.id, signed_in.session_id, "198.51.100.7")
        [event] = await house.events("login.succeeded")
        assert event.data["device"] == "Ann's phone"


async def _hashed_with(memory_kib: int) -> str:
    async with Hasher(memory_kib=memory_kib, iterations=1) as hasher:
        return await hasher.hash(PASSWORD)


class TestTooManyTries:
    async def test_of_twenty_at_once_only_the_free_ones_are_looked_at(self, house: House) -> None:
        await house.user("ann")
        hashed = house.auth.hasher.computed
        done = await asyncio.gather(*(log_in(house, password="wrong") for _ in range(20)), return_exceptions=True)
        limited = sum(isinstance(it, RateLimited) for it in done)
        free = house.auth.hasher.computed - hashed
        assert (limited + free, free <= 6) == (20, True)

    async def test_from_many_addresses(self, house: House) -> None:
        await house.user("ann")
        tries = [log_in(house, password="wrong", address=f"198.51.100.{n}") for n in range(20)]
        done = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(it, RateLimited) for it in done) >= 14

    async def test_the_owner_at_a_device_of_theirs_is_not_locked_out(self, house: House) -> None:
        await house.user("ann")
        mine = await log_in(house)
        tries = [log_in(house, password="wrong", address=f"198.51.100.{n}") for n in range(20)]
        await asyncio.gather(*tries, return_exceptions=True)
        with pytest.raises(RateLimited):
            await log_in(house, address="203.0.113.9")
        assert await log_in(house, token=mine.device_token)

    async def test_somebody_elses_device_is_no_help(self, house: House) -> None:
        await house.user("ann")
        await house.user("eve")
        eves = await log_in(house, "eve")
        tries = [log_in(house, password="wrong", token=eves.device_token, address=f"198.51.100.{n}") for n in range(20)]
        done = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(it, RateLimited) for it in done) >= 14

    async def test_two_processes_count_together(self, new_house: Callable[..., Awaitable[House]]) -> None:
        here, there = await new_house(), await new_house()
        await here.user("ann")
        tries = [log_in(house, password="wrong") for house in (here, there) for _ in range(10)]
        done = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(it, RateLimited) for it in done) >= 14


class TestLoginWithCode:
    async def test_the_code_signs_in(self, house: House) -> None:
        user = await house.user("ann")
        flow = await request_code(house.auth, house.context(), parse_email("ann@example.com", "email"))
        signed_in = await login_with_code(house.auth, house.context(), flow.token, await house.code(), device=Device())
        assert isinstance(signed_in, SignedIn)
        assert signed_in.user.id == user.id

    async def test_who_has_no_account_is_sent_no_code(self, house: House) -> None:
        flow = await request_code(house.auth, house.context(), parse_email("nobody@example.com", "email"))
        sent = (await house.sent())[-1]
        assert (sent.template, "code" in sent.params) == ("no_account", False)
        asked = login_with_code(house.auth, house.context(), flow.token, "123456", device=Device())
        assert await refused(asked) == "CODE_WRONG"
