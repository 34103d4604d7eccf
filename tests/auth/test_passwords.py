"""Hashing, and which passwords may be chosen."""

import asyncio
import hashlib
import unicodedata
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type
from hypothesis import given, settings, strategies as st

from libs.core.errors import Misconfigured, Refusal, Unavailable
from libs.core.testing import eventually
from services.auth.breaches import PasswordRules
from services.auth.domain.passwords import LONGEST, SHORTEST, weakness
from services.auth.passwords import Hasher, Verdict

GOOD = "four words by dice"
RIGHT, WRONG = Verdict(ok=True, rehash=False), Verdict(ok=False, rehash=False)


def rule(password: str, *personal: str) -> str | None:
    refusal = weakness(password, personal=personal)
    return refusal.rule if refusal else None


def _nfc(password: str) -> bytes:
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


@contextmanager
def _list_of(lines: str) -> Iterator[PasswordRules]:
    with NamedTemporaryFile("w", newline="") as file:
        file.write(lines)
        file.flush()
        with PasswordRules(file.name) as rules:
            yield rules


@pytest.fixture
async def hasher() -> AsyncIterator[Hasher]:
    async with Hasher() as hasher:
        yield hasher


@pytest.fixture
async def quick() -> AsyncIterator[Hasher]:
    async with Hasher(memory_kib=64, iterations=1, workers=1, waiting_max=3) as hasher:
        yield hasher


class TestHash:
    async def test_owasps_parameters(self, hasher: Hasher) -> None:
        found = extract_parameters(await hasher.hash(GOOD))
        assert (found.type, found.memory_cost, found.time_cost, found.parallelism) == (Type.ID, 19_456, 2, 1)
        assert (found.salt_len, found.hash_len) == (16, 32)

    async def test_twice_is_never_the_same(self, quick: Hasher) -> None:
        assert await quick.hash(GOOD) != await quick.hash(GOOD)

    async def test_full_queue_refuses_at_once(self, quick: Hasher) -> None:
        """One at work and three waiting."""
        outcomes = await asyncio.gather(*(quick.hash(GOOD) for _ in range(6)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [str] * 4 + [Unavailable] * 2
        assert await quick.hash(GOOD)

    async def test_whose_callers_went_away_take_no_place(self, quick: Hasher) -> None:
        for _ in range(10):
            tasks = [asyncio.create_task(quick.hash(GOOD)) for _ in range(4)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await quick.hash(GOOD)

    async def test_what_nobody_waits_for_is_not_begun(self) -> None:
        async with Hasher(workers=1) as hasher:
            tasks = [asyncio.create_task(hasher.hash(GOOD)) for _ in range(100)]
            await tasks[0]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await hasher.hash(GOOD)
            assert hasher.computed < 10

    async def test_closing_ends_what_was_begun(self) -> None:
        async with Hasher(workers=1) as hasher:
            hashing = asyncio.create_task(hasher.hash(GOOD))
            await eventually(lambda: hasher.waiting)
        assert (await hashing).startswith("$argon2id$")


class TestVerify:
    async def test_the_right_one_and_a_wrong_one(self, hasher: Hasher) -> None:
        encoded = await hasher.hash(GOOD)
        assert await hasher.verify(encoded, GOOD) == RIGHT
        assert await hasher.verify(encoded, GOOD + " ") == WRONG

    @pytest.mark.parametrize("encoded", [None, ""])
    async def test_where_there_is_none_the_same_work_is_done(self, quick: Hasher, encoded: str | None) -> None:
        before = quick.computed
        assert await quick.verify(encoded, "") == await quick.verify(encoded, GOOD) == WRONG
        assert quick.computed == before + 2

    @settings(max_examples=30)
    @given(st.text(min_size=1, max_size=LONGEST), st.integers(0, LONGEST), st.characters())
    async def test_every_character_counts(self, password: str, at: int, other: str) -> None:
        """Nothing is cut off, at NUL or at the 72nd byte."""
        changed = password[:at] + other + password[at + 1 :]
        async with Hasher(memory_kib=8, iterations=1, workers=1) as hasher:
            encoded = await hasher.hash(password)
            assert (await hasher.verify(encoded, password)).ok
            same = hashlib.sha256(_nfc(changed)).digest() == hashlib.sha256(_nfc(password)).digest()
            assert (await hasher.verify(encoded, changed)).ok == same

    async def test_an_accent_from_whichever_keyboard(self, quick: Hasher) -> None:
        assert (await quick.verify(await quick.hash("caf\u00e9 au lait"), "cafe\u0301 au lait")).ok

    async def test_half_a_character(self, quick: Hasher) -> None:
        assert not (await quick.verify(await quick.hash(GOOD), "\ud800")).ok

    async def test_a_megabyte_costs_no_more_and_is_wrong(self, quick: Hasher) -> None:
        assert await quick.verify(await quick.hash(""), "x" * 2**20) == WRONG

    async def test_older_parameters_are_due(self, quick: Hasher) -> None:
        older = PasswordHasher(time_cost=1, memory_cost=32, parallelism=1).hash(GOOD)
        assert await quick.verify(older, GOOD) == Verdict(ok=True, rehash=True)
        assert await quick.verify(older, "wrong") == WRONG

    async def test_what_is_no_hash(self, quick: Hasher) -> None:
        assert await quick.verify("md5:abc", GOOD) == WRONG


class TestWeakness:
    @pytest.mark.parametrize(
        ("password", "why"),
        [
            (GOOD, "a sentence"),
            ("ilikeeatinggreencheese", "letters alone"),
            ("8375104629", "digits alone"),
            ("пароль из слов", "another alphabet"),
            ("🐎" * 4 + "🔋" * 4, "signs alone"),
            ("x7\x00kq9vw", "NUL"),
            ("k" * 60 + "v" * 68, "128"),
            ("anna-drinks-green-tea", "a name, and more"),
        ],
    )
    def test_may_be_chosen(self, password: str, why: str) -> None:
        assert rule(password, "anna.smith@example.com", "anna") is None

    @pytest.mark.parametrize(
        ("password", "found"),
        [
            ("x7kq9vw", "length"),
            ("e\u0301" * 7, "length"),
            ("xy" * 64 + "x", "length"),
            ("12345678", "common"),
            ("PassWord", "common"),
            ("ｐａｓｓｗｏｒｄ", "common"),
            ("Password1!", "common"),
            ("sunshine2024", "common"),
            ("aaaaaaaaaaaa", "common"),
            ("abcabcabca", "common"),
            ("hgfedcba", "common"),
            ("annasmith2024", "personal"),
            ("Smith.Anna!", "personal"),
            ("anna.smith@example.com", "personal"),
            ("payments-platform", "personal"),
        ],
    )
    def test_may_not(self, password: str, found: str) -> None:
        assert rule(password, "anna.smith@example.com", "Anna Smith", "Payments platform") == f"password.{found}"

    @given(st.text(), st.lists(st.text()))
    def test_length_alone_decides_first(self, password: str, personal: list[str]) -> None:
        length = len(_nfc(password).decode("utf-8", "surrogatepass"))
        assert (rule(password, *personal) == "password.length") == (not SHORTEST <= length <= LONGEST)

    def test_short_words_of_a_person_say_nothing(self) -> None:
        assert rule("a1 kx9 vw7q", "al@x.io", "Al") is None


class TestPasswordRules:
    @settings(max_examples=50)
    @given(st.sets(st.text(min_size=1), min_size=1), st.text(), st.sampled_from(["\n", "\r\n"]), st.booleans())
    async def test_finds_what_is_there_alone(self, stolen: set[str], other: str, ending: str, ended: bool) -> None:
        digests = sorted(hashlib.sha1(_nfc(password)).hexdigest().upper() for password in stolen)
        lines = ending.join(f"{digest}:{count}" for count, digest in enumerate(digests)) + ending * ended
        with _list_of(lines) as rules:
            assert all([await rules.is_breached(password) for password in stolen])
            assert await rules.is_breached(other) == (hashlib.sha1(_nfc(other)).hexdigest().upper() in digests)

    async def test_a_stolen_one_is_refused(self) -> None:
        with _list_of(hashlib.sha1(GOOD.encode()).hexdigest().upper() + ":3\r\n") as rules:
            with pytest.raises(Refusal) as refused:
                await rules.check(GOOD, personal=[])
            await rules.check(GOOD + "!", personal=[])
        assert (refused.value.code, refused.value.rule) == ("WEAK_PASSWORD", "password.breached")

    async def test_without_a_list(self) -> None:
        with PasswordRules("") as rules:
            await rules.check(GOOD, personal=[])
            with pytest.raises(Refusal):
                await rules.check("password", personal=[])

    @pytest.mark.parametrize("content", ["", "password\n", "0123:4\n"])
    def test_what_is_no_such_list(self, content: str, tmp_path: Path) -> None:
        path = tmp_path / "list"
        path.write_text(content)
        with pytest.raises(Misconfigured, match="BREACHED_PASSWORDS"):
            PasswordRules(str(path))

    def test_a_file_that_is_not_there(self) -> None:
        with pytest.raises(Misconfigured, match="BREACHED_PASSWORDS"):
            PasswordRules("/nowhere/at/all")
