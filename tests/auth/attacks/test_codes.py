"""Codes that are sent: guessed over resends, aliases, batches, addresses and spellings; taken from somebody else."""

import asyncio
from typing import Any

import pytest

from tests.auth.attacks.scene import (
    ADD_IDENTIFIER,
    LOGIN_WITH_CODE,
    PASSWORD,
    REGISTER,
    REQUEST_CODE,
    REQUEST_RESET,
    RESEND,
    RESET,
    SIGN_IN,
    STARTED,
    VERIFY,
    VERIFY_IDENTIFIER,
    Person,
    Scene,
    Visitor,
    code_of,
    new_address,
    wrong,
)


async def begun(visitor: Visitor, email: str) -> str:
    return str((await visitor.ask(REQUEST_CODE, input={"email": email}))["flowId"])


async def tried(visitor: Visitor, flow: str, code: str) -> str:
    return await visitor.refused(LOGIN_WITH_CODE, input={"flowId": flow, "code": code})


class TestGuessing:
    async def test_five_tries_and_no_more(self, visitor: Visitor, ann: Person) -> None:
        flow, code = await begun(visitor, ann.email), await visitor.code(ann.email)
        assert {await tried(visitor, flow, wrong(code)) for _ in range(5)} == {"CODE_WRONG"}
        assert await tried(visitor, flow, code) == "FLOW_OVER"

    async def test_over_resends(self, visitor: Visitor, ann: Person) -> None:
        flow = await begun(visitor, ann.email)
        for count in range(1, 6):
            code = await visitor.code(ann.email, count)
            assert await tried(visitor, flow, wrong(code)) == "CODE_WRONG"
            await visitor.ask(RESEND, flow=flow, purpose="login_code")
        assert await tried(visitor, flow, await visitor.code(ann.email, 6)) == "FLOW_OVER"

    async def test_fifteen_aliases_of_one_request(self, visitor: Visitor, ann: Person) -> None:
        flow, code = await begun(visitor, ann.email), await visitor.code(ann.email)
        guesses = [f"{(int(code) + n) % 1_000_000:06}" for n in range(1, 15)]
        fields = "".join(
            f'a{n}: loginWithCode(input: {{flowId: "{flow}", code: "{guess}"}}) {{ {SIGN_IN} }}\n'
            for n, guess in enumerate([*guesses, code])
        )
        answer = await visitor.answer(f"mutation {{ {fields} }}")
        if "errors" in answer and not answer.get("data"):
            assert code_of(answer)  # too many for one request: none was tried
            return
        outcomes = [field.get("code", field["__typename"]) for field in answer["data"].values()]
        assert outcomes == ["CODE_WRONG"] * 5 + ["FLOW_OVER"] * 10

    async def test_two_hundred_at_once_from_everywhere(self, visitor: Visitor, ann: Person) -> None:
        flow, code = await begun(visitor, ann.email), await visitor.code(ann.email)
        tries = (tried(visitor.elsewhere(), flow, wrong(code)) for _ in range(200))
        outcomes = await asyncio.gather(*tries)
        assert (outcomes.count("CODE_WRONG"), outcomes.count("FLOW_OVER")) == (5, 195)

    async def test_a_batch(self, visitor: Visitor, ann: Person) -> None:
        flow = await begun(visitor, ann.email)
        one = {"query": LOGIN_WITH_CODE, "variables": {"input": {"flowId": flow, "code": "123456"}}}
        assert (await visitor.post([one] * 15)).status_code == 400

    @pytest.mark.parametrize("code", ["", "1234567", "12345", "١٢٣٤٥٦", "0x1E240", "1e5", "a" * 10_000, "123456\x00"])
    async def test_what_is_no_code(self, visitor: Visitor, ann: Person, code: str) -> None:
        flow = await begun(visitor, ann.email)
        assert await tried(visitor, flow, code) in {"CODE_WRONG", "BAD_USER_INPUT"}

    async def test_failures_are_in_the_security_log(self, scene: Scene, visitor: Visitor, ann: Person) -> None:
        flow, code = await begun(visitor, ann.email), await visitor.code(ann.email)
        await tried(visitor, flow, wrong(code))
        rows = await scene.rows("login.failed", on_behalf_of=ann.id)
        assert [(row["reason"], row["origin"]) for row in rows] == [("wrong code", visitor.address)]


class TestSending:
    """In a tenant whose limits are the usual ones: one message in 30 seconds."""

    @pytest.mark.parametrize("spelling", ["ANN.{0}@GMAIL.com", "ann{0}+x@gmail.com", "a.n.n.{0}@googlemail.com"])
    async def test_more_than_is_let_however_the_address_is_spelt(self, scene: Scene, spelling: str) -> None:
        name = new_address().replace(".", "x")
        for email, expected in ((f"ann{name}@gmail.com", ""), (spelling.format(name), "RATE_LIMITED")):
            asked = scene.visitor("other")
            given = {"email": email, "password": PASSWORD}
            assert await asked.refused(REGISTER, input=given) == expected

    async def test_by_one_address_to_many_people(self, scene: Scene) -> None:
        attacker = scene.visitor("other")
        names = [new_address() for _ in range(25)]
        asked = [await attacker.refused(REQUEST_CODE, input={"email": f"p{name}@example.com"}) for name in names]
        assert asked == [""] * 20 + ["RATE_LIMITED"] * 5

    async def test_resends_count(self, scene: Scene) -> None:
        visitor = scene.visitor("other")
        flow = await begun(visitor, f"p{new_address()}@example.com")
        assert await visitor.refused(RESEND, flow=flow, purpose="login_code") == "RATE_LIMITED"

    async def test_aliases_count(self, scene: Scene) -> None:
        email = f"p{new_address()}@example.com"
        fields = "".join(f'a{n}: requestLoginCode(input: {{email: "{email}"}}) {{ {STARTED} }}\n' for n in range(5))
        answer = await scene.visitor("other").answer(f"mutation {{ {fields} }}")
        assert {error["extensions"]["code"] for error in answer["errors"]} == {"RATE_LIMITED"}


class TestSomebodyElses:
    async def test_code_of_another_flow(self, visitor: Visitor, ann: Person, eve: Person) -> None:
        """Eve has a code of her own, and begins a login as Ann."""
        await begun(visitor, eve.email)
        code = await visitor.code(eve.email)
        flow = await begun(visitor, ann.email)
        if await visitor.code(ann.email) != code:
            assert await tried(visitor, flow, code) == "CODE_WRONG"

    async def test_code_of_an_earlier_flow(self, visitor: Visitor, ann: Person) -> None:
        await begun(visitor, ann.email)
        code = await visitor.code(ann.email)
        flow = await begun(visitor, ann.email)
        if await visitor.code(ann.email, 2) != code:
            assert await tried(visitor, flow, code) == "CODE_WRONG"

    async def test_flow_of_another_kind(self, visitor: Visitor, ann: Person) -> None:
        """A code to log in resets no password, verifies no registration, and adds nothing."""
        flow, code = await begun(visitor, ann.email), await visitor.code(ann.email)
        given = {"flowId": flow, "code": code}
        assert await visitor.refused(RESET, input={**given, "newPassword": "others plain words"}) == "FLOW_OVER"
        assert await visitor.refused(VERIFY, input=given) == "FLOW_OVER"
        assert await ann.refused(VERIFY_IDENTIFIER, input=given) == "FLOW_OVER"
        assert await tried(visitor, flow, code) == ""  # and none of that was a try at it

    async def test_flow_of_a_reset_as_a_login(self, visitor: Visitor, ann: Person) -> None:
        flow = (await visitor.ask(REQUEST_RESET, input={"email": ann.email}))["flowId"]
        assert await tried(visitor, flow, await visitor.code(ann.email)) == "FLOW_OVER"

    async def test_flow_of_another_tenant(self, scene: Scene, visitor: Visitor, ann: Person) -> None:
        flow, code = await begun(visitor, ann.email), await visitor.code(ann.email)
        assert await tried(scene.visitor("other"), flow, code) == "FLOW_OVER"

    async def test_address_verified_for_another(self, ann: Person, eve: Person) -> None:
        """Ann's mailbox, whose code she is talked into telling, does not become Eve's in Ann's flow."""
        email = f"new-{ann.email}"
        flow = (await ann.ask(ADD_IDENTIFIER, input={"email": email}))["flowId"]
        given = {"flowId": flow, "code": await ann.code(email)}
        assert await eve.refused(VERIFY_IDENTIFIER, input=given) == "FLOW_OVER"
        assert await ann.refused(VERIFY_IDENTIFIER, input=given) == ""

    @pytest.mark.parametrize(("begin", "finish"), [(REQUEST_CODE, LOGIN_WITH_CODE), (REQUEST_RESET, RESET)])
    async def test_code_to_an_address_that_was_given_up(
        self, visitor: Visitor, ann: Person, begin: str, finish: str
    ) -> None:
        """Whoever reads Ann's old mailbox was quick, and she was quicker."""
        flow = (await visitor.ask(begin, input={"email": ann.email}))["flowId"]
        code, email = await visitor.code(ann.email), f"new-{ann.email}"
        adding = (await ann.ask(ADD_IDENTIFIER, input={"email": email}))["flowId"]
        await ann.ask(VERIFY_IDENTIFIER, input={"flowId": adding, "code": await ann.code(email)})
        more = {"newPassword": "others plain words"} if finish == RESET else {}
        assert await visitor.refused(finish, input={"flowId": flow, "code": code, **more}) == "FLOW_OVER"

    @pytest.mark.parametrize("flow", ["", "x", "x" * 129, '{"$ne": ""}', "$gt", "registration", "\x00", "../flows"])
    async def test_flow_that_was_made_up(self, visitor: Visitor, flow: str) -> None:
        assert await tried(visitor, flow, "123456") in {"FLOW_OVER", "BAD_USER_INPUT"}

    @pytest.mark.parametrize("purpose", ["second_factor", "step_up", "oauth", "", "$ne", "LOGIN_CODE"])
    async def test_nothing_is_sent_again_in_other_flows(self, visitor: Visitor, purpose: str) -> None:
        assert await visitor.refused(RESEND, flow="x", purpose=purpose) == "BAD_USER_INPUT"


class TestOnce:
    async def test_twenty_at_once_sign_in_once(self, visitor: Visitor, ann: Person) -> None:
        flow, code = await begun(visitor, ann.email), await visitor.code(ann.email)
        outcomes: list[Any] = await asyncio.gather(*(tried(visitor, flow, code) for _ in range(20)))
        assert (outcomes.count(""), outcomes.count("FLOW_OVER")) == (1, 19)
