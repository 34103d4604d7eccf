"""Recovery codes: what they look like, that each is good once, and what a user is told."""

import asyncio
from typing import Any

import pytest

from services.auth.commands import passkeys, totp
from services.auth.commands.factors import factors_of
from services.auth.commands.recovery_codes import regenerate_recovery_codes
from services.auth.commands.second_factor import Proof
from services.auth.commands.tokens import SignedIn
from services.auth.domain.recovery_codes import COUNT, new_recovery_codes, recovery_code_hash
from tests.auth.conftest import House
from tests.auth.factors import challenged, context_of, refusal, show, with_app, with_passkey

CODE = "01AB-CDEF-GHJK-MNPQ-RSTV-WXYZ"


class TestCodes:
    def test_ten_of_120_bits(self) -> None:
        codes = new_recovery_codes()
        assert len(set(codes)) == COUNT == 10
        assert all(len(code.replace("-", "")) == 24 for code in codes)  # 5 bits each

    @pytest.mark.parametrize(
        ("typed", "why"),
        [
            ("01abcdefghjkmnpqrstvwxyz", "no dashes, lower case"),
            (" 01AB CDEF GHJK MNPQ RSTV WXYZ ", "blanks"),
            ("O1AB-CDEF-GHJK-MNPQ-RSTV-WXYZ", "the letter O for 0"),
            ("0lab-cdef-ghjk-mnpq-rstv-wxyz", "the letter l for 1"),
            ("0IAB-CDEF-GHJK-MNPQ-RSTV-WXYZ", "the letter I for 1"),
        ],
    )
    def test_as_people_type_them(self, typed: str, why: str) -> None:
        assert recovery_code_hash("t", "u", typed) == recovery_code_hash("t", "u", CODE), why

    @pytest.mark.parametrize("typed", ["", "01AB", CODE + "0", "U" * 24, "{'$ne': 1}", "0" * 10_000, "\0" * 24])
    def test_what_is_no_code(self, typed: str) -> None:
        assert recovery_code_hash("t", "u", typed) is None

    def test_a_hash_is_one_users(self) -> None:
        hashes = {recovery_code_hash(t, u, CODE) for t, u in (("t", "u"), ("t", "v"), ("s", "u"), ("tu", ""))}
        assert len(hashes) == 4


class TestUse:
    async def test_lets_in_once(self, house: House) -> None:
        ann = await house.user()
        app = await with_app(house, ann)
        proof = Proof(recovery_code=app.recovery_codes[3].lower().replace("-", " "))
        context = await context_of(house, await show(house, await challenged(house), proof))
        assert context.caller.level == 2
        assert await refusal(show(house, await challenged(house), proof)) == "SECOND_FACTOR_WRONG"
        found = await factors_of(house.auth, ann.tenant_id, ann.id)
        assert found.recovery_codes
        assert (found.recovery_codes.left, found.recovery_codes.low) == (9, False)

    async def test_its_user_is_told(self, house: House) -> None:
        ann = await house.user()
        app = await with_app(house, ann)
        await show(house, await challenged(house), Proof(recovery_code=app.recovery_codes[0]))
        assert (await house.sent())[-1].params["what"] == "recovery_code_used"
        [row] = await house.rows("recovery_code.used")
        assert (row["actor"], row["after"]) == (ann.id, {"left": 9})

    async def test_few_are_left(self, house: House) -> None:
        ann = await house.user()
        app = await with_app(house, ann)
        for code in app.recovery_codes[:7]:
            await show(house, await challenged(house), Proof(recovery_code=code))
        assert (await house.sent())[-1].params["what"] == "recovery_codes_low"
        found = await factors_of(house.auth, ann.tenant_id, ann.id)
        assert found.recovery_codes
        assert found.recovery_codes.low

    async def test_one_in_two_logins_at_once(self, new_house: Any) -> None:
        """In two processes."""
        houses = [await new_house(), await new_house()]
        app = await with_app(houses[0], await houses[0].user())
        waiting = [await challenged(house) for house in houses for _ in range(2)]
        proof = Proof(recovery_code=app.recovery_codes[0])
        outcomes = await asyncio.gather(
            *(show(houses[n % 2], challenge, proof) for n, challenge in enumerate(waiting)), return_exceptions=True
        )
        assert [isinstance(outcome, SignedIn) for outcome in outcomes].count(True) == 1

    async def test_another_users(self, house: House) -> None:
        await with_app(house, await house.user())
        bobs = await with_app(house, await house.user("bob"))
        asked = show(house, await challenged(house), Proof(recovery_code=bobs.recovery_codes[0]))
        assert await refusal(asked) == "SECOND_FACTOR_WRONG"

    async def test_nothing_of_them_is_stored(self, house: House) -> None:
        app = await with_app(house, await house.user())
        for name in await house.auth.database.list_collection_names():
            async for row in house.auth.database[name].find():
                assert not any(code in str(row) for code in app.recovery_codes), name


class TestRegenerate:
    async def test_the_old_ones_are_good_for_nothing(self, house: House) -> None:
        ann = await house.user()
        app = await with_app(house, ann)
        new = await regenerate_recovery_codes(house.auth, house.context(ann, level=2))
        assert len(new) == COUNT
        assert not set(new) & set(app.recovery_codes)
        old = show(house, await challenged(house), Proof(recovery_code=app.recovery_codes[0]))
        assert await refusal(old) == "SECOND_FACTOR_WRONG"
        assert await show(house, await challenged(house), Proof(recovery_code=new[0]))
        assert len(await house.rows("recovery_codes.made")) == 1

    async def test_without_a_second_factor(self, house: House) -> None:
        context = house.context(await house.user(), level=2)
        assert await refusal(regenerate_recovery_codes(house.auth, context)) == "SECOND_FACTOR_MISSING"

    async def test_they_go_with_the_last_factor(self, house: House) -> None:
        ann = await house.user()
        await with_app(house, ann)
        passkey = await with_passkey(house, ann, level=2)
        await totp.remove_totp(house.auth, house.context(ann, level=2))
        assert (await factors_of(house.auth, ann.tenant_id, ann.id)).recovery_codes
        await passkeys.remove_passkey(house.auth, house.context(ann, level=2), passkey.id)
        assert (await factors_of(house.auth, ann.tenant_id, ann.id)).recovery_codes is None
