"""Step-up: what has to be shown, what it is good for, and for how long."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from libs.core.context import Context
from libs.core.errors import Forbidden, InvalidInput, RateLimited, Refusal, Unauthenticated
from libs.core.stepup import SensitiveOperation, confirm
from services.auth.commands import passkeys, sessions, step_up
from services.auth.commands.devices import Device
from services.auth.commands.fresh import demand_fresh
from services.auth.commands.second_factor import Proof
from services.auth.commands.step_up import Asked, Confirmed, Refreshed, Shown
from services.auth.commands.tokens import SignedIn
from services.auth.domain.users import User
from tests.auth.authenticator import Authenticator
from tests.auth.conftest import PASSWORD, House
from tests.auth.factors import App, challenged, context_of, log_in, refusal, show, with_app, with_passkey

RENT = SensitiveOperation(action="transfer", id="t1", amount_minor=900_00, currency="EUR", source="w1", payee="w2")


@pytest.fixture
async def ann(house: House) -> User:
    return await house.user()


async def signed_in(house: House, app: App | None = None, name: str = "ann") -> Context:
    """In a session of its own, some time ago."""
    if app:
        done = await show(house, await challenged(house, name), Proof(totp=app.code))
    else:
        opened = await log_in(house, name)
        assert isinstance(opened, SignedIn)
        done = opened
    context = await context_of(house, done)
    house.clock.advance(minutes=4)
    return context


async def start(
    house: House, context: Context, operation: SensitiveOperation | None = None, *, send_code: bool = False
) -> Asked:
    return await step_up.start(house.auth, context, operation, send_code=send_code)


async def complete(house: House, context: Context, asked: Asked, **shown: Any) -> Refreshed | Confirmed:
    return await step_up.complete(house.auth, context, asked.flow_token, Shown(**shown))


def totp(code: str) -> dict[str, Any]:
    return {"factor": Proof(totp=code)}


class TestStart:
    async def test_who_has_only_a_password_shows_it_or_a_code(self, house: House, ann: User) -> None:
        assert (await start(house, await signed_in(house))).methods == ("password", "code")

    async def test_who_has_a_second_factor_shows_that(self, house: House, ann: User) -> None:
        app = await with_app(house, ann)
        assert (await start(house, await signed_in(house, app))).methods == ("totp", "recovery_code")

    async def test_a_passkey_is_asked_for_by_a_challenge_of_this_flow(self, house: House, ann: User) -> None:
        await with_passkey(house, ann)
        one, other = [await start(house, house.context(ann, level=2)) for _ in range(2)]
        assert one.methods == ("passkey", "recovery_code")
        assert one.passkey_options is not None
        assert other.passkey_options is not None
        assert one.passkey_options["challenge"] != other.passkey_options["challenge"]

    async def test_what_is_confirmed_is_shown(self, house: House, ann: User) -> None:
        assert (await start(house, await signed_in(house), RENT)).operation == RENT

    async def test_a_code_says_what_it_is_for(self, house: House, ann: User) -> None:
        asked = await start(house, await signed_in(house), RENT, send_code=True)
        message = (await house.sent())[-1]
        assert (asked.code_sent_by, message.template, message.recipient) == ("email", "step_up", ann.email)
        assert message.params["operation"] == RENT.content

    async def test_no_code_unless_it_is_wanted(self, house: House, ann: User) -> None:
        await start(house, await signed_in(house))
        assert await house.sent() == []

    async def test_who_has_a_second_factor_is_sent_none(self, house: House, ann: User) -> None:
        context = await signed_in(house, await with_app(house, ann))
        before = len(await house.sent())
        await start(house, context, send_code=True)
        assert len(await house.sent()) == before

    async def test_without_a_password_a_code_is_sent_at_once(self, house: House) -> None:
        ben = await house.user("ben", password="", phone="+436641234567")
        asked = await start(house, house.context(ben))
        assert (asked.methods, asked.code_sent_by) == (("code",), "sms")

    async def test_who_has_nothing_to_show(self, house: House) -> None:
        eve = await house.user("eve", password="", email="")
        assert await refusal(start(house, house.context(eve))) == "SECOND_FACTOR_MISSING"

    @pytest.mark.parametrize("caller", [{"kind": "service"}, {"scopes": ("transfer:create:own",)}])
    async def test_a_key_is_nobody(self, house: House, ann: User, caller: dict[str, Any]) -> None:
        context = house.context(ann)
        context.caller = replace(context.caller, **caller)
        with pytest.raises(Forbidden):
            await start(house, context)

    async def test_of_a_user_who_was_suspended(self, house: House, ann: User) -> None:
        context = house.context(ann)
        await house.auth.database["users"].update_many({}, {"$set": {"status": "suspended"}})
        with pytest.raises(Unauthenticated):
            await start(house, context)


class TestForAWhile:
    async def test_the_session_is_fresh_again(self, house: House, ann: User) -> None:
        context = await signed_in(house)
        house.clock.advance(seconds=61)
        assert await refusal(demand_fresh(house.auth, context)) == "REAUTHENTICATION_REQUIRED"
        done = await complete(house, context, await start(house, context), password=PASSWORD)
        assert isinstance(done, Refreshed)
        caller = await house.auth.platform.identity.authenticate(f"Bearer {done.access_token}")
        assert (caller.session_id, caller.authenticated_at) == (context.caller.session_id, house.clock.now())
        await demand_fresh(house.auth, replace(context, caller=caller))

    async def test_a_password_is_one_factor_however_often(self, house: House, ann: User) -> None:
        context = await signed_in(house)
        done = await complete(house, context, await start(house, context), password=PASSWORD)
        assert isinstance(done, Refreshed)
        assert (done.session.level, done.session.methods) == (1, ("pwd",))

    async def test_a_mailbox_beside_a_password_is_no_second_factor(self, house: House, ann: User) -> None:
        context = await signed_in(house)
        asked = await start(house, context, send_code=True)
        done = await complete(house, context, asked, code=await house.code())
        assert isinstance(done, Refreshed)
        assert (done.session.level, done.session.methods) == (1, ("pwd", "email"))

    async def test_who_came_in_on_a_trusted_device_has_shown_two(self, house: House, ann: User) -> None:
        app = await with_app(house, ann)
        first = await show(house, await challenged(house), Proof(totp=app.code), trust=True)
        house.clock.advance(minutes=1)
        again = await log_in(house, device=Device(token=first.device_token))
        assert isinstance(again, SignedIn)
        context = await context_of(house, again)
        assert context.caller.level == 1
        done = await complete(house, context, await start(house, context), **totp(app.code))
        assert isinstance(done, Refreshed)
        assert done.session.level == 2

    async def test_a_refresh_afterwards_is_as_fresh(self, house: House, ann: User) -> None:
        opened = await log_in(house)
        assert isinstance(opened, SignedIn)
        context = await context_of(house, opened)
        house.clock.advance(minutes=4)
        proven_at = house.clock.now()
        await complete(house, context, await start(house, context), password=PASSWORD)
        house.clock.advance(minutes=1)
        refreshed = await sessions.refresh(house.auth, house.context(), opened.refresh_token)
        assert (await context_of(house, refreshed)).caller.authenticated_at == proven_at

    async def test_it_is_in_the_security_log(self, house: House, ann: User) -> None:
        context = await signed_in(house)
        await complete(house, context, await start(house, context), password=PASSWORD)
        [row] = await house.rows("step_up.succeeded")
        assert (row["actor"], row["resource"]) == (ann.id, context.caller.session_id)


class TestForOneOperation:
    async def test_the_token_confirms_it_and_nothing_else(self, house: House, ann: User) -> None:
        app = await with_app(house, ann)
        context = await signed_in(house, app)
        done = await complete(house, context, await start(house, context, RENT), **totp(app.code))
        assert isinstance(done, Confirmed)
        identity = house.auth.platform.identity
        assert (await confirm(identity, done.token, context.caller, RENT)).acr == "2"
        with pytest.raises(Refusal):
            await confirm(identity, done.token, context.caller, replace(RENT, amount_minor=900_01))
        house.clock.advance(seconds=180)
        with pytest.raises(Refusal):
            await confirm(identity, done.token, context.caller, RENT)

    async def test_the_session_stays_as_it_was(self, house: House, ann: User) -> None:
        context = await signed_in(house)
        before = await house.auth.database["sessions"].find_one({"_id": context.caller.session_id})
        await complete(house, context, await start(house, context, RENT), password=PASSWORD)
        assert await house.auth.database["sessions"].find_one({"_id": context.caller.session_id}) == before

    async def test_by_a_passkey(self, house: House, ann: User) -> None:
        device = Authenticator()
        await with_passkey(house, ann, device)
        opened = await log_in_with(house, device)
        asked = await start(house, opened, RENT)
        answer = device.get(asked.passkey_options or {})
        done = await complete(house, opened, asked, factor=Proof(passkey=answer))
        assert isinstance(done, Confirmed)

    async def test_what_was_confirmed_is_in_the_security_log(self, house: House, ann: User) -> None:
        context = await signed_in(house)
        await complete(house, context, await start(house, context, RENT), password=PASSWORD)
        [row] = await house.rows("step_up.confirmed")
        assert row["after"]["operation"] == RENT.content


class TestRefused:
    async def test_a_password_where_there_is_a_second_factor(self, house: House, ann: User) -> None:
        context = await signed_in(house, await with_app(house, ann))
        with pytest.raises(InvalidInput):
            await complete(house, context, await start(house, context), password=PASSWORD)

    @pytest.mark.parametrize(
        ("shown", "code"),
        [({"password": "not the password"}, "INVALID_CREDENTIALS"), ({"code": "000000"}, "CODE_WRONG")],
    )
    async def test_what_is_wrong(self, house: House, ann: User, shown: dict[str, str], code: str) -> None:
        context = await signed_in(house)
        assert await refusal(complete(house, context, await start(house, context), **shown)) == code
        assert len(await house.rows("step_up.failed")) == 1

    async def test_the_code_of_a_login_is_not_taken_again(self, house: House, ann: User) -> None:
        app = await with_app(house, ann)
        done = await show(house, await challenged(house), Proof(totp=app.code))
        context = await context_of(house, done)
        asked = await start(house, context)
        assert await refusal(complete(house, context, asked, **totp(app.code))) == "SECOND_FACTOR_WRONG"

    async def test_nor_that_of_a_step_up_by_a_login(self, house: House, ann: User) -> None:
        app = await with_app(house, ann)
        context = await signed_in(house, app)
        await complete(house, context, await start(house, context), **totp(app.code))
        challenge = await challenged(house)
        assert await refusal(show(house, challenge, Proof(totp=app.code))) == "SECOND_FACTOR_WRONG"

    async def test_a_flow_is_good_once(self, house: House, ann: User) -> None:
        context = await signed_in(house)
        asked = await start(house, context)
        await complete(house, context, asked, password=PASSWORD)
        assert await refusal(complete(house, context, asked, password=PASSWORD)) == "FLOW_OVER"

    async def test_of_several_at_once_with_one_code_one_wins(self, house: House, ann: User) -> None:
        app = await with_app(house, ann)
        context = await signed_in(house, app)
        started = [await start(house, context, RENT) for _ in range(4)]
        asked = [complete(house, context, one, **totp(app.code)) for one in (*started, started[0])]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Confirmed"] + ["Refusal"] * 4

    async def test_twenty_guesses_at_once_are_five_tries(self, house: House, ann: User) -> None:
        context = await signed_in(house)
        asked = await start(house, context)
        guesses = [complete(house, context, asked, password="a guess") for _ in range(20)]
        outcomes = await asyncio.gather(*guesses, return_exceptions=True)
        compared = [it for it in outcomes if isinstance(it, Refusal) and it.code == "INVALID_CREDENTIALS"]
        assert len(compared) <= 5
        assert all(isinstance(it, Refusal | RateLimited) for it in outcomes)

    async def test_somebody_elses_flow(self, house: House, ann: User) -> None:
        await house.user("eve")
        asked = await start(house, await signed_in(house))
        eve = await signed_in(house, name="eve")
        assert await refusal(complete(house, eve, asked, password=PASSWORD)) == "FLOW_OVER"

    async def test_ones_own_of_another_session(self, house: House, ann: User) -> None:
        asked = await start(house, await signed_in(house))
        other = await signed_in(house)
        assert await refusal(complete(house, other, asked, password=PASSWORD)) == "FLOW_OVER"

    async def test_in_a_session_that_was_ended(self, house: House, ann: User) -> None:
        context = await signed_in(house)
        asked = await start(house, context)
        await sessions.logout(house.auth, context)
        with pytest.raises(Unauthenticated):
            await complete(house, context, asked, password=PASSWORD)

    async def test_guesses_slow_down_over_all_flows(self, house: House, ann: User) -> None:
        context = await signed_in(house)
        with pytest.raises(RateLimited):  # noqa: PT012
            for _ in range(12):
                asked = await start(house, context)
                assert await refusal(complete(house, context, asked, password="a guess")) == "INVALID_CREDENTIALS"

    async def test_a_flow_has_five_tries_and_its_user_is_told(self, house: House, ann: User) -> None:
        context = await signed_in(house)
        asked = await start(house, context)
        for _ in range(5):
            await refusal(complete(house, context, asked, password="a guess"))
        assert (await house.sent())[-1].params["what"] == "step_up_failed"

    @pytest.mark.parametrize("shown", [{}, {"password": "x", "code": "1"}])
    def test_one_thing_is_shown(self, shown: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput):
            Shown(**shown)


async def log_in_with(house: House, device: Authenticator) -> Context:
    """With a passkey alone."""
    ceremony = await passkeys.start_login(house.auth, house.context())
    opened = await passkeys.finish_login(
        house.auth, house.context(), ceremony.flow_token, device.get(ceremony.options), Device()
    )
    assert isinstance(opened, SignedIn)
    return await context_of(house, opened)
