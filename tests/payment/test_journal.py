import os
from datetime import UTC, datetime
from hashlib import sha256

import pytest

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
