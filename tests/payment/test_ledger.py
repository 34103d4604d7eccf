import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from pymongo.errors import OperationFailure

from libs.core.context import Deadline
from libs.core.errors import DeadlineExceeded, InvalidInput, Refusal, Unavailable
from libs.core.mongo import Mongo
from libs.core.tenants import SystemWallet
from libs.core.testing import FROZEN_AT, eventually
from services.payment import ledger as committer
from services.payment.domain import End, Outcome, Transfer, Wallet
from services.payment.ledger import Ledger
from tests.payment.conftest import open_ledger, open_wallet, prepare, soon, transfer


def codes(outcomes: Sequence[Outcome]) -> Counter[str]:
    return Counter(o.code if isinstance(o, Refusal) else "accepted" for o in outcomes)


async def balance(mongo: Mongo, wallet: Wallet) -> int:
    row = await mongo.db["wallets"].find_one({"_id": wallet.key})
    assert row
    return int(row["buckets"]["real"])


async def lines(mongo: Mongo, wallet: Wallet) -> list[dict[str, Any]]:
    return await mongo.db["transactions"].find({"wallet": wallet.key}, sort=[("position", 1)]).to_list()


async def check_books(mongo: Mongo, opening: dict[str, int]) -> None:
    """Every bucket is its opening balance and the sum of its lines, each line says so, and every transfer has two."""
    wallets = {row["_id"]: row async for row in mongo.db["wallets"].find()}
    running = {key: opening.get(key, 0) for key in wallets}
    per_transfer: Counter[str] = Counter()
    async for line in mongo.db["transactions"].find({}, sort=[("wallet", 1), ("position", 1)]):
        running[line["wallet"]] += line["amount"] if line["direction"] == "credit" else -line["amount"]
        assert line["balance_after"] == running[line["wallet"]]
        per_transfer[line["transfer_id"]] += 1
    assert running == {key: row["buckets"]["real"] for key, row in wallets.items()}
    assert sum(running.values()) == sum(opening.values())
    transfers = {row["id"] async for row in mongo.db["transfers"].find()}
    assert per_transfer == dict.fromkeys(transfers, 2)


class TestPost:
    async def test_writes_the_transfer_its_two_lines_and_its_event(
        self, ledger: Ledger, payment_db: Mongo, player: Any
    ) -> None:
        ann, ben = await player("ann", 100), await player("ben")
        outcome = await ledger.post(transfer("t1", ann, ben, 30, reference="rent"), soon())
        assert isinstance(outcome, Transfer)
        [debit], [credit] = await lines(payment_db, ann), await lines(payment_db, ben)
        assert (debit["direction"], debit["amount"], debit["balance_after"]) == ("debit", 30, 70)
        assert (credit["direction"], credit["amount"], credit["balance_after"]) == ("credit", 30, 30)
        [document] = await payment_db.db["outbox"].find().to_list()
        assert '"type":"transfer.completed"' in document["events"]
        assert '"transfer_id":"t1"' in document["events"]
        await check_books(payment_db, {ann.key: 100})

    async def test_twenty_racing_for_one_balance_get_what_it_allows(
        self, ledger: Ledger, payment_db: Mongo, player: Any
    ) -> None:
        ann, ben = await player("ann", 75), await player("ben")
        outcomes = await asyncio.gather(*(ledger.post(transfer(f"t{n}", ann, ben, 10), soon()) for n in range(20)))
        assert codes(outcomes) == {"accepted": 7, "INSUFFICIENT_FUNDS": 13}
        await check_books(payment_db, {ann.key: 75})

    async def test_one_id_a_hundred_times_is_one_transfer_and_one_answer(
        self, ledger: Ledger, payment_db: Mongo, player: Any
    ) -> None:
        ann, ben = await player("ann", 100), await player("ben")
        async with open_ledger(payment_db) as other:
            posts = [(ledger, other)[n % 2].post(transfer("t1", ann, ben), soon()) for n in range(100)]
            outcomes = await asyncio.gather(*posts)
        assert all(outcome == outcomes[0] for outcome in outcomes)
        assert await balance(payment_db, ann) == 90
        await check_books(payment_db, {ann.key: 100})

    async def test_one_id_for_two_things_at_once_is_one_of_them(
        self, ledger: Ledger, payment_db: Mongo, player: Any
    ) -> None:
        ann, ben = await player("ann", 100), await player("ben")
        async with open_ledger(payment_db) as other:
            outcomes = await asyncio.gather(
                *((ledger, other)[n % 2].post(transfer("t1", ann, ben, 10 + n % 2), soon()) for n in range(40))
            )
        assert codes(outcomes) == {"accepted": 20, "IDEMPOTENCY_MISMATCH": 20}
        await check_books(payment_db, {ann.key: 100})

    async def test_several_processes_on_the_same_wallets_conserve_every_cent(
        self, ledger: Ledger, payment_db: Mongo, player: Any
    ) -> None:
        players = [await player(f"p{n}", 50) for n in range(4)]
        async with open_ledger(payment_db) as second, open_ledger(payment_db) as third:
            ledgers = (ledger, second, third)
            outcomes = await asyncio.gather(
                *(
                    ledgers[n % 3].post(transfer(f"t{n}", players[n % 4], players[(n + 1 + n % 3) % 4], 7), soon())
                    for n in range(90)
                )
            )
        assert codes(outcomes).keys() <= {"accepted", "INSUFFICIENT_FUNDS", "SAME_BUCKET"}
        await check_books(payment_db, {p.key: 50 for p in players})

    async def test_a_refused_neighbour_does_not_matter(self, ledger: Ledger, player: Any) -> None:
        ann, ben, poor = await player("ann", 100), await player("ben"), await player("poor")
        outcomes = await asyncio.gather(
            *(ledger.post(transfer(f"t{n}", (ann, poor)[n % 2], ben), soon()) for n in range(10))
        )
        assert codes(outcomes) == {"accepted": 5, "INSUFFICIENT_FUNDS": 5}

    async def test_a_refusal_is_told_to_the_others_services(
        self, ledger: Ledger, payment_db: Mongo, player: Any
    ) -> None:
        poor, ben = await player("poor"), await player("ben")
        await ledger.post(transfer("t1", poor, ben), soon())
        [document] = await payment_db.db["outbox"].find().to_list()
        assert '"type":"transfer.refused"' in document["events"]
        assert '"rule":"wallet.balance"' in document["events"]

    async def test_a_stranger_in_a_refused_set_is_told_nothing(
        self, ledger: Ledger, payment_db: Mongo, player: Any
    ) -> None:
        mine, victim = await player("mine", 100), await player("victim", 100)
        await ledger.post_all([transfer("a", mine, mine), transfer("b", victim, mine)], soon())
        assert await payment_db.db["accounts"].find_one({"owner_id": "mine"})
        assert not await payment_db.db["accounts"].find_one({"owner_id": "victim"})

    async def test_more_than_31_bits(self, ledger: Ledger, player: Any) -> None:
        ann, ben = await player("ann", 2**62), await player("ben")
        large = transfer("t1", ann, ben, 2**61)
        assert await ledger.post(large, soon()) == await ledger.post(large, soon())

    async def test_time_never_runs_backwards_for_a_wallet(self, ledger: Ledger, payment_db: Mongo, player: Any) -> None:
        ann, ben = await player("ann", 100), await player("ben")
        ahead = {"$set": {"at": ann.at + timedelta(days=3650)}}  # written by a process whose clock is ahead
        await payment_db.db["wallets"].update_one({"_id": ben.key}, ahead)
        outcomes = [await ledger.post(transfer(f"t{n}", ann, ben), soon()) for n in range(3)]
        instants = [o.at for o in outcomes if isinstance(o, Transfer)]
        assert ann.at + timedelta(days=3650) < instants[0] < instants[1] < instants[2]

    async def test_a_system_wallets_stripe_belongs_to_the_lane(
        self, ledger: Ledger, payment_db: Mongo, player: Any
    ) -> None:
        ann = await player("ann", 100)
        house = End.of_system("demo", SystemWallet.HOUSE, "EUR")
        async with open_ledger(payment_db) as other:
            await asyncio.gather(
                *(
                    (ledger, other)[n % 2].post(transfer(f"t{n}", ann, ann, destination=house), soon())
                    for n in range(10)
                )
            )
        stripes = await payment_db.db["wallets"].find({"is_stripe": True}).to_list()
        assert sorted(s["_id"] for s in stripes) == [f"demo:{house.wallet_id}:{lane}" for lane in (0, 1)]
        assert sum(s["buckets"]["real"] for s in stripes) == 100
        await check_books(payment_db, {ann.key: 100})


class TestPostAll:
    async def test_none_if_one_is_refused(self, ledger: Ledger, payment_db: Mongo, player: Any) -> None:
        ann, ben = await player("ann", 15), await player("ben")
        outcomes = await ledger.post_all([transfer("a", ann, ben), transfer("b", ann, ben)], soon())
        assert [o.code for o in outcomes if isinstance(o, Refusal)] == [
            "LINKED_OPERATION_REFUSED",
            "INSUFFICIENT_FUNDS",
        ]
        assert await balance(payment_db, ann) == 15
        assert not await lines(payment_db, ann)

    async def test_a_thousand_at_once(self, ledger: Ledger, payment_db: Mongo, player: Any) -> None:
        ann, ben = await player("ann", 1000), await player("ben")
        outcomes = await ledger.post_all([transfer(f"t{n}", ann, ben, 1) for n in range(1000)], soon())
        assert codes(outcomes) == {"accepted": 1000}
        await check_books(payment_db, {ann.key: 1000})

    async def test_more_than_a_thousand_is_refused(self, ledger: Ledger, player: Any) -> None:
        ann, ben = await player("ann", 1000), await player("ben")
        with pytest.raises(InvalidInput, match="1 to 1000"):
            await ledger.post_all([transfer(f"t{n}", ann, ben, 1) for n in range(1001)], soon())


class TestBackPressure:
    async def test_what_is_past_its_deadline_is_not_begun(self, ledger: Ledger, payment_db: Mongo, player: Any) -> None:
        ann, ben = await player("ann", 100), await player("ben")
        with pytest.raises(DeadlineExceeded):
            await ledger.post(transfer("t1", ann, ben), Deadline.after(-1))
        assert await balance(payment_db, ann) == 100

    async def test_a_full_queue_says_so_at_once(
        self, ledger: Ledger, player: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(committer, "QUEUE_LIMIT", 5)
        ann, ben = await player("ann", 100), await player("ben")
        answers = await asyncio.gather(
            *(ledger.post(transfer(f"t{n}", ann, ben, 1), soon()) for n in range(9)), return_exceptions=True
        )
        assert Counter(type(a) for a in answers) == {Transfer: 5, Unavailable: 4}

    async def test_who_stops_waiting_stops_nobody_else(self, ledger: Ledger, player: Any) -> None:
        ann, ben = await player("ann", 100), await player("ben")
        posts = [asyncio.create_task(ledger.post(transfer(f"t{n}", ann, ben, 1), soon())) for n in range(10)]
        await asyncio.sleep(0)
        posts[3].cancel()
        answers = await asyncio.gather(*posts, return_exceptions=True)
        assert Counter(type(a) for a in answers) == {Transfer: 9, asyncio.CancelledError: 1}


class TestPoison:
    async def test_an_operation_that_cannot_be_written_fails_alone(
        self, ledger: Ledger, payment_db: Mongo, player: Any
    ) -> None:
        ann, ben, sick = await player("ann", 100), await player("ben"), await player("sick", 100)
        # A line that its wallet knows nothing of: the next one's number is taken, and stays taken.
        stray = {"_id": "stray", "wallet": sick.key, "bucket": "real", "sequence": 1}
        await payment_db.db["transactions"].insert_one(stray)
        posts = [ledger.post(transfer(f"t{n}", sick if n == 5 else ann, ben), soon()) for n in range(8)]
        answers = await asyncio.gather(*posts, return_exceptions=True)
        assert [n for n, a in enumerate(answers) if not isinstance(a, Transfer)] == [5]
        assert await balance(payment_db, ann) == 30

    async def test_a_wallet_that_a_dead_process_left_locked_keeps_nobody_else_waiting(
        self, ledger: Ledger, payment_db: Mongo, player: Any
    ) -> None:
        ann, ben, held = await player("ann", 100), await player("ben"), await player("held", 100)
        async with payment_db.client.start_session() as session, await session.start_transaction():
            touch = {"$set": {"status": "active", "dead": True}}
            await payment_db.db["wallets"].update_one({"_id": held.key}, touch, session=session)
            posts = [ledger.post(transfer(f"t{n}", held if n == 5 else ann, ben), soon()) for n in range(8)]
            answers = await asyncio.gather(*posts, return_exceptions=True)
            await session.abort_transaction()
        assert [n for n, a in enumerate(answers) if isinstance(a, Unavailable)] == [5]
        assert codes([a for a in answers if not isinstance(a, BaseException)]) == {"accepted": 7}
        assert isinstance(await ledger.post(transfer("t5", held, ben), soon()), Transfer)


class TestLane:
    async def test_a_process_that_lost_its_lease_takes_another_lane(
        self, ledger: Ledger, payment_db: Mongo, player: Any
    ) -> None:
        ann, ben = await player("ann", 100), await player("ben")
        usurped = {"$set": {"holder": "another", "token": 99}}
        await payment_db.db["leases"].update_one({"_id": "lane-0"}, usurped)
        outcome = await ledger.post(transfer("t1", ann, ben), soon())
        assert isinstance(outcome, Transfer)
        lane = await payment_db.db["leases"].find_one({"_id": "lane-0"})
        assert lane
        assert lane["token"] == 99
        assert (await ledger.health())["lane"] == 1

    async def test_the_lowest_free_one_is_taken(self, payment_db: Mongo) -> None:
        async with open_ledger(payment_db) as first:
            async with open_ledger(payment_db) as second:
                assert [(await each.health())["lane"] for each in (first, second)] == [0, 1]
            async with open_ledger(payment_db) as third:
                assert (await third.health())["lane"] == 1

    async def test_what_a_dead_process_left_locked_is_freed_once_its_lease_has_expired(
        self, ledger: Ledger, payment_db: Mongo, player: Any
    ) -> None:
        held, ben = await player("held", 100), await player("ben")
        async with payment_db.client.start_session() as session, await session.start_transaction():
            await payment_db.db["wallets"].update_one({"_id": held.key}, {"$set": {"dead": True}}, session=session)
            dead = {"_id": "lane-7", "token": 3, "session": session.session_id["id"], "expires_at": FROZEN_AT}
            await payment_db.db["leases"].insert_one(dead)

            async def paid() -> bool:
                try:
                    return isinstance(await ledger.post(transfer("t1", held, ben), soon()), Transfer)
                except Unavailable:
                    return False

            await eventually(paid)
            with suppress(OperationFailure):  # there is nothing left to abort
                await session.abort_transaction()
        assert await balance(payment_db, held) == 90

    async def test_one_that_a_dead_process_left_locked_is_passed_by(self, payment_db: Mongo) -> None:
        async with open_ledger(payment_db):
            pass
        async with payment_db.client.start_session() as session, await session.start_transaction():
            await payment_db.db["leases"].update_one({"_id": "lane-0"}, {"$set": {"dead": True}}, session=session)
            async with open_ledger(payment_db) as ledger:
                assert (await ledger.health())["lane"] == 1
            await session.abort_transaction()


class TestShutdown:
    async def test_finishes_what_was_accepted(self, payment_db: Mongo, player: Any) -> None:
        ann, ben = await player("ann", 1000), await player("ben")
        async with open_ledger(payment_db) as ledger:
            posts = [asyncio.create_task(ledger.post(transfer(f"t{n}", ann, ben, 1), soon())) for n in range(700)]
            await asyncio.sleep(0)
        assert codes(await asyncio.gather(*posts)) == {"accepted": 700}
        with pytest.raises(Unavailable):
            await ledger.post(transfer("late", ann, ben, 1), soon())


class TestDatabaseThatDies:
    async def test_every_answer_is_true_after_it_was_killed_under_load(self, own_mongo: Any) -> None:
        mongo = Mongo.connect(own_mongo.url, service="test")
        await prepare(mongo)
        ann, ben = await open_wallet(mongo, "ann", 10**6), await open_wallet(mongo, "ben")
        acknowledged: set[str] = set()
        stop = asyncio.Event()

        def more_than(count: int) -> bool:
            return len(acknowledged) > count

        async def keep_paying(ledger: Ledger, name: int) -> None:
            n = 0
            while not stop.is_set():
                n += 1
                outcome = await ledger.post(transfer(f"t{name}-{n}", ann, ben, 1), soon())
                assert isinstance(outcome, Transfer)
                acknowledged.add(outcome.id)

        async with open_ledger(mongo) as ledger:
            payers = [asyncio.create_task(keep_paying(ledger, n)) for n in range(8)]
            for _ in range(2):
                before = len(acknowledged)
                await eventually(partial(more_than, before + 50), within_s=20)
                await asyncio.to_thread(own_mongo.kill)
                await asyncio.to_thread(own_mongo.start)
            before = len(acknowledged)
            await eventually(partial(more_than, before + 50), within_s=20)
            stop.set()
            await asyncio.gather(*payers)
        stored = {row["id"] async for row in mongo.db["transfers"].find()}
        assert stored == acknowledged
        await check_books(mongo, {ann.key: 10**6})
        await mongo.close()
