"""The second factor where it is asked for: logins and resets, and those who try to get by without it."""

import asyncio
from typing import Any

import pyotp
import pytest

from libs.core.errors import InvalidInput, RateLimited
from services.auth.commands import flows, login, passkeys, passwords, totp
from services.auth.commands.devices import Device
from services.auth.commands.second_factor import Proof, prove
from services.auth.commands.sign_in import Challenge
from services.auth.commands.tokens import SignedIn
from services.auth.domain.flows import FlowKind
from services.auth.domain.identifiers import parse_email, parse_identifier
from services.auth.domain.users import UserStatus
from tests.auth.authenticator import Authenticator
from tests.auth.conftest import PASSWORD, House
from tests.auth.factors import challenged, context_of, log_in, now, refusal, show, with_app, with_passkey

NEW_PASSWORD = "quite other words"


class TestComplete:
    async def test_with_a_code(self, house: House) -> None:
        ann = await house.user()
        app = await with_app(house, ann)
        challenge = await challenged(house)
        assert challenge.methods == ("totp", "recovery_code")
        signed_in = await show(house, challenge, Proof(totp=app.code))
        context = await context_of(house, signed_in)
        assert (context.caller.subject, context.caller.level) == (ann.id, 2)
        assert (await house.rows("login.succeeded"))[-1]["after"]["methods"] == ["pwd", "otp"]

    async def test_no_session_before(self, house: House) -> None:
        await with_app(house, await house.user())
        await challenged(house)
        assert await house.auth.database["sessions"].count_documents({}) == 0

    async def test_after_a_code_that_was_sent(self, house: House) -> None:
        app = await with_app(house, await house.user())
        started = await login.request_code(house.auth, house.context(), parse_email("ann@example.com", "input.email"))
        code = await house.code()
        challenge = await login.login_with_code(house.auth, house.context(), started.token, code, device=Device())
        assert isinstance(challenge, Challenge)
        signed_in = await show(house, challenge, Proof(totp=app.code))
        assert (await context_of(house, signed_in)).caller.level == 2

    @pytest.mark.parametrize("given", [{}, {"totp": "123456", "recovery_code": "x"}, {"totp": "1", "passkey": {}}])
    def test_one_proof_at_a_time(self, given: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput):
            Proof(**given)

    async def test_whatever_is_wrong_one_answer(self, house: House) -> None:
        app = await with_app(house, await house.user())
        wrong = [
            Proof(totp=app.wrong),
            Proof(totp="no code at all"),
            Proof(recovery_code="0000-0000-0000-0000"),
            Proof(passkey={"rawId": 7}),
        ]
        said = set()
        challenge = await challenged(house)
        for proof in wrong:
            with pytest.raises(Exception) as caught:
                await show(house, challenge, proof)
            said.add((type(caught.value), str(caught.value), getattr(caught.value, "code", "")))
        assert len(said) == 1
        [*rows] = await house.rows("login.failed")
        assert [row["reason"] for row in rows] == ["wrong second factor"] * 4
        assert len(await house.events("login.failed")) == 4


class TestReplay:
    async def test_a_code_in_two_logins(self, house: House) -> None:
        app = await with_app(house, await house.user())
        code = app.code
        await show(house, await challenged(house), Proof(totp=code))
        assert await refusal(show(house, await challenged(house), Proof(totp=code))) == "SECOND_FACTOR_WRONG"

    async def test_the_code_of_the_step_before(self, house: House) -> None:
        """Seen over a shoulder, and used after the next: what is past is past."""
        app = await with_app(house, await house.user())
        seen = app.code
        house.clock.advance(seconds=30)
        await show(house, await challenged(house), Proof(totp=app.code))
        assert await refusal(show(house, await challenged(house), Proof(totp=seen))) == "SECOND_FACTOR_WRONG"

    async def test_the_code_that_confirmed_the_app(self, house: House) -> None:
        ann = await house.user()
        setup = await totp.start_totp(house.auth, house.context(ann))
        code = pyotp.TOTP(setup.secret).at(house.clock.now())
        await totp.confirm_totp(house.auth, house.context(ann), setup.flow_token, code)
        assert await refusal(show(house, await challenged(house), Proof(totp=code))) == "SECOND_FACTOR_WRONG"

    async def test_a_code_of_a_login_for_something_else(self, house: House) -> None:
        """A step-up, or whatever else asks for a proof."""
        ann = await house.user()
        app = await with_app(house, ann)
        code = app.code
        signed_in = await show(house, await challenged(house), Proof(totp=code))
        context = await context_of(house, signed_in)
        user = await now(house, ann)

        async def work(session: Any) -> Any:
            return await prove(house.auth, context, session, user, Proof(totp=code), "another flow")

        assert await house.auth.transaction("demo", work) is None

    async def test_twenty_logins_at_once_with_one_code(self, new_house: Any) -> None:
        """In two processes: one is let in."""
        houses = [await new_house(account_free_tries=100), await new_house()]
        app = await with_app(houses[0], await houses[0].user())
        waiting = [await challenged(houses[n % 2]) for n in range(20)]
        proof = Proof(totp=app.code)
        outcomes = await asyncio.gather(
            *(show(houses[n % 2], challenge, proof) for n, challenge in enumerate(waiting)), return_exceptions=True
        )
        assert [isinstance(outcome, SignedIn) for outcome in outcomes].count(True) == 1
        assert {getattr(outcome, "code", None) for outcome in outcomes} == {None, "SECOND_FACTOR_WRONG"}

    async def test_a_challenge_that_was_met(self, house: House) -> None:
        app = await with_app(house, await house.user())
        challenge = await challenged(house)
        await show(house, challenge, Proof(totp=app.code))
        house.clock.advance(seconds=30)
        assert await refusal(show(house, challenge, Proof(totp=app.code))) == "FLOW_OVER"


class TestOtherPeoplesFlows:
    async def test_anothers_code(self, house: House) -> None:
        await with_app(house, await house.user())
        bobs = await with_app(house, await house.user("bob"))
        asked = show(house, await challenged(house), Proof(totp=bobs.code))
        assert await refusal(asked) == "SECOND_FACTOR_WRONG"

    async def test_from_another_tenant(self, house: House) -> None:
        app = await with_app(house, await house.user())
        asked = show(house, await challenged(house), Proof(totp=app.code), tenant="other")
        assert await refusal(asked) == "FLOW_OVER"

    async def test_of_another_kind(self, house: House) -> None:
        ann = await house.user()
        app = await with_app(house, ann)
        for kind in FlowKind:
            if kind is not FlowKind.SECOND_FACTOR:
                token, _ = await flows.begin(house.auth, house.context(), kind, user_id=ann.id)
                challenge = Challenge(token, (), house.clock.now())
                assert await refusal(show(house, challenge, Proof(totp=app.code))) == "FLOW_OVER", kind

    async def test_a_setup_is_no_login(self, house: House) -> None:
        """Else whoever can begin one with a stolen session would choose the factor that is asked for."""
        ann = await house.user()
        setup = await totp.start_totp(house.auth, house.context(ann))
        code = pyotp.TOTP(setup.secret).at(house.clock.now())
        challenge = Challenge(setup.flow_token, (), setup.expires_at)
        assert await refusal(show(house, challenge, Proof(totp=code))) == "FLOW_OVER"

    async def test_suspended_before_it_was_met(self, house: House) -> None:
        ann = await house.user()
        app = await with_app(house, ann)
        challenge = await challenged(house)
        row = {"status": UserStatus.SUSPENDED.value}
        await house.auth.database["users"].update_one({"_id": ann.key}, {"$set": row})
        assert await refusal(show(house, challenge, Proof(totp=app.code))) == "FLOW_OVER"
        assert await house.auth.database["sessions"].count_documents({}) == 0

    async def test_the_password_was_changed_before_it_was_met(self, house: House) -> None:
        """Who knew the old one may have waited for a code to come by."""
        ann = await house.user()
        app = await with_app(house, ann)
        challenge = await challenged(house)
        house.clock.advance(seconds=1)
        await passwords.change(house.auth, house.context(ann, level=2), PASSWORD, NEW_PASSWORD)
        assert await refusal(show(house, challenge, Proof(totp=app.code), trust=True)) == "FLOW_OVER"
        assert await house.auth.database["sessions"].count_documents({}) == 0

    async def test_too_late(self, house: House) -> None:
        app = await with_app(house, await house.user())
        challenge = await challenged(house)
        house.clock.advance(minutes=16)
        assert await refusal(show(house, challenge, Proof(totp=app.code))) == "FLOW_OVER"


class TestGuessing:
    async def test_five_tries_and_the_user_hears_of_it(self, new_house: Any) -> None:
        house = await new_house(account_free_tries=100)
        app = await with_app(house, await house.user())
        challenge = await challenged(house)
        for _ in range(5):
            assert await refusal(show(house, challenge, Proof(totp=app.wrong))) == "SECOND_FACTOR_WRONG"
        assert await refusal(show(house, challenge, Proof(totp=app.code))) == "FLOW_OVER"
        assert (await house.sent())[-1].params["what"] == "second_factor_failed"

    async def test_twenty_at_once(self, new_house: Any) -> None:
        """No more than five are let in to be compared."""
        house = await new_house(account_free_tries=100)
        app = await with_app(house, await house.user())
        challenge = await challenged(house)
        outcomes = await asyncio.gather(
            *(show(house, challenge, Proof(totp=app.wrong)) for _ in range(20)), return_exceptions=True
        )
        codes = [getattr(outcome, "code", "") for outcome in outcomes]
        assert (codes.count("SECOND_FACTOR_WRONG"), codes.count("FLOW_OVER")) == (5, 15)

    async def test_over_many_flows(self, house: House) -> None:
        """Who has the password can begin any number: the tries at the account's code are what is counted."""
        app = await with_app(house, await house.user())
        for _ in range(5):
            await refusal(show(house, await challenged(house), Proof(totp=app.wrong)))
        with pytest.raises(RateLimited):
            await show(house, await challenged(house), Proof(totp=app.code))

    async def test_does_not_lock_the_owner_out(self, house: House) -> None:
        app = await with_app(house, await house.user())
        own = Device((await show(house, await challenged(house), Proof(totp=app.code))).device_token)
        house.clock.advance(minutes=1)
        for _ in range(5):
            await refusal(show(house, await challenged(house), Proof(totp=app.wrong), address="198.51.100.7"))
        assert await show(house, await challenged(house, device=own), Proof(totp=app.code), device=own)


class TestPasswordReset:
    async def reset(self, house: House, *, device: Device | None = None) -> SignedIn | Challenge:
        """By somebody who reads the mailbox."""
        email = parse_email("ann@example.com", "input.email")
        started = await passwords.request_reset(house.auth, house.context(), email)
        code = await house.code()
        return await passwords.reset(
            house.auth, house.context(), started.token, code, NEW_PASSWORD, device=device or Device()
        )

    async def test_changes_nothing_before_the_second_factor(self, house: House) -> None:
        ann = await house.user()
        app = await with_app(house, ann)
        before = await show(house, await challenged(house), Proof(totp=app.code))
        house.clock.advance(minutes=1)
        assert isinstance(await self.reset(house), Challenge)
        assert await house.events("password.changed") == []
        assert await challenged(house)
        assert await house.of_token(before)

    async def test_happens_with_it(self, house: House) -> None:
        ann = await house.user()
        app = await with_app(house, ann)
        before = await show(house, await challenged(house), Proof(totp=app.code))
        house.clock.advance(minutes=1)
        challenge = await self.reset(house)
        assert isinstance(challenge, Challenge)
        after = await show(house, challenge, Proof(totp=app.code))
        assert (await context_of(house, after)).caller.level == 2
        await house.auth.platform.revocations.reload()
        assert before.session_id in house.revoked
        assert await refusal(log_in(house)) == "INVALID_CREDENTIALS"
        identifier = parse_identifier("ann", "input.identifier")
        again = await login.login(house.auth, house.context(), identifier, NEW_PASSWORD, device=Device())
        assert isinstance(again, Challenge)

    async def test_by_whoever_lost_the_phone_too(self, house: House) -> None:
        app = await with_app(house, await house.user())
        challenge = await self.reset(house)
        assert isinstance(challenge, Challenge)
        assert await show(house, challenge, Proof(recovery_code=app.recovery_codes[0]))

    async def test_not_by_a_trusted_device(self, house: House) -> None:
        """Which may be what was stolen, together with the mailbox that is open on it."""
        app = await with_app(house, await house.user())
        signed_in = await show(house, await challenged(house), Proof(totp=app.code), trust=True)
        device = Device(signed_in.device_token)
        assert isinstance(await self.reset(house, device=device), Challenge)

    async def test_with_a_wrong_code(self, house: House) -> None:
        ann = await house.user()
        app = await with_app(house, ann)
        challenge = await self.reset(house)
        assert isinstance(challenge, Challenge)
        assert await refusal(show(house, challenge, Proof(totp=app.wrong))) == "SECOND_FACTOR_WRONG"
        assert (await now(house, ann)).password == ann.password

    async def test_whoever_has_none_is_in_at_once(self, house: House) -> None:
        await house.user()
        assert isinstance(await self.reset(house), SignedIn)


class TestManyFactors:
    async def test_each_of_them_will_do(self, house: House) -> None:
        ann, device = await house.user(), Authenticator()
        app = await with_app(house, ann)
        await with_passkey(house, ann, device, level=2)
        challenge = await challenged(house)
        assert challenge.methods == ("totp", "passkey", "recovery_code")
        options = await passkeys.second_factor_options(house.auth, house.context(), challenge.flow_token)
        assert options
        assert await show(house, challenge, Proof(passkey=device.get(options)))
        assert await show(house, await challenged(house), Proof(totp=app.code))
        assert await show(house, await challenged(house), Proof(recovery_code=app.recovery_codes[0]))
