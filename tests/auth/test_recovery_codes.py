"""Recovery codes: what they look like, that each is good once, and what a user is told."""

import pytest

from services.auth.domain.recovery_codes import COUNT, new_recovery_codes, recovery_code_hash

CODE = "01AB-CDEF-GHJK-MNPQ"


class TestCodes:
    def test_ten_of_eighty_bits(self) -> None:
        codes = new_recovery_codes()
        assert len(set(codes)) == COUNT == 10
        assert all(len(code.replace("-", "")) == 16 for code in codes)  # 5 bits each

    @pytest.mark.parametrize(
        ("typed", "why"),
        [
            ("01abcdefghjkmnpq", "no dashes, lower case"),
            (" 01AB CDEF GHJK MNPQ ", "blanks"),
            ("O1AB-CDEF-GHJK-MNPQ", "the letter O for 0"),
            ("0lab-cdef-ghjk-mnpq", "the letter l for 1"),
            ("0IAB-CDEF-GHJK-MNPQ", "the letter I for 1"),
        ],
    )
    def test_as_people_type_them(self, typed: str, why: str) -> None:
        assert recovery_code_hash("t", "u", typed) == recovery_code_hash("t", "u", CODE), why

    @pytest.mark.parametrize("typed", ["", "01AB", CODE + "0", "U" * 16, "{'$ne': 1}", "0" * 10_000, "\0" * 16])
    def test_what_is_no_code(self, typed: str) -> None:
        assert recovery_code_hash("t", "u", typed) is None

    def test_a_hash_is_one_users(self) -> None:
        hashes = {recovery_code_hash(t, u, CODE) for t, u in (("t", "u"), ("t", "v"), ("s", "u"), ("tu", ""))}
        assert len(hashes) == 4
