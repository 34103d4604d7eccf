"""One currency into another."""

import asyncio
from typing import Any

import pytest

from libs.core.ids import new_id
from libs.core.testing import eventually
from tests.live import Api
from tests.payment.operations.asking import Player, at_once, do, refused, together, written


@pytest.fixture
async def ann(player: Any) -> Player:
    """With 10.00 EUR."""
    return await player(1000)  # type: ignore[no-any-return]


@pytest.fixture
async def dollars(ann: Player) -> str:
    return await ann.another_wallet("USD")


async def quote(api: Api, amount: int = 100, source: str = "EUR", target: str = "USD", **more: Any) -> Any:
    return await do(api, "quoteExchange", amount=amount, sourceCurrency=source, targetCurrency=target, **more)


def take_up(quoted: Any, source: str, destination: str) -> dict[str, str]:
    return {"quoteId": quoted["id"], "sourceWalletId": source, "destinationWalletId": destination}


class TestQuoteExchange:
    @pytest.mark.parametrize(
        ("amount", "source", "target", "bought", "rate"),
        [
            (100, "EUR", "USD", "110", "1.1"),
            pytest.param(109, "EUR", "USD", "119", "1.1", id="rounded down"),
            pytest.param(1000, "USD", "EUR", "891", "0.891", id="less the spread"),
        ],
    )
    async def test_what_is_bought(
        self, ann: Player, amount: int, source: str, target: str, bought: str, rate: str
    ) -> None:
        quoted = await quote(ann.api, amount, source, target)
        assert (quoted["targetAmount"], quoted["targetCurrency"], quoted["rate"]) == (bought, target, rate)

    async def test_less_than_one_unit(self, ann: Player) -> None:
        assert (await quote(ann.api, 1, "USD", "EUR"))["code"] == "AMOUNT_TOO_SMALL"

    async def test_a_fortune(self, ann: Player) -> None:
        wanted = {"amount": 2**63 - 1, "sourceCurrency": "EUR", "targetCurrency": "USD"}
        assert await refused(ann.api, "quoteExchange", **wanted) == "BAD_USER_INPUT"
        assert (await quote(ann.api, 2**62 + 1))["targetAmount"] == str((2**62 + 1) * 11 // 10)

    async def test_without_a_rate(self, ann: Player) -> None:
        assert (await quote(ann.api, 1, "EUR", "EUR"))["code"] == "RATE_UNAVAILABLE"

    async def test_of_an_unknown_currency(self, ann: Player) -> None:
        for source, target in (("EUR", "XXX"), ("XXX", "EUR"), ("EUR", "$ne"), ("EUR", "")):
            wanted = {"amount": 1, "sourceCurrency": source, "targetCurrency": target}
            assert await refused(ann.api, "quoteExchange", **wanted) == "BAD_USER_INPUT"

    async def test_again_is_the_same_though_the_rate_has_changed(self, ann: Player, configure: Any) -> None:
        same_id = new_id()
        first = await quote(ann.api, id=same_id)
        await configure(rates={"EUR/USD": {"rate": "2"}})
        assert await quote(ann.api, id=same_id) == first
        assert (await quote(ann.api, 101, id=same_id))["code"] == "IDEMPOTENCY_MISMATCH"

    async def test_of_another_under_the_same_id(self, ann: Player, player: Any) -> None:
        quoted, eve = await quote(ann.api), await player()
        assert (await quote(eve.api, id=quoted["id"]))["code"] == "IDEMPOTENCY_MISMATCH"


class TestExchange:
    async def test_moves_both(self, ann: Player, dollars: str) -> None:
        quoted = await quote(ann.api)
        done = await do(ann.api, "exchange", **take_up(quoted, ann.wallet, dollars))
        assert await together(ann.api, done["id"]) == [("EXCHANGE", 100), ("EXCHANGE", 110)]
        assert (await ann.real(), (await ann.look(dollars))["real"]) == (900, 110)

    async def test_twenty_at_once_take_it_up_once(self, ann: Player, dollars: str) -> None:
        quoted = await quote(ann.api)
        done = await at_once(20, ann.api, "exchange", **take_up(quoted, ann.wallet, dollars))
        assert all(answer == done[0] for answer in done)
        assert (await ann.real(), (await ann.look(dollars))["real"]) == (900, 110)

    async def test_a_quote_taken_up_for_two_wallets(self, ann: Player, dollars: str, player: Any) -> None:
        quoted = await quote(ann.api)
        casino = (
            await ann.api.ask(
                'mutation { createWallet(input: {currency: "USD", category: "casino"}) { ... on Wallet { id } } }'
            )
        )["id"]
        wanted = [take_up(quoted, ann.wallet, wallet) for wallet in (dollars, casino) * 5]
        answers = await asyncio.gather(*(do(ann.api, "exchange", **given) for given in wanted))
        assert {answer.get("code") for answer in answers} == {None, "IDEMPOTENCY_MISMATCH"}
        assert await ann.real() == 900

    async def test_after_it_has_expired(self, ann: Player, dollars: str, configure: Any) -> None:
        await configure(quote_s=0.05)
        quoted = await quote(ann.api)

        async def expired() -> Any:
            answer = await do(ann.api, "exchange", **take_up(quoted, ann.wallet, dollars), dryRun=True)
            return answer.get("code") == "QUOTE_EXPIRED"

        await eventually(expired)
        assert (await do(ann.api, "exchange", **take_up(quoted, ann.wallet, dollars)))["code"] == "QUOTE_EXPIRED"

    async def test_again_after_it_has_expired(self, ann: Player, dollars: str, configure: Any) -> None:
        await configure(quote_s=1.0)
        quoted, untaken = await quote(ann.api), await quote(ann.api)
        done = await do(ann.api, "exchange", **take_up(quoted, ann.wallet, dollars))

        async def expired() -> Any:
            answer = await do(ann.api, "exchange", **take_up(untaken, ann.wallet, dollars), dryRun=True)
            return answer.get("code") == "QUOTE_EXPIRED"

        assert done["__typename"] == "Transfer"
        await eventually(expired)
        assert await do(ann.api, "exchange", **take_up(quoted, ann.wallet, dollars)) == done

    async def test_of_somebody_else(self, ann: Player, dollars: str, player: Any, olga: Api, abroad: Api) -> None:
        quoted, eve = await quote(ann.api), await player(1000)
        hers = take_up(quoted, eve.wallet, await eve.another_wallet("USD"))
        for thief in (eve.api, olga, abroad):
            for given in (hers, take_up(quoted, ann.wallet, dollars)):
                assert (await do(thief, "exchange", **given))["code"] == "QUOTE_NOT_FOUND"

    async def test_that_was_never_quoted(self, ann: Player, dollars: str) -> None:
        answer = await do(ann.api, "exchange", **take_up({"id": new_id()}, ann.wallet, dollars))
        assert answer["code"] == "QUOTE_NOT_FOUND"

    async def test_with_a_strangers_wallet(self, ann: Player, dollars: str, player: Any) -> None:
        eve = await player(1000)
        hers = await eve.another_wallet("USD")
        for source, destination in ((eve.wallet, dollars), (ann.wallet, hers), (eve.wallet, hers)):
            answer = await do(ann.api, "exchange", **take_up(await quote(ann.api), source, destination))
            assert answer["code"] == "WALLET_NOT_FOUND"

    async def test_between_wallets_of_other_currencies(self, ann: Player, dollars: str) -> None:
        for source, destination in ((dollars, ann.wallet), (ann.wallet, ann.wallet), (dollars, dollars)):
            answer = await do(ann.api, "exchange", **take_up(await quote(ann.api), source, destination))
            assert answer["code"] == "CURRENCY_MISMATCH"

    async def test_of_more_than_there_is(self, ann: Player, dollars: str) -> None:
        quoted = await quote(ann.api, 1001)
        answer = await do(ann.api, "exchange", **take_up(quoted, ann.wallet, dollars))
        assert answer["code"] == "INSUFFICIENT_FUNDS"
        assert (await ann.look(dollars))["real"] == 0

    async def test_under_the_id_of_a_transfer(self, ann: Player, dollars: str, olga: Api) -> None:
        other = await do(olga, "deposit", walletId=ann.wallet, amount=1)
        quoted = await quote(ann.api, id=other["id"])
        answer = await do(ann.api, "exchange", **take_up(quoted, ann.wallet, dollars))
        assert answer["code"] == "IDEMPOTENCY_MISMATCH"

    async def test_there_and_back_makes_nobody_rich(self, ann: Player, dollars: str) -> None:
        await do(ann.api, "exchange", **take_up(await quote(ann.api), ann.wallet, dollars))
        await do(ann.api, "exchange", **take_up(await quote(ann.api, 110, "USD", "EUR"), dollars, ann.wallet))
        assert await ann.real() < 1000

    async def test_again_with_another_reference(self, ann: Player, dollars: str) -> None:
        given = written("exchange", **take_up(await quote(ann.api), ann.wallet, dollars))
        await do(ann.api, "exchange", **given)
        assert (await do(ann.api, "exchange", **given, reference="x"))["code"] == "IDEMPOTENCY_MISMATCH"
