"""Ways around the second factor: by a reset, a code, a recovery, a device of somebody else, a code shown twice."""

import asyncio

import pytest

from tests.auth.attacks.scene import (
    CONFIRM_TOTP,
    LOGIN_WITH_CODE,
    PASSWORD,
    REQUEST_CODE,
    REQUEST_RESET,
    RESET,
    SECOND_FACTOR,
    START_TOTP,
    Person,
    Scene,
    Visitor,
    code_of,
    wrong,
)

NEW = "others plain words"


@pytest.fixture
async def ann(scene: Scene) -> Person:
    """With an authenticator app."""
    ann = await scene.person()
    await ann.add_totp()
    return ann


async def challenged(visitor: Visitor, ann: Person, password: str = PASSWORD, device: str = "") -> str:
    """The flow of one who knows the password."""
    answer = (await visitor.login(ann.email, password, device))["data"]["login"]
    assert answer["__typename"] == "SecondFactorRequired", answer
    return str(answer["flowId"])


async def shown(visitor: Visitor, flow: str, **proof: str | bool) -> str:
    return await visitor.refused(SECOND_FACTOR, input={"flowId": flow, **proof})


class TestAround:
    async def test_by_a_code_that_is_sent(self, visitor: Visitor, ann: Person) -> None:
        flow = (await visitor.ask(REQUEST_CODE, input={"email": ann.email}))["flowId"]
        given = {"flowId": flow, "code": await visitor.code(ann.email, 2)}  # the first message tells of the app
        assert (await visitor.ask(LOGIN_WITH_CODE, input=given))["__typename"] == "SecondFactorRequired"

    async def test_by_a_reset(self, visitor: Visitor, ann: Person) -> None:
        """Who reads the mailbox alone has changed nothing: the old password is the password."""
        flow = (await visitor.ask(REQUEST_RESET, input={"email": ann.email}))["flowId"]
        given = {"flowId": flow, "code": await visitor.code(ann.email, 2), "newPassword": NEW}
        waiting = await visitor.ask(RESET, input=given)
        assert waiting["__typename"] == "SecondFactorRequired"
        assert code_of(await visitor.login(ann.email, NEW)) == "INVALID_CREDENTIALS"
        assert await shown(visitor, waiting["flowId"], code=wrong(ann.totp())) == "SECOND_FACTOR_WRONG"
        await challenged(visitor, ann)
        assert await shown(visitor, waiting["flowId"], code=ann.totp()) == ""
        await challenged(visitor, ann, NEW)

    async def test_by_a_reset_on_a_device_that_is_trusted(self, scene: Scene, ann: Person) -> None:
        flow = await challenged(ann, ann)
        given = {"flowId": flow, "code": ann.totp(), "trustDevice": True}
        device = (await ann.ask(SECOND_FACTOR, input=given))["deviceToken"]
        assert (await ann.login(ann.email, device=device))["data"]["login"]["__typename"] == "SignedIn"
        flow = (await ann.ask(REQUEST_RESET, input={"email": ann.email}))["flowId"]
        reset = {"flowId": flow, "code": await ann.code(ann.email, 2), "newPassword": NEW, "device": {"token": device}}
        assert (await ann.ask(RESET, input=reset))["__typename"] == "SecondFactorRequired"

    async def test_by_leaving_it_out(self, visitor: Visitor, ann: Person) -> None:
        flow = await challenged(visitor, ann)
        assert await shown(visitor, flow) == "BAD_USER_INPUT"
        assert await shown(visitor, flow, code="") == "BAD_USER_INPUT"
        assert await shown(visitor, flow, code="", recoveryCode="") == "BAD_USER_INPUT"
        assert await shown(visitor, flow, code=ann.totp(), recoveryCode="x") == "BAD_USER_INPUT"
        assert await shown(visitor, flow, recoveryCode=PASSWORD) == "SECOND_FACTOR_WRONG"

    async def test_with_a_factor_of_ones_own(self, scene: Scene, visitor: Visitor, ann: Person) -> None:
        eve = await scene.person()
        await eve.add_totp()
        flow = await challenged(visitor, ann)
        assert await shown(visitor, flow, code=eve.totp()) == "SECOND_FACTOR_WRONG"
        assert await shown(visitor, flow, recoveryCode=eve.recovery_codes[0]) == "SECOND_FACTOR_WRONG"

    async def test_with_the_flow_of_an_app_that_is_set_up(self, scene: Scene, visitor: Visitor, ann: Person) -> None:
        """Eve's own setup, whose secret she knows, in Ann's login; and Ann's login as a setup."""
        eve = await scene.person()
        setup = await eve.ask(START_TOTP)
        assert await shown(visitor, setup["flowId"], code="123456") == "FLOW_OVER"
        flow = await challenged(visitor, ann)
        assert await eve.refused(CONFIRM_TOTP, input={"flowId": flow, "code": "123456"}) == "FLOW_OVER"

    async def test_a_setup_of_another(self, scene: Scene, eve: Person) -> None:
        victim = await scene.person()
        setup = await victim.ask(START_TOTP)
        victim.secret = setup["secret"]
        given = {"flowId": setup["flowId"], "code": victim.totp()}
        assert await eve.refused(CONFIRM_TOTP, input=given) == "FLOW_OVER"


class TestTotp:
    async def test_a_code_that_was_used(self, visitor: Visitor, ann: Person) -> None:
        code = ann.totp()
        assert await shown(visitor, await challenged(visitor, ann), code=code) == ""
        assert await shown(visitor, await challenged(visitor, ann), code=code) == "SECOND_FACTOR_WRONG"

    async def test_one_before_it(self, visitor: Visitor, ann: Person) -> None:
        earlier, code = ann.totp(-1), ann.totp()
        assert await shown(visitor, await challenged(visitor, ann), code=code) == ""
        assert await shown(visitor, await challenged(visitor, ann), code=earlier) == "SECOND_FACTOR_WRONG"

    async def test_in_ten_logins_at_once(self, visitor: Visitor, ann: Person) -> None:
        flows = [await challenged(ann, ann) for _ in range(5)]
        code = ann.totp()
        outcomes = await asyncio.gather(*(shown(visitor, flow, code=code) for flow in flows))
        assert outcomes.count("") == 1

    async def test_a_recovery_code_is_good_once(self, visitor: Visitor, ann: Person) -> None:
        code = ann.recovery_codes[0]
        flows = [await challenged(ann, ann) for _ in range(4)]
        outcomes = await asyncio.gather(*(shown(visitor, flow, recoveryCode=code) for flow in flows))
        assert outcomes.count("") == 1

    async def test_guessing_over_new_flows(self, visitor: Visitor, ann: Person) -> None:
        """Who knows the password could begin one after the other."""
        flows = [await challenged(visitor, ann) for _ in range(3)]
        near = {ann.totp(n) for n in range(-2, 3)}
        guess = next(code for code in ("000000", "111111", "222222", "333333", "444444", "555555") if code not in near)
        outcomes = [await shown(visitor.elsewhere(), flow, code=guess) for flow in flows for _ in range(3)]
        assert outcomes[:5] == ["SECOND_FACTOR_WRONG"] * 5
        assert set(outcomes[5:]) == {"RATE_LIMITED"}


class TestDevices:
    async def test_planted_before_the_login(self, visitor: Visitor, ann: Person) -> None:
        """Fixation: the victim signs in with a token that the attacker chose, or was given themselves."""
        chosen = "A" * 43
        flow = await challenged(ann, ann, device=chosen)
        given = {"flowId": flow, "code": ann.totp(), "trustDevice": True, "device": {"token": chosen}}
        device = (await ann.ask(SECOND_FACTOR, input=given))["deviceToken"]
        assert device != chosen
        await challenged(visitor, ann, device=chosen)

    async def test_planted_by_another_user(self, scene: Scene, visitor: Visitor, ann: Person) -> None:
        eve = await scene.person()
        planted = str(eve.session["deviceToken"])
        flow = await challenged(ann, ann, device=planted)
        given = {"flowId": flow, "code": ann.totp(), "trustDevice": True, "device": {"token": planted}}
        assert (await ann.ask(SECOND_FACTOR, input=given))["deviceToken"] != planted
        await challenged(visitor, ann, device=planted)

    async def test_known_before_it_was_trusted(self, visitor: Visitor, ann: Person) -> None:
        """Whoever saw the token of an earlier login has nothing that is trusted."""
        seen = str(ann.session["deviceToken"])
        given = {
            "flowId": await challenged(ann, ann, device=seen),
            "code": ann.totp(),
            "trustDevice": True,
            "device": {"token": seen},
        }
        await ann.ask(SECOND_FACTOR, input=given)
        await challenged(visitor, ann, device=seen)

    async def test_sessions_are_new_ones(self, ann: Person) -> None:
        """No login goes on with a session that was there before it."""
        signed_in = await ann.ask(SECOND_FACTOR, input={"flowId": await challenged(ann, ann), "code": ann.totp()})
        assert signed_in["sessionId"] != ann.session["sessionId"]
        assert signed_in["refreshToken"] != ann.session["refreshToken"]
