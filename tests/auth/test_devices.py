"""Devices: which are known, which stand in for the second factor, and when that ends."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from libs.core.pagination import PageArgs
from services.auth.commands import devices, passwords, totp
from services.auth.commands.devices import Device
from services.auth.commands.fresh import demand_fresh
from services.auth.commands.recovery_codes import regenerate_recovery_codes
from services.auth.commands.second_factor import Proof
from services.auth.commands.sign_in import Challenge
from services.auth.commands.tokens import SignedIn
from services.auth.domain.devices import KnownDevice, device_id, new_device_token
from services.auth.domain.users import User
from services.auth.store import devices as stored
from tests.auth.conftest import PASSWORD, House
from tests.auth.factors import App, challenged, context_of, log_in, refusal, show, with_app, with_passkey


async def trusting(house: House, app: App, name: str = "ann") -> Device:
    """A device that its user trusts."""
    challenge = await challenged(house, name)
    signed_in = await show(house, challenge, Proof(totp=app.code), device=Device(name="Laptop"), trust=True)
    house.clock.advance(minutes=1)
    return Device(signed_in.device_token, "Laptop")


async def trusted(house: House, user: User, args: PageArgs | None = None) -> list[KnownDevice]:
    auth = house.auth
    page = await stored.trusted(
        auth.database, auth.paginator, user.tenant_id, user.id, house.clock.now(), args or PageArgs()
    )
    return page.items


class TestTokens:
    def test_what_is_stored_is_one_users(self) -> None:
        token = new_device_token()
        ids = {device_id(t, u, token) for t, u in (("t", "u"), ("t", "v"), ("s", "u"))}
        assert len(ids) == 3
        assert token not in ids

    @pytest.mark.parametrize("token", ["", "x", "x" * 42, "x" * 44, "x" * 42 + "=", "$" * 43, "x" * 42 + "\n"])
    def test_what_is_none(self, token: str) -> None:
        assert device_id("t", "u", token) is None


class TestKnown:
    async def test_of_many_those_that_were_seen_last(self, new_house: Callable[..., Awaitable[House]]) -> None:
        """A program that signs in every minute, and keeps no token, makes half a million a year."""
        house = await new_house(devices_most=3)
        ann, eve = await house.user(), await house.user("eve")
        tokens = []
        for name in ("eve", *("ann",) * 5):
            signed_in = await log_in(house, name)
            assert isinstance(signed_in, SignedIn)
            tokens.append(signed_in.device_token)
            house.clock.advance(minutes=1)
        assert await devices.known(house.auth, eve, Device(tokens[0]))
        left = [token for token in tokens if await devices.known(house.auth, ann, Device(token))]
        assert left == tokens[-3:]

    async def test_from_the_first_login_on(self, house: House) -> None:
        ann = await house.user()
        first = await log_in(house)
        assert isinstance(first, SignedIn)
        device = Device(first.device_token)
        assert await devices.known(house.auth, ann, device)
        second = await log_in(house, device=device)
        assert isinstance(second, SignedIn)
        assert second.device_token == first.device_token
        assert await house.auth.database["devices"].count_documents({}) == 1

    async def test_to_one_user_of_it_alone(self, house: House) -> None:
        """Else who signs in on somebody's device, or plants a token there, would share it."""
        bob = await house.user("bob")
        await house.user()
        anns = await log_in(house)
        assert isinstance(anns, SignedIn)
        assert await devices.known(house.auth, bob, Device(anns.device_token)) is None
        bobs = await log_in(house, "bob", device=Device(anns.device_token))
        assert isinstance(bobs, SignedIn)
        assert bobs.device_token != anns.device_token

    async def test_a_token_that_somebody_made_up(self, house: House) -> None:
        await house.user()
        made_up = "x" * 43
        signed_in = await log_in(house, device=Device(made_up))
        assert isinstance(signed_in, SignedIn)
        assert signed_in.device_token != made_up

    async def test_for_400_days(self, house: House) -> None:
        ann = await house.user()
        signed_in = await log_in(house)
        assert isinstance(signed_in, SignedIn)
        house.clock.advance(days=401)
        assert await devices.known(house.auth, ann, Device(signed_in.device_token)) is None


class TestTrusted:
    async def test_stands_in_for_the_second_factor(self, house: House) -> None:
        ann = await house.user()
        device = await trusting(house, await with_app(house, ann))
        signed_in = await log_in(house, device=device)
        assert isinstance(signed_in, SignedIn)
        assert (await context_of(house, signed_in)).caller.level == 1
        assert [(it.name, it.agent) for it in await trusted(house, ann)] == [("Laptop", "a browser")]

    async def test_not_unless_its_user_said_so(self, house: House) -> None:
        ann = await house.user()
        app = await with_app(house, ann)
        signed_in = await show(house, await challenged(house), Proof(totp=app.code))
        assert isinstance(await log_in(house, device=Device(signed_in.device_token)), Challenge)
        assert await trusted(house, ann) == []

    async def test_for_no_fresh_proof(self, house: House) -> None:
        await house.user()
        ann = await house.user("bob")
        device = await trusting(house, await with_app(house, ann), "bob")
        signed_in = await log_in(house, "bob", device=device)
        assert isinstance(signed_in, SignedIn)
        context = await context_of(house, signed_in)
        assert await refusal(demand_fresh(house.auth, context)) == "REAUTHENTICATION_REQUIRED"

    async def test_for_thirty_days(self, house: House) -> None:
        ann = await house.user()
        device = await trusting(house, await with_app(house, ann))
        house.clock.advance(days=29)
        assert isinstance(await log_in(house, device=device), SignedIn)
        house.clock.advance(days=2)
        assert isinstance(await log_in(house, device=device), Challenge)

    async def test_a_new_token(self, house: House) -> None:
        """Whoever knew the one from before the trust, from a login with the password alone say, has nothing."""
        ann = await house.user()
        first = await log_in(house)
        assert isinstance(first, SignedIn)
        app, before = await with_app(house, ann), Device(first.device_token)
        after = await show(
            house, await challenged(house, device=before), Proof(totp=app.code), device=before, trust=True
        )
        assert after.device_token != before.token
        assert isinstance(await log_in(house, device=before), Challenge)
        assert isinstance(await log_in(house, device=Device(after.device_token)), SignedIn)

    async def test_another_users(self, house: House) -> None:
        bob = await house.user("bob")
        device = await trusting(house, await with_app(house, await house.user()))
        await with_app(house, bob)
        assert isinstance(await log_in(house, "bob", device=device), Challenge)

    @pytest.mark.parametrize("change", ["password", "app removed and set up", "passkey", "a new app"])
    async def test_ends_when_what_it_stood_on_changes(self, house: House, change: str) -> None:
        ann = await house.user()
        device = await trusting(house, await with_app(house, ann))
        context = house.context(ann, level=2)
        match change:
            case "password":
                await passwords.change(house.auth, context, PASSWORD, "other plain words")
                await passwords.change(house.auth, context, "other plain words", PASSWORD)
            case "app removed and set up":
                await totp.remove_totp(house.auth, context)
                await with_app(house, ann)
            case "passkey":
                await with_passkey(house, ann, level=2)
            case "a new app":
                await with_app(house, ann, level=2)
        assert await trusted(house, ann) == []
        assert isinstance(await log_in(house, device=device), Challenge)
        assert await devices.known(house.auth, ann, device)

    async def test_new_recovery_codes_change_nothing(self, house: House) -> None:
        ann = await house.user()
        device = await trusting(house, await with_app(house, ann))
        await regenerate_recovery_codes(house.auth, house.context(ann, level=2))
        assert isinstance(await log_in(house, device=device), SignedIn)


class TestRemove:
    async def test_one_of_them(self, house: House) -> None:
        ann = await house.user()
        app = await with_app(house, ann)
        one, other = await trusting(house, app), await trusting(house, app)
        listed = await trusted(house, ann)
        assert [it.id for it in listed] == [device_id("demo", ann.id, it.token) for it in (other, one)]
        assert await devices.remove_device(house.auth, house.context(ann), listed[1].id)
        assert isinstance(await log_in(house, device=one), Challenge)
        assert isinstance(await log_in(house, device=other), SignedIn)
        [row] = await house.rows("device.removed")
        assert row["resource"] == listed[1].id

    async def test_another_users(self, house: House) -> None:
        ann = await house.user()
        await trusting(house, await with_app(house, ann))
        [device] = await trusted(house, ann)
        stranger: Any
        for stranger in (await house.user("bob"), await house.user("ann", tenant="other")):
            assert not await devices.remove_device(house.auth, house.context(stranger), device.id)
            assert await trusted(house, stranger) == []
        assert await trusted(house, ann) == [device]
