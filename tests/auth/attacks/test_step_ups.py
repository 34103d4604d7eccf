"""A session that somebody found open: how far they get without a factor of its owner."""

import asyncio
from typing import Any

import jwt
import pytest

from libs.core.ids import new_id
from tests.auth.attacks.scene import ME, PASSWORD, REFRESH, Person, Scene, code_of

START = """mutation ($input: StartStepUpInput!) {
    startStepUp(input: $input) { __typename ... on StepUpStarted { flowId methods } ... on Problem { code } }
}"""
COMPLETE = """mutation ($input: CompleteStepUpInput!) {
    completeStepUp(input: $input) {
        __typename
        ... on OperationConfirmed { stepUpToken }
        ... on SessionSteppedUp { accessToken }
        ... on Problem { code }
    }
}"""


def operation(**changes: Any) -> dict[str, Any]:
    usual = {"action": "transfer", "id": new_id(), "amount": "5000", "currency": "EUR", "source": "w1", "payee": "w2"}
    return {"operation": {**usual, **changes}}


async def begun(person: Person, **asked: Any) -> str:
    return str((await person.ask(START, input=asked))["flowId"])


async def shown(person: Person, flow: str, **proof: str) -> str:
    return await person.refused(COMPLETE, input={"flowId": flow, **proof})


class TestTokens:
    async def test_what_confirms_one_operation_signs_nobody_in(self, ann: Person) -> None:
        flow = await begun(ann, **operation())
        token = (await ann.ask(COMPLETE, input={"flowId": flow, "password": PASSWORD}))["stepUpToken"]
        assert jwt.get_unverified_header(token)["typ"] == "step-up+jwt"
        assert await ann.elsewhere(token=token).refused(ME) == "UNAUTHENTICATED"
        assert await ann.elsewhere(token="").refused(REFRESH, token=token) == "SESSION_OVER"


class TestFlows:
    async def test_of_another(self, ann: Person, eve: Person) -> None:
        """Ann confirms what Eve began; and Eve, with her own password, what Ann began."""
        assert await shown(ann, await begun(eve, **operation()), password=PASSWORD) == "FLOW_OVER"
        assert await shown(eve, await begun(ann, **operation()), password=PASSWORD) == "FLOW_OVER"

    async def test_of_another_session_of_ones_own(self, ann: Person) -> None:
        there = (await ann.login(ann.email))["data"]["login"]["accessToken"]
        flow = await begun(ann.elsewhere(token=there), **operation())
        assert await shown(ann, flow, password=PASSWORD) == "FLOW_OVER"

    async def test_twice_at_once(self, ann: Person) -> None:
        flow = await begun(ann, **operation())
        outcomes = await asyncio.gather(*(shown(ann, flow, password=PASSWORD) for _ in range(4)))
        assert (outcomes.count(""), outcomes.count("FLOW_OVER")) == (1, 3)

    async def test_of_a_login_as_one_of_these(self, scene: Scene) -> None:
        ann = await scene.person()
        await ann.add_totp()
        flow = (await ann.login(ann.email))["data"]["login"]["flowId"]
        assert await shown(ann, flow, totp=ann.totp()) == "FLOW_OVER"


class TestGuessing:
    async def test_the_password_over_many_flows(self, ann: Person) -> None:
        flows = [await begun(ann) for _ in range(4)]
        outcomes = [await shown(ann.elsewhere(), flow, password="not it") for flow in flows for _ in range(2)]
        assert outcomes == ["INVALID_CREDENTIALS"] * 5 + ["RATE_LIMITED"] * 3

    async def test_the_password_where_there_is_a_second_factor(self, scene: Scene) -> None:
        ann = await scene.person()
        await ann.add_totp()
        assert await shown(ann, await begun(ann), password=PASSWORD) == "BAD_USER_INPUT"

    async def test_without_a_session(self, scene: Scene) -> None:
        assert await scene.visitor().refused(START, input={}) == "UNAUTHENTICATED"


class TestOperations:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"action": "transfer; drop"},
            {"action": ""},
            {"action": {"$ne": ""}},
            {"id": "../x"},
            {"amount": "-1"},
            {"amount": "0"},
            {"amount": "1e9"},
            {"amount": "9223372036854775808"},
            {"currency": "€"},
            {"currency": ""},
            {"payee": "Ann\u202e"},
            {"payee": "x" * 200},
            {"source": "a\nb"},
            {"note": "x"},
        ],
        ids=ascii,
    )
    async def test_that_could_not_be_shown_as_they_are(self, ann: Person, wrong: dict[str, Any]) -> None:
        assert code_of(await ann.answer(START, input=operation(**wrong))) == "BAD_USER_INPUT"
