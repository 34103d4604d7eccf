"""Money adds up, or is said not to: every test after the first class has a hand in the database that should not be."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from bson.int64 import Int64

from libs.core.clock import SystemClock
from libs.core.errors import Refusal, Unavailable
from libs.core.events import Outbox
from libs.core.mongo import Mongo
from libs.core.tenants import SystemWallet
from libs.core.testing import FROZEN_AT, eventually
from scripts import stack
from services.payment.domain import Bucket, End, Place, Transfer, TransferKind, Wallet
from services.payment.domain.journal import Block, instant, leaf
from services.payment.heads import HeadSigner
from services.payment.keys import JournalKeys
from services.payment.ledger import Ledger
from services.payment.settings import PaymentSettings
from services.payment.store import journal, raw
from services.payment.verify import (
    Budget,
    Divergence,
    Kind,
    Progress,
    PublishedHead,
    Verified,
    verify_all,
    verify_on,
)
from services.payment.verify.watch import Watch
from tests.live import Api, Live, callers, payment_process, shared_namespace
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
        assert not await payment_db.db["verify_checkpoints"].find_one()  # an auditor may only read

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
        entries = [e async for b in raw.entries_of_wallets(payment_db.db, None, None) for e in raw.entries_in(b)]
        assert [int(entry[0]) for entry in entries] == list(range(len(documents["transactions"])))
        for line in documents["transactions"]:
            assert raw.line_of(line) == raw._decoded_line(raw.decoded(line))


async def change(mongo: Mongo, collection: str, key: str, **fields: Any) -> None:
    result = await mongo.db[collection].update_one({"_id": key}, {"$set": fields})
    assert result.matched_count == 1


async def line(mongo: Mongo, wallet: Wallet, sequence: int) -> dict[str, Any]:
    row = await mongo.db["transactions"].find_one({"wallet": wallet.key, "bucket": "real", "sequence": sequence})
    assert row
    return row


async def sign(mongo: Mongo) -> None:
    assert await HeadSigner(mongo, Outbox(mongo.db), SystemClock(), KEYS).sign()


async def recompute(mongo: Mongo, since: int = 1) -> None:
    """As the owner of the database could: every leaf, root and hash of lane 0 from that block on, and its lease."""
    previous = b""
    async for stored in journal.blocks(mongo.db, 0, 0, 10**9):
        block = stored.block
        if block.sequence >= since:
            leaves = [await leaf_of(mongo, key) for key in stored.transfers]
            block = Block.of(0, block.sequence, previous or block.previous, leaves, instant(block.at_ms))
            row = {"previous": block.previous, "root": block.root, "hash": block.hash, "leaves": b"".join(leaves)}
            await change(mongo, "journal", f"0000:{block.sequence:012d}", **row)
        previous = block.hash
    await change(mongo, "leases", "lane-0", journal_hash=previous)


async def leaf_of(mongo: Mongo, key: str) -> bytes:
    document = (await raw.by_key(mongo.db, "transfers", [key.encode()]))[key.encode()]
    keys = [raw.line_key(end[0], raw.number(end[4])) for end in raw.movement_of(document)[3:]]
    lines = await raw.by_key(mongo.db, "transactions", keys)
    return leaf(document, lines[keys[0]], lines[keys[1]])


class TestTransfersAndTransactions:
    @pytest.mark.parametrize(
        ("field", "value", "why"),
        [
            ("amount", Int64(2), "more money"),
            ("amount", 1, "the same, of another type: not what was hashed"),
            ("balance_after", Int64(1), "another balance"),
            ("reference", "rent", "another story"),
            ("at", FROZEN_AT, "another time"),
            ("direction", "credit", "the other way round"),
            ("surprise", True, "something that was not there"),
        ],
    )
    async def test_an_altered_transaction(
        self, payment_db: Mongo, players: Any, field: str, value: Any, why: str
    ) -> None:
        row = await line(payment_db, players[0], 4)
        await change(payment_db, "transactions", row["_id"], **{field: value})
        kind, where = await found(payment_db)
        assert kind in ("transaction_altered", "transfer_altered"), why
        assert "transfer demo:t2, number 0 in block 5 of lane 0" in where

    async def test_it_is_named_with_what_was_there(self, payment_db: Mongo, players: Any) -> None:
        row = await line(payment_db, players[0], 4)
        await change(payment_db, "transactions", row["_id"], amount=Int64(7))
        divergence = (await verified(payment_db)).divergence
        assert divergence
        assert str(divergence) == (
            "transaction altered: amount of the debit of transfer demo:t2, number 0 in block 5 of lane 0: "
            "expected 1, found 7"
        )
        assert divergence.tenant_id == "demo"

    @pytest.mark.parametrize("field", ["amount", "kind", "actor", "metadata", "journal"])
    async def test_an_altered_transfer(self, payment_db: Mongo, players: Any, field: str) -> None:
        await change(payment_db, "transfers", "demo:t2", **{field: Int64(9)})
        kind, where = await found(payment_db)
        assert kind == "transfer_altered"
        assert "transfer demo:t2" in where

    async def test_a_deleted_transaction(self, payment_db: Mongo, players: Any) -> None:
        row = await line(payment_db, players[1], 3)
        await payment_db.db["transactions"].delete_one({"_id": row["_id"]})
        kind, where = await found(payment_db)
        assert (kind, where.partition(",")[0]) == ("transaction_missing", f"transaction {row['_id']}")

    async def test_a_deleted_transfer(self, payment_db: Mongo, players: Any) -> None:
        await payment_db.db["transfers"].delete_one({"_id": "demo:t3"})
        assert await found(payment_db) == ("transfer_missing", "transfer demo:t3, number 0 in block 6 of lane 0")

    async def test_the_first_of_several(self, payment_db: Mongo, players: Any) -> None:
        await payment_db.db["transfers"].delete_many({"_id": {"$in": ["demo:t4", "demo:t1", "demo:t3"]}})
        await payment_db.db["journal"].delete_one({"sequence": 6})
        assert (await found(payment_db))[1].startswith("transfer demo:t1,")

    async def test_a_forged_transfer(self, payment_db: Mongo, players: Any) -> None:
        row = await payment_db.db["transfers"].find_one({"_id": "demo:t3"})
        assert row
        await payment_db.db["transfers"].insert_one({**row, "_id": "demo:forged", "id": "forged"})
        assert await found(payment_db) == ("transfer_surplus", "transfer demo:forged")

    async def test_a_forged_transaction(self, payment_db: Mongo, players: Any) -> None:
        row = await line(payment_db, players[1], 6)
        forged = {"_id": f"{players[1].key}:{7:012d}", "position": Int64(7), "sequence": Int64(7)}
        await payment_db.db["transactions"].insert_one({**row, **forged})
        assert await found(payment_db) == ("transaction_surplus", f"transaction {forged['_id']}")

    async def test_forged_money_that_adds_up_everywhere(self, payment_db: Mongo, players: Any) -> None:
        """Two lines, two wallets, all balanced: only the journal knows nothing of it."""
        for wallet, direction, signed in zip(players, ("debit", "credit"), (-10, 10), strict=True):
            row = await payment_db.db["wallets"].find_one({"_id": wallet.key})
            assert row
            n, balance = row["position"] + 1, row["buckets"]["real"] + signed
            last = await line(payment_db, wallet, n - 1)
            numbers = {"position": Int64(n), "sequence": Int64(n), "amount": Int64(10), "balance_after": Int64(balance)}
            forged = {**last, "_id": f"{wallet.key}:{n:012d}", "direction": direction, "transfer_id": "x", **numbers}
            await payment_db.db["transactions"].insert_one(forged)
            state = {"position": n, "sequences.real": n, "buckets.real": balance}
            await change(payment_db, "wallets", wallet.key, **state)
        kind, where = await found(payment_db)
        assert (kind, where[-13:]) == ("transaction_surplus", ":000000000007")

    async def test_two_that_changed_places(self, payment_db: Mongo, players: Any) -> None:
        ann, ben = players
        async with open_ledger(payment_db) as other:
            await other.post_all([transfer(f"s{n}", ann, ben, 1) for n in range(3)], soon())
        await change(payment_db, "journal", "0001:000000000001", transfers=["demo:s0", "demo:s2", "demo:s1"])
        assert await found(payment_db) == ("transfer_altered", ANY_PLACE.format("s2", 1))

    async def test_a_reference_that_looks_like_a_field(self, ledger: Ledger, payment_db: Mongo, players: Any) -> None:
        """No client can raise the alarm with what it writes."""
        ann, ben = players
        fake = "x\x00\x09at\x0012345678\x12sequence\x0012345678\x12position\x0012345678\x12amount\x0012345678"
        fake += "\x12balance_after\x0012345678\x05salt\x00\x08\x00\x00\x00\x00abcdefgh\x00"
        await ledger.post(transfer("odd", ann, ben, 1, reference=fake), soon())
        assert (await verified(payment_db)).ok


ANY_PLACE = "place of transfer demo:{}, number {} in block 1 of lane 1"


class TestChain:
    async def test_a_rewritten_block(self, payment_db: Mongo, players: Any) -> None:
        await change(payment_db, "journal", "0000:000000000003", root=b"r" * 32)
        assert await found(payment_db) == ("block_rewritten", "block 3 of lane 0")

    async def test_a_block_whose_hash_was_recomputed(self, payment_db: Mongo, players: Any) -> None:
        await change(payment_db, "transfers", "demo:t0", actor="eve")
        await recompute(payment_db, since=3)
        await change(payment_db, "journal", "0000:000000000004", previous=b"p" * 32)
        assert (await found(payment_db))[0] == "block_rewritten"

    async def test_a_deleted_block(self, payment_db: Mongo, players: Any) -> None:
        await payment_db.db["journal"].delete_one({"sequence": 4})
        assert await found(payment_db) == ("block_missing", "block 4 of lane 0")

    async def test_a_block_too_many(self, payment_db: Mongo, players: Any) -> None:
        last = await journal.block(payment_db.db, 0, 7)
        assert last
        block = Block.of(0, 8, last.hash, [], FROZEN_AT)
        row = {"lane": 0, "sequence": 8, "previous": block.previous, "root": block.root, "hash": block.hash}
        more = {"_id": "0000:000000000008", "at": FROZEN_AT, "count": 0, "transfers": [], "leaves": b""}
        await payment_db.db["journal"].insert_one({**row, **more})
        assert await found(payment_db) == ("block_surplus", "block 8 of lane 0")

    async def test_a_cut_tail(self, payment_db: Mongo, players: Any) -> None:
        await cut_after(payment_db, 5)
        divergence = (await verified(payment_db)).divergence
        assert divergence
        assert (divergence.kind, divergence.where) == ("chain_cut", "block 6 of lane 0")
        assert (divergence.expected, divergence.found) == ("blocks up to 7", "nothing after 5")

    async def test_a_cut_tail_whose_lease_was_set_back(self, payment_db: Mongo, players: Any) -> None:
        await sign(payment_db)
        await cut_after(payment_db, 5)
        last = await journal.block(payment_db.db, 0, 5)
        assert last
        await change(payment_db, "leases", "lane-0", journal_sequence=5, journal_hash=last.hash)
        assert await found(payment_db) == ("chain_cut", "block 6 of lane 0")

    async def test_a_wholly_recomputed_chain(self, payment_db: Mongo, players: Any) -> None:
        await sign(payment_db)
        await change(payment_db, "transfers", "demo:t0", actor="eve")
        await recompute(payment_db)
        assert await found(payment_db) == ("block_rewritten", "block 3 of lane 0, signed in head 1")

    async def test_all_of_it_with_heads_that_another_key_signed(self, payment_db: Mongo, players: Any) -> None:
        await change(payment_db, "transfers", "demo:t0", actor="eve")
        await recompute(payment_db)
        await HeadSigner(payment_db, Outbox(payment_db.db), SystemClock(), JournalKeys("eve's")).sign()
        assert await found(payment_db) == ("head_wrong", "head 1 of lane 0")

    async def test_without_its_heads_but_one_was_kept_elsewhere(self, payment_db: Mongo, players: Any) -> None:
        await sign(payment_db)
        [row] = await payment_db.db["journal_heads"].find().to_list()
        await payment_db.db["journal_heads"].delete_many({})
        await change(payment_db, "transfers", "demo:t0", actor="eve")
        await recompute(payment_db)
        assert (await verified(payment_db)).ok
        kept = PublishedHead(0, 1, row["hash"])
        where = "head 1 of lane 0, which was published"
        assert await found(payment_db, published=[kept]) == ("head_missing", where)
        await sign(payment_db)
        assert await found(payment_db, published=[kept]) == ("head_wrong", where)

    async def test_a_lane_that_is_gone_altogether(self, ledger: Ledger, payment_db: Mongo, players: Any) -> None:
        await sign(payment_db)
        await payment_db.db["journal"].delete_many({})
        await payment_db.db["leases"].delete_many({})
        assert await found(payment_db) == ("chain_cut", "block 1 of lane 0")


async def cut_after(mongo: Mongo, sequence: int) -> None:
    async for stored in journal.blocks(mongo.db, 0, sequence, 10**9):
        await mongo.db["transfers"].delete_many({"_id": {"$in": stored.transfers}})
        ids = [key.partition(":")[2] for key in stored.transfers]
        await mongo.db["transactions"].delete_many({"transfer_id": {"$in": ids}})
    await mongo.db["journal"].delete_many({"sequence": {"$gt": sequence}})


class TestWallets:
    @pytest.mark.parametrize(
        ("change_", "kind", "why"),
        [
            ({"buckets.real": 10**6}, "balance_differs", "money out of nothing"),
            ({"buckets.bonus": 10}, "lots_differ", "bonus money of no lot"),
            ({"buckets.bonus": 10, "lots": {"gift": 10}}, "balance_differs", "a lot of no transaction"),
            ({"buckets.locked": 10}, "holds_differ", "locked for no hold"),
            ({"buckets.real": -1}, "below_limit", "lower than it may be"),
            ({"position": 5}, "balance_differs", "a position that its sequences do not make"),
            ({"position": 7, "sequences.real": 7}, "transaction_missing", "a line that nobody wrote"),
        ],
    )
    async def test_a_changed_wallet(
        self, payment_db: Mongo, players: Any, change_: dict[str, Any], kind: str, why: str
    ) -> None:
        await change(payment_db, "wallets", players[0].key, **change_)
        assert (await found(payment_db))[0] == kind, why
        again = await verify_on(payment_db, KEYS.all, Budget())
        assert again.divergence, why
        assert again.divergence.kind == kind, why

    async def test_a_deleted_wallet(self, payment_db: Mongo, players: Any) -> None:
        await payment_db.db["wallets"].delete_one({"_id": players[0].key})
        assert await found(payment_db) == ("wallet_missing", f"wallet {players[0].key}")

    async def test_a_hold_that_nothing_is_locked_for(self, payment_db: Mongo, players: Any) -> None:
        hold = {"_id": "demo:h", "wallet": players[0].key, "amount": 10, "captured": 3, "released": 0, "status": "open"}
        await payment_db.db["holds"].insert_one(hold)
        assert (await found(payment_db))[0] == "holds_differ"

    async def test_a_wallet_that_was_given_money_before_it_had_lines(self, payment_db: Mongo, player: Any) -> None:
        rich = await player("rich", 100)
        assert await found(payment_db) == ("balance_differs", f"bucket real of wallet {rich.key}")


class TestIncrementally:
    async def test_goes_on_where_it_stopped_within_its_budget(
        self, ledger: Ledger, payment_db: Mongo, players: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("services.payment.verify._SMALL_RANGE", 2)
        results = [await verify_on(payment_db, KEYS.all, Budget(transfers=1)) for _ in range(4)]
        assert [r.cut[0] for r in results] == [2, 4, 6, 7]
        assert [r.spent.transfers for r in results] == [2, 2, 2, 1]
        await pay(ledger, players[0], players[1], ["later"])
        assert (await verify_on(payment_db, KEYS.all, Budget())).cut == {0: 8}

    async def test_spends_no_more_of_the_processor_than_it_may(self, payment_db: Mongo, players: Any) -> None:
        result = await verify_on(payment_db, KEYS.all, Budget(cpu_s=0.0))
        assert (result.ok, result.spent.transfers) == (True, 0)

    async def test_finds_what_was_changed_in_what_it_had_verified(self, payment_db: Mongo, players: Any) -> None:
        assert (await verify_on(payment_db, KEYS.all, Budget())).ok
        await change(payment_db, "transfers", "demo:t0", actor="eve")
        result = await verify_on(payment_db, KEYS.all, Budget())
        assert result.divergence
        assert result.divergence.where.startswith("transfer demo:t0,")

    async def test_finds_a_checkpoint_that_is_not_there_any_more(self, payment_db: Mongo, players: Any) -> None:
        assert (await verify_on(payment_db, KEYS.all, Budget())).ok
        await cut_after(payment_db, 5)
        last = await journal.block(payment_db.db, 0, 5)
        assert last
        await change(payment_db, "leases", "lane-0", journal_sequence=5, journal_hash=last.hash)
        result = await verify_on(payment_db, KEYS.all, Budget())
        assert result.divergence
        assert (result.divergence.kind, result.divergence.where) == ("block_missing", "block 7 of lane 0")

    async def test_finds_a_line_that_does_not_follow_the_one_before(self, payment_db: Mongo, players: Any) -> None:
        """A ledger that counts wrongly: what it hashed is what it wrote, but that is wrong."""
        ann, ben = players
        for wallet, key in ((ann, f"{ann.key}:000000000004"), (ben, f"{ben.key}:000000000004")):
            row = await line(payment_db, wallet, 4)
            await change(payment_db, "transactions", key, balance_after=Int64(row["balance_after"] + 1))
        transfer_ = await payment_db.db["transfers"].find_one({"_id": "demo:t2"})
        assert transfer_
        for direction in ("debit", "credit"):
            end = transfer_[direction]
            row = await line(payment_db, ann if direction == "debit" else ben, 4)
            await change(
                payment_db, "transfers", "demo:t2", **{direction: end | {"balance_after": row["balance_after"]}}
            )
        await recompute(payment_db)
        kind, where = await found(payment_db)
        assert (kind, where.partition(" of ")[0]) == ("transaction_altered", "transaction 4")
        result = await verify_on(payment_db, KEYS.all, Budget())
        assert result.divergence
        assert (result.divergence.kind, result.divergence.where.partition(" of ")[0]) == (
            "transaction_altered",
            "transaction 4",
        )

    async def test_follows_a_wallets_lines_through_its_other_buckets_and_lanes(
        self, ledger: Ledger, payment_db: Mongo, players: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("services.payment.verify._SMALL_RANGE", 1)
        ann, ben = players
        async with open_ledger(payment_db) as other:
            for n in range(6):
                await pay((ledger, other)[n % 2], ann, ben, [f"x{n}"])
            await place_holds(ledger, ann, 4)
            await pay(other, ann, ben, ["after"])
            result = await verify_on(payment_db, KEYS.all, Budget())
        assert result.ok, result.divergence


async def place_holds(ledger: Ledger, wallet: Wallet, count: int) -> None:
    for n in range(count):
        place = Place(expires_at=datetime.now(UTC) + timedelta(hours=1), purpose=TransferKind.WITHDRAWAL)
        hold = transfer(f"h{n}", wallet, wallet, 1, kind=TransferKind.HOLD, destination=End(wallet.id, Bucket.LOCKED))
        assert isinstance(await ledger.post(replace(hold, terms=place), soon()), Transfer)


@pytest.fixture
def watch(payment_db: Mongo) -> Watch:
    return Watch(payment_db, Outbox(payment_db.db), SystemClock(), KEYS)


class TestWatch:
    async def test_is_quiet_while_money_adds_up(self, watch: Watch, players: Any) -> None:
        assert await watch.go_on(Budget())
        assert await watch.health()

    async def test_raises_the_alarm_once_in_every_process(self, watch: Watch, payment_db: Mongo, players: Any) -> None:
        await change(payment_db, "wallets", players[0].key, **{"buckets.real": 10**6})
        for _ in range(2):
            await watch.go_on(Budget())
        with pytest.raises(Unavailable, match="diverged"):
            await Watch(payment_db, Outbox(payment_db.db), SystemClock(), KEYS).health()
        told = [row["events"] async for row in payment_db.db["outbox"].find({"events": {"$regex": "ledger.diverged"}})]
        assert len(told) == 1
        assert '"kind":"balance_differs"' in told[0]

    async def test_only_verifying_everything_clears_it(self, watch: Watch, payment_db: Mongo, players: Any) -> None:
        await change(payment_db, "wallets", players[0].key, **{"buckets.real": 10**6})
        await watch.go_on(Budget())
        assert not (await watch.verify_everything()).ok
        await change(payment_db, "wallets", players[0].key, **{"buckets.real": 95})
        await watch.go_on(Budget())
        with pytest.raises(Unavailable):
            await watch.health()
        assert (await watch.verify_everything()).ok
        assert await watch.health()
        assert (await watch.status())["full"]["state"] == "ok"
        again = await watch.go_on(Budget())
        assert again
        assert (again.cut, again.spent.transfers) == ({0: 7}, 0)

    async def test_what_was_found_meanwhile_stays(self, watch: Watch, payment_db: Mongo, players: Any) -> None:
        """In what the verification of everything had looked at already."""

        def meanwhile(_: Progress) -> None:
            if not alarms:
                alarms.append(asyncio.create_task(watch.alarm(Divergence(Kind.CHAIN_CUT, "here", "a", "b"))))

        alarms: list[asyncio.Task[None]] = []
        assert (await watch.verify_everything(progress=meanwhile)).ok
        await asyncio.gather(*alarms)
        with pytest.raises(Unavailable):
            await watch.health()

    async def test_one_at_a_time(self, watch: Watch, payment_db: Mongo, players: Any) -> None:
        answers = await asyncio.gather(*(watch.verify_everything() for _ in range(2)), return_exceptions=True)
        assert [a.code for a in answers if isinstance(a, Refusal)] == ["VERIFICATION_UNDER_WAY"]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, mongo_url: str, redis_url: str) -> Iterator[Live]:
    with (
        shared_namespace(mongo_url, redis_url) as namespace,
        payment_process(tmp_path_factory.mktemp("payment"), mongo_url, redis_url, namespace) as live,
    ):
        yield live


@pytest.fixture
async def live_db(live: Live, mongo_url: str) -> AsyncIterator[Mongo]:
    mongo = Mongo.connect(mongo_url, service="payment", namespace=live.environment["NAMESPACE"])
    yield mongo
    await mongo.close()


@pytest.fixture
async def as_(live: Live) -> AsyncIterator[Callable[..., Api]]:
    async with callers(live) as as_:
        yield as_


VERIFY = "mutation { verifyLedger { ok state divergence { kind where expected found } } }"
RECEIPT = "mutation ($input: DepositInput!) { deposit(input: $input) { ... on Transfer { id receipt } } }"
CREATE = 'mutation { createWallet(input: {currency: "EUR"}) { ... on Wallet { id } } }'


async def is_ready(live: Live) -> bool:
    status, _ = await asyncio.to_thread(stack.readiness, live.server.url)
    return status == HTTPStatus.OK


async def not_ready(live: Live) -> bool:
    return not await is_ready(live)


def make_verify(live: Live, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **live.environment, **more}
    command = [sys.executable, "-m", "scripts.verify"]
    return subprocess.run(command, cwd=stack.ROOT, env=environment, capture_output=True, text=True, check=False)


class TestThroughTheFrontDoor:
    async def test_a_receipt_of_ones_own_transfer(
        self, live: Live, live_db: Mongo, as_: Callable[..., Api], tmp_path: Path
    ) -> None:
        ann, operator = as_("ann"), as_("olga", "operator")
        wallet = await ann.ask(CREATE)
        given = {"id": "d1", "walletId": wallet["id"], "amount": "100", "currency": "EUR"}
        assert (await operator.ask(RECEIPT, input=given))["receipt"] is None
        keys = PaymentSettings(mode="development").journal_keys()
        assert await HeadSigner(live_db, Outbox(live_db.db), SystemClock(), keys).sign()
        history = await ann.ask("{ transferHistory { edges { node { id receipt } } } }")
        [receipt] = [edge["node"]["receipt"] for edge in history["edges"]]
        assert (list(receipt["debit"]), list(receipt["credit"])) == (["hash"], ["document"])
        [key] = await as_("").ask("{ journalKeys { id publicKey current } }")
        assert (key["publicKey"], key["current"]) == (receipt["publicKey"], True)

    @pytest.mark.parametrize("role", ["player", "operator"])
    async def test_only_admins_verify(self, as_: Callable[..., Api], role: str) -> None:
        assert await as_("x", role).refused(VERIFY) == "FORBIDDEN"
        assert await as_("x", role).refused("{ ledgerStatus { ok } }") == "FORBIDDEN"

    async def test_readiness_is_red_until_an_operator_has_verified_everything(
        self, live: Live, live_db: Mongo, as_: Callable[..., Api]
    ) -> None:
        admin, stranger = as_("ada", "admin"), as_("sam", "admin", tenant="other")
        wallet = await as_("eve").ask(CREATE)
        assert await admin.ask(VERIFY) == {"ok": True, "state": "OK", "divergence": None}
        await change(live_db, "wallets", f"demo:{wallet['id']}", **{"buckets.real": 5})
        divergence = {
            "kind": "balance_differs",
            "where": f"bucket real of wallet demo:{wallet['id']}",
            "expected": "0",
            "found": "5",
        }
        assert await admin.ask(VERIFY) == {"ok": False, "state": "DIVERGED", "divergence": divergence}
        assert await stranger.ask(VERIFY) == {"ok": False, "state": "DIVERGED", "divergence": None}
        await eventually(partial(not_ready, live))
        done = await asyncio.to_thread(make_verify, live)
        assert done.returncode == 1
        assert done.stderr.endswith(f"balance differs: {divergence['where']}: expected 0, found 5\n")
        await change(live_db, "wallets", f"demo:{wallet['id']}", **{"buckets.real": 0})
        assert (await stranger.ask(VERIFY))["ok"]
        await eventually(partial(is_ready, live))

    async def test_make_verify_holds_it_against_heads_that_were_kept(
        self, live: Live, live_db: Mongo, as_: Callable[..., Api], tmp_path: Path
    ) -> None:
        wallet = await as_("kim").ask(CREATE)
        given = {"id": "d2", "walletId": wallet["id"], "amount": "100", "currency": "EUR"}
        assert await as_("olga", "operator").ask(RECEIPT, input=given)
        keys = PaymentSettings(mode="development").journal_keys()
        [head] = await HeadSigner(live_db, Outbox(live_db.db), SystemClock(), keys).sign()
        kept, forged = tmp_path / "kept", tmp_path / "forged"
        line = {"lane": 0, "number": head.head.number, "hash": head.hash.hex()}
        kept.write_text(f"2026 some other line\n{json.dumps({'type': 'journal.head_signed', 'data': line})}\n")
        forged.write_text(json.dumps(line | {"hash": "00" * 32}))
        public = keys.public.hex()
        done = await asyncio.to_thread(make_verify, live, HEADS=str(kept), KEYS=public)
        assert done.returncode == 0, done.stderr
        assert "1 kept heads are in the chain" in done.stdout
        done = await asyncio.to_thread(make_verify, live, HEADS=str(forged), KEYS=public)
        assert f"head wrong: head {head.head.number} of lane 0, which was published" in done.stderr
