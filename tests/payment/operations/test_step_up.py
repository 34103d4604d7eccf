"""Money that goes away above an amount, over HTTP: with the token that confirms it, and with every other."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
import pytest

from libs.core.ids import new_id
from libs.core.stepup import TYP, SensitiveOperation
from scripts.issuer import public_jwk
from tests.live import Api, Live
from tests.payment.operations.asking import Player, do, refused, written

Confirm = Callable[..., str]
Join = Callable[..., Awaitable[Player]]

TRANSFERS = """mutation ($input: [TransferInput!]!, $mode: TransfersMode!) { transfers(input: $input, mode: $mode) {
    __typename ... on Problem { code } } }"""


@pytest.fixture(autouse=True)
async def _above_100(configure: Any) -> None:
    await configure(step_up_above={"EUR": 100})


@pytest.fixture
def confirm(live: Live) -> Confirm:
    """`confirm(ann.api, problem["details"]["operation"])`: what auth would answer."""

    def sign(api: Api, asked: dict[str, str], **changes: Any) -> str:
        session = jwt.decode(api.token, options={"verify_signature": False})
        operation = SensitiveOperation.of(asked)
        claims = {name: session[name] for name in ("iss", "aud", "sub", "tenant", "sid")}
        now = int(time.time())
        claims |= {"iat": now, "exp": now + 120, "jti": new_id(), "acr": "2", "op": operation.digest}
        headers = {"typ": TYP, "kid": public_jwk(live.key)["kid"]}
        return jwt.encode(claims | changes, live.key, algorithm="EdDSA", headers=headers)

    return sign


async def two(player: Join) -> tuple[Player, dict[str, Any]]:
    """Somebody with 1,000, and a transfer of 101 of it to somebody else."""
    ann, ben = await player(1000), await player()
    return ann, written("transfer", sourceWalletId=ann.wallet, destinationWalletId=ben.wallet, amount=101)


class TestTransfer:
    async def test_up_to_the_amount_nobody_asks(self, player: Join) -> None:
        ann, order = await two(player)
        assert (await do(ann.api, "transfer", **order | {"amount": "100"}))["__typename"] == "Transfer"

    async def test_above_it_is_refused_until_it_is_confirmed(self, player: Join, confirm: Confirm) -> None:
        ann, order = await two(player)
        problem = await do(ann.api, "transfer", **order)
        assert (problem["code"], problem["rule"]) == ("STEP_UP_REQUIRED", "step_up.required")
        assert problem["details"]["operation"] == {
            "action": "transfer",
            "id": order["id"],
            "amount": "101",
            "currency": "EUR",
            "source": order["sourceWalletId"],
            "payee": order["destinationWalletId"],
        }
        token = confirm(ann.api, problem["details"]["operation"])
        done = await do(ann.api, "transfer", **order, stepUpToken=token)
        assert (done["__typename"], await ann.real()) == ("Transfer", 899)
        assert await do(ann.api, "transfer", **order, stepUpToken=token) == done

    async def test_what_was_done_is_answered_without_a_token(self, player: Join, confirm: Confirm) -> None:
        ann, order = await two(player)
        asked = (await do(ann.api, "transfer", **order))["details"]["operation"]
        done = await do(ann.api, "transfer", **order, stepUpToken=confirm(ann.api, asked))
        assert await do(ann.api, "transfer", **order) == done
        assert await do(ann.api, "transfer", **order, stepUpToken="rubbish") == done
        assert await ann.real() == 899

    @pytest.mark.parametrize("other", ["id", "amount", "payee"])
    async def test_the_token_is_for_nothing_else(self, player: Join, confirm: Confirm, other: str) -> None:
        ann, order = await two(player)
        token = confirm(ann.api, (await do(ann.api, "transfer", **order))["details"]["operation"])
        changes = {
            "id": {"id": new_id()},
            "amount": {"amount": "102"},
            "payee": {"destinationWalletId": (await player()).wallet},
        }
        problem = await do(ann.api, "transfer", **order | changes[other], stepUpToken=token)
        assert (problem["code"], problem["rule"]) == ("STEP_UP_INVALID", "step_up.token")
        assert await ann.real() == 1000

    async def test_nor_for_anybody_else(self, player: Join, confirm: Confirm) -> None:
        (ann, order), eve = await two(player), await player()
        asked = (await do(ann.api, "transfer", **order))["details"]["operation"]
        problem = await do(ann.api, "transfer", **order, stepUpToken=confirm(eve.api, asked))
        assert problem["code"] == "STEP_UP_INVALID"

    async def test_nor_after_its_time(self, player: Join, confirm: Confirm) -> None:
        ann, order = await two(player)
        asked = (await do(ann.api, "transfer", **order))["details"]["operation"]
        token = confirm(ann.api, asked, exp=int(time.time()) - 1)
        problem = await do(ann.api, "transfer", **order, stepUpToken=token)
        assert (problem["code"], problem["details"]["reason"]) == ("STEP_UP_INVALID", "the token is expired")

    async def test_a_dry_run_says_that_it_would_be_needed(self, player: Join) -> None:
        ann, order = await two(player)
        assert (await do(ann.api, "transfer", **order, dryRun=True))["code"] == "STEP_UP_REQUIRED"

    async def test_an_operator_is_asked_if_the_tenant_wants_it(self, player: Join, olga: Api, configure: Any) -> None:
        _, order = await two(player)
        await configure(step_up_above={"EUR": 100}, step_up_operators=True)
        assert (await do(olga, "transfer", **order))["code"] == "STEP_UP_REQUIRED"
        await configure(step_up_above={"EUR": 100}, step_up_operators=False)
        assert (await do(olga, "transfer", **order))["__typename"] == "Transfer"

    async def test_what_is_asked_is_told_to_nobody(self, player: Join, told: Any) -> None:
        ann, order = await two(player)
        before = len(await told(ann))
        await do(ann.api, "transfer", **order)
        assert len(await told(ann)) == before


class TestTransfers:
    async def test_each_has_its_own(self, player: Join, confirm: Confirm) -> None:
        ann, first = await two(player)
        second, small = first | {"id": new_id()}, first | {"id": new_id(), "amount": "1"}
        asked = (await do(ann.api, "transfer", **first))["details"]["operation"]
        first["stepUpToken"] = second["stepUpToken"] = confirm(ann.api, asked)
        answers = await ann.api.ask(TRANSFERS, input=[first, second, small], mode="INDEPENDENT")
        assert [answer.get("code", "done") for answer in answers] == ["done", "STEP_UP_INVALID", "done"]

    async def test_all_or_none(self, player: Join) -> None:
        ann, order = await two(player)
        answers = await ann.api.ask(TRANSFERS, input=[order | {"id": "a1", "amount": "1"}, order], mode="ATOMIC")
        assert [answer["code"] for answer in answers] == ["LINKED_OPERATION_REFUSED", "STEP_UP_REQUIRED"]
        assert await ann.real() == 1000


class TestOthers:
    async def test_operators_withdraw_hold_and_capture_as_ever(self, player: Join, olga: Api) -> None:
        ann = await player(1000)
        assert (await do(olga, "withdraw", walletId=ann.wallet, amount=200))["__typename"] == "Transfer"
        held = await do(olga, "hold", walletId=ann.wallet, amount=200, purpose="WITHDRAWAL")
        assert (await do(olga, "capture", holdId=held["id"], amount=200))["__typename"] == "Transfer"

    async def test_asked_of_operators_each_is_confirmed_for_itself(
        self, player: Join, olga: Api, configure: Any, confirm: Confirm
    ) -> None:
        ann = await player(1000)
        await configure(step_up_above={"EUR": 100}, step_up_operators=True)
        leaving = written("withdraw", walletId=ann.wallet, amount=200)
        asked = (await do(olga, "withdraw", **leaving))["details"]["operation"]
        assert (asked["action"], asked["source"], "payee" in asked) == ("withdraw", ann.wallet, False)
        done = await do(olga, "withdraw", **leaving, stepUpToken=confirm(olga, asked))
        assert done["__typename"] == "Transfer"
        order = written("hold", walletId=ann.wallet, amount=200, purpose="WITHDRAWAL")
        asked = (await do(olga, "hold", **order))["details"]["operation"]
        assert asked["action"] == "hold"
        held = await do(olga, "hold", **order, stepUpToken=confirm(olga, asked))
        assert held["__typename"] == "Transfer"
        capture = written("capture", holdId=held["id"], amount=200)
        asked = (await do(olga, "capture", **capture))["details"]["operation"]
        assert (asked["action"], asked["source"], "payee" in asked) == ("capture", ann.wallet, False)
        assert (await do(olga, "capture", **capture, stepUpToken=confirm(olga, asked)))["__typename"] == "Transfer"

    async def test_a_player_may_not_do_these_at_all(self, player: Join) -> None:
        ann = await player(1000)
        assert await refused(ann.api, "withdraw", walletId=ann.wallet, amount=200) == "FORBIDDEN"
