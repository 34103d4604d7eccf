"""Hand-made histories: the good one passes, and each bad one is found by the check that is there for it.

Ann (100) and Bob (50) were paid in, then Ann paid Bob 30.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.soak.checker import Evidence, Ledger, Line, Moved, violations
from tests.soak.client import REHEARSAL, REUSE
from tests.soak.history import NEVER, Call, Outcome, Read
from tests.soak.operations import CURRENCY, NOSTRO, TRANSFER_LIMIT, Asked, deposit, expiry_id

ANN, BOB = "ann", "bob"


def transfer(operation_id: str, source: str, destination: str, amount: int) -> dict[str, Any]:
    ends = {"sourceWalletId": source, "destinationWalletId": destination}
    return {"id": operation_id, **ends, "amount": str(amount), "currency": CURRENCY}


PAID_IN, BOBS, PAID = deposit("d1", ANN, 100), deposit("d2", BOB, 50), {"input": transfer("t1", ANN, BOB, 30)}


class Story:
    """A ledger that posts what it is told to, rightly, and what clients saw of it. A test then bends one of them."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.reads: list[Read] = []
        self.transfers: list[Moved] = []
        self.lines: list[Line] = []
        self.balances: dict[str, dict[str, int]] = {ANN: _empty(), BOB: _empty(), NOSTRO: _empty()}

    def posts(
        self,
        operation_id: str,
        source: str,
        destination: str,
        amount: int,
        kind: str = "transfer",
        buckets: tuple[str, str] = ("real", "real"),
    ) -> None:
        self.transfers.append(Moved(operation_id, operation_id, kind, amount, CURRENCY))
        for wallet, direction, bucket in zip((source, destination), ("debit", "credit"), buckets, strict=True):
            self.balances[wallet][bucket] += amount if direction == "credit" else -amount
            position = 1 + sum(line.wallet == wallet for line in self.lines)
            sequence = 1 + sum((line.wallet, line.bucket) == (wallet, bucket) for line in self.lines)
            self.lines.append(
                Line(
                    id=f"{wallet}:{position:012d}",
                    wallet=wallet,
                    wallet_id=wallet,
                    bucket=bucket,
                    direction=direction,
                    amount=amount,
                    currency=CURRENCY,
                    balance_after=self.balances[wallet][bucket],
                    sequence=sequence,
                    position=position,
                    transfer_id=operation_id,
                    at_ms=1_000 + len(self.lines),
                )
            )

    def asks(
        self,
        op: str,
        asked: Asked,
        at: tuple[int, int],
        outcome: Outcome = "ok",
        operation_id: str = "",
        **answer: Any,
    ) -> Call:
        operation_id = operation_id or asked["input"]["id"]
        client, call = "c0.0", f"c0.0/{len(self.calls) + 1}"
        self.calls.append(Call(client, call, op, operation_id, asked, *at, outcome, {"outcome": outcome, **answer}))
        return self.calls[-1]

    def captures(self, operation_id: str, amount: int, at: tuple[int, int]) -> None:
        """For Bob, of the hold h1."""
        self.posts(operation_id, ANN, BOB, amount, kind="capture", buckets=("locked", "real"))
        given = {"id": operation_id, "holdId": "h1", "amount": str(amount), "destinationWalletId": BOB, "final": False}
        self.asks("capture", {"input": given}, at)

    def reads_wallet(self, wallet: str, real: int, at: tuple[int, int], client: str = "c1.0") -> None:
        seen = {"id": wallet, "balance": {"real": str(real), "bonus": "0", "locked": "0"}}
        self.reads.append(Read(client, f"{client}/{len(self.reads) + 1}", "wallet", {"id": wallet}, *at, seen))

    def reads_lines(self, wallet: str, lines: Iterable[Line], at: tuple[int, int]) -> None:
        seen = {"edges": [{"node": node(line)} for line in lines]}
        self.reads.append(Read("c1.0", f"c1.0/{len(self.reads) + 1}", "transactions", {"id": wallet}, *at, seen))

    def of(self, wallet: str) -> list[Line]:
        """The newest first, as they are shown."""
        return [line for line in reversed(self.lines) if line.wallet == wallet]

    def bends(self, index: int, **changes: Any) -> None:
        self.lines[index] = replace(self.lines[index], **changes)

    def without(self, operation_id: str) -> None:
        """As if it had never been written: the lines of others stay what they are."""
        self.transfers = [moved for moved in self.transfers if moved.id != operation_id]
        for line in [line for line in self.lines if line.transfer_id == operation_id]:
            self.balances[line.wallet][line.bucket] -= line.change
            self.lines.remove(line)

    def found(self, **ledger: Any) -> list[str]:
        """The names of the checks that found something."""
        told: Mapping[str, int] = {moved.id: 1 for moved in self.transfers}
        stored = Ledger(self.transfers, self.lines, self.balances, frozenset({ANN, BOB}), told)
        evidence = Evidence(self.calls, self.reads, replace(stored, **ledger))
        return sorted({violation.partition(":")[0] for violation in violations(evidence)})


def _empty() -> dict[str, int]:
    return {"real": 0, "bonus": 0, "locked": 0}


def node(line: Line) -> dict[str, Any]:
    return {
        "id": line.id,
        "walletId": line.wallet_id,
        "bucket": line.bucket.upper(),
        "direction": line.direction.upper(),
        "amount": str(line.amount),
        "balanceAfter": str(line.balance_after),
        "sequence": str(line.sequence),
    }


@pytest.fixture
def story() -> Story:
    story = Story()
    story.posts("d1", NOSTRO, ANN, 100, kind="deposit")
    story.posts("d2", NOSTRO, BOB, 50, kind="deposit")
    story.posts("t1", ANN, BOB, 30)
    story.asks("deposit", PAID_IN, (10, 20))
    story.asks("deposit", BOBS, (21, 30))
    story.asks("transfer", PAID, (40, 50))
    return story


class TestGoodHistory:
    def test_passes(self, story: Story) -> None:
        assert story.found() == []

    def test_a_lost_answer_that_was_asked_for_again(self, story: Story) -> None:
        story.calls[2] = replace(story.calls[2], outcome="unknown", answered=NEVER, answer={"code": "CUT_OFF"})
        story.asks("transfer", PAID, (60, 70))
        assert story.found() == []

    def test_accepted_after_a_refusal(self, story: Story) -> None:
        details = {"walletId": ANN, "availableMinor": "0", "requestedMinor": "30"}
        story.asks("transfer", PAID, (1, 15), "refused", code="INSUFFICIENT_FUNDS", details=details)
        assert story.found() == []

    def test_a_read_while_it_happens_may_see_either(self, story: Story) -> None:
        story.reads_wallet(ANN, 100, (35, 45), client="c1.0")
        story.reads_wallet(ANN, 70, (35, 45), client="c2.0")
        assert story.found() == []

    def test_a_straggler_after_a_refusal(self, story: Story) -> None:
        """The first asking was on its way for long: its client was refused elsewhere, and then it was done."""
        refusal = {"walletId": ANN, "availableMinor": "0", "requestedMinor": "30"}
        story.calls[2] = replace(story.calls[2], outcome="unknown", invoked=5, answer={"code": "CONNECTION_LOST"})
        story.asks("transfer", PAID, (6, 15), "refused", code="INSUFFICIENT_FUNDS", details=refusal)
        assert story.found() == []


class TestAcknowledged:
    def test_lost(self, story: Story) -> None:
        story.without("t1")
        assert story.found() == ["every_acknowledged_operation_is_there_once"]

    def test_applied_twice(self, story: Story) -> None:
        story.posts("t1", ANN, BOB, 30)
        assert "every_acknowledged_operation_is_there_once" in story.found()
        assert "each_operation_moves_what_it_says" in story.found()

    def test_with_other_content(self, story: Story) -> None:
        story.calls[2] = replace(story.calls[2], asked={"input": transfer("t1", ANN, BOB, 31)})
        assert story.found() == ["each_operation_moves_what_it_says"]

    def test_later_yet_earlier_in_the_ledger(self, story: Story) -> None:
        story.posts("t2", ANN, BOB, 1)
        story.asks("transfer", {"input": transfer("t2", ANN, BOB, 1)}, (32, 35))
        assert story.found() == ["what_was_acknowledged_first_is_first"]

    def test_with_lines_that_are_not_stored(self, story: Story) -> None:
        shown = {**node(story.of(ANN)[0]), "balanceAfter": "71"}
        story.asks("transfer", PAID, (60, 70), transactions=[shown])
        assert "answers_show_what_is_stored" in story.found()


class TestOneOutcome:
    def test_two_answers(self, story: Story) -> None:
        ours, theirs = (node(story.of(wallet)[0]) for wallet in (ANN, BOB))
        story.asks("transfer", PAID, (60, 70), transactions=[ours])
        story.asks("transfer", PAID, (80, 90), transactions=[theirs])
        assert story.found() == ["each_id_has_one_outcome"]

    def test_refused_after_it_was_accepted(self, story: Story) -> None:
        details = {"walletId": ANN, "availableMinor": "70", "requestedMinor": "71"}
        story.asks("transfer", PAID, (60, 70), "refused", code="INSUFFICIENT_FUNDS", details=details)
        assert story.found() == ["each_id_has_one_outcome"]

    def test_unknown_for_ever(self, story: Story) -> None:
        story.asks("transfer", {"input": transfer("t2", ANN, BOB, 5)}, (60, 70), "unknown", code="UNKNOWN")
        assert story.found() == ["every_operation_got_an_answer"]

    def test_an_id_used_for_something_else(self, story: Story) -> None:
        story.asks(REUSE, {"input": transfer("t1", ANN, BOB, 31)}, (60, 70))
        assert story.found() == ["an_id_is_not_used_twice"]


class TestNotAcknowledged:
    def test_refused_yet_applied(self, story: Story) -> None:
        story.calls[2] = replace(story.calls[2], outcome="refused", answer={"code": "LIMIT_EXCEEDED"})
        assert "only_what_was_asked_for_is_there" in story.found()

    @pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "REFUSED_CONNECTION"])
    def test_nothing_was_done_yet_it_was(self, story: Story, code: str) -> None:
        story.calls[2] = replace(story.calls[2], outcome="fail", answer={"code": code})
        assert "only_what_was_asked_for_is_there" in story.found()

    def test_never_asked_for(self, story: Story) -> None:
        story.posts("t9", ANN, BOB, 1)
        assert story.found() == ["only_what_was_asked_for_is_there"]

    def test_a_masked_error(self, story: Story) -> None:
        story.asks("transfer", PAID, (60, 70), "unknown", code="INTERNAL")
        assert story.found() == ["no_answer_is_a_surprise"]

    def test_refused_by_a_rule_that_was_not_broken(self, story: Story) -> None:
        details = {"walletId": ANN, "availableMinor": "10", "requestedMinor": "11"}
        asked = {"input": transfer("t2", ANN, BOB, 11)}
        story.asks("transfer", asked, (60, 70), "refused", code="INSUFFICIENT_FUNDS", details=details)
        assert story.found() == ["a_refusal_for_want_of_funds_is_true"]


class TestSets:
    def test_half_of_all_or_none(self, story: Story) -> None:
        asked = {"input": [transfer("t1", ANN, BOB, 30), transfer("t2", BOB, ANN, 1)], "mode": "ATOMIC"}
        story.calls[2] = replace(story.calls[2], op="transfers, all or none", asked=asked)
        story.asks(story.calls[2].op, asked, (40, 50), "refused", "t2", code="LINKED_OPERATION_REFUSED")
        assert story.found() == ["sets_stand_or_fall_together"]


class TestMoney:
    def test_a_balance_below_zero(self, story: Story) -> None:
        story.posts("t2", ANN, BOB, 71)
        story.asks("transfer", {"input": transfer("t2", ANN, BOB, 71)}, (60, 70))
        assert story.found() == ["lines_add_up"]

    def test_made(self, story: Story) -> None:
        """A debit was lost: the credit is there, and the wallets say the same as their lines."""
        story.lines.remove(story.of(ANN)[0])
        story.balances[ANN]["real"] += 30
        assert "money_is_neither_made_nor_lost" in story.found()
        assert "each_transfer_is_a_debit_and_a_credit" in story.found()

    def test_a_balance_changed_by_hand(self, story: Story) -> None:
        story.balances[ANN]["real"] += 1
        assert story.found() == ["lines_add_up", "money_is_neither_made_nor_lost"]

    def test_a_gap(self, story: Story) -> None:
        story.bends(-1, position=3, sequence=3)
        assert story.found() == ["lines_add_up"]

    def test_a_line_dated_before_its_predecessor(self, story: Story) -> None:
        story.bends(-1, at_ms=1)
        assert story.found() == ["a_wallets_time_does_not_run_backwards"]


class TestOperationsOfSeveralSteps:
    def test_of_which_one_is_missing(self, story: Story) -> None:
        """A withdrawal without its fee."""
        story.posts("w1", ANN, NOSTRO, 10, kind="withdrawal")
        story.asks("withdrawal", deposit("w1", ANN, 10), (60, 70))
        assert story.found() == ["each_operation_moves_what_it_says"]

    def test_a_rehearsal_that_was_performed(self, story: Story) -> None:
        story.posts("t2", ANN, BOB, 1)
        story.asks(REHEARSAL, {"input": transfer("t2", ANN, BOB, 1)}, (60, 70))
        assert "a_rehearsal_moves_nothing" in story.found()


class TestHolds:
    @pytest.fixture
    def held(self, story: Story) -> Story:
        """Of Ann's 70, 20 are held, and Bob has captured 15 of them."""
        story.posts("h1", ANN, ANN, 20, kind="hold", buckets=("real", "locked"))
        asked = {
            "id": "h1",
            "walletId": ANN,
            "amount": "20",
            "purpose": "TRANSFER",
            "expiresAt": "1970-01-01T00:00:02Z",
        }
        story.asks("hold", {"input": asked}, (60, 70))
        story.captures("c1", 15, (71, 80))
        return story

    def test_captured_in_part(self, held: Story) -> None:
        assert held.found() == []

    def test_captured_twice(self, held: Story) -> None:
        held.captures("c2", 15, (81, 90))
        assert "a_hold_is_spent_once" in held.found()

    def test_captured_and_voided(self, held: Story) -> None:
        held.posts("v1", ANN, ANN, 20, kind="void", buckets=("locked", "real"))
        held.asks("void", {"input": {"id": "v1", "holdId": "h1"}}, (81, 90))
        assert "a_hold_is_spent_once" in held.found()

    def test_expired_before_its_time(self, held: Story) -> None:
        held.posts(expiry_id("h1"), ANN, ANN, 5, kind="expiry", buckets=("locked", "real"))
        assert held.found() == ["only_what_was_asked_for_is_there"]


class TestReversals:
    def test_of_more_than_there_was(self, story: Story) -> None:
        for number, part in enumerate((20, 20)):
            reversal = {"id": f"r{number}", "transferId": "t1", "amount": str(part)}
            story.posts(reversal["id"], BOB, ANN, part, kind="reversal")
            story.asks("reversal", {"input": reversal}, (60 + 20 * number, 70 + 20 * number))
        assert story.found() == ["reversals_give_back_no_more_than_there_was"]


class TestLimits:
    def test_exceeded(self, story: Story) -> None:
        story.posts("d3", NOSTRO, ANN, TRANSFER_LIMIT, kind="deposit")
        story.asks("deposit", deposit("d3", ANN, TRANSFER_LIMIT), (60, 70))
        story.posts("t2", ANN, BOB, TRANSFER_LIMIT)
        story.asks("transfer", {"input": transfer("t2", ANN, BOB, TRANSFER_LIMIT)}, (71, 80))
        assert story.found(limited=ANN) == ["a_limit_holds"]


class TestVerification:
    def test_that_found_something(self, story: Story) -> None:
        assert story.found(diverged="balance differs: …") == ["the_ledger_verifies"]


class TestReads:
    def test_money_that_never_existed(self, story: Story) -> None:
        story.reads_wallet(ANN, 130, (60, 70))
        assert story.found() == ["reads_show_balances_that_were_possible"]

    def test_money_that_was_taken_back(self, story: Story) -> None:
        """A line that was seen, and is not in the ledger in the end: written, shown, and lost."""
        seen = story.of(BOB)
        story.reads_lines(BOB, seen, (41, 45))
        story.without("t1")
        story.calls.pop()
        assert "reads_show_lines_that_are_there" in story.found()

    def test_before_anybody_asked_for_it(self, story: Story) -> None:
        story.reads_wallet(ANN, 70, (31, 35))
        assert story.found() == ["reads_show_balances_that_were_possible"]

    def test_without_what_was_acknowledged_before(self, story: Story) -> None:
        story.reads_wallet(ANN, 100, (60, 70))
        assert story.found() == ["reads_show_balances_that_were_possible"]

    def test_backwards(self, story: Story) -> None:
        story.reads_wallet(ANN, 70, (41, 42))
        story.reads_wallet(ANN, 100, (43, 44))
        assert story.found() == ["reads_show_balances_that_were_possible"]

    def test_lines_with_one_left_out(self, story: Story) -> None:
        story.posts("t2", ANN, BOB, 1)
        story.asks("transfer", {"input": transfer("t2", ANN, BOB, 1)}, (60, 70))
        newest, _, oldest = story.of(BOB)
        story.reads_lines(BOB, [newest, oldest], (80, 90))
        assert story.found() == ["reads_show_lines_that_are_there"]

    def test_a_transfer_that_is_not_there(self, story: Story) -> None:
        shown = {"id": "t7", "kind": "TRANSFER", "amount": "30"}
        story.reads.append(Read("c", "c/1", "transferHistory", {"owner": ANN}, 60, 70, {"edges": [{"node": shown}]}))
        assert "reads_show_transfers_that_are_there" in story.found()


class TestThePast:
    def test_a_balance_that_changed_afterwards(self, story: Story) -> None:
        """Ann's payment is dated 1.004 s, and somebody was told before of what she had at 1.010 s."""
        asked = {"id": ANN, "at": "1970-01-01T00:00:01.010+00:00"}
        seen = {"real": "100", "bonus": "0", "locked": "0"}
        story.reads.append(Read("c", "c/1", "balanceAt", asked, 35, 38, seen))
        assert story.found() == ["what_was_said_of_the_past_stays_true"]

    def test_a_transfer_that_came_to_light_between_others(self, story: Story) -> None:
        story.transfers = [replace(moved, owners=frozenset({ANN}), at_ms=n) for n, moved in enumerate(story.transfers)]
        shown = [{"node": {"id": i, "kind": kind, "amount": a}} for i, kind, a in (("t1", "T", 30), ("d1", "D", 100))]
        story.reads.append(Read("c", "c/1", "transferHistory", {"owner": ANN}, 60, 70, {"edges": shown}))
        assert "lists_by_time_leave_nothing_out" in story.found()


class TestEvents:
    @pytest.mark.parametrize(
        "told", [{"d1": 1, "d2": 1}, {"d1": 1, "d2": 1, "t1": 2}, {"d1": 1, "d2": 1, "t1": 1, "x": 1}]
    )
    def test_an_effect_that_is_missing_twice_or_of_nothing(self, story: Story, told: dict[str, int]) -> None:
        assert story.found(told=told) == ["every_event_has_its_effect_once"]
