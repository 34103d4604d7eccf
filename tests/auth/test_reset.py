"""Passwords: reset by who has lost theirs, changed by who knows it."""

import asyncio
from datetime import timedelta

from libs.core.errors import RateLimited
from libs.core.testing import eventually
from services.auth.commands.devices import Device
from services.auth.commands.passwords import change, request_reset, reset
from services.auth.commands.profile import me
from services.auth.commands.sign_in import Challenge, sign_in
from services.auth.commands.tokens import SignedIn
from services.auth.domain.identifiers import parse_email
from services.auth.store import users
from tests.auth.conftest import PASSWORD, House
from tests.auth.test_login import changed, log_in
from tests.auth.test_registration import refused
from tests.auth.test_sessions import refreshed

NEW = "other plain words"


async def asked(house: House, who: str = "ann") -> str:
    return (await request_reset(house.auth, house.context(), parse_email(f"{who}@example.com", "email"))).token


async def reset_with(house: House, token: str, code: str, password: str = NEW) -> SignedIn | Challenge:
    return await reset(house.auth, house.context(), token, code, password, device=Device())


class TestReset:
    async def test_the_new_password_is_the_one(self, house: House) -> None:
        await house.user("ann")
        signed_in = await reset_with(house, await asked(house), await house.code())
        assert isinstance(signed_in, SignedIn)
        await log_in(house, password=NEW)
        assert await refused(log_in(house, password=PASSWORD)) == "INVALID_CREDENTIALS"

    async def test_everybody_who_was_signed_in_is_signed_out(self, house: House) -> None:
        await house.user("ann")
        before = await log_in(house)
        await reset_with(house, await asked(house), await house.code())
        assert await refused(refreshed(house, before.refresh_token)) == "SESSION_OVER"
        assert await eventually(lambda: before.session_id in house.revoked)

    async def test_the_owner_is_told(self, house: House) -> None:
        await house.user("ann")
        await reset_with(house, await asked(house), await house.code())
        assert [(m.template, m.params["what"]) for m in (await house.sent())[-1:]] == [
            ("security_notice", "password_changed")
        ]
        [event] = await house.events("password.changed")
        assert event.data["how"] == "reset"

    async def test_a_code_is_good_once(self, house: House) -> None:
        await house.user("ann")
        token = await asked(house)
        code = await house.code()
        await reset_with(house, token, code)
        assert await refused(reset_with(house, token, code, "still other words")) == "FLOW_OVER"

    async def test_a_second_factor_is_asked_for_and_nothing_changed_before(self, house: House) -> None:
        user = await house.user("ann", second_factors=("totp",))
        challenge = await reset_with(house, await asked(house), await house.code())
        assert isinstance(challenge, Challenge)
        after = await users.load(house.auth.database, None, "demo", user.id)
        assert after == user

    async def test_a_trusted_device_does_not_stand_in_for_it(self, house: House) -> None:
        await house.user("ann")
        mine = await log_in(house)
        await house.auth.database["users"].update_one({}, {"$set": {"second_factors": ["totp"]}})
        until = house.clock.now() + timedelta(days=9)
        await house.auth.database["devices"].update_many({}, {"$set": {"trusted_until": until}})
        token = await asked(house)
        device = Device(mine.device_token)
        result = await reset(house.auth, house.context(), token, await house.code(), NEW, device=device)
        assert isinstance(result, Challenge)

    async def test_a_weak_password_uses_no_try_up(self, house: House) -> None:
        await house.user("ann")
        token = await asked(house)
        for _ in range(6):
            assert await refused(reset_with(house, token, await house.code(), "password")) == "WEAK_PASSWORD"
        assert await reset_with(house, token, await house.code())

    async def test_one_sees_it_oneself_at_once(self, house: House) -> None:
        user = await house.user("ann")
        assert (await me(house.auth, house.context(user))).password_changed_at is None
        await reset_with(house, await asked(house), await house.code())
        assert (await me(house.auth, house.context(user))).password_changed_at == house.clock.now()

    async def test_it_lifts_a_forced_reset(self, house: House) -> None:
        user = await house.user("ann")
        await changed(house, user, must_reset=True)
        await reset_with(house, await asked(house), await house.code())
        assert await log_in(house, password=NEW)

    async def test_who_is_suspended_stays_out(self, house: House) -> None:
        user = await house.user("ann")
        token = await asked(house)
        code = await house.code()
        await changed(house, user, status="suspended")
        assert await refused(reset_with(house, token, code)) == "FLOW_OVER"

    async def test_who_has_no_account_is_sent_no_code(self, house: House) -> None:
        token = await asked(house, "nobody")
        assert (await house.sent())[-1].template == "no_account"
        assert await refused(reset_with(house, token, "123456")) == "CODE_WRONG"


class TestChange:
    async def test_others_are_signed_out_and_this_one_stays(self, house: House) -> None:
        await house.user("ann")
        mine, other = await log_in(house), await log_in(house)
        await change(house.auth, await house.of_token(mine), PASSWORD, NEW)
        assert await refreshed(house, mine.refresh_token)
        assert await refused(refreshed(house, other.refresh_token)) == "SESSION_OVER"
        assert await log_in(house, password=NEW)

    async def test_a_login_with_the_old_one_that_was_under_way(self, house: House) -> None:
        user = await house.user("ann")
        await change(house.auth, await house.of_token(await log_in(house)), PASSWORD, NEW)
        late = sign_in(house.auth, house.context(), user, ("pwd",), device=Device())
        assert await refused(late) == "FLOW_OVER"
        assert len(await house.rows("login.succeeded")) == 1

    async def test_without_the_old_one(self, house: House) -> None:
        await house.user("ann")
        context = await house.of_token(await log_in(house))
        assert await refused(change(house.auth, context, "not it", NEW)) == "INVALID_CREDENTIALS"

    async def test_a_stolen_session_is_no_way_to_guess_it(self, house: House) -> None:
        await house.user("ann")
        context = await house.of_token(await log_in(house))
        tries = (change(house.auth, context, "not it", NEW) for _ in range(20))
        done = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(it, RateLimited) for it in done) >= 14

    async def test_long_after_the_login(self, house: House) -> None:
        user = await house.user("ann")
        context = house.context(user, authenticated_at=house.clock.now() - timedelta(minutes=6))
        assert await refused(change(house.auth, context, PASSWORD, NEW)) == "REAUTHENTICATION_REQUIRED"

    async def test_to_ones_own_name(self, house: House) -> None:
        await house.user("ann", name="Annabella Example")
        context = await house.of_token(await log_in(house))
        assert await refused(change(house.auth, context, PASSWORD, "annabella")) == "WEAK_PASSWORD"
