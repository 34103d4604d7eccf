"""Stakes, wins, and bonus money, lot by lot."""

import asyncio
from typing import Any

import pytest

from libs.core.ids import new_id
from tests.live import Api
from tests.payment.operations.asking import Player, codes, do, refused, together, written


@pytest.fixture
async def ann(player: Any, olga: Api) -> Player:
    """With 100 of her own, and lots of 50 and 30."""
    ann: Player = await player(100)
    for lot, amount in (("welcome", 50), ("friday", 30)):
        await do(olga, "grantLot", walletId=ann.wallet, lot=lot, amount=amount)
    return ann


class TestGrantLot:
    async def test_is_bonus_money_of_a_lot(self, ann: Player) -> None:
        assert await ann.lots() == {"welcome": 50, "friday": 30}
        assert await ann.look() == {"real": 100, "bonus": 80, "locked": 0, "available": 180}

    async def test_cannot_be_withdrawn_or_paid_to_others(self, ann: Player, olga: Api, player: Any) -> None:
        ben = await player()
        assert (await do(olga, "withdraw", walletId=ann.wallet, amount=101))["code"] == "INSUFFICIENT_FUNDS"
        ends = {"sourceWalletId": ann.wallet, "destinationWalletId": ben.wallet}
        assert (await do(ann.api, "transfer", **ends, amount=101))["code"] == "INSUFFICIENT_FUNDS"

    async def test_again_is_the_same(self, ann: Player, olga: Api) -> None:
        same = written("grantLot", walletId=ann.wallet, lot="extra", amount=5)
        assert await do(olga, "grantLot", **same) == await do(olga, "grantLot", **same)
        assert (await do(olga, "grantLot", **same | {"lot": "other"}))["code"] == "IDEMPOTENCY_MISMATCH"
        assert (await ann.lots())["extra"] == 5

    @pytest.mark.parametrize("lot", ["", "a.b", "$x", "a" * 65, "é", "a\0b"])
    async def test_a_name_that_is_none(self, ann: Player, olga: Api, lot: str) -> None:
        for operation in ("grantLot", "convertLot", "forfeitLot"):
            assert await refused(olga, operation, walletId=ann.wallet, lot=lot, amount=1) == "BAD_USER_INPUT"


class TestConvertAndForfeitLot:
    async def test_converted_it_is_her_own(self, ann: Player, olga: Api) -> None:
        await do(olga, "convertLot", walletId=ann.wallet, lot="welcome", amount=50)
        assert await ann.look() == {"real": 150, "bonus": 30, "locked": 0, "available": 180}
        assert await ann.lots() == {"friday": 30}

    async def test_forfeited_it_is_gone(self, ann: Player, olga: Api) -> None:
        await do(olga, "forfeitLot", walletId=ann.wallet, lot="friday", amount=20)
        assert await ann.lots() == {"welcome": 50, "friday": 10}

    @pytest.mark.parametrize("operation", ["convertLot", "forfeitLot"])
    async def test_no_more_than_the_lot_holds(self, ann: Player, olga: Api, operation: str) -> None:
        for lot, amount in (("friday", 31), ("unknown", 1)):
            answer = await do(olga, operation, walletId=ann.wallet, lot=lot, amount=amount)
            assert answer["code"] == "INSUFFICIENT_FUNDS"

    async def test_converted_and_forfeited_at_once(self, ann: Player, olga: Api) -> None:
        wanted = ["convertLot", "forfeitLot"] * 10
        done = await asyncio.gather(*(do(olga, o, walletId=ann.wallet, lot="welcome", amount=20) for o in wanted))
        assert codes(done) == ["", "", *["INSUFFICIENT_FUNDS"] * 18]
        assert (await ann.lots())["welcome"] == 10


class TestPlaceBet:
    async def test_of_real_money(self, ann: Player, games: Api) -> None:
        assert (await do(games, "placeBet", walletId=ann.wallet, amount=10))["kind"] == "BET"
        assert await ann.real() == 90

    async def test_of_real_money_and_lots(self, ann: Player, games: Api) -> None:
        lots = [{"lot": "welcome", "amount": "20"}, {"lot": "friday", "amount": "30"}]
        done = await do(games, "placeBet", walletId=ann.wallet, amount=10, lots=lots)
        assert await together(games, done["id"]) == [("BET", 10), ("BET", 20), ("BET", 30)]
        assert (await ann.real(), await ann.lots()) == (90, {"welcome": 30})

    async def test_of_lots_alone(self, ann: Player, games: Api) -> None:
        lots = [{"lot": "welcome", "amount": "20"}]
        done = await do(games, "placeBet", walletId=ann.wallet, currency="EUR", lots=lots)
        assert [(line["bucket"], line["lot"]) for line in done["transactions"]] == [
            ("BONUS", "welcome"),
            ("REAL", None),
        ]

    async def test_all_of_it_or_nothing(self, ann: Player, games: Api) -> None:
        lots = [{"lot": "welcome", "amount": "20"}, {"lot": "friday", "amount": "31"}]
        answer = await do(games, "placeBet", walletId=ann.wallet, amount=10, lots=lots)
        assert answer["code"] == "INSUFFICIENT_FUNDS"
        assert (await ann.real(), await ann.lots()) == (100, {"welcome": 50, "friday": 30})

    @pytest.mark.parametrize(
        "stake",
        [
            pytest.param({}, id="none"),
            pytest.param({"amount": 0}, id="nothing"),
            pytest.param({"lots": [{"lot": "welcome", "amount": "0"}]}, id="nothing of a lot"),
            pytest.param({"lots": [{"lot": "welcome", "amount": "1"}] * 2}, id="a lot twice"),
            pytest.param({"lots": [{"lot": "", "amount": "1"}]}, id="a lot without a name"),
            pytest.param({"lots": [{"lot": f"l{n}", "amount": "1"} for n in range(101)]}, id="more than 100 lots"),
        ],
    )
    async def test_a_stake_that_is_none(self, ann: Player, games: Api, stake: dict[str, Any]) -> None:
        wanted = {"walletId": ann.wallet, "currency": "EUR"} | stake
        assert await refused(games, "placeBet", **wanted) == "BAD_USER_INPUT"

    async def test_again_is_the_same(self, ann: Player, games: Api) -> None:
        lots = [{"lot": "welcome", "amount": "20"}, {"lot": "friday", "amount": "30"}]
        same = written("placeBet", walletId=ann.wallet, amount=10, lots=lots)
        assert await do(games, "placeBet", **same) == await do(games, "placeBet", **same)
        for other in ({"lots": lots[:1]}, {"lots": lots[::-1]}, {"amount": "11"}):
            assert (await do(games, "placeBet", **same | other))["code"] == "IDEMPOTENCY_MISMATCH"
        assert await ann.real() == 90

    async def test_rolled_back_goes_to_where_it_came_from(self, ann: Player, games: Api) -> None:
        stake = {"amount": 10, "lots": [{"lot": "friday", "amount": "30"}]}
        done = await do(games, "placeBet", walletId=ann.wallet, **stake)
        for transfer_id in (done["id"], f"{done['id']}.1"):
            assert (await do(games, "reverseTransfer", transferId=transfer_id))["kind"] == "REVERSAL"
        assert (await ann.real(), await ann.lots()) == (100, {"welcome": 50, "friday": 30})

    async def test_twenty_at_once_never_stake_more_than_there_is(self, ann: Player, games: Api) -> None:
        lots = [{"lot": "friday", "amount": "10"}]
        stakes = (do(games, "placeBet", walletId=ann.wallet, amount=1, lots=lots) for _ in range(20))
        assert codes(await asyncio.gather(*stakes)) == [""] * 3 + ["INSUFFICIENT_FUNDS"] * 17
        assert (await ann.real(), await ann.lots()) == (97, {"welcome": 50})


class TestSettleBet:
    async def test_is_paid_by_the_house(self, ann: Player, games: Api) -> None:
        assert (await do(games, "settleBet", walletId=ann.wallet, amount=25))["kind"] == "WIN"
        assert await ann.real() == 125

    async def test_of_bonus_money_stays_bonus_money(self, ann: Player, games: Api) -> None:
        await do(games, "settleBet", walletId=ann.wallet, amount=25, lot="welcome")
        assert (await ann.real(), (await ann.lots())["welcome"]) == (100, 75)

    async def test_an_empty_lot_is_not_real_money(self, ann: Player, games: Api) -> None:
        assert await refused(games, "settleBet", walletId=ann.wallet, amount=25, lot="") == "BAD_USER_INPUT"

    async def test_again_is_the_same(self, ann: Player, games: Api) -> None:
        same = written("settleBet", walletId=ann.wallet, amount=25, id=new_id())
        assert await do(games, "settleBet", **same) == await do(games, "settleBet", **same)
        assert (await do(games, "settleBet", **same, lot="welcome"))["code"] == "IDEMPOTENCY_MISMATCH"
        assert await ann.real() == 125
