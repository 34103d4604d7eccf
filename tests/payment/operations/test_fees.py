"""Deposits and withdrawals, and what they cost."""

import asyncio
from typing import Any

import pytest

from tests.live import Api
from tests.payment.operations.asking import Player, codes, do, refused, together, written


def fee(kind: str, payer: str = "deducted", **amounts: int) -> dict[str, Any]:
    return {"kind": kind, "currency": "EUR", "payer": payer} | amounts


async def held_by(olga: Api, kind: str) -> int:
    """What the tenant's wallet of that kind holds."""
    query = f'{{ wallets(filter: {{kind: {kind}, currency: "EUR"}}) {{ edges {{ node {{ balance {{ real }} }} }} }} }}'
    return int((await olga.ask(query))["edges"][0]["node"]["balance"]["real"])


class TestWithdraw:
    async def test_leaves_for_outside(self, player: Any, olga: Api) -> None:
        ann, before = await player(100), await held_by(olga, "NOSTRO")
        done = await do(olga, "withdraw", walletId=ann.wallet, amount=30)
        assert (done["kind"], await ann.real(), await held_by(olga, "NOSTRO")) == ("WITHDRAWAL", 70, before + 30)

    async def test_twenty_at_once_never_take_more_than_there_is(self, player: Any, olga: Api) -> None:
        ann = await player(75)
        done = await asyncio.gather(*(do(olga, "withdraw", walletId=ann.wallet, amount=10) for _ in range(20)))
        assert codes(done) == [""] * 7 + ["INSUFFICIENT_FUNDS"] * 13
        assert await ann.real() == 5

    @pytest.mark.parametrize(
        ("payer", "amounts", "left", "moved", "charged"),
        [
            pytest.param("deducted", {"flat_minor": 5}, 900, 95, 5, id="flat, out of the amount"),
            pytest.param("added", {"flat_minor": 5}, 895, 100, 5, id="flat, on top"),
            pytest.param("house", {"flat_minor": 5}, 900, 100, 5, id="flat, the house's"),
            pytest.param("added", {"basis_points": 150}, 898, 100, 2, id="a share, half up"),
            pytest.param("added", {"basis_points": 149}, 899, 100, 1, id="a share, rounded down"),
            pytest.param("added", {"basis_points": 10, "min_minor": 7}, 893, 100, 7, id="at least"),
            pytest.param("added", {"basis_points": 5000, "max_minor": 9}, 891, 100, 9, id="at most"),
            pytest.param("added", {"flat_minor": 3, "basis_points": 100}, 896, 100, 4, id="both"),
        ],
    )
    async def test_with_a_fee(
        self,
        player: Any,
        olga: Api,
        configure: Any,
        payer: str,
        amounts: dict[str, int],
        left: int,
        moved: int,
        charged: int,
    ) -> None:
        await configure(fees=[fee("withdrawal", payer, **amounts)])
        ann, before, house = await player(1000), await held_by(olga, "FEE"), await held_by(olga, "HOUSE")
        done = await do(olga, "withdraw", walletId=ann.wallet, amount=100)
        assert await together(olga, done["id"]) == [("WITHDRAWAL", moved), ("FEE", charged)]
        assert (await ann.real(), await held_by(olga, "FEE")) == (left, before + charged)
        assert await held_by(olga, "HOUSE") == (house - charged if payer == "house" else house)

    async def test_a_fee_on_top_has_to_be_there_too(self, player: Any, olga: Api, configure: Any) -> None:
        await configure(fees=[fee("withdrawal", "added", flat_minor=1)])
        ann = await player(100)
        assert (await do(olga, "withdraw", walletId=ann.wallet, amount=100))["code"] == "INSUFFICIENT_FUNDS"
        assert await ann.real() == 100

    @pytest.mark.parametrize("amount", [1, 5])
    async def test_a_fee_that_leaves_nothing(self, player: Any, olga: Api, configure: Any, amount: int) -> None:
        await configure(fees=[fee("withdrawal", flat_minor=5)])
        ann = await player(100)
        answer = await do(olga, "withdraw", walletId=ann.wallet, amount=amount)
        assert (answer["code"], answer["details"]["feeMinor"]) == ("FEE_EXCEEDS_AMOUNT", "5")

    async def test_again_after_fees_have_changed(self, player: Any, olga: Api, configure: Any) -> None:
        ann = await player(100)
        same = written("withdraw", walletId=ann.wallet, amount=10)
        first = await do(olga, "withdraw", **same)
        for fees in (fee("withdrawal", "added", flat_minor=3), fee("withdrawal", flat_minor=50)):
            await configure(fees=[fees])
            assert await do(olga, "withdraw", **same) == first
            assert (await do(olga, "withdraw", **same | {"amount": "11"}))["code"] == "IDEMPOTENCY_MISMATCH"
        assert await ann.real() == 90

    async def test_again_after_a_fee_is_gone(self, player: Any, olga: Api, configure: Any) -> None:
        await configure(fees=[fee("withdrawal", flat_minor=3)])
        ann = await player(100)
        same = written("withdraw", walletId=ann.wallet, amount=10)
        first = await do(olga, "withdraw", **same)
        await configure(fees=[])
        assert await do(olga, "withdraw", **same) == first
        assert (await do(olga, "withdraw", **same | {"amount": "7"}))["code"] == "IDEMPOTENCY_MISMATCH"

    async def test_a_fee_past_64_bits(self, player: Any, olga: Api, configure: Any) -> None:
        await configure(fees=[fee("withdrawal", "added", flat_minor=2**63 - 1, basis_points=10_000)])
        ann = await player(100)
        assert await refused(olga, "withdraw", walletId=ann.wallet, amount=100) == "BAD_USER_INPUT"


class TestDeposit:
    @pytest.mark.parametrize(("payer", "left"), [("deducted", 90), ("added", 100), ("house", 100)])
    async def test_with_a_fee(self, player: Any, olga: Api, configure: Any, payer: str, left: int) -> None:
        ann: Player = await player()
        await configure(fees=[fee("deposit", payer, flat_minor=10)])
        done = await do(olga, "deposit", walletId=ann.wallet, amount=100)
        assert await together(olga, done["id"]) == [("DEPOSIT", 100), ("FEE", 10)]
        assert await ann.real() == left

    async def test_with_a_fee_that_leaves_nothing(self, player: Any, olga: Api, configure: Any) -> None:
        ann = await player()
        await configure(fees=[fee("deposit", flat_minor=10)])
        assert (await do(olga, "deposit", walletId=ann.wallet, amount=10))["code"] == "FEE_EXCEEDS_AMOUNT"

    async def test_of_another_kind_or_currency_costs_nothing(self, player: Any, olga: Api, configure: Any) -> None:
        ann = await player()
        await configure(fees=[fee("withdrawal", flat_minor=10), fee("deposit", flat_minor=10) | {"currency": "USD"}])
        done = await do(olga, "deposit", walletId=ann.wallet, amount=100)
        assert await together(olga, done["id"]) == [("DEPOSIT", 100)]

    async def test_the_fees_transfer_has_an_id_of_its_own(self, player: Any, olga: Api, configure: Any) -> None:
        ann = await player()
        await configure(fees=[fee("deposit", flat_minor=10)])
        done = await do(olga, "deposit", walletId=ann.wallet, amount=100)
        query = "query ($id: ID!) { transfer(id: $id) { kind operationId } }"
        for who in (olga, ann.api):
            found = await who.ask(query, id=f"{done['id']}.1")
            assert found == {"kind": "FEE", "operationId": done["id"]}

    async def test_a_fee_can_be_reversed(self, player: Any, olga: Api, configure: Any) -> None:
        ann = await player()
        await configure(fees=[fee("deposit", flat_minor=10)])
        done = await do(olga, "deposit", walletId=ann.wallet, amount=100)
        assert (await do(olga, "reverseTransfer", transferId=f"{done['id']}.1"))["kind"] == "REVERSAL"
        assert await ann.real() == 100
