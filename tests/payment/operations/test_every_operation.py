"""What is true of every operation: who may, with what, tried out dry, sent again, and told of."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from libs.core.ids import new_id
from libs.core.testing import eventually
from tests.live import Api
from tests.payment.operations.asking import (
    APPROVE,
    OPERATIONS,
    REJECT,
    RESULT,
    Player,
    do,
    refused,
    together,
    written,
)

As = Callable[..., Api]
TRANSFERS = f"""mutation ($input: [TransferInput!]!, $mode: TransfersMode!) {{
    transfers(input: $input, mode: $mode) {RESULT} }}"""
Inputs = Mapping[str, dict[str, Any]]
# Those of operators and services. Players have `transfer`, `quoteExchange` and `exchange`.
OPERATORS = sorted(OPERATIONS.keys() - {"transfer", "quoteExchange", "exchange"})
MOVING = sorted(
    OPERATIONS.keys() - {"quoteExchange", "freezeWallet", "unfreezeWallet", "closeWallet", "setCreditLimit"}
)
OF_AMOUNTS = sorted(set(MOVING) - {"voidHold", "exchange"})


@pytest.fixture
async def ann(player: Any) -> Player:
    return await player(1000)  # type: ignore[no-any-return]


@pytest.fixture
async def ready(ann: Player, olga: Api, games: Api, player: Any, as_: As) -> Inputs:
    """For every operation an input that can be done, whatever others were before: with money, a hold, lots, a quote."""
    ben, dollars = await player(), await ann.another_wallet("USD")
    await do(olga, "grantLot", walletId=ann.wallet, lot="welcome", amount=100)
    paid = await do(ann.api, "transfer", sourceWalletId=ann.wallet, destinationWalletId=ben.wallet, amount=50)
    captured, voided = [
        (await do(olga, "hold", walletId=ann.wallet, amount=60, purpose="WITHDRAWAL"))["id"] for _ in range(2)
    ]
    quoted = await do(ann.api, "quoteExchange", amount=100, sourceCurrency="EUR", targetCurrency="USD")
    wallet = {"walletId": ann.wallet, "amount": 10}
    return {
        "deposit": wallet,
        "withdraw": wallet,
        "transfer": {"sourceWalletId": ann.wallet, "destinationWalletId": ben.wallet, "amount": 10},
        "placeBet": wallet | {"lots": [{"lot": "welcome", "amount": "5"}]},
        "settleBet": wallet | {"lot": "welcome"},
        "hold": wallet | {"purpose": "BET"},
        "capture": {"holdId": captured, "amount": 10, "final": True},
        "voidHold": {"holdId": voided},
        "reverseTransfer": {"transferId": paid["id"], "amount": 10},
        "adjust": wallet | {"direction": "DEBIT"},
        "exchange": {"quoteId": quoted["id"], "sourceWalletId": ann.wallet, "destinationWalletId": dollars},
        "quoteExchange": {"amount": 10, "sourceCurrency": "EUR", "targetCurrency": "USD"},
        "grantLot": wallet | {"lot": "more"},
        "convertLot": wallet | {"lot": "welcome"},
        "forfeitLot": wallet | {"lot": "welcome"},
        "freezeWallet": {"walletId": ann.wallet},
        "unfreezeWallet": {"walletId": ann.wallet},
        "closeWallet": {"walletId": ben.wallet},
        "setCreditLimit": {"walletId": ann.wallet, "amount": 10},
    }


@pytest.fixture
def who(ann: Player, olga: Api, games: Api) -> Callable[[str], Api]:
    """Somebody who may do that."""

    def may(operation: str) -> Api:
        if operation in ("placeBet", "settleBet"):
            return games
        return ann.api if operation in ("exchange", "transfer") else olga

    return may


def without_chance(answer: Any) -> Any:
    """What a dry run cannot know: when it will be, and where in the ledger."""
    unknown = {"createdAt", "transactions"}
    return {name: value for name, value in answer.items() if name not in unknown}


class TestWhoMay:
    async def test_nobody_without_a_token(self, ready: Inputs, as_: As) -> None:
        for operation in OPERATIONS:
            assert await refused(as_(""), operation, **ready[operation]) == "UNAUTHENTICATED"

    async def test_no_player_what_is_an_operators(self, ready: Inputs, ann: Player) -> None:
        for operation in OPERATORS:
            assert await refused(ann.api, operation, **ready[operation]) == "FORBIDDEN"
        for decision in (APPROVE, REJECT):
            assert await ann.api.refused(decision, id="x") == "FORBIDDEN"
        assert await ann.api.refused("{ adjustmentRequests { edges { node { id } } } }") == "FORBIDDEN"

    async def test_no_operator_plays(self, ready: Inputs, olga: Api) -> None:
        for operation in ("placeBet", "settleBet"):
            assert await refused(olga, operation, **ready[operation]) == "FORBIDDEN"

    async def test_no_other_tenant_and_no_other_player(self, ready: Inputs, as_: As, player: Any, ann: Player) -> None:
        strangers = {operation: as_("eve", "operator", "service", tenant="other") for operation in MOVING}
        strangers |= {operation: (await player()).api for operation in ("transfer", "exchange")}
        before = await ann.look()
        for operation, stranger in strangers.items():
            for dry_run in (True, False):
                answer = await do(stranger, operation, **ready[operation], dryRun=dry_run)
                assert answer["code"].endswith("_NOT_FOUND"), operation
        assert await ann.look() == before

    async def test_nobody_names_the_tenants_own_wallets(self, ready: Inputs, who: Any, olga: Api) -> None:
        listed = await olga.ask('{ wallets(filter: {kind: NOSTRO, currency: "EUR"}) { edges { node { id } } } }')
        nostro = listed["edges"][0]["node"]["id"]
        for operation in MOVING:
            for end in {"walletId", "sourceWalletId", "destinationWalletId"} & ready[operation].keys():
                answer = await do(who(operation), operation, **ready[operation] | {end: nostro})
                assert answer["code"] == "WALLET_NOT_FOUND", operation


class TestDryRun:
    @pytest.mark.parametrize("operation", MOVING)
    async def test_says_what_would_be_and_writes_nothing(
        self, ready: Inputs, who: Any, dump: Any, operation: str
    ) -> None:
        given, api = written(operation, **ready[operation]), who(operation)

        async def is_quiet() -> bool:
            """Relays and subscribers have done with what came before."""
            return bool(await dump() == await dump())

        async def tried() -> Any:
            before = await dump()
            answer = await do(api, operation, **given, dryRun=True)
            return answer if await dump() == before else None

        await eventually(is_quiet)
        answer = await eventually(tried)
        done = await do(api, operation, **given)
        assert done["__typename"] == "Transfer", done
        assert without_chance(answer) == without_chance(done)
        unnumbered = [{**line, "balanceAfter": None, "sequence": None} for line in answer["transactions"]]
        assert unnumbered == [{**line, "balanceAfter": None, "sequence": None} for line in done["transactions"]]

    @pytest.mark.parametrize("operation", sorted(set(OF_AMOUNTS) - {"deposit", "settleBet", "grantLot"}))
    async def test_says_what_would_be_refused(self, ready: Inputs, who: Any, operation: str) -> None:
        given = written(operation, **ready[operation] | {"amount": "900001"})
        if operation == "adjust":
            given["direction"] = "DEBIT"
        tried = await do(who(operation), operation, **given, dryRun=True)
        assert tried["__typename"] == "Problem"
        assert tried == await do(who(operation), operation, **given)

    async def test_of_what_was_done_is_answered_as_it_was(self, ready: Inputs, who: Any) -> None:
        for operation in MOVING:
            given = written(operation, **ready[operation])
            done = await do(who(operation), operation, **given)
            assert await do(who(operation), operation, **given, dryRun=True) == done

    async def test_of_an_adjustment_that_would_need_approval(self, ann: Player, olga: Api, oscar: Api) -> None:
        wanted = written("adjust", walletId=ann.wallet, amount=5000, direction="CREDIT")
        assert (await do(olga, "adjust", **wanted, dryRun=True))["status"] == "PENDING"
        assert (await oscar.ask(APPROVE, id=wanted["id"]))["code"] == "REQUEST_NOT_FOUND"

    @pytest.mark.parametrize("mode", ["ATOMIC", "INDEPENDENT"])
    async def test_of_many(self, ready: Inputs, ann: Player, dump: Any, mode: str) -> None:
        orders = [written("transfer", **ready["transfer"]) | {"dryRun": True} for _ in range(3)]
        orders[2]["amount"] = "900001"

        async def tried() -> Any:
            before = await dump()
            answers = await ann.api.ask(TRANSFERS, input=orders, mode=mode)
            return answers if await dump() == before else None

        tries = await eventually(tried)
        assert tries[2]["code"] == "INSUFFICIENT_FUNDS"
        assert {a.get("code") for a in tries[:2]} == {"LINKED_OPERATION_REFUSED" if mode == "ATOMIC" else None}
        orders[1]["dryRun"] = False
        assert await ann.api.refused(TRANSFERS, input=orders, mode=mode) == "BAD_USER_INPUT"

    async def test_leaves_the_id_free(self, ann: Player, olga: Api) -> None:
        same_id = new_id()
        await do(olga, "withdraw", id=same_id, walletId=ann.wallet, amount=10, dryRun=True)
        assert (await do(olga, "deposit", id=same_id, walletId=ann.wallet, amount=10))["kind"] == "DEPOSIT"

    async def test_among_what_is_done(self, ann: Player, olga: Api) -> None:
        """In one group, neither shows in the other."""
        tries = (do(olga, "withdraw", walletId=ann.wallet, amount=1000, dryRun=n % 2 == 0) for n in range(20))
        answers = await asyncio.gather(*tries)
        assert [a["__typename"] for a in answers[1::2]].count("Transfer") == 1
        assert await ann.real() == 0


class TestAgain:
    async def test_is_the_same_and_moves_nothing(self, ready: Inputs, who: Any, ann: Player) -> None:
        for operation in MOVING:
            given = written(operation, **ready[operation])
            first = await do(who(operation), operation, **given)
            after = await ann.look()
            assert await do(who(operation), operation, **given) == first
            assert await ann.look() == after, operation

    async def test_twenty_at_once_are_one(self, ready: Inputs, who: Any) -> None:
        for operation in MOVING:
            given, api = written(operation, **ready[operation]), who(operation)
            answers = await asyncio.gather(*(do(api, operation, **given) for _ in range(20)))
            assert all(answer == answers[0] for answer in answers), operation
            assert answers[0]["__typename"] == "Transfer", answers[0]

    async def test_with_another_reference(self, ready: Inputs, who: Any) -> None:
        for operation in MOVING:
            given, other = written(operation, **ready[operation]), {"reference": "another"}
            if "reason" in given:
                other = {"reason": "another"}
            await do(who(operation), operation, **given)
            answer = await do(who(operation), operation, **given | other)
            assert answer["code"] == "IDEMPOTENCY_MISMATCH", operation

    async def test_under_the_id_of_another_kind(self, ready: Inputs, who: Any, ann: Player, olga: Api) -> None:
        taken = (await do(olga, "deposit", walletId=ann.wallet, amount=10))["id"]
        for operation in sorted(set(MOVING) - {"deposit", "exchange"}):
            answer = await do(who(operation), operation, **ready[operation], id=taken)
            assert answer["code"] == "IDEMPOTENCY_MISMATCH", operation

    async def test_a_refused_id_can_be_used(self, ann: Player, olga: Api) -> None:
        same_id = new_id()
        assert (await do(olga, "withdraw", id=same_id, walletId=ann.wallet, amount=1001))["code"]
        assert (await do(olga, "withdraw", id=same_id, walletId=ann.wallet, amount=1000))["kind"] == "WITHDRAWAL"


class TestInput:
    async def test_an_amount_that_is_none(self, ready: Inputs, who: Any) -> None:
        for operation in sorted({*OF_AMOUNTS, "quoteExchange"} - {"placeBet"}):
            for amount in ("0", "-1", "9223372036854775808", "1.5", "", "NaN"):
                given = ready[operation] | {"amount": amount}
                assert await refused(who(operation), operation, **given) == "BAD_USER_INPUT", (operation, amount)

    async def test_a_fortune_is_refused_by_a_rule(self, ready: Inputs, who: Any) -> None:
        for operation in OF_AMOUNTS:
            answer = await do(who(operation), operation, **ready[operation] | {"amount": str(2**63 - 1)}, dryRun=True)
            expected = {"INSUFFICIENT_FUNDS", "BALANCE_LIMIT", "HOLD_EXCEEDED", "REVERSAL_EXCEEDED"}
            assert answer["code"] in expected, operation

    async def test_an_id_that_is_none(self, ready: Inputs, who: Any) -> None:
        ids = {"id", "walletId", "sourceWalletId", "destinationWalletId", "holdId", "quoteId", "lot"}
        for operation in MOVING:
            given = written(operation, **ready[operation])
            for name in sorted(ids & given.keys()):
                for value in ("", "a" * 65, "a.1", "a.expiry", "a:b", "$ne", "a\0", "é"):
                    wrong = given | {name: value}
                    assert await refused(who(operation), operation, **wrong) == "BAD_USER_INPUT", (operation, name)

    async def test_the_longest_ids(self, ann: Player, olga: Api, ready: Inputs, who: Any) -> None:
        for operation in ("placeBet", "capture", "adjust"):
            given = ready[operation] | {"id": operation + "x" * (64 - len(operation))}
            done = await do(who(operation), operation, **given)
            assert all(kind for kind, _ in await together(olga, done["id"]))

    async def test_metadata_of_a_hundred_thousand_levels(self, olga: Api) -> None:
        headers = {"authorization": f"Bearer {olga.token}", "content-type": "application/json"}
        deep = '{"a":' * 100_000 + "1" + "}" * 100_000
        given = f'{{"id": "x", "walletId": "x", "amount": "1", "currency": "EUR", "metadata": {deep}}}'
        query = OPERATIONS["deposit"].replace("\n", " ")
        body = f'{{"query": "{query}", "variables": {{"input": {given}}}}}'
        answer = await olga.client.post(f"{olga.url}/graphql", content=body, headers=headers)
        assert answer.status_code < 500
        assert "INTERNAL" not in answer.text

    @pytest.mark.parametrize(
        "more",
        [
            pytest.param({"metadata": {"x": "x" * 4097}}, id="large"),
            pytest.param(
                {"metadata": {"x": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}}, id="deep"
            ),
            pytest.param({"metadata": []}, id="no object"),
            pytest.param({"reference": "x" * 201}, id="long reference"),
        ],
    )
    async def test_more_than_can_be_kept(self, ready: Inputs, who: Any, more: dict[str, Any]) -> None:
        for operation in sorted(set(MOVING) - {"adjust", "reverseTransfer"}):
            assert await refused(who(operation), operation, **ready[operation], **more) == "BAD_USER_INPUT", operation

    async def test_text_in_any_script_comes_back(self, ready: Inputs, who: Any) -> None:
        text = "\0 \u202e𝔘𝔫𝔦 \u200b'; drop $where"
        for operation in MOVING:
            name = "reason" if operation in ("adjust", "reverseTransfer") else "reference"
            done = await do(who(operation), operation, **ready[operation], **{name: text})
            assert done["reference"] == text, operation

    @pytest.mark.parametrize("name", ["reference", "reason"])
    async def test_half_a_character(self, ready: Inputs, who: Any, olga: Api, name: str) -> None:
        """JSON can write what is no text."""
        operation = "deposit" if name == "reference" else "freezeWallet"
        headers = {"authorization": f"Bearer {olga.token}", "content-type": "application/json"}
        given = '{"walletId": "x", "reason": "\\ud800"}'
        if name == "reference":
            given = '{"id": "x", "walletId": "x", "amount": "1", "currency": "EUR", "reference": "\\ud800"}'
        body = f'{{"query": "{OPERATIONS[operation].replace(chr(10), " ")}", "variables": {{"input": {given}}}}}'
        answer = await olga.client.post(f"{olga.url}/graphql", content=body, headers=headers)
        assert answer.status_code < 500
        assert "INTERNAL" not in answer.text


class TestTold:
    async def test_of_every_operation(self, ready: Inputs, who: Any, ann: Player, told: Any) -> None:
        before = len(await told(ann))
        for operation in sorted(set(MOVING) - {"reverseTransfer"}):
            await do(who(operation), operation, **ready[operation])
        types = [event["type"] for event in (await told(ann))[before:]]
        meant = [name for name in types if name != "transfer.completed"]
        assert sorted(meant) == [
            "bet.placed",
            "bet.placed",
            "bet.settled",
            "deposit.completed",
            "withdrawal.completed",  # what was held for one, and captured
            "withdrawal.completed",
        ]
        # One for each transfer: a bet has two here, so has an exchange, and a capture that releases the rest.
        assert types.count("transfer.completed") == len(MOVING) - 1 + 3

    async def test_in_order_and_without_gaps(self, ready: Inputs, who: Any, ann: Player, told: Any) -> None:
        for operation in MOVING:
            await do(who(operation), operation, **ready[operation])
        await do(who("withdraw"), "withdraw", walletId=ann.wallet, amount=10**9)
        numbers = [int(event["sequence"]) for event in await told(ann)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))

    @pytest.mark.parametrize(
        ("operation", "type_"),
        [("deposit", "deposit.reversed"), ("withdraw", "withdrawal.reversed"), ("placeBet", "bet.rolled_back")],
    )
    async def test_of_what_is_undone(
        self, ready: Inputs, who: Any, olga: Api, ann: Player, told: Any, operation: str, type_: str
    ) -> None:
        done = await do(who(operation), operation, **ready[operation])
        await do(olga, "reverseTransfer", transferId=done["id"])
        data = (await told(ann))[-1]
        assert (data["type"], data["data"]["reverses"], data["data"]["wallet_id"]) == (type_, done["id"], ann.wallet)

    async def test_of_refusals_but_not_of_dry_runs(self, ann: Player, olga: Api, told: Any) -> None:
        before = len(await told(ann))
        for dry_run in (True, False):
            await do(olga, "withdraw", walletId=ann.wallet, amount=1001, dryRun=dry_run)
        [event] = (await told(ann))[before:]
        assert (event["type"], event["data"]["code"]) == ("transfer.refused", "INSUFFICIENT_FUNDS")


class TestOperationTransfers:
    async def test_are_all_that_were_made_whichever_is_asked(self, ready: Inputs, olga: Api, who: Any) -> None:
        done = await do(who("placeBet"), "placeBet", **ready["placeBet"])
        for transfer_id in (done["id"], f"{done['id']}.1"):
            assert await together(olga, transfer_id) == [("BET", 10), ("BET", 5)]

    async def test_only_those_that_one_may_see(self, ready: Inputs, ann: Player, who: Any, configure: Any) -> None:
        await configure(fees=[{"kind": "withdrawal", "currency": "EUR", "flat_minor": 1, "payer": "house"}])
        done = await do(who("withdraw"), "withdraw", **ready["withdraw"])
        assert await together(ann.api, done["id"]) == [("WITHDRAWAL", 10)]
