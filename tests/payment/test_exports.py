"""A ledger goes out to a file and comes in elsewhere, whole or not at all."""

# ruff: noqa: ASYNC240  (small files)

import asyncio
import gzip
import json
import os
import re
import signal
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import bson
import pytest
from bson.raw_bson import RawBSONDocument

from libs.core.clock import SystemClock
from libs.core.errors import CoreError, Refusal, Unavailable
from libs.core.events import Outbox
from libs.core.ids import new_id
from libs.core.mongo import Mongo
from libs.core.tenants import SystemWallet
from libs.core.testing import eventually, scratch_mongo, scratch_namespace
from services.payment import store
from services.payment.archive import Damaged, Reader, Writer
from services.payment.domain import Bucket, End, Place, Transfer, TransferKind, Wallet
from services.payment.exports import NotTheLedger, export_ledger, import_ledger
from services.payment.heads import HeadSigner
from services.payment.keys import JournalKeys
from services.payment.ledger import Ledger
from services.payment.store import whole
from services.payment.verify import verify_all
from tests.payment.conftest import open_ledger, open_wallet, prepare, soon, transfer

KEYS = JournalKeys("the key of these tests")
NOSTRO = End.of_system("demo", SystemWallet.NOSTRO, "EUR")
# What a line of JSON with a chunk's name looks like, between documents.
CHUNK = re.compile(rb'\{"bytes": \d+, "collection": "(\w+)".*?\}\n')


@pytest.fixture
async def source(payment_db: Mongo, player: Any) -> Mongo:
    """Deposits, transfers, holds and a signed head, of two lanes."""
    ann, ben = await player("ann"), await player("ben")
    async with open_ledger(payment_db) as first, open_ledger(payment_db) as second:
        await pay_in(first, ann, 1_000)
        for n in range(20):
            await post(second if n % 2 else first, f"t{n}", ann, ben)
        terms = Place(SystemClock().now() + timedelta(days=1), TransferKind.WITHDRAWAL)
        locked = End(ann.id, Bucket.LOCKED)
        await post(first, "h1", ann, ann, terms=terms, destination=locked, kind=TransferKind.HOLD)
        await HeadSigner(payment_db, Outbox(payment_db.db), SystemClock(), KEYS).sign()
        await post(first, "unsigned", ann, ben)
    return payment_db


@pytest.fixture
async def target(mongo_url: str) -> AsyncIterator[Mongo]:
    async with scratch_mongo(mongo_url) as mongo:
        await prepare(mongo)
        yield mongo


@pytest.fixture
async def file(source: Mongo, tmp_path: Path) -> Path:
    await export_ledger(source, tmp_path / "ledger.gz", KEYS)
    return tmp_path / "ledger.gz"


async def pay_in(ledger: Ledger, wallet: Wallet, amount: int) -> None:
    await post(ledger, new_id(), wallet, wallet, amount, kind=TransferKind.DEPOSIT, source=NOSTRO)


async def post(ledger: Ledger, id: str, payer: Wallet, payee: Wallet, amount: int = 1, **more: Any) -> Transfer:  # noqa: A002
    outcome = await ledger.post(transfer(id, payer, payee, amount, **more), soon())
    assert isinstance(outcome, Transfer), outcome
    return outcome


async def texts(mongo: Mongo, collection: str) -> list[bytes]:
    """Every document, byte by byte."""
    options: Any = bson.CodecOptions(document_class=RawBSONDocument)
    found: Any = mongo.db.get_collection(collection, codec_options=options).find({}, sort=[("_id", 1)])
    return [document.raw async for document in found]


async def nothing_stayed(mongo: Mongo) -> bool:
    counts = [await mongo.db[name].count_documents({}) for name in whole.COLLECTIONS if name != "leases"]
    lanes = await mongo.db["leases"].count_documents({"_id": {"$regex": "^lane-"}})
    return not any(counts) and not lanes and not await mongo.db["imports"].count_documents({})


async def refused(mongo: Mongo, file: Path, kind: type[CoreError] = Damaged) -> str:
    with pytest.raises(kind) as error:
        await import_ledger(mongo, file, KEYS)
    assert await nothing_stayed(mongo)
    return error.value.message


Change = Callable[[str, bytes], list[bytes]]


def rewrite(file: Path, change: Change, keys: JournalKeys = KEYS) -> None:
    """Every document passes through `change`; all hashes are as they should be afterwards, and the file is signed."""
    with Reader(file, KEYS.signed) as reader:
        chunks = [(chunk.collection, [change(chunk.collection, d) for d in chunk.documents]) for chunk in reader]
        head = {name: reader.head[name] for name in ("exportedAt", "cut")}
    file.unlink()
    with Writer(file, head) as writer:
        for collection, documents in chunks:
            writer.add(collection, [document for some in documents for document in some])
        writer.finish(keys.id, keys.sign)


def amended(wanted: str, _id: str, **fields: Any) -> Change:
    """Changes fields of one document of the collection `wanted`."""

    def change(collection: str, document: bytes) -> list[bytes]:
        row = bson.decode(document)
        return [bson.encode(row | fields) if (collection, row["_id"]) == (wanted, _id) else document]

    return change


class TestRoundTrip:
    async def test_is_the_same_byte_by_byte(self, source: Mongo, target: Mongo, file: Path) -> None:
        verified = await import_ledger(target, file, KEYS)
        assert (verified.ok, verified.spent.transfers) == (True, 23)
        for name in whole.COLLECTIONS:
            if name != "leases":
                assert await texts(target, name) == await texts(source, name), name

    async def test_goes_on_where_it_stopped(self, source: Mongo, target: Mongo, file: Path, player: Any) -> None:
        last = await source.db["transfers"].find_one({}, sort=[("at", -1)])
        await import_ledger(target, file, KEYS)
        rows = await target.db["wallets"].find({"kind": "user"}).to_list()
        ann, ben = sorted((store.wallet_from(row) for row in rows), key=lambda wallet: wallet.owner_id)
        async with open_ledger(target) as ledger:
            repeated = await post(ledger, "t7", ann, ben)
            fresh = await post(ledger, "after", ann, ben)
        assert last
        assert repeated.at < fresh.at
        assert fresh.at > last["at"]
        assert (await verify_all(target, KEYS.all)).divergence is None

    async def test_of_nothing(self, payment_db: Mongo, target: Mongo, tmp_path: Path) -> None:
        assert await export_ledger(payment_db, tmp_path / "empty.gz", KEYS) == {}
        assert (await import_ledger(target, tmp_path / "empty.gz", KEYS)).ok

    async def test_while_payments_go_on(self, source: Mongo, target: Mongo, tmp_path: Path) -> None:
        """The cut is in the middle of them, and nothing of a payment is on either side of it alone."""
        rows = await source.db["wallets"].find({"kind": "user"}).to_list()
        ann, ben = sorted((store.wallet_from(row) for row in rows), key=lambda wallet: wallet.owner_id)
        async with open_ledger(source) as ledger:
            count = 0

            async def go_on() -> bool:
                nonlocal count
                count += 1
                await post(ledger, f"x{count}", ann, ben)
                return count > 20

            for n in range(3):
                await eventually(go_on)
                await export_ledger(source, tmp_path / f"{n}.gz", KEYS)
        for n in range(3):
            async with scratch_mongo(str(os.environ["MONGO_URL"])) as other:
                await prepare(other)
                assert (await import_ledger(other, tmp_path / f"{n}.gz", KEYS)).ok

    def test_the_file_is_its_owners_alone(self, file: Path) -> None:
        assert file.stat().st_mode & 0o077 == 0


class TestADamagedFile:
    @pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
    async def test_that_is_cut(self, target: Mongo, file: Path, share: float) -> None:
        text = file.read_bytes()
        file.write_bytes(text[: int(len(text) * share)])
        assert "cut or damaged" in await refused(target, file)

    async def test_that_is_cut_and_packed_again(self, target: Mongo, file: Path) -> None:
        text = gzip.decompress(file.read_bytes())
        file.write_bytes(gzip.compress(text[: text.rindex(b'{"end"')]))
        assert "cut off" in await refused(target, file)

    async def test_with_a_bit_turned_over(self, target: Mongo, file: Path) -> None:
        text = bytearray(file.read_bytes())
        text[len(text) // 2] ^= 1
        file.write_bytes(text)
        assert "cut or damaged" in await refused(target, file)

    @pytest.mark.parametrize("collection", ["wallets", "transfers", "transactions", "journal", "journal_heads"])
    async def test_with_another_byte_names_the_place(self, target: Mongo, file: Path, collection: str) -> None:
        text = bytearray(gzip.decompress(file.read_bytes()))
        chunk = next(found for found in CHUNK.finditer(text) if found[1] == collection.encode())
        text[chunk.end() + 30] ^= 1
        file.write_bytes(gzip.compress(bytes(text)))
        assert re.search(rf"{collection} 1 to \d+ is not what was written", await refused(target, file))

    async def test_without_a_chunk(self, target: Mongo, file: Path) -> None:
        text = gzip.decompress(file.read_bytes())
        chunk = next(found for found in CHUNK.finditer(text) if found[1] == b"holds")
        size = json.loads(chunk[0])["bytes"]
        file.write_bytes(gzip.compress(text[: chunk.start()] + text[chunk.end() + size :]))
        assert await refused(target, file) == "not all that was exported is in the file, or more: holds"

    async def test_with_something_after_it(self, target: Mongo, file: Path) -> None:
        file.write_bytes(file.read_bytes() + gzip.compress(b"more"))
        assert "followed by more" in await refused(target, file)

    @pytest.mark.parametrize(
        "text",
        [b"", b"no gzip", gzip.compress(b""), gzip.compress(b"[]\n"), gzip.compress(b"{}\n")],
        # gzip writes the time into its header: without names, workers that collect in different seconds disagree.
        ids=["empty", "no gzip", "nothing", "a list", "an object"],
    )
    async def test_that_is_no_such_file(self, target: Mongo, tmp_path: Path, text: bytes) -> None:
        file = tmp_path / "other.gz"
        file.write_bytes(text)
        await refused(target, file)

    async def test_with_a_chunk_that_says_it_is_endless(self, target: Mongo, file: Path) -> None:
        text = gzip.decompress(file.read_bytes())
        chunk = next(CHUNK.finditer(text))
        endless = re.sub(rb'"bytes": \d+', b'"bytes": 99999999999', chunk[0])
        file.write_bytes(gzip.compress(text.replace(chunk[0], endless)))
        assert "larger than it can be" in await refused(target, file)

    async def test_with_a_collection_that_no_ledger_has(self, target: Mongo, file: Path) -> None:
        with Reader(file, KEYS.signed) as reader:
            chunks, head = list(reader), {name: reader.head[name] for name in ("exportedAt", "cut")}
        file.unlink()
        with Writer(file, head) as writer:
            for chunk in chunks:
                writer.add(chunk.collection, chunk.documents)
            writer.add("policies", [bson.encode({"_id": 9})])
            writer.finish(KEYS.id, KEYS.sign)
        assert "policies" in await refused(target, file)


class TestATamperedFile:
    """With hashes that are as they should be."""

    async def test_is_not_signed_by_who_tampers(self, target: Mongo, file: Path, source: Mongo) -> None:
        account = await source.db["accounts"].find_one({})
        assert account
        rewrite(file, amended("accounts", account["_id"], status="active"), keys=JournalKeys("another"))
        assert "not signed with a key of this journal" in await refused(target, file)

    @pytest.mark.parametrize(
        ("collection", "field"),
        [("transfers", "amount"), ("transactions", "amount"), ("transactions", "balance_after")],
    )
    async def test_an_amount(self, source: Mongo, target: Mongo, file: Path, collection: str, field: str) -> None:
        row = await source.db[collection].find_one({"kind": "transfer"})
        assert row
        rewrite(file, amended(collection, row["_id"], **{field: bson.Int64(77)}))
        assert re.search("altered|differs", await refused(target, file, NotTheLedger))

    async def test_a_balance(self, source: Mongo, target: Mongo, file: Path) -> None:
        row = await source.db["wallets"].find_one({"owner_id": "ann"})
        assert row
        richer = row["buckets"] | {"real": row["buckets"]["real"] + 5}
        rewrite(file, amended("wallets", row["_id"], buckets=richer))
        assert row["_id"] in await refused(target, file, NotTheLedger)

    @pytest.mark.parametrize("collection", ["transfers", "transactions", "journal"])
    async def test_a_document_that_is_left_out(self, source: Mongo, target: Mongo, file: Path, collection: str) -> None:
        row = await source.db[collection].find_one({}, sort=[("_id", 1)])
        assert row
        left_out = (collection, row["_id"])
        rewrite(file, lambda name, text: [] if (name, bson.decode(text)["_id"]) == left_out else [text])
        assert "missing" in await refused(target, file, NotTheLedger)

    async def test_the_last_block_with_its_lease(self, source: Mongo, target: Mongo, file: Path) -> None:
        lane = await source.db["leases"].find_one({"_id": "lane-0"})
        assert lane
        rewrite(file, amended("leases", "lane-0", journal_sequence=lane["journal_sequence"] - 1))
        await refused(target, file, NotTheLedger)

    async def test_a_document_twice(self, target: Mongo, file: Path) -> None:
        rewrite(file, lambda name, text: [text] * (2 if name == "journal_heads" else 1))
        assert "cannot be taken in" in await refused(target, file, CoreError)


class TestExportOf:
    async def test_a_ledger_with_a_transfer_missing(self, source: Mongo, tmp_path: Path) -> None:
        await source.db["transfers"].delete_one({"_id": "demo:t3"})
        with pytest.raises(Unavailable, match="transfer demo:t3 is not there"):
            await export_ledger(source, tmp_path / "x.gz", KEYS)
        assert list(tmp_path.iterdir()) == []

    async def test_a_ledger_whose_tail_was_cut(self, source: Mongo, tmp_path: Path) -> None:
        last = await source.db["journal"].find_one({"lane": 0}, sort=[("_id", -1)])
        assert last
        await source.db["journal"].delete_one({"_id": last["_id"]})
        with pytest.raises(Unavailable, match="lane 0 should end with"):
            await export_ledger(source, tmp_path / "x.gz", KEYS)

    async def test_into_a_file_that_is_there(self, source: Mongo, file: Path) -> None:
        with pytest.raises(FileExistsError):
            await export_ledger(source, file, KEYS)
        assert file.stat().st_size

    async def test_an_altered_amount_is_found_on_arrival(self, source: Mongo, target: Mongo, tmp_path: Path) -> None:
        await source.db["transactions"].update_one(
            {"transfer_id": "t3", "direction": "credit"}, {"$inc": {"amount": 1}}
        )
        await export_ledger(source, tmp_path / "x.gz", KEYS)
        assert "demo:t3" in await refused(target, tmp_path / "x.gz", NotTheLedger)


class TestImportInto:
    async def test_a_database_with_a_ledger(self, source: Mongo, file: Path) -> None:
        before = [await texts(source, name) for name in whole.COLLECTIONS]
        with pytest.raises(Refusal) as refusal:
            await import_ledger(source, file, KEYS)
        assert refusal.value.code == "NOT_EMPTY"
        assert [await texts(source, name) for name in whole.COLLECTIONS if name != "leases"] == [
            text for name, text in zip(whole.COLLECTIONS, before, strict=True) if name != "leases"
        ]
        async with open_ledger(source) as ledger:
            assert await ledger.health()

    async def test_one_where_payment_runs(self, target: Mongo, file: Path) -> None:
        async with open_ledger(target):
            with pytest.raises(Refusal) as refusal:
                await import_ledger(target, file, KEYS)
        assert refusal.value.code == "PAYMENT_IS_RUNNING"

    async def test_one_where_another_import_was_killed(
        self, target: Mongo, file: Path, mongo_url: str, tmp_path: Path
    ) -> None:
        """Payment does not start there; the next import clears up, and comes through."""
        namespace = target.db.name.partition("_")[0]
        command = [sys.executable, "-c", KILLED_IN_THE_MIDDLE, mongo_url, namespace, str(file)]
        killed = await asyncio.create_subprocess_exec(*command)
        assert await killed.wait() == -signal.SIGKILL
        await eventually(lambda: target.db["wallets"].count_documents({}))
        with pytest.raises(Unavailable, match="being imported"):
            await open_ledger(target).__aenter__()
        await target.db["leases"].update_one({"_id": "ledger-import"}, {"$set": {"expires_at": None}})
        assert (await import_ledger(target, file, KEYS)).ok
        async with open_ledger(target) as ledger:
            assert await ledger.health()

    async def test_a_key_that_was_changed_is_still_known(self, target: Mongo, file: Path) -> None:
        newer = JournalKeys("the next key", [KEYS.public.hex()])
        assert (await import_ledger(target, file, newer)).ok


KILLED_IN_THE_MIDDLE = """
import asyncio, os, signal, sys
from pathlib import Path
from libs.core.mongo import Mongo
from services.payment.exports import import_ledger
from services.payment.keys import JournalKeys

def tell(name, count):
    if name == "transfers":
        os.kill(os.getpid(), signal.SIGKILL)

url, namespace, file = sys.argv[1:]
mongo = Mongo.connect(url, service="test", namespace=namespace)
asyncio.run(import_ledger(mongo, Path(file), JournalKeys("the key of these tests"), tell))
"""


class TestMemory:
    def test_does_not_grow_with_the_file(self, tmp_path: Path) -> None:
        path, documents = (
            tmp_path / "large.gz",
            [bson.encode({"_id": n, "text": os.urandom(500)}) for n in range(2_000)],
        )
        tracemalloc.start()
        with Writer(path, {"cut": {}}) as writer:
            for _ in range(30):
                writer.add("transfers", documents)
            writer.finish(KEYS.id, KEYS.sign)
        with Reader(path, KEYS.signed) as reader:
            assert sum(len(chunk.documents) for chunk in reader) == 60_000
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert path.stat().st_size > 30_000_000
        assert peak < 10_000_000


class TestScripts:
    async def test_take_it_out_and_in(self, mongo_url: str, redis_url: str, tmp_path: Path) -> None:
        file = tmp_path / "ledger.gz"

        async def run(script: str, namespace: str) -> tuple[int | None, str]:
            environment = {"MODE": "development", "MONGO_URL": mongo_url, "REDIS_URL": redis_url, "FILE": str(file)}
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"scripts.{script}",
                env={**os.environ, **environment, "NAMESPACE": namespace},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said, _ = await process.communicate()
            return process.returncode, said.decode()

        here, there = scratch_namespace(), scratch_namespace()
        async with (
            scratch_mongo(mongo_url, service="payment", namespace=here) as source,
            scratch_mongo(mongo_url, service="payment", namespace=there),
        ):
            await prepare(source)
            ann = await open_wallet(source, "ann")
            async with open_ledger(source) as ledger:
                await pay_in(ledger, ann, 100)
            assert (await run("ledger_export", here))[0] == 0
            assert "is there already" in (await run("ledger_export", here))[1]
            code, said = await run("ledger_import", there)
            assert (code, "1 transfers and 2 transactions are in" in said) == (0, True), said
            assert "comes into an empty one" in (await run("ledger_import", there))[1]
