"""A step-up token confirms one operation, of one person, in one session: everything else about it is refused."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, strategies as st

from libs.core import http
from libs.core.context import Caller
from libs.core.errors import InvalidInput, Refusal, Unauthenticated
from libs.core.identity import Identity
from libs.core.stepup import TYP, SensitiveOperation, confirm
from libs.core.testing import FrozenClock
from tests.core.test_identity import AUDIENCE, ISSUER, Issuer

ANNA = Caller("acme", "anna", ("player",), "s1", "user")
RENT = SensitiveOperation(action="transfer", id="t1", amount_minor=900_00, currency="EUR", source="w1", payee="w2")


class StepUps:
    def __init__(self, issuer: Issuer, identity: Identity) -> None:
        self.issuer = issuer
        self.identity = identity

    def token(self, operation: SensitiveOperation = RENT, *, typ: str = TYP, key: Any = None, **changes: Any) -> str:
        claims = {"op": operation.digest, "jti": "j1", "acr": "2"} | changes
        return self.issuer.token(header={"typ": typ}, key=key, **claims)

    async def refusal(self, token: str, operation: SensitiveOperation = RENT, caller: Caller = ANNA) -> Refusal:
        with pytest.raises(Refusal) as caught:
            await confirm(self.identity, token, caller, operation)
        return caught.value


@pytest.fixture
async def step_ups(clock: FrozenClock) -> AsyncIterator[StepUps]:
    issuer = Issuer(clock)
    await issuer.start()
    async with http.client() as client:
        yield StepUps(issuer, Identity(client, clock, jwks_url=issuer.url, issuer=ISSUER, audience=AUDIENCE))
    await issuer.stop()


class TestConfirm:
    async def test_what_it_was_made_for(self, step_ups: StepUps) -> None:
        assert (await confirm(step_ups.identity, step_ups.token(), ANNA, RENT)).acr == "2"

    async def test_as_often_as_it_is_sent(self, step_ups: StepUps) -> None:
        token = step_ups.token()
        for _ in range(3):
            await confirm(step_ups.identity, token, ANNA, RENT)

    async def test_none_at_all_says_what_to_ask_for(self, step_ups: StepUps) -> None:
        refused = await step_ups.refusal("")
        assert (refused.code, refused.details["operation"]) == ("STEP_UP_REQUIRED", RENT.asked)
        assert RENT.asked == {
            "action": "transfer", "id": "t1", "amount": "90000", "currency": "EUR", "source": "w1", "payee": "w2",
        }  # fmt: skip

    @pytest.mark.parametrize(
        "other",
        [{"id": "t2"}, {"amount_minor": 900_01}, {"currency": "USD"}, {"source": "w3"}, {"payee": "w3"},
         {"action": "withdraw"}],
    )  # fmt: skip
    async def test_any_other_operation(self, step_ups: StepUps, other: dict[str, Any]) -> None:
        refused = await step_ups.refusal(step_ups.token(), replace(RENT, **other))
        assert (refused.code, refused.details["reason"]) == ("STEP_UP_INVALID", "it is for another operation")

    @pytest.mark.parametrize(
        "caller",
        [replace(ANNA, subject="ben"), replace(ANNA, tenant_id="other"), replace(ANNA, session_id="s2"),
         replace(ANNA, kind="service")],
    )  # fmt: skip
    async def test_anybody_else(self, step_ups: StepUps, caller: Caller) -> None:
        assert (await step_ups.refusal(step_ups.token(), caller=caller)).code == "STEP_UP_INVALID"

    async def test_after_its_end(self, step_ups: StepUps, clock: FrozenClock) -> None:
        token = step_ups.token()
        clock.advance(seconds=300)
        assert "expired" in (await step_ups.refusal(token)).message

    @pytest.mark.parametrize(
        "changes",
        [{"iss": "https://evil.test"}, {"aud": "elsewhere"}, {"op": ""}, {"jti": ""}, {"acr": "9"}, {"typ": "at+jwt"},
         {"typ": "JWT"}],
    )  # fmt: skip
    async def test_not_what_the_issuer_makes(self, step_ups: StepUps, changes: dict[str, Any]) -> None:
        assert (await step_ups.refusal(step_ups.token(**changes))).code == "STEP_UP_INVALID"

    async def test_signed_by_somebody_else(self, step_ups: StepUps, clock: FrozenClock) -> None:
        refused = await step_ups.refusal(step_ups.token(key=Issuer(clock).key))
        assert refused.details["reason"] == "the token's signature is not valid"

    @pytest.mark.parametrize("token", ["x", "a.b.c", "é", "a" * 9000])
    async def test_not_a_token(self, step_ups: StepUps, token: str) -> None:
        assert (await step_ups.refusal(token)).code == "STEP_UP_INVALID"

    async def test_signed_with_a_key_that_was_withdrawn(self, step_ups: StepUps) -> None:
        token = step_ups.token()
        await confirm(step_ups.identity, token, ANNA, RENT)
        step_ups.identity.withdraw_key("k1")
        assert (await step_ups.refusal(token)).code == "STEP_UP_INVALID"


class TestAccessToken:
    async def test_a_step_up_token_is_none(self, step_ups: StepUps) -> None:
        with pytest.raises(Unauthenticated):
            await step_ups.identity.authenticate(f"Bearer {step_ups.token()}")

    async def test_it_is_no_step_up_token(self, step_ups: StepUps) -> None:
        token = step_ups.token(typ="at+jwt")
        await step_ups.identity.authenticate(f"Bearer {token}")
        assert (await step_ups.refusal(token)).code == "STEP_UP_INVALID"


TEXTS = st.text(st.sampled_from('ab",:}{é '), max_size=6)
OPERATIONS = st.builds(
    SensitiveOperation,
    action=st.sampled_from(["transfer", "withdraw"]),
    id=st.sampled_from(["a", "b"]),
    amount_minor=st.integers(1, 12),
    currency=st.sampled_from(["EUR", "USD"]),
    source=TEXTS,
    payee=TEXTS,
)


class TestDigest:
    @given(OPERATIONS, OPERATIONS)
    def test_of_different_contents_is_different(self, one: SensitiveOperation, other: SensitiveOperation) -> None:
        assume(one != other)
        assert one.digest != other.digest

    @given(OPERATIONS)
    def test_of_what_was_stored_is_the_same(self, operation: SensitiveOperation) -> None:
        assert SensitiveOperation.of(operation.content) == operation
        assert SensitiveOperation.of(operation.asked).digest == operation.digest

    def test_is_that_of_version_1(self) -> None:
        """A client or another service may make it by itself: it must not change unnoticed."""
        assert RENT.digest == "1.3fZDA2pWPuoDZxjqwYDw9OZsQUvco8JeG0o-PX3Sen0"

    @pytest.mark.parametrize(
        "wrong",
        [{"id": "$ne"}, {"action": "drop table"}, {"amount_minor": 0}, {"amount_minor": 2**63}, {"currency": ""},
         {"currency": "eur"}, {"payee": "x" * 129}, {"payee": "a\nb"}, {"source": "\u202e"}],
    )  # fmt: skip
    def test_of_what_cannot_be_shown(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput):
            replace(RENT, **wrong)
