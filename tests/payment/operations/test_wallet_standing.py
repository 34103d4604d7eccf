"""Wallets that are frozen, closed, or may go below zero."""

import asyncio
from typing import Any

import pytest

from libs.core.audit import AuditLog
from libs.core.mongo import Mongo
from tests.live import Api
from tests.payment.operations.asking import Player, codes, do, refused

STANDINGS = ["freezeWallet", "unfreezeWallet", "closeWallet", "setCreditLimit"]


@pytest.fixture
async def ann(player: Any) -> Player:
    """With 100."""
    return await player(100)  # type: ignore[no-any-return]


class TestFreezeWallet:
    async def test_nothing_leaves_and_nothing_comes_in(self, ann: Player, olga: Api, games: Api, player: Any) -> None:
        ben = await player(100)
        await do(olga, "freezeWallet", walletId=ann.wallet)
        there = {"sourceWalletId": ann.wallet, "destinationWalletId": ben.wallet, "amount": 1}
        back = {"sourceWalletId": ben.wallet, "destinationWalletId": ann.wallet, "amount": 1}
        answers = [
            await do(olga, "deposit", walletId=ann.wallet, amount=1),
            await do(olga, "withdraw", walletId=ann.wallet, amount=1),
            await do(olga, "hold", walletId=ann.wallet, amount=1, purpose="BET"),
            await do(olga, "grantLot", walletId=ann.wallet, amount=1, lot="x"),
            await do(games, "placeBet", walletId=ann.wallet, amount=1),
            await do(games, "settleBet", walletId=ann.wallet, amount=1),
            await do(ann.api, "transfer", **there),
            await do(ben.api, "transfer", **back),
        ]
        assert codes(answers) == ["WALLET_NOT_ACTIVE"] * len(answers)

    async def test_corrections_are_made_all_the_same(self, ann: Player, olga: Api) -> None:
        held = await do(olga, "hold", walletId=ann.wallet, amount=10, purpose="BET")
        await do(olga, "freezeWallet", walletId=ann.wallet)
        assert (await do(olga, "voidHold", holdId=held["id"]))["kind"] == "VOID"
        assert (await do(olga, "adjust", walletId=ann.wallet, amount=1, direction="DEBIT"))["kind"] == "ADJUSTMENT"

    async def test_unfrozen_all_is_as_before(self, ann: Player, olga: Api) -> None:
        for operation in ("freezeWallet", "freezeWallet", "unfreezeWallet", "unfreezeWallet"):
            await do(olga, operation, walletId=ann.wallet)
        assert (await do(olga, "withdraw", walletId=ann.wallet, amount=100))["kind"] == "WITHDRAWAL"

    async def test_is_told_once_and_to_whom_it_concerns(self, ann: Player, olga: Api, told: Any) -> None:
        for _ in range(2):
            await do(olga, "freezeWallet", walletId=ann.wallet, reason="stolen card")
        [event] = [event for event in await told(ann) if event["type"] == "wallet.frozen"]
        assert (event["data"]["reason"], event["actor"]) == ("stolen card", "olga")

    async def test_is_in_the_audit_log(self, ann: Player, olga: Api, database: Mongo) -> None:
        await do(olga, "freezeWallet", walletId=ann.wallet, reason="stolen card")
        await do(olga, "setCreditLimit", walletId=ann.wallet, amount=7)
        rows = await AuditLog(database.db, "payment.demo").read(resource=ann.wallet)
        assert [(row.actor, row.reason) for row in rows] == [("olga", "stolen card"), ("olga", "INC-7")]
        assert [row.after["status"] for row in rows if row.after] == ["frozen", "frozen"]

    async def test_while_debits_run(self, ann: Player, olga: Api) -> None:
        """What was answered as done before is there; nothing is done after."""
        debits = [do(olga, "withdraw", walletId=ann.wallet, amount=1) for _ in range(20)]
        frozen, *done = await asyncio.gather(do(olga, "freezeWallet", walletId=ann.wallet), *debits)
        assert frozen["status"] == "FROZEN"
        assert set(codes(done)) <= {"", "WALLET_NOT_ACTIVE"}
        assert await ann.real() == 100 - codes(done).count("")
        assert (await do(olga, "withdraw", walletId=ann.wallet, amount=1))["code"] == "WALLET_NOT_ACTIVE"


class TestCloseWallet:
    async def test_with_money_in_it(self, ann: Player, olga: Api) -> None:
        assert (await do(olga, "closeWallet", walletId=ann.wallet))["code"] == "WALLET_NOT_EMPTY"

    async def test_with_something_held(self, ann: Player, olga: Api) -> None:
        held = await do(olga, "hold", walletId=ann.wallet, amount=100, purpose="WITHDRAWAL")
        assert (await do(olga, "closeWallet", walletId=ann.wallet))["code"] == "WALLET_NOT_EMPTY"
        await do(olga, "capture", holdId=held["id"], amount=100)
        assert (await do(olga, "closeWallet", walletId=ann.wallet))["status"] == "CLOSED"

    async def test_with_bonus_money_or_debts(self, player: Any, olga: Api) -> None:
        ben, eve = await player(), await player()
        await do(olga, "grantLot", walletId=ben.wallet, amount=1, lot="x")
        await do(olga, "setCreditLimit", walletId=eve.wallet, amount=10)
        await do(olga, "withdraw", walletId=eve.wallet, amount=1)
        for wallet in (ben.wallet, eve.wallet):
            assert (await do(olga, "closeWallet", walletId=wallet))["code"] == "WALLET_NOT_EMPTY"

    async def test_is_for_good(self, player: Any, olga: Api) -> None:
        ben = await player()
        await do(olga, "closeWallet", walletId=ben.wallet)
        answers = [
            await do(olga, "freezeWallet", walletId=ben.wallet),
            await do(olga, "unfreezeWallet", walletId=ben.wallet),
            await do(olga, "setCreditLimit", walletId=ben.wallet, amount=1),
            await do(olga, "deposit", walletId=ben.wallet, amount=1),
            await do(olga, "adjust", walletId=ben.wallet, amount=1, direction="CREDIT"),
        ]
        assert codes(answers) == ["WALLET_NOT_ACTIVE"] * len(answers)

    async def test_racing_with_deposits(self, player: Any, olga: Api) -> None:
        """A closed wallet holds nothing, whoever was first."""
        for _ in range(5):
            ben = await player()
            paying = [do(olga, "deposit", walletId=ben.wallet, amount=1) for _ in range(5)]
            closed, *paid = await asyncio.gather(do(olga, "closeWallet", walletId=ben.wallet), *paying)
            if closed["__typename"] == "Wallet":
                assert (codes(paid), await ben.real()) == (["WALLET_NOT_ACTIVE"] * 5, 0)
            else:
                assert closed["code"] == "WALLET_NOT_EMPTY"
                assert await ben.real() == codes(paid).count("")

    async def test_what_was_paid_out_of_it_can_only_be_owed(self, ann: Player, olga: Api, player: Any) -> None:
        ben = await player()
        ends = {"sourceWalletId": ann.wallet, "destinationWalletId": ben.wallet}
        paid = await do(ann.api, "transfer", **ends, amount=100)
        await do(olga, "withdraw", walletId=ben.wallet, amount=100)
        await do(olga, "closeWallet", walletId=ben.wallet)
        assert (await do(olga, "reverseTransfer", transferId=paid["id"]))["code"] == "WALLET_NOT_ACTIVE"
        done = await do(olga, "reverseTransfer", transferId=paid["id"], shortfall="RECEIVABLE")
        assert (done["kind"], await ann.real()) == ("REVERSAL", 100)


class TestSetCreditLimit:
    async def test_the_real_bucket_goes_below_zero_that_far(self, ann: Player, olga: Api) -> None:
        await do(olga, "setCreditLimit", walletId=ann.wallet, amount=50)
        assert (await do(olga, "withdraw", walletId=ann.wallet, amount=151))["code"] == "INSUFFICIENT_FUNDS"
        assert (await do(olga, "withdraw", walletId=ann.wallet, amount=150))["kind"] == "WITHDRAWAL"
        assert await ann.real() == -50

    async def test_lowered_under_what_is_owed(self, ann: Player, olga: Api) -> None:
        await do(olga, "setCreditLimit", walletId=ann.wallet, amount=50)
        await do(olga, "withdraw", walletId=ann.wallet, amount=150)
        assert (await do(olga, "setCreditLimit", walletId=ann.wallet, amount=0))["creditLimit"] == "0"
        answer = await do(olga, "withdraw", walletId=ann.wallet, amount=1)
        assert (answer["code"], answer["details"]["availableMinor"]) == ("INSUFFICIENT_FUNDS", "0")
        assert (await do(olga, "deposit", walletId=ann.wallet, amount=20))["kind"] == "DEPOSIT"

    async def test_debts_are_paid_back_though_deposits_have_a_fee(self, ann: Player, olga: Api, configure: Any) -> None:
        await do(olga, "setCreditLimit", walletId=ann.wallet, amount=50)
        await do(olga, "withdraw", walletId=ann.wallet, amount=150)
        await do(olga, "setCreditLimit", walletId=ann.wallet, amount=0)
        await configure(fees=[{"kind": "deposit", "currency": "EUR", "flat_minor": 5, "payer": "deducted"}])
        assert (await do(olga, "deposit", walletId=ann.wallet, amount=20)).get("kind") == "DEPOSIT"
        assert await ann.real() == -35

    async def test_is_not_for_bonus_or_held_money(self, ann: Player, olga: Api) -> None:
        await do(olga, "setCreditLimit", walletId=ann.wallet, amount=1000)
        held = await do(olga, "hold", walletId=ann.wallet, amount=10, purpose="WITHDRAWAL")
        assert (await do(olga, "capture", holdId=held["id"], amount=11))["code"] == "HOLD_EXCEEDED"
        await do(olga, "grantLot", walletId=ann.wallet, amount=1, lot="x")
        answer = await do(olga, "convertLot", walletId=ann.wallet, amount=2, lot="x")
        assert answer["code"] == "INSUFFICIENT_FUNDS"

    @pytest.mark.parametrize("amount", ["-1", "9223372036854775808", "1.5", ""])
    async def test_an_amount_that_is_none(self, ann: Player, olga: Api, amount: str) -> None:
        assert await refused(olga, "setCreditLimit", walletId=ann.wallet, amount=amount) == "BAD_USER_INPUT"

    async def test_twenty_racing_for_the_same_credit(self, ann: Player, olga: Api) -> None:
        await do(olga, "setCreditLimit", walletId=ann.wallet, amount=50)
        debits = (do(olga, "withdraw", walletId=ann.wallet, amount=20) for _ in range(20))
        assert codes(await asyncio.gather(*debits)).count("") == 7
        assert await ann.real() == -40


class TestWhoMay:
    @pytest.mark.parametrize("operation", STANDINGS)
    async def test_not_its_owner_nor_another_tenant(self, ann: Player, abroad: Api, operation: str) -> None:
        more = {"amount": 1} if operation == "setCreditLimit" else {}
        assert await refused(ann.api, operation, walletId=ann.wallet, **more) == "FORBIDDEN"
        assert (await do(abroad, operation, walletId=ann.wallet, **more))["code"] == "WALLET_NOT_FOUND"

    @pytest.mark.parametrize("operation", STANDINGS)
    async def test_not_of_the_tenants_own_wallets(self, olga: Api, operation: str) -> None:
        listed = await olga.ask('{ wallets(filter: {kind: HOUSE, currency: "EUR"}) { edges { node { id } } } }')
        more = {"amount": 1} if operation == "setCreditLimit" else {}
        answer = await do(olga, operation, walletId=listed["edges"][0]["node"]["id"], **more)
        assert answer["code"] == "WALLET_NOT_FOUND"

    @pytest.mark.parametrize("reason", ["", " \t", "x" * 201])
    async def test_not_without_a_reason(self, ann: Player, olga: Api, reason: str) -> None:
        assert await refused(olga, "freezeWallet", walletId=ann.wallet, reason=reason) == "BAD_USER_INPUT"

    async def test_a_reason_in_any_script(self, ann: Player, olga: Api, told: Any) -> None:
        reason = "Verdacht: \0 \u202e𝔘𝔫𝔦 \u200b'; drop"
        await do(olga, "freezeWallet", walletId=ann.wallet, reason=reason)
        assert (await told(ann))[-1]["data"]["reason"] == reason
