"""Passwords guessed: of one account, of many, from many addresses, in one request; and the owner locked out."""

import asyncio

import pytest

from libs.core.errors import Refusal
from services.auth.commands.devices import Device
from services.auth.commands.passwords import change
from services.auth.commands.sign_in import sign_in
from tests.auth.attacks.scene import ADDRESS_TRIES, LOGIN, PASSWORD, SIGN_IN, Person, Scene, Visitor, code_of
from tests.auth.conftest import PASSWORD as HOUSE_PASSWORD, House
from tests.auth.factors import with_app

SAID_TO_BE_ADDRESSES = ("x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip", "x-originating-ip")
RATE_LIMITED, WRONG = "RATE_LIMITED", "INVALID_CREDENTIALS"


async def tried(visitor: Visitor, identifier: str, password: str = "not it", device: str = "") -> str:
    return code_of(await visitor.login(identifier, password, device))


class TestOneAccount:
    async def test_after_five_tries_each_has_to_wait(self, visitor: Visitor, ann: Person) -> None:
        assert [await tried(visitor, ann.email) for _ in range(6)] == [WRONG] * 5 + [RATE_LIMITED]

    async def test_from_an_address_for_each_try(self, visitor: Visitor, ann: Person) -> None:
        assert [await tried(visitor.elsewhere(), ann.email) for _ in range(6)] == [WRONG] * 5 + [RATE_LIMITED]

    async def test_a_hundred_at_once(self, visitor: Visitor, ann: Person) -> None:
        outcomes = await asyncio.gather(*(tried(visitor.elsewhere(), ann.email) for _ in range(100)))
        assert (outcomes.count(WRONG), outcomes.count(RATE_LIMITED)) == (5, 95)

    async def test_the_right_one_is_refused_as_the_wrong_ones_are(self, visitor: Visitor, ann: Person) -> None:
        for _ in range(5):
            await tried(visitor, ann.email)
        assert await tried(visitor, ann.email, PASSWORD) == RATE_LIMITED

    async def test_fifteen_aliases_of_one_request(self, visitor: Visitor, ann: Person) -> None:
        field = f'login(input: {{identifier: "{ann.email}", password: "not it"}}) {{ {SIGN_IN} }}'
        answer = await visitor.answer("mutation {" + "".join(f"a{n}: {field}\n" for n in range(15)) + "}")
        if data := answer.get("data"):
            assert sum(1 for found in data.values() if found) <= 5
        assert code_of({"errors": answer["errors"]})

    async def test_a_batch(self, visitor: Visitor, ann: Person) -> None:
        one = {"query": LOGIN, "variables": {"input": {"identifier": ann.email, "password": "not it"}}}
        assert (await visitor.post([one] * 15)).status_code == 400

    async def test_in_every_spelling(self, scene: Scene, visitor: Visitor) -> None:
        name = scene.visitor().address.replace(".", "x")
        spellings = [
            f"ann{name}@gmail.com",
            f"A.NN{name}@gmail.com",
            f"ann{name}+a@gmail.com",
            f"ann{name}@GOOGLEMAIL.com",
        ]
        outcomes = [await tried(visitor.elsewhere(), spelling) for spelling in (*spellings, *spellings)]
        assert outcomes == [WRONG] * 5 + [RATE_LIMITED] * 3

    async def test_between_ones_own_logins(self, visitor: Visitor, ann: Person, eve: Person) -> None:
        """Which would make the count of an address begin anew."""
        outcomes = []
        for _ in range(6):
            outcomes.append(await tried(visitor, ann.email))
            assert await tried(visitor, eve.email, PASSWORD) == ""
        assert outcomes == [WRONG] * 5 + [RATE_LIMITED]

    async def test_with_addresses_that_are_made_up(self, visitor: Visitor) -> None:
        """The proxy adds the attacker's own to what they wrote themselves; and no other header counts."""

        async def one(n: int) -> str:
            forged = f"8.8.{n}.8"
            headers = dict.fromkeys(SAID_TO_BE_ADDRESSES, forged) | {"forwarded": f"for={forged}"}
            headers["x-forwarded-for"] = f"{forged}, {visitor.address}"
            given = {"identifier": f"u{n}-{visitor.address}@example.com", "password": "x"}
            return code_of((await visitor.post({"query": LOGIN, "variables": {"input": given}}, **headers)).json())

        outcomes = await asyncio.gather(*(one(n) for n in range(ADDRESS_TRIES + 5)))
        assert (outcomes.count(WRONG), outcomes.count(RATE_LIMITED)) == (ADDRESS_TRIES, 5)


class TestManyAccounts:
    async def test_one_password_for_each_of_many(self, visitor: Visitor) -> None:
        names = [f"user{n}-{visitor.address}@example.com" for n in range(ADDRESS_TRIES + 10)]
        outcomes = await asyncio.gather(*(tried(visitor, name, "Sommer2026") for name in names))
        assert (outcomes.count(WRONG), outcomes.count(RATE_LIMITED)) == (ADDRESS_TRIES, 10)


class TestMeanwhile:
    """A login whose password was right when it was looked at, and is not when it gets to open its session."""

    async def test_the_password_was_changed(self, house: House) -> None:
        ann = await house.user("ann")
        await change(house.auth, house.context(ann), HOUSE_PASSWORD, "others plain words")
        with pytest.raises(Refusal, match="begin anew"):
            await sign_in(house.auth, house.context(), ann, ("pwd",), device=Device())

    async def test_a_second_factor_was_added(self, house: House) -> None:
        ann = await house.user("ann")
        await with_app(house, ann)
        with pytest.raises(Refusal, match="begin anew"):
            await sign_in(house.auth, house.context(), ann, ("pwd",), device=Device())


class TestLockout:
    async def test_the_owner_comes_in_on_a_device_of_theirs(self, visitor: Visitor, ann: Person) -> None:
        device = str(ann.session["deviceToken"])
        for _ in range(6):
            await tried(visitor.elsewhere(), ann.email)
        assert await tried(ann, ann.email, PASSWORD) == RATE_LIMITED
        assert await tried(ann, ann.email, PASSWORD, device) == ""

    async def test_even_where_the_attacker_shares_their_address(self, visitor: Visitor, ann: Person) -> None:
        ann.address = visitor.address
        for n in range(ADDRESS_TRIES + 1):
            await tried(visitor, f"u{n}-{visitor.address}@example.com")
        assert await tried(ann, ann.email, PASSWORD, str(ann.session["deviceToken"])) == ""

    async def test_nobody_elses_device_helps(self, visitor: Visitor, ann: Person, eve: Person) -> None:
        device = str(eve.session["deviceToken"])
        outcomes = [await tried(visitor, ann.email, device=device) for _ in range(6)]
        assert outcomes == [WRONG] * 5 + [RATE_LIMITED]

    async def test_a_stolen_device_token_has_five_tries_of_its_own(self, visitor: Visitor, ann: Person) -> None:
        device = str(ann.session["deviceToken"])
        outcomes = [await tried(visitor.elsewhere(), ann.email, device=device) for _ in range(6)]
        assert outcomes == [WRONG] * 5 + [RATE_LIMITED]
        assert await tried(ann, ann.email, PASSWORD) == ""

    @pytest.mark.parametrize("device", ["A" * 43, "x" * 10_000, '{"$ne": ""}', "\x00" * 43])
    async def test_devices_that_are_made_up(self, visitor: Visitor, ann: Person, device: str) -> None:
        outcomes = [await tried(visitor, ann.email, device=device) for _ in range(6)]
        assert outcomes == [WRONG] * 5 + [RATE_LIMITED]
