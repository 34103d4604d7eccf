import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from libs.access_engine import Policy
from libs.core.access import BUILT_IN, Scope
from libs.core.context import Caller
from libs.core.errors import InvalidInput, Refusal
from libs.core.money import INT64_MAX, Money
from libs.core.tenants import SystemWallet
from libs.core.testing import FROZEN_AT
from services.payment.domain import (
    Account,
    Book,
    Bucket,
    End,
    Operation,
    Outcome,
    Transfer,
    TransferKind,
    Wallet,
    WalletStatus,
    check_storable,
    linked,
    user_wallet,
)

POLICY = Policy(BUILT_IN)
ANN, BEN, OPERATOR = (Caller("demo", name, (role,), "s", "user") for name, role in
                      (("ann", "player"), ("ben", "player"), ("op", "operator")))  # fmt: skip


def wallet(owner: Caller = ANN, real: int = 0, *, currency: str = "EUR", category: str = "main") -> Wallet:
    opened = user_wallet("demo", owner.subject, category, currency, FROZEN_AT)
    opened.buckets[Bucket.REAL] = real
    return opened


def book(*wallets: Wallet, accounts: Iterable[Account] = ()) -> Book:
    return Book(0, wallets, [], accounts)


def scope(caller: Caller, action: str) -> Scope:
    return Scope(caller, POLICY.filter(caller.roles, *action.split(":")))


def transfer(payer: Wallet, payee: Wallet, amount: int = 10, *, by: Caller = ANN, **changes: Any) -> Operation:
    kind, source, destination = TransferKind.TRANSFER, End(payer.id), End(payee.id)
    money = changes.pop("money", Money(amount, payer.currency))
    operation = Operation.of(
        changes.pop("kind", kind),
        changes.pop("source", source),
        changes.pop("destination", destination),
        money,
        id="t1",
        tenant_id="demo",
        actor=by.subject,
        scope=scope(by, "transfer:create"),
        sight=scope(by, "transfer:read"),
    )
    return replace(operation, **changes)


def deposit(destination: Wallet, amount: int = 10, *, by: Caller = OPERATOR, **changes: Any) -> Operation:
    return transfer(
        destination,
        destination,
        amount,
        by=by,
        kind=TransferKind.DEPOSIT,
        source=End.of_system("demo", SystemWallet.NOSTRO, destination.currency),
        scope=scope(by, "deposit:create"),
        **changes,
    )


def post(book: Book, *operations: Operation) -> list[Outcome]:
    return book.post(operations, book.next_instant(FROZEN_AT))


def code(outcome: Outcome) -> str:
    return outcome.code if isinstance(outcome, Refusal) else "accepted"


class TestTransfer:
    def test_moves_the_amount_and_writes_a_debit_and_a_credit(self) -> None:
        ann, ben = wallet(ANN, 100), wallet(BEN)
        [outcome] = post(book(ann, ben), transfer(ann, ben, 30))
        assert isinstance(outcome, Transfer)
        assert (ann.buckets["real"], ben.buckets["real"]) == (70, 30)
        assert (outcome.debit.balance_after, outcome.credit.balance_after) == (70, 30)

    def test_numbers_the_lines_of_a_bucket_without_gaps(self) -> None:
        ann, ben = wallet(ANN, 100), wallet(BEN)
        outcomes = [post(b, transfer(ann, ben, id=f"t{n}"))[0] for b in [book(ann, ben)] for n in range(3)]
        assert [o.debit.sequence for o in outcomes if isinstance(o, Transfer)] == [1, 2, 3]

    def test_of_everything_leaves_zero(self) -> None:
        ann, ben = wallet(ANN, 100), wallet(BEN)
        post(book(ann, ben), transfer(ann, ben, 100))
        assert ann.buckets["real"] == 0

    def test_a_system_wallet_may_go_below_zero(self) -> None:
        ann = wallet()
        [outcome] = post(book(ann), deposit(ann, 500))
        assert isinstance(outcome, Transfer)
        assert outcome.debit.balance_after == -500

    def test_happens_after_everything_its_wallets_have_seen(self) -> None:
        ann, ben = wallet(ANN, 100), wallet(BEN)
        ben.at = FROZEN_AT + timedelta(hours=1)  # written by a process whose clock is ahead
        [outcome] = post(book(ann, ben), transfer(ann, ben))
        assert isinstance(outcome, Transfer)
        assert outcome.at > ben.created_at + timedelta(hours=1)


def _frozen(wallet: Wallet) -> Wallet:
    wallet.status = WalletStatus.FROZEN
    return wallet


class TestRefusal:
    @pytest.mark.parametrize(
        ("operation", "refused"),
        [
            pytest.param(
                transfer(wallet(real=100), wallet(BEN), 101), "INSUFFICIENT_FUNDS", id="one more than there is"
            ),
            pytest.param(transfer(wallet(), wallet()), "SAME_BUCKET", id="to itself"),
            pytest.param(transfer(wallet(BEN), wallet()), "WALLET_NOT_FOUND", id="another's money"),
            pytest.param(transfer(wallet(category="x"), wallet(BEN)), "WALLET_NOT_FOUND", id="no such source"),
            pytest.param(transfer(wallet(), wallet(BEN, category="x")), "WALLET_NOT_FOUND", id="no such destination"),
            pytest.param(transfer(wallet(), wallet(BEN), tenant_id="other"), "WALLET_NOT_FOUND", id="another tenant"),
            pytest.param(
                transfer(wallet(), wallet(BEN, currency="USD")), "CURRENCY_MISMATCH", id="to another currency"
            ),
            pytest.param(
                transfer(wallet(), wallet(BEN), money=Money(1, "USD")),
                "CURRENCY_MISMATCH",
                id="amount of another currency",
            ),
            pytest.param(deposit(wallet(), by=ANN), "WALLET_NOT_FOUND", id="a player's own deposit"),
            pytest.param(deposit(wallet(BEN), INT64_MAX), "BALANCE_LIMIT", id="more than a wallet can count"),
            pytest.param(transfer(wallet(), wallet(BEN, category="ice")), "WALLET_NOT_ACTIVE", id="to a frozen wallet"),
        ],
    )
    def test_says_which_rule(self, operation: Operation, refused: str) -> None:
        wallets = [wallet(real=100), wallet(BEN, 7), wallet(BEN, currency="USD"), _frozen(wallet(BEN, category="ice"))]
        there = book(*wallets)
        [outcome] = post(there, operation)
        assert code(outcome) == refused
        assert not there.changes.transfers
        assert [w.buckets["real"] for w in wallets] == [100, 7, 0, 0]

    def test_a_system_wallet_cannot_be_named_as_a_players(self) -> None:
        ann, nostro = wallet(real=100), End.of_system("demo", SystemWallet.NOSTRO, "EUR")
        there = book(ann)
        post(there, deposit(ann))
        there.wallets["demo:" + nostro.wallet_id] = next(w for w in there.wallets.values() if w.is_system)
        assert (
            code(post(there, transfer(ann, ann, destination=End(nostro.wallet_id), id="t0"))[0]) == "WALLET_NOT_FOUND"
        )
        op = transfer(ann, ann, by=OPERATOR, source=End(nostro.wallet_id), id="t2")
        assert code(post(there, op)[0]) == "WALLET_NOT_FOUND"

    def test_does_not_consume_the_id(self) -> None:
        ann, ben = wallet(), wallet(BEN)
        there = book(ann, ben)
        assert code(post(there, transfer(ann, ben))[0]) == "INSUFFICIENT_FUNDS"
        post(there, deposit(ann, id="d1"))
        assert code(post(there, transfer(ann, ben))[0]) == "accepted"


class TestReplay:
    def test_gives_the_stored_outcome_and_moves_nothing(self) -> None:
        ann, ben = wallet(real=100), wallet(BEN)
        there = book(ann, ben)
        first, again = post(there, transfer(ann, ben)), post(there, transfer(ann, ben))
        assert first == again
        assert ann.buckets["real"] == 90

    @pytest.mark.parametrize(
        "changes",
        [
            {"money": Money(11, "EUR")},
            {"reference": "other"},
            {"metadata": {"a": 1}},
            {"source": End(wallet(BEN).id), "destination": End(wallet(ANN).id)},
        ],
        ids=lambda changes: ",".join(changes),
    )
    def test_with_other_content_is_refused(self, changes: dict[str, Any]) -> None:
        ann, ben = wallet(real=100), wallet(BEN, 100)
        there = book(ann, ben)
        post(there, transfer(ann, ben))
        assert code(post(there, transfer(ann, ben, **changes))[0]) == "IDEMPOTENCY_MISMATCH"

    def test_the_order_of_metadata_is_not_content(self) -> None:
        ann, ben = wallet(real=100), wallet(BEN)
        there = book(ann, ben)
        first = post(there, transfer(ann, ben, metadata={"a": 1, "b": 2}))
        assert post(there, transfer(ann, ben, metadata={"b": 2, "a": 1})) == first

    def test_is_not_answered_to_a_stranger(self) -> None:
        ann, ben, eve = wallet(real=100), wallet(BEN), Caller("demo", "eve", ("player",), "s", "user")
        there = book(ann, ben)
        post(there, transfer(ann, ben))
        assert code(post(there, transfer(ann, ben, by=eve))[0]) == "IDEMPOTENCY_MISMATCH"


class TestAllOrNone:
    def test_all(self) -> None:
        ann, ben = wallet(real=100), wallet(BEN)
        outcomes = post(book(ann, ben), *linked([transfer(ann, ben, id="a"), transfer(ann, ben, id="b")]))
        assert [code(o) for o in outcomes] == ["accepted", "accepted"]
        assert ann.buckets["real"] == 80

    def test_none(self) -> None:
        ann, ben = wallet(real=15), wallet(BEN)
        there = book(ann, ben)
        outcomes = post(there, *linked([transfer(ann, ben, id="a"), transfer(ann, ben, id="b")]))
        assert [code(o) for o in outcomes] == ["LINKED_OPERATION_REFUSED", "INSUFFICIENT_FUNDS"]
        kept = there.wallets.values()
        assert [w.buckets["real"] for w in kept] == [15, 0]
        assert [w.position for w in kept] == [0, 0]
        assert not there.changes.transfers

    def test_none_opens_no_stripe(self) -> None:
        ann, ben = wallet(), wallet(BEN)
        there = book(ann, ben)
        post(there, *linked([deposit(ann, id="a"), transfer(ben, ann, by=BEN, id="b")]))
        assert set(there.wallets) == {ann.key, ben.key}

    def test_later_ones_may_spend_what_earlier_ones_brought(self) -> None:
        ann, ben = wallet(real=10), wallet(BEN)
        outcomes = post(
            book(ann, ben),
            *linked([transfer(ann, ben, id="a", by=OPERATOR), transfer(ben, ann, id="b", by=OPERATOR)]),
        )
        assert [code(o) for o in outcomes] == ["accepted", "accepted"]

    def test_replay_needs_the_same_set(self) -> None:
        ann, ben = wallet(real=100), wallet(BEN)
        there, pair = book(ann, ben), [transfer(ann, ben, id="a"), transfer(ann, ben, id="b")]
        first = post(there, *linked(pair))
        assert post(there, *linked(pair)) == first
        assert code(post(there, pair[0])[0]) == "IDEMPOTENCY_MISMATCH"


class TestStorable:
    @pytest.mark.parametrize(
        "changes",
        [
            {"metadata": {"big": 2**64}},
            {"metadata": {"\ud800": 1}},
            {"metadata": {"x": float("inf")}},
            {"metadata": json.loads('{"x":' * 33 + "1" + "}" * 33)},
            {"metadata": {"x": "x" * 4096}},
            {"reference": "x" * 201},
            {"reference": "\ud800"},
        ],
        ids=str,
    )
    def test_refuses_what_cannot_be_stored(self, changes: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput):
            check_storable(changes.get("reference", ""), changes.get("metadata", {}))


STEP = st.tuples(
    st.sampled_from("tds"), st.integers(0, 9), st.integers(0, 3), st.integers(0, 3), st.integers(1, 40), st.booleans()
)


class TestAnySequenceOfOperations:
    @given(st.lists(st.lists(STEP, min_size=1, max_size=3), max_size=25))
    def test_conserves_money_and_leaves_no_player_below_zero(self, steps: list[list[tuple[Any, ...]]]) -> None:
        wallets = [wallet(owner, category=c) for owner in (ANN, BEN) for c in "xy"]
        there = book(*wallets)
        done: dict[str, Transfer] = {}

        def operation(step: tuple[Any, ...]) -> Operation:
            kind, n, a, b, amount, _ = step
            if kind == "d":
                return deposit(wallets[a], amount, id=f"d{n}")
            return transfer(wallets[a], wallets[b], amount, id=f"t{n}", by=OPERATOR)

        for group in steps:
            operations = list({o.id: o for o in map(operation, group)}.values())
            before = [w.buckets["real"] for w in (there.wallets[w.key] for w in wallets)]
            outcomes = post(there, *linked(operations))
            accepted = [o for o in outcomes if isinstance(o, Transfer)]
            assert len(accepted) in (0, len(outcomes))
            now = [there.wallets[w.key].buckets["real"] for w in wallets]
            if not accepted:
                assert now == before
            for transfer_ in accepted:
                assert done.setdefault(transfer_.id, transfer_) == transfer_
        balances = {w.key: w.buckets["real"] for w in there.wallets.values()}
        assert sum(balances.values()) == 0
        assert all(balances[w.key] >= 0 for w in wallets)
        lines = [line for t in there.changes.transfers for line in (t.debit, t.credit)]
        for key, state in there.wallets.items():
            mine = [line for line in lines if line.wallet_key == key]
            signed = [line.amount_minor if line.direction == "credit" else -line.amount_minor for line in mine]
            assert [line.sequence for line in mine] == list(range(1, len(mine) + 1))
            assert [line.balance_after for line in mine] == [sum(signed[: n + 1]) for n in range(len(mine))]
            assert state.buckets["real"] == sum(signed)
