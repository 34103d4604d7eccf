"""Money adds up, or is said not to: every test after the first class has a hand in the database that should not be."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from libs.core.mongo import Mongo
from libs.core.tenants import SystemWallet
from services.payment.domain import End, Transfer, TransferKind, Wallet
from services.payment.domain.journal import Block, leaf
from services.payment.keys import JournalKeys
from services.payment.ledger import Ledger
from services.payment.store import journal, raw
from services.payment.verify import Budget, Verified, verify_all, verify_on
from tests.payment.conftest import open_ledger, soon, transfer

KEYS = JournalKeys("the key of these tests")
NOSTRO = End.of_system("demo", SystemWallet.NOSTRO, "EUR")


async def pay_in(ledger: Ledger, wallet: Wallet, amount: int) -> None:
    deposit = transfer(f"in-{wallet.owner_id}", wallet, wallet, amount, kind=TransferKind.DEPOSIT, source=NOSTRO)
    assert isinstance(await ledger.post(deposit, soon()), Transfer)


async def pay(ledger: Ledger, payer: Wallet, payee: Wallet, names: Sequence[str]) -> None:
    outcomes = [await ledger.post(transfer(name, payer, payee, 1), soon()) for name in names]
    assert all(isinstance(outcome, Transfer) for outcome in outcomes)


async def verified(mongo: Mongo, **more: Any) -> Verified:
    return await verify_all(mongo, KEYS.all, range_transfers=3, **more)


async def found(mongo: Mongo, **more: Any) -> tuple[str, str]:
    """The kind and place of the first divergence, which there must be."""
    divergence = (await verified(mongo, **more)).divergence
    assert divergence
    return divergence.kind.value, divergence.where


@pytest.fixture
async def players(ledger: Ledger, player: Any) -> tuple[Wallet, Wallet]:
    """Ann was paid 100 and Ben 50; Ann paid Ben one, five times: t0 to t4. Seven blocks of lane 0."""
    ann, ben = await player("ann"), await player("ben")
    await pay_in(ledger, ann, 100)
    await pay_in(ledger, ben, 50)
    await pay(ledger, ann, ben, [f"t{n}" for n in range(5)])
    return ann, ben


class TestSoundLedger:
    async def test_of_nothing(self, payment_db: Mongo) -> None:
        assert (await verified(payment_db)).ok

    async def test_is_verified_to_its_cut(self, payment_db: Mongo, players: Any) -> None:
        result = await verified(payment_db)
        assert result.ok, result.divergence
        assert result.cut == {0: 7}
        assert (result.spent.transfers, result.lines) == (7, 14)

    async def test_of_several_lanes_on_the_same_wallets(self, ledger: Ledger, payment_db: Mongo, players: Any) -> None:
        ann, ben = players
        async with open_ledger(payment_db) as other:
            posts = [(ledger, other)[n % 2].post(transfer(f"m{n}", ann, ben, 1), soon()) for n in range(40)]
            await asyncio.gather(*posts)
            result = await verified(payment_db)
            await verify_on(payment_db, KEYS.all, Budget())
        assert result.ok, result.divergence
        assert set(result.cut) == {0, 1}

    async def test_is_verified_while_it_is_written(self, ledger: Ledger, payment_db: Mongo, players: Any) -> None:
        ann, ben = players
        stop = asyncio.Event()

        async def keep_paying() -> None:
            n = 0
            while not stop.is_set():
                n += 1
                await pay(ledger, *((ann, ben) if n % 2 else (ben, ann)), [f"w{n}"])

        paying = asyncio.create_task(keep_paying())
        for _ in range(5):
            result = await verified(payment_db)
            assert result.ok, result.divergence
            result = await verify_on(payment_db, KEYS.all, Budget())
            assert result.ok, result.divergence
        stop.set()
        await paying

    async def test_fields_are_cut_out_of_what_the_ledger_writes(self, payment_db: Mongo, players: Any) -> None:
        """Else verifying would be right, but several times as slow."""
        documents = {
            c: [d async for b in raw.all_of(payment_db.db, c) for _, d in raw.documents_in(b)]
            for c in ("transfers", "transactions")
        }
        for document in documents["transfers"]:
            assert raw.is_cut_out(document, *documents["transactions"])
            assert raw.movement_of(document) == raw._decoded_movement(raw.decoded(document))
        for line in documents["transactions"]:
            assert raw.line_of(line) == raw._decoded_line(raw.decoded(line))
