"""What a proven identity opens: whom it signs in, whom it is linked to, and when it can be taken away.

The way to the provider and back is in `test_oauth.py`; here it has just been gone.
"""

import asyncio
from dataclasses import asdict
from typing import Any

import pytest
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from libs.core.context import Context
from libs.core.errors import NotFound, RateLimited, Refusal
from services.auth.commands import flows, identities, oauth
from services.auth.commands.devices import Device
from services.auth.commands.oauth import Trip
from services.auth.commands.sign_in import Challenge
from services.auth.commands.tokens import SignedIn
from services.auth.domain.flows import FlowKind
from services.auth.domain.identities import Proven, signs_in_without
from services.auth.domain.users import User, UserStatus
from services.auth.store import identities as stored, users
from tests.auth.conftest import House

ISSUER = "https://idp.example"
VERIFIER = "v" * 43
CHALLENGE = str(create_s256_code_challenge(VERIFIER))
RETURN_URL = "https://app.example/signed-in"
CONFIG: dict[str, Any] = {
    "identity_providers": [{"id": "idp", "issuer": ISSUER, "client_id": "platform"}],
    "return_urls": [RETURN_URL],
}


@pytest.fixture
async def house(new_house: Any) -> House:
    return await new_house(**CONFIG)  # type: ignore[no-any-return]


async def code(house: House, subject: str = "ann", *, user: User | None = None, **proven: Any) -> str:
    """Of somebody who has just come back: to be linked to `user`'s session, if there is one."""
    data = {
        "proven": asdict(Proven(ISSUER, subject, **proven)),
        "challenge": CHALLENGE,
        "provider_id": "idp",
        "session_id": "s1" if user else "",
    }
    kind, context = FlowKind.OAUTH_CODE, house.context()
    token, _ = await flows.begin(house.auth, context, kind, user_id=user.id if user else "", data=data)
    return token


async def finish(house: House, subject: str = "ann", **proven: Any) -> SignedIn | Challenge:
    token = await code(house, subject, **proven)
    return await oauth.finish(house.auth, house.context(), token, VERIFIER, device=Device())


async def link(house: House, user: User, subject: str = "ann", **proven: Any) -> str:
    """The id of the identity."""
    token = await code(house, subject, user=user, **proven)
    linked = await identities.finish_link(house.auth, house.context(user), token, VERIFIER)
    return linked.id


async def start_link(house: House, context: Context) -> identities.LinkStarted:
    return await identities.start_link(house.auth, context, "idp", RETURN_URL, CHALLENGE)


class TestFinish:
    async def test_somebody_new(self, house: House) -> None:
        signed_in = await finish(house, email="ann@example.com", name="Ann", locale="de-AT")
        assert isinstance(signed_in, SignedIn)
        user = signed_in.user
        assert (user.email, user.name, user.locale, user.roles) == ("ann@example.com", "Ann", "de-AT", ("player",))
        assert [row["action"] for row in await house.rows()] == [
            "user.registered", "user.verified", "identity.linked", "login.succeeded",
        ]  # fmt: skip
        (registered,) = await house.events("user.registered")
        assert registered.data["method"] == "oauth"

    async def test_it_is_one_factor(self, house: House) -> None:
        signed_in = await finish(house)
        assert isinstance(signed_in, SignedIn)
        caller = (await house.of_token(signed_in)).caller
        assert caller.level == 1
        (told,) = await house.events("login.succeeded")
        assert told.data["methods"] == ["fed"]

    async def test_when_it_was_used_last(self, house: House) -> None:
        await finish(house)
        house.clock.advance(days=3)
        signed_in = await finish(house)
        assert isinstance(signed_in, SignedIn)
        (identity,) = await identities.mine(house.auth, house.context(signed_in.user))
        assert (identity.last_used_at - identity.linked_at).days == 3

    async def test_whose_address_somebody_has(self, house: House) -> None:
        owner = await house.user("ann")
        with pytest.raises(Refusal, match="there is an account") as refusal:
            await finish(house, email="ann@example.com")
        assert refusal.value.code == "IDENTITY_NOT_LINKED"
        assert await identities.mine(house.auth, house.context(owner)) == []
        (failed,) = await house.events("login.failed")
        assert (failed.data["user_id"], failed.data["reason"]) == (owner.id, "oauth.not_linked")

    async def test_whose_address_somebody_has_at_another_tenant(self, house: House) -> None:
        await house.user("ann", tenant="other")
        assert isinstance(await finish(house, email="ann@example.com"), SignedIn)

    async def test_a_suspended_user(self, house: House) -> None:
        signed_in = await finish(house)
        assert isinstance(signed_in, SignedIn)
        await change(house, signed_in.user, status=UserStatus.SUSPENDED)
        with pytest.raises(Refusal) as refusal:
            await finish(house)
        assert refusal.value.code == "ACCOUNT_SUSPENDED"

    async def test_a_user_with_a_second_factor(self, house: House) -> None:
        signed_in = await finish(house)
        assert isinstance(signed_in, SignedIn)
        await change(house, signed_in.user, second_factors=("totp",))
        assert isinstance(await finish(house), Challenge)

    async def test_a_deleted_users_identity_is_somebody_new(self, house: House) -> None:
        first = await finish(house)
        assert isinstance(first, SignedIn)
        user = first.user
        await house.auth.platform.mongo.transaction(
            lambda session: stored.delete_of(house.auth.database, session, user.tenant_id, user.id)
        )
        second = await finish(house)
        assert isinstance(second, SignedIn)
        assert second.user.id != user.id

    async def test_first_logins_at_once_in_two_processes(self, house: House, new_house: Any) -> None:
        houses = [house, await new_house(), house, await new_house()]
        done = await asyncio.gather(*(finish(one, email="ann@example.com") for one in houses))
        assert len({signed_in.user.id for signed_in in done if isinstance(signed_in, SignedIn)}) == 1
        assert len(await house.rows("user.registered")) == 1

    async def test_too_late(self, house: House) -> None:
        token = await code(house)
        house.clock.advance(minutes=16)
        with pytest.raises(Refusal) as refusal:
            await oauth.finish(house.auth, house.context(), token, VERIFIER, device=Device())
        assert refusal.value.code == "FLOW_OVER"

    async def test_at_another_tenant(self, house: House) -> None:
        token = await code(house)
        with pytest.raises(Refusal) as refusal:
            await oauth.finish(house.auth, house.context(tenant="other"), token, VERIFIER, device=Device())
        assert refusal.value.code == "FLOW_OVER"


class TestSettingOut:
    @pytest.mark.parametrize(
        ("return_url", "back"),
        [
            (RETURN_URL, f"{RETURN_URL}?code=x&state=a+b%26c"),
            ("https://app.example/?page=in", "https://app.example/?page=in&code=x&state=a+b%26c"),
            ("com.example.app:/in", "com.example.app:/in?code=x&state=a+b%26c"),
            ("com.example.app://host/in", "com.example.app://host/in?code=x&state=a+b%26c"),
        ],
    )
    async def test_the_way_back(self, return_url: str, back: str) -> None:
        assert oauth.address_with(Trip("idp", return_url, CHALLENGE, "a b&c"), code="x") == back

    async def test_so_many_from_an_address(self, new_house: Any) -> None:
        house = await new_house(**CONFIG, oauth_starts_per_h=1)
        trip = Trip("idp", RETURN_URL, CHALLENGE)
        with pytest.raises(Refusal):  # nobody is there
            await oauth.set_out(house.auth, house.context(), trip, "")
        with pytest.raises(RateLimited):
            await oauth.set_out(house.auth, house.context(), trip, "")


class TestLinking:
    async def test_needs_a_fresh_login(self, house: House) -> None:
        user = await house.user("ann")
        stale = house.context(user)
        house.clock.advance(minutes=6)
        with pytest.raises(Refusal) as refusal:
            await start_link(house, stale)
        assert refusal.value.code == "REAUTHENTICATION_REQUIRED"

    async def test_needs_both_factors_of_who_has_two(self, house: House) -> None:
        user = await house.user("ann", second_factors=("totp",))
        with pytest.raises(Refusal) as refusal:
            await start_link(house, house.context(user))
        assert refusal.value.code == "REAUTHENTICATION_REQUIRED"
        assert (await start_link(house, house.context(user, level=2))).provider_id == "idp"

    async def test_is_no_keys(self, house: House) -> None:
        user = await house.user("ann")
        with pytest.raises(Refusal):
            await start_link(house, house.context(user, scopes=("identity:manage:own",)))

    async def test_is_told_to_its_owner(self, house: House) -> None:
        user = await house.user("ann")
        await link(house, user)
        assert (await house.sent())[-1].params["what"] == "identity_linked"
        (row,) = await house.rows("identity.linked")
        assert (row["actor"], row["after"]) == (user.id, {"issuer": ISSUER})

    async def test_signs_in_from_then_on(self, house: House) -> None:
        user = await house.user("ann")
        await link(house, user)
        signed_in = await finish(house)
        assert isinstance(signed_in, SignedIn)
        assert signed_in.user.id == user.id

    async def test_an_address_of_its_own_changes_nothing(self, house: House) -> None:
        """The identity's address is not the user's: nobody asked them whether it should be."""
        user = await house.user("ann")
        await link(house, user, email="elsewhere@example.com")
        there = await users.load(house.auth.database, None, user.tenant_id, user.id)
        assert there
        assert there.email == "ann@example.com"

    async def test_of_two_users_at_once_one_has_it(self, house: House, new_house: Any) -> None:
        other = await new_house()
        ann, ben = await house.user("ann"), await house.user("ben")
        done = await asyncio.gather(link(house, ann), link(other, ben), return_exceptions=True)
        (lost,) = [outcome for outcome in done if isinstance(outcome, BaseException)]
        assert isinstance(lost, Refusal)
        assert lost.code == "IDENTITY_TAKEN"

    async def test_a_user_who_was_suspended_meanwhile(self, house: House) -> None:
        user = await house.user("ann")
        token = await code(house, user=user)
        await change(house, user, status=UserStatus.SUSPENDED)
        with pytest.raises(Refusal) as refusal:
            await identities.finish_link(house.auth, house.context(user), token, VERIFIER)
        assert refusal.value.code == "FLOW_OVER"


class TestUnlinking:
    async def test_needs_a_fresh_login(self, house: House) -> None:
        user = await house.user("ann")
        identity_id, stale = await link(house, user), house.context(user)
        house.clock.advance(minutes=6)
        with pytest.raises(Refusal) as refusal:
            await identities.unlink(house.auth, stale, identity_id)
        assert refusal.value.code == "REAUTHENTICATION_REQUIRED"

    async def test_anothers(self, house: House) -> None:
        identity_id = await link(house, await house.user("ann"))
        with pytest.raises(NotFound):
            await identities.unlink(house.auth, house.context(await house.user("ben")), identity_id)

    async def test_two_at_once_leave_one(self, house: House, new_house: Any) -> None:
        """Each is the other way in of the other."""
        other = await new_house()
        user = await house.user("ann", password="", email="", username="")
        first, second = await link(house, user, "first"), await link(house, user, "second")
        done = await asyncio.gather(
            identities.unlink(house.auth, house.context(user), first),
            identities.unlink(other.auth, other.context(user), second),
            return_exceptions=True,
        )
        (lost,) = [outcome for outcome in done if isinstance(outcome, BaseException)]
        assert isinstance(lost, Refusal)
        assert lost.code in ("LAST_WAY_IN", "USER_CHANGED")
        assert len(await identities.mine(house.auth, house.context(user))) == 1


class TestWaysIn:
    @pytest.mark.parametrize(
        ("fields", "others", "left"),
        [
            ({}, 0, False),
            ({}, 1, True),
            ({"email": "ann@example.com"}, 0, True),
            ({"phone": "+436641234567"}, 0, True),
            ({"username": "ann"}, 0, False),
            ({"username": "ann", "password": "$argon2id$"}, 0, True),
            ({"second_factors": ("totp",)}, 0, False),
            ({"second_factors": ("passkey",)}, 0, True),
        ],
    )
    async def test_besides_one_identity(self, clock: Any, fields: dict[str, Any], others: int, left: bool) -> None:
        assert signs_in_without(User("demo", "ann", clock.now(), **fields), others) is left


async def change(house: House, user: User, **fields: Any) -> None:
    await house.auth.database["users"].update_one(
        {"_id": user.key}, {"$set": {**fields, **({"status": fields["status"].value} if "status" in fields else {})}}
    )
