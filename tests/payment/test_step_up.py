"""When the ledger asks for a fresh factor: of whom, for what, and after everything else."""

from dataclasses import replace
from typing import Any

import pytest

from libs.core.stepup import SensitiveOperation, required
from libs.core.tenants import SystemWallet
from libs.core.testing import FROZEN_AT
from services.payment.domain import Bucket, End, Operation, Place, TransferKind, Unproven, Wallet, linked
from services.payment.domain.book import TICK
from services.payment.settings import PaymentConfig
from tests.payment.test_domain import ANN, BEN, OPERATOR, book, code, post, scope, transfer, wallet

MISSING = Unproven(required(SensitiveOperation(action="transfer", id="t1")))
OF_ALL = replace(MISSING, operators=True)


def hold(of: Wallet, **changes: Any) -> Operation:
    terms = Place(FROZEN_AT + TICK * 9, TransferKind.WITHDRAWAL)
    kind, destination = TransferKind.HOLD, End(of.id, Bucket.LOCKED)
    return transfer(of, of, kind=kind, destination=destination, terms=terms, unproven=MISSING, **changes)


def withdrawal(of: Wallet) -> Operation:
    outside = End.of_system("demo", SystemWallet.NOSTRO, of.currency)
    return transfer(of, of, kind=TransferKind.WITHDRAWAL, destination=outside, unproven=MISSING)


class TestWhoIsAsked:
    def test_who_sends_their_own(self) -> None:
        ann, ben = wallet(ANN, 100), wallet(BEN)
        [refused] = post(book(ann, ben), transfer(ann, ben, unproven=MISSING))
        assert refused is MISSING.refusal
        assert (ann.buckets["real"], ben.buckets["real"]) == (100, 0)

    def test_not_between_ones_own_wallets(self) -> None:
        main, casino = wallet(ANN, 100), wallet(ANN, category="casino")
        assert [code(o) for o in post(book(main, casino), transfer(main, casino, unproven=MISSING))] == ["accepted"]

    @pytest.mark.parametrize(("missing", "answer"), [(MISSING, "accepted"), (OF_ALL, "STEP_UP_REQUIRED")])
    def test_an_operator_only_if_the_tenant_wants_it(self, missing: Unproven, answer: str) -> None:
        ann, ben = wallet(ANN, 100), wallet(BEN)
        [outcome] = post(book(ann, ben), transfer(ann, ben, by=OPERATOR, unproven=missing))
        assert code(outcome) == answer

    def test_an_operator_who_sends_their_own(self) -> None:
        own, ben = wallet(OPERATOR, 100), wallet(BEN)
        [outcome] = post(book(own, ben), transfer(own, ben, by=OPERATOR, unproven=MISSING))
        assert code(outcome) == "STEP_UP_REQUIRED"

    def test_for_what_is_set_aside(self) -> None:
        ann = wallet(ANN, 100)
        [outcome] = post(book(ann), hold(ann, scope=scope(OPERATOR, "hold:create")))
        assert code(outcome) == "STEP_UP_REQUIRED"

    def test_for_what_leaves_for_outside(self) -> None:
        ann = wallet(ANN, 100)
        [outcome] = post(book(ann), withdrawal(ann))
        assert code(outcome) == "STEP_UP_REQUIRED"


class TestWhen:
    def test_last(self) -> None:
        ann, ben = wallet(ANN, 5), wallet(BEN)
        [refused] = post(book(ann, ben), transfer(ann, ben, 10, unproven=MISSING))
        assert code(refused) == "INSUFFICIENT_FUNDS"

    def test_never_of_a_stranger(self) -> None:
        ann, ben = wallet(ANN, 100), wallet(BEN)
        [refused] = post(book(ann, ben), transfer(ben, ann, by=ANN, unproven=MISSING))
        assert code(refused) == "WALLET_NOT_FOUND"

    def test_never_for_what_was_done_before(self) -> None:
        ann, ben = wallet(ANN, 100), wallet(BEN)
        of_all = book(ann, ben)
        [done] = post(of_all, transfer(ann, ben))
        assert post(of_all, transfer(ann, ben, unproven=MISSING)) == [done]
        assert [code(o) for o in post(of_all, transfer(ann, ben, 11, unproven=MISSING))] == ["IDEMPOTENCY_MISMATCH"]

    def test_of_a_dry_run_too(self) -> None:
        ann, ben = wallet(ANN, 100), wallet(BEN)
        [refused] = post(book(ann, ben), transfer(ann, ben, unproven=MISSING, dry_run=True))
        assert code(refused) == "STEP_UP_REQUIRED"

    def test_refused_it_leaves_nothing_behind(self) -> None:
        ann, ben = wallet(ANN, 100), wallet(BEN)
        of_all = book(ann, ben)
        post(of_all, transfer(ann, ben, unproven=MISSING))
        assert not of_all.changes.transfers
        assert not of_all.changes.wallets

    def test_of_an_atomic_list_none_goes_through(self) -> None:
        ann, ben = wallet(ANN, 100), wallet(BEN)
        both = linked([transfer(ann, ben, id="t1"), transfer(ann, ben, id="t2", unproven=MISSING)])
        of_both = book(ann, ben)
        refused = post(of_both, *both)
        assert [code(outcome) for outcome in refused] == ["LINKED_OPERATION_REFUSED", "STEP_UP_REQUIRED"]
        assert of_both.wallets[ann.key].buckets["real"] == 100


class TestThreshold:
    @pytest.mark.parametrize(
        ("config", "threshold"),
        [
            ({}, None),
            ({"step_up_above_default": 500}, 500),
            ({"step_up_above": {"EUR": 0}, "step_up_above_default": 500}, 0),
            ({"step_up_above": {"EUR": None}, "step_up_above_default": 500}, None),
        ],
    )
    def test_of_the_currency_or_else(self, config: dict[str, Any], threshold: int | None) -> None:
        assert PaymentConfig(**config).step_up_threshold("EUR") == threshold
