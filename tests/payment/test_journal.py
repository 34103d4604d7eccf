import json
import os
import shutil
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from libs.access_engine import Policy
from libs.core.access import BUILT_IN, Scope
from libs.core.clock import SystemClock
from libs.core.context import Caller
from libs.core.errors import Misconfigured
from libs.core.events import Outbox
from libs.core.mongo import Mongo
from libs.core.tenants import SystemWallet
from scripts.stack import ROOT
from services.payment.domain import End, TransferKind, Wallet
from services.payment.domain.journal import (
    GENESIS,
    Block,
    Head,
    inclusion_path,
    instant,
    leaf,
    merkle_root,
    milliseconds,
    root_by_path,
    split,
)
from services.payment.heads import HeadSigner
from services.payment.keys import JournalKeys
from services.payment.ledger import Ledger
from services.payment.receipts import Receipt, receipt_of
from services.payment.settings import PaymentSettings
from services.payment.verify import Diverged, Kind, verify_all
from tests.payment.conftest import open_ledger, soon, transfer

HOUSE = End.of_system("demo", SystemWallet.HOUSE, "EUR")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def hashed(*parts: bytes) -> bytes:
    return sha256(b"".join(parts)).digest()


def rfc_6962(leaves: list[bytes]) -> bytes:
    """The definition, word for word."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashed(b"\x01", rfc_6962(leaves[:k]), rfc_6962(leaves[k:]))


class TestLeaf:
    def test_covers_the_three_documents_in_order(self) -> None:
        assert leaf(b"t", b"d", b"c") == hashed(b"\x00", hashed(b"t"), hashed(b"d"), hashed(b"c"))
        assert leaf(b"t", b"d", b"c") != leaf(b"t", b"c", b"d")


class TestMerkleRoot:
    @pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 9, 31, 100, 512])
    def test_is_that_of_rfc_6962(self, count: int) -> None:
        leaves = [os.urandom(32) for _ in range(count)]
        assert merkle_root(leaves) == rfc_6962(leaves)

    def test_of_nothing(self) -> None:
        assert merkle_root([]) == hashed()


class TestInclusionPath:
    @pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 8, 13, 100])
    def test_leads_from_every_leaf_to_the_root(self, count: int) -> None:
        leaves = [os.urandom(32) for _ in range(count)]
        for index in range(count):
            path = inclusion_path(leaves, index)
            assert root_by_path(leaves[index], index, count, path) == merkle_root(leaves)

    def test_of_another_place_leads_elsewhere(self) -> None:
        leaves = [os.urandom(32) for _ in range(7)]
        path = inclusion_path(leaves, 3)
        assert root_by_path(leaves[3], 2, 7, path) != merkle_root(leaves)
        assert root_by_path(leaves[4], 3, 7, path) != merkle_root(leaves)

    @pytest.mark.parametrize(
        ("index", "count", "length", "why"),
        [
            (3, 7, 2, "a node is missing"),
            (3, 7, 4, "a node is left over"),
            (7, 7, 3, "there is no such leaf"),
            (-1, 7, 3, "there is no such leaf"),
            (0, 0, 0, "an empty tree holds nothing"),
        ],
    )
    def test_of_the_wrong_shape_leads_nowhere(self, index: int, count: int, length: int, why: str) -> None:
        assert root_by_path(GENESIS, index, count, [GENESIS] * length) is None, why

    def test_of_no_leaf(self) -> None:
        with pytest.raises(IndexError):
            inclusion_path([GENESIS], 1)


class TestBlock:
    def test_hash_is_what_the_format_says(self) -> None:
        block = Block.of(3, 7, b"p" * 32, [b"a" * 32, b"b" * 32], NOON)
        root = hashed(b"\x01", b"a" * 32, b"b" * 32)
        fields = (
            (3).to_bytes(4),
            (7).to_bytes(8),
            b"p" * 32,
            root,
            (2).to_bytes(4),
            milliseconds(NOON).to_bytes(8, signed=True),
        )
        assert block.hash == hashed(b"\x02", *fields)


class TestHead:
    def test_hash_is_what_the_format_says(self) -> None:
        head = Head(3, 2, 5, 9, b"p" * 32, b"r" * 32, 17)
        numbers = (3).to_bytes(4), (2).to_bytes(8), (5).to_bytes(8), (9).to_bytes(8)
        assert head.hash == hashed(b"\x03", *numbers, b"p" * 32, b"r" * 32, (17).to_bytes(8))

    def test_follows_the_one_before(self) -> None:
        first = Head.of(None, 0, [b"a" * 32, b"b" * 32], NOON)
        second = Head.of(first, 0, [b"c" * 32], NOON)
        assert (first.number, first.first, first.last, first.previous) == (1, 1, 2, GENESIS)
        assert (second.number, second.first, second.last, second.previous) == (2, 3, 3, first.hash)


class TestMilliseconds:
    def test_are_rounded_as_the_database_rounds(self) -> None:
        assert instant(milliseconds(NOON.replace(microsecond=1999))) == NOON.replace(microsecond=1000)


class TestSplit:
    def test_undoes_the_joining(self) -> None:
        hashes = [os.urandom(32) for _ in range(5)]
        assert split(b"".join(hashes)) == hashes


KEYS = JournalKeys("the key of these tests")


class TestJournalKeys:
    def test_a_secret_of_32_bytes_is_the_key_itself(self) -> None:
        seed = bytes(range(32))
        private = Ed25519PrivateKey.from_private_bytes(seed)
        assert JournalKeys(b64encode(seed).decode()).public == private.public_key().public_bytes_raw()

    def test_any_other_text_makes_one(self) -> None:
        assert JournalKeys("some text").id != JournalKeys("another text").id

    def test_a_former_key_stays_good(self) -> None:
        old, new = JournalKeys("old"), JournalKeys("new", [KEYS.public.hex(), JournalKeys("old").public.hex()])
        assert new.signed(old.id, old.sign(b"hash"), b"hash")
        assert not JournalKeys("new").signed(old.id, old.sign(b"hash"), b"hash")

    @pytest.mark.parametrize("key", ["", "zz", "00" * 31])
    def test_what_is_no_key_is_refused(self, key: str) -> None:
        with pytest.raises(Misconfigured):
            JournalKeys("new", [key])

    def test_production_refuses_the_key_that_everybody_knows(self) -> None:
        with pytest.raises(ValueError, match="JOURNAL_KEY"):
            PaymentSettings(mode="production", cursor_secret=SecretStr("c" * 32), webhook_key=SecretStr("w" * 32))


def signer(mongo: Mongo, keys: JournalKeys = KEYS) -> HeadSigner:
    return HeadSigner(mongo, Outbox(mongo.db), SystemClock(), keys)


class TestHeadSigner:
    async def test_signs_what_is_new_in_each_lane(self, ledger: Ledger, payment_db: Mongo, player: Any) -> None:
        signing = signer(payment_db)
        assert await signing.sign() == []
        ann = await paid(ledger, player, 3)
        async with open_ledger(payment_db) as other:
            await other.post(transfer("other", ann, ann, 1, destination=HOUSE), soon())
            heads = await signing.sign()
        assert [(h.head.lane, h.head.number, h.head.first, h.head.last) for h in heads] == [(0, 1, 1, 4), (1, 1, 1, 1)]
        assert await signing.sign() == []
        await ledger.post(transfer("more", ann, ann, 1, destination=HOUSE), soon())
        [head] = await signing.sign()
        assert (head.head.number, head.head.first, head.head.previous) == (2, 5, heads[0].hash)
        assert KEYS.signed(head.key_id, head.signature, head.head.hash)

    async def test_publishes_the_head(self, ledger: Ledger, payment_db: Mongo, player: Any) -> None:
        await paid(ledger, player, 1)
        [head] = await signer(payment_db).sign()
        [row] = await payment_db.db["outbox"].find({"events": {"$regex": "journal.head_signed"}}).to_list()
        assert f'"hash":"{head.hash.hex()}"' in row["events"]

    async def test_a_long_stretch_is_several_heads(
        self, ledger: Ledger, payment_db: Mongo, player: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("services.payment.heads.BLOCKS_A_HEAD", 2)
        await paid(ledger, player, 4)
        heads = await signer(payment_db).sign()
        assert [(h.head.first, h.head.last) for h in heads] == [(1, 2), (3, 4), (5, 5)]
        assert (await verify_all(payment_db, KEYS.all)).ok

    async def test_the_chain_goes_on_under_another_key(self, ledger: Ledger, payment_db: Mongo, player: Any) -> None:
        ann = await paid(ledger, player, 1)
        await signer(payment_db).sign()
        await ledger.post(transfer("more", ann, ann, 1, destination=HOUSE), soon())
        new = JournalKeys("a new one", [KEYS.public.hex()])
        assert await signer(payment_db, new).sign()
        assert (await verify_all(payment_db, new.all)).ok
        assert not (await verify_all(payment_db, JournalKeys("a new one").all)).ok

    @pytest.mark.parametrize(
        ("change", "kind", "why"),
        [
            ({"journal": {"sequence": 2}}, Kind.BLOCK_MISSING, "a block is gone"),
            ({"journal": {"sequence": {"$gt": 2}}}, Kind.CHAIN_CUT, "the tail is gone"),
        ],
    )
    async def test_never_signs_what_does_not_verify(
        self, ledger: Ledger, payment_db: Mongo, player: Any, change: dict[str, Any], kind: Kind, why: str
    ) -> None:
        await paid(ledger, player, 3)
        for collection, which in change.items():
            await payment_db.db[collection].delete_many(which)
        with pytest.raises(Diverged) as diverged:
            await signer(payment_db).sign()
        assert diverged.value.divergence.kind is kind, why
        assert not await payment_db.db["journal_heads"].find_one()

    async def test_never_signs_twice_what_was_taken_away(self, ledger: Ledger, payment_db: Mongo, player: Any) -> None:
        await paid(ledger, player, 1)
        signing = signer(payment_db)
        await signing.sign()
        await payment_db.db["journal_heads"].delete_many({})
        with pytest.raises(Diverged, match="head missing: head 1 of lane 0, which this process signed"):
            await signing.sign()
        await signer(payment_db).sign()  # which another process does not know of
        with pytest.raises(Diverged, match="head wrong: head 1 of lane 0, which this process signed"):
            await signing.sign()


async def paid(ledger: Ledger, player: Any, times: int) -> Wallet:
    """Ann was paid 100, and paid the house one so many times: a block each."""
    ann: Wallet = await player("ann")
    nostro = End.of_system("demo", SystemWallet.NOSTRO, "EUR")
    await ledger.post(transfer("in", ann, ann, 100, kind=TransferKind.DEPOSIT, source=nostro), soon())
    for n in range(times):
        await ledger.post(transfer(f"t{n}", ann, ann, 1, destination=HOUSE, reference="rent"), soon())
    return ann


def sight(user: str, *roles: str) -> Scope:
    caller = Caller("demo", user, roles, "s", "user")
    return Scope(caller, Policy(BUILT_IN).filter(roles, "transaction", "read"))


async def receipt(mongo: Mongo, scope: Scope, name: str = "demo:t1") -> Receipt | None:
    return await receipt_of(mongo.db, KEYS, scope, name)


def checked(folder: Path, receipt: Any, key: str = KEYS.public.hex()) -> subprocess.CompletedProcess[str]:
    """By the script, alone: a copy of it, far from this repository, that can import nothing of ours."""
    script, file = folder / "receipt.py", folder / "receipt.json"
    shutil.copy(ROOT / "scripts" / "receipt.py", script)
    file.write_text(json.dumps(receipt))
    command = [sys.executable, "-I", str(script), str(file), "--key", key]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def fields(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all that can be altered."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not isinstance(value, dict | list):
        yield path
    for name, each in inner:
        yield from fields(each, (*path, name))


def altered(receipt: Any, path: tuple[Any, ...]) -> Any:
    twin = deepcopy(receipt)
    place = twin
    for name in path[:-1]:
        place = place[name]
    value = place[path[-1]]
    if isinstance(value, int):
        place[path[-1]] = value + 1
    elif path[-1] == "document":
        raw = bytearray(b64decode(value))
        raw[-3] ^= 1
        place[path[-1]] = b64encode(bytes(raw)).decode()
    else:
        place[path[-1]] = ("1" if value[0] == "0" else "0") + value[1:]
    return twin


class TestReceipt:
    async def test_is_none_until_the_head_is_signed(self, ledger: Ledger, payment_db: Mongo, player: Any) -> None:
        await paid(ledger, player, 2)
        assert await receipt(payment_db, sight("ann", "player")) is None
        await signer(payment_db).sign()
        assert await receipt(payment_db, sight("ann", "player"))

    async def test_is_none_for_who_may_see_neither_line(self, ledger: Ledger, payment_db: Mongo, player: Any) -> None:
        await paid(ledger, player, 2)
        await signer(payment_db).sign()
        assert await receipt(payment_db, sight("ben", "player")) is None
        assert await receipt(payment_db, sight("ann", "player"), "demo:nothing") is None

    async def test_shows_what_its_holder_may_see(self, ledger: Ledger, payment_db: Mongo, player: Any) -> None:
        await paid(ledger, player, 2)
        await signer(payment_db).sign()
        own, all_ = [
            await receipt(payment_db, sight("x" if r == "operator" else "ann", r)) for r in ("player", "operator")
        ]
        assert own
        assert all_
        assert (list(own["debit"]), list(own["credit"])) == (["document"], ["hash"])
        assert (list(all_["debit"]), list(all_["credit"])) == (["document"], ["document"])

    async def test_says_what_it_proves(self, ledger: Ledger, payment_db: Mongo, player: Any, tmp_path: Path) -> None:
        ann = await paid(ledger, player, 2)
        await signer(payment_db).sign()
        done = checked(tmp_path, await receipt(payment_db, sight("ann", "player")))
        assert done.returncode == 0, done.stderr
        assert f"debit of 1 minor units of EUR: bucket real of wallet {ann.id} of ann at demo" in done.stdout
        assert "balance after it 98; transfer t1 'rent'" in done.stdout
        assert "in block 3 of lane 0" in done.stdout

    async def test_proves_nothing_once_it_is_altered(
        self, ledger: Ledger, payment_db: Mongo, player: Any, tmp_path: Path
    ) -> None:
        ann, ben = await paid(ledger, player, 2), await player("ben")
        await ledger.post_all([transfer(f"s{n}", ann, ben, 1) for n in range(5)], soon())
        await signer(payment_db).sign()
        good = await receipt(payment_db, sight("ann", "player"), "demo:s2")
        assert checked(tmp_path, good).returncode == 0
        paths = list(fields(good))
        assert len(paths) > 20
        for path in paths:
            done = checked(tmp_path, altered(good, path))
            assert done.returncode == 1, path
            assert done.stderr.startswith("this receipt proves nothing: "), path

    async def test_proves_nothing_to_who_trusts_another_key(
        self, ledger: Ledger, payment_db: Mongo, player: Any, tmp_path: Path
    ) -> None:
        await paid(ledger, player, 2)
        await signer(payment_db).sign()
        own = await receipt(payment_db, sight("ann", "player"))
        other = JournalKeys("another").public.hex()
        assert checked(tmp_path, own, other).returncode == 1
        assert checked(tmp_path, {**(own or {}), "publicKey": other}, other).returncode == 1

    @pytest.mark.parametrize("junk", [{}, [], None, "receipt", {"format": "payment-receipt/1"}])
    def test_what_is_none_is_said_to_be_none(self, tmp_path: Path, junk: Any) -> None:
        done = checked(tmp_path, junk)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
