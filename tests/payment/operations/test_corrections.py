"""Reversals, and adjustments with four eyes."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.live import Api
from tests.payment.operations.asking import (
    APPROVE,
    OPERATIONS,
    REJECT,
    Player,
    at_once,
    codes,
    do,
    refused,
    together,
    written,
)

As = Callable[..., Api]
REQUESTS = """query ($status: AdjustmentRequestStatus) { adjustmentRequests(status: $status) {
    edges { node { id status } } } }"""


@pytest.fixture
async def ann(player: Any) -> Player:
    return await player()  # type: ignore[no-any-return]


@pytest.fixture
async def deposited(ann: Player, olga: Api) -> str:
    """100, the id of their deposit."""
    return str((await do(olga, "deposit", walletId=ann.wallet, amount=100))["id"])


class TestReverseTransfer:
    async def test_all_of_it(self, ann: Player, olga: Api, deposited: str) -> None:
        done = await do(olga, "reverseTransfer", transferId=deposited)
        assert (done["kind"], done["amount"], done["reverses"]) == ("REVERSAL", "100", deposited)
        assert await ann.real() == 0

    async def test_in_parts_up_to_the_amount(self, ann: Player, olga: Api, deposited: str) -> None:
        for amount in (30, 70):
            await do(olga, "reverseTransfer", transferId=deposited, amount=amount)
        assert (await do(olga, "reverseTransfer", transferId=deposited, amount=1))["code"] == "REVERSAL_EXCEEDED"
        assert await ann.real() == 0

    async def test_twenty_at_once_never_give_back_more(self, ann: Player, olga: Api, deposited: str) -> None:
        await do(olga, "deposit", walletId=ann.wallet, amount=1000)  # so that funds are not what stops them
        done = await at_once(20, olga, "reverseTransfer", transferId=deposited, amount=30)
        assert codes(done) == [""] * 3 + ["REVERSAL_EXCEEDED"] * 17
        assert await ann.real() == 1010

    async def test_again_is_the_same(self, olga: Api, deposited: str) -> None:
        same = written("reverseTransfer", transferId=deposited, amount=10)
        first = await do(olga, "reverseTransfer", **same)
        assert await do(olga, "reverseTransfer", **same) == first
        for other in ({"amount": "11"}, {"reason": "another"}, {"shortfall": "RECEIVABLE"}):
            assert (await do(olga, "reverseTransfer", **same | other))["code"] == "IDEMPOTENCY_MISMATCH"

    async def test_of_what_is_spent_is_refused(self, ann: Player, olga: Api, deposited: str) -> None:
        await do(olga, "withdraw", walletId=ann.wallet, amount=80)
        assert (await do(olga, "reverseTransfer", transferId=deposited))["code"] == "INSUFFICIENT_FUNDS"

    async def test_of_what_is_spent_is_owed(self, ann: Player, olga: Api, deposited: str) -> None:
        await do(olga, "withdraw", walletId=ann.wallet, amount=80)
        done = await do(olga, "reverseTransfer", transferId=deposited, shortfall="RECEIVABLE")
        assert await together(olga, done["id"]) == [("REVERSAL", 20), ("REVERSAL", 80)]
        assert await ann.real() == 0
        assert (await do(olga, "reverseTransfer", transferId=deposited, amount=1))["code"] == "REVERSAL_EXCEEDED"

    async def test_of_what_is_spent_altogether_is_owed(self, ann: Player, olga: Api, deposited: str) -> None:
        await do(olga, "withdraw", walletId=ann.wallet, amount=100)
        done = await do(olga, "reverseTransfer", transferId=deposited, shortfall="RECEIVABLE")
        assert await together(olga, done["id"]) == [("REVERSAL", 100)]
        assert await do(olga, "reverseTransfer", **written("reverseTransfer", transferId=deposited, amount=1)) != done

    async def test_while_it_is_being_spent(self, ann: Player, olga: Api, deposited: str) -> None:
        """Whoever is first: all of it is reversed, and the wallet never goes below zero."""
        answers = await asyncio.gather(
            *(do(olga, "withdraw", walletId=ann.wallet, amount=7) for _ in range(10)),
            *(do(olga, "reverseTransfer", transferId=deposited, amount=10, shortfall="RECEIVABLE") for _ in range(10)),
        )
        assert codes(answers[10:]) == [""] * 10
        moved = [await together(olga, answer["id"]) for answer in answers[10:]]
        assert sum(amount for transfers in moved for _, amount in transfers) == 100
        assert await ann.real() >= 0

    async def test_owed_is_told_of_the_player_who_owes(self, ann: Player, olga: Api, deposited: str, told: Any) -> None:
        await do(olga, "withdraw", walletId=ann.wallet, amount=80)
        await do(olga, "reverseTransfer", transferId=deposited, shortfall="RECEIVABLE")
        reversed_ = [event["data"] for event in await told(ann) if event["type"] == "deposit.reversed"]
        assert [(data["amount"], data["wallet_id"]) for data in reversed_] == [("20", ann.wallet), ("80", ann.wallet)]

    async def test_of_a_payment_between_players(self, ann: Player, olga: Api, deposited: str, player: Any) -> None:
        ben = await player()
        ends = {"sourceWalletId": ann.wallet, "destinationWalletId": ben.wallet}
        paid = await do(ann.api, "transfer", **ends, amount=60)
        await do(olga, "reverseTransfer", transferId=paid["id"], amount=25)
        assert (await ann.real(), await ben.real()) == (65, 35)

    async def test_of_a_capture_goes_to_the_real_bucket(self, ann: Player, olga: Api, deposited: str) -> None:
        held = await do(olga, "hold", walletId=ann.wallet, amount=40, purpose="WITHDRAWAL")
        captured = await do(olga, "capture", holdId=held["id"], amount=40)
        await do(olga, "reverseTransfer", transferId=captured["id"])
        assert await ann.look() == {"real": 100, "bonus": 0, "locked": 0, "available": 100}

    async def test_of_a_hold_or_of_a_reversal(self, ann: Player, olga: Api, deposited: str) -> None:
        held = await do(olga, "hold", walletId=ann.wallet, amount=40, purpose="BET")
        undone = await do(olga, "reverseTransfer", transferId=deposited, amount=1)
        for transfer in (held, undone):
            assert (await do(olga, "reverseTransfer", transferId=transfer["id"]))["code"] == "NOT_REVERSIBLE"

    async def test_of_what_is_elsewhere_or_nowhere(self, abroad: Api, olga: Api, deposited: str) -> None:
        assert (await do(abroad, "reverseTransfer", transferId=deposited))["code"] == "TRANSFER_NOT_FOUND"
        assert (await do(olga, "reverseTransfer", transferId="nowhere"))["code"] == "TRANSFER_NOT_FOUND"

    async def test_on_a_frozen_wallet(self, ann: Player, olga: Api, deposited: str) -> None:
        await do(olga, "freezeWallet", walletId=ann.wallet)
        assert (await do(olga, "reverseTransfer", transferId=deposited))["kind"] == "REVERSAL"

    @pytest.mark.parametrize(
        ("more", "field"),
        [({"amount": "0"}, "input.amount"), ({"reason": " "}, "input.reason"), ({"reason": "x" * 201}, None)],
    )
    async def test_wrong_input_is_named(
        self, olga: Api, deposited: str, more: dict[str, str], field: str | None
    ) -> None:
        given = written("reverseTransfer", transferId=deposited) | more
        [error] = (await olga.post(OPERATIONS["reverseTransfer"], input=given)).json()["errors"]
        assert error["extensions"]["code"] == "BAD_USER_INPUT"
        assert field in (None, error["extensions"]["details"]["field"])


class TestAdjust:
    async def test_up_to_the_threshold_is_done_at_once(self, ann: Player, olga: Api) -> None:
        given = await do(olga, "adjust", walletId=ann.wallet, amount=1000, direction="CREDIT")
        taken = await do(olga, "adjust", walletId=ann.wallet, amount=400, direction="DEBIT")
        assert (given["kind"], taken["kind"], await ann.real()) == ("ADJUSTMENT", "ADJUSTMENT", 600)

    async def test_takes_no_more_than_there_is(self, ann: Player, olga: Api) -> None:
        answer = await do(olga, "adjust", walletId=ann.wallet, amount=1, direction="DEBIT")
        assert answer["code"] == "INSUFFICIENT_FUNDS"

    @pytest.mark.parametrize("reason", ["", " \n", "x" * 201])
    async def test_without_a_reason(self, ann: Player, olga: Api, reason: str) -> None:
        wanted = {"walletId": ann.wallet, "amount": 1, "direction": "CREDIT", "reason": reason}
        assert await refused(olga, "adjust", **wanted) == "BAD_USER_INPUT"

    async def test_of_another_tenants_wallet(self, ann: Player, abroad: Api) -> None:
        for amount in (1, 2000):
            answer = await do(abroad, "adjust", walletId=ann.wallet, amount=amount, direction="CREDIT")
            assert answer["code"] == "WALLET_NOT_FOUND"

    async def test_of_the_tenants_own_wallet(self, olga: Api) -> None:
        listed = await olga.ask('{ wallets(filter: {kind: HOUSE, currency: "EUR"}) { edges { node { id } } } }')
        house = listed["edges"][0]["node"]["id"]
        assert (await do(olga, "adjust", walletId=house, amount=1, direction="DEBIT"))["code"] == "WALLET_NOT_FOUND"


class TestFourEyes:
    @pytest.fixture
    async def asked(self, ann: Player, olga: Api) -> str:
        """Olga wants to give 1001."""
        request = await do(olga, "adjust", walletId=ann.wallet, amount=1001, direction="CREDIT")
        assert (request["__typename"], request["status"]) == ("AdjustmentRequest", "PENDING")
        return str(request["id"])

    async def test_nothing_is_done_before_it_is_approved(self, ann: Player, asked: str, oscar: Api) -> None:
        assert await ann.real() == 0
        done = await oscar.ask(APPROVE, id=asked)
        assert (done["id"], done["kind"], await ann.real()) == (asked, "ADJUSTMENT", 1001)

    async def test_who_asked_cannot_approve(self, ann: Player, olga: Api, asked: str) -> None:
        assert (await olga.ask(APPROVE, id=asked))["code"] == "FOUR_EYES"
        assert await ann.real() == 0

    async def test_twenty_approvals_do_it_once(self, ann: Player, asked: str, as_: As) -> None:
        approvals = (as_(f"operator{n}", "operator").ask(APPROVE, id=asked) for n in range(20))
        done = await asyncio.gather(*approvals)
        assert all(answer == done[0] for answer in done)
        assert await ann.real() == 1001

    async def test_rejected_stays_rejected(self, ann: Player, asked: str, olga: Api, oscar: Api) -> None:
        assert (await oscar.ask(REJECT, id=asked))["status"] == "REJECTED"
        assert (await oscar.ask(APPROVE, id=asked))["code"] == "REQUEST_DECIDED"
        again = await do(olga, "adjust", id=asked, walletId=ann.wallet, amount=1001, direction="CREDIT")
        assert (again["status"], again["decidedBy"], await ann.real()) == ("REJECTED", "oscar", 0)

    async def test_approved_cannot_be_rejected(self, asked: str, oscar: Api) -> None:
        await oscar.ask(APPROVE, id=asked)
        assert (await oscar.ask(REJECT, id=asked))["code"] == "REQUEST_DECIDED"

    async def test_approvals_and_rejections_at_once_agree(self, ann: Player, asked: str, as_: As) -> None:
        decisions = [APPROVE, REJECT] * 10
        answers = await asyncio.gather(
            *(as_(f"operator{n}", "operator").ask(wanted, id=asked) for n, wanted in enumerate(decisions))
        )
        kinds = {answer["__typename"] for answer in answers} - {"Problem"}
        assert kinds in ({"Transfer"}, {"AdjustmentRequest"})
        assert await ann.real() == (1001 if kinds == {"Transfer"} else 0)

    async def test_who_asked_may_take_it_back(self, asked: str, olga: Api) -> None:
        assert (await olga.ask(REJECT, id=asked))["status"] == "REJECTED"

    async def test_another_tenants_operator_finds_none(self, asked: str, abroad: Api) -> None:
        for wanted in (APPROVE, REJECT):
            assert (await abroad.ask(wanted, id=asked))["code"] == "REQUEST_NOT_FOUND"
        assert (await abroad.ask(REQUESTS))["edges"] == []

    async def test_are_listed(self, asked: str, oscar: Api) -> None:
        pending = [edge["node"]["id"] for edge in (await oscar.ask(REQUESTS, status="PENDING"))["edges"]]
        assert pending[0] == asked
        await oscar.ask(REJECT, id=asked)
        assert asked not in [e["node"]["id"] for e in (await oscar.ask(REQUESTS, status="PENDING"))["edges"]]

    async def test_what_cannot_be_done_is_not_even_asked(self, ann: Player, olga: Api) -> None:
        answer = await do(olga, "adjust", walletId=ann.wallet, amount=1001, direction="DEBIT")
        assert answer["code"] == "INSUFFICIENT_FUNDS"

    async def test_what_cannot_be_done_any_more_stays_undecided(self, player: Any, olga: Api, oscar: Api) -> None:
        ben = await player(2000)
        asked = await do(olga, "adjust", walletId=ben.wallet, amount=1500, direction="DEBIT")
        await do(olga, "withdraw", walletId=ben.wallet, amount=1000)
        assert (await oscar.ask(APPROVE, id=asked["id"]))["code"] == "INSUFFICIENT_FUNDS"
        await do(olga, "deposit", walletId=ben.wallet, amount=500)
        assert (await oscar.ask(APPROVE, id=asked["id"]))["kind"] == "ADJUSTMENT"
        assert await ben.real() == 0

    async def test_again_is_the_same_request(self, ann: Player, olga: Api, asked: str) -> None:
        same = {"id": asked, "walletId": ann.wallet, "amount": 1001, "direction": "CREDIT"}
        assert (await do(olga, "adjust", **same))["status"] == "PENDING"
        for other in ({"amount": 1002}, {"reason": "another"}):
            for dry_run in (False, True):
                answer = await do(olga, "adjust", **same | other, dryRun=dry_run)
                assert answer["code"] == "IDEMPOTENCY_MISMATCH"

    async def test_again_after_it_was_done(self, ann: Player, olga: Api, oscar: Api, asked: str) -> None:
        done = await oscar.ask(APPROVE, id=asked)
        again = await do(olga, "adjust", id=asked, walletId=ann.wallet, amount=1001, direction="CREDIT")
        assert (again["__typename"], again["id"], again["createdAt"]) == ("Transfer", done["id"], done["createdAt"])

    async def test_again_after_the_threshold_has_changed(
        self, ann: Player, olga: Api, oscar: Api, asked: str, configure: Any
    ) -> None:
        """A request is not done without its second pair of eyes because the rule is laxer today."""
        await configure(adjustment_approval_above_default=5000)
        again = await do(olga, "adjust", id=asked, walletId=ann.wallet, amount=1001, direction="CREDIT")
        assert (again.get("status"), await ann.real()) == ("PENDING", 0)
        assert (await oscar.ask(APPROVE, id=asked))["kind"] == "ADJUSTMENT"

    async def test_a_rejected_one_after_the_threshold_has_changed(
        self, ann: Player, olga: Api, oscar: Api, asked: str, configure: Any
    ) -> None:
        await oscar.ask(REJECT, id=asked)
        await configure(adjustment_approval_above_default=5000)
        again = await do(olga, "adjust", id=asked, walletId=ann.wallet, amount=1001, direction="CREDIT")
        assert (again.get("status"), await ann.real()) == ("REJECTED", 0)
