"""Passkeys: made, used, renamed and removed; and what is refused of one that is not what it says."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from libs.core.errors import InvalidInput, RateLimited
from services.auth.commands import passkeys
from services.auth.commands.devices import Device
from services.auth.commands.factors import factors_of
from services.auth.commands.second_factor import Proof
from services.auth.commands.sign_in import Challenge
from services.auth.commands.tokens import SignedIn
from services.auth.domain.passkeys import (
    Passkey,
    PasskeyRefused,
    RelyingParty,
    challenge_of,
    check_assertion,
    check_registration,
    login_options,
    named_passkey,
    passkey_id,
    registration_options,
)
from services.auth.domain.users import User, UserStatus
from tests.auth.authenticator import ORIGIN, Authenticator, b64, unb64
from tests.auth.conftest import House
from tests.auth.factors import challenged, context_of, log_in, now, refusal, show, with_app, with_passkey

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PARTY = RelyingParty("localhost", "Demo", (ORIGIN, "http://localhost:5173"))
CHALLENGE = challenge_of("flow")


def options_for(user_id: str = "ann", challenge: bytes = CHALLENGE) -> dict[str, Any]:
    return registration_options(PARTY, user_id=user_id, account="a@b.c", name="", challenge=challenge, existing=())


def registered(device: Authenticator, user_id: str = "ann") -> Passkey:
    made = check_registration(PARTY, device.create(options_for(user_id)), CHALLENGE)
    return Passkey(
        id=passkey_id(made.credential_id),
        tenant_id="demo",
        user_id=user_id,
        credential_id=made.credential_id,
        public_key=made.public_key,
        sign_count=made.sign_count,
        name="Phone",
        synced=made.synced,
        backed_up=made.backed_up,
        transports=made.transports,
        aaguid=made.aaguid,
        created_at=NOW,
    )


class TestRegistration:
    def test_made(self) -> None:
        device = Authenticator()
        made = check_registration(PARTY, device.create(options_for()), CHALLENGE)
        assert made.credential_id == device.credentials[0].id
        assert made.synced
        assert made.backed_up
        assert made.user_verified
        assert made.transports == ("internal",)

    @pytest.mark.parametrize(
        ("device", "why"),
        [
            (Authenticator(origin="http://localhost.evil.example"), "another site"),
            (Authenticator(origin="http://localhost:9002"), "another port"),
            (Authenticator(rp_id="evil.example"), "another relying party"),
            (Authenticator(present=False), "nobody was there"),
            (Authenticator(framed=True), "in somebody's frame"),
        ],
    )
    def test_refused(self, device: Authenticator, why: str) -> None:
        with pytest.raises(PasskeyRefused):
            check_registration(PARTY, device.create(options_for()), CHALLENGE)

    def test_another_challenge(self) -> None:
        with pytest.raises(PasskeyRefused):
            check_registration(PARTY, Authenticator().create(options_for()), challenge_of("another flow"))

    def test_a_login_is_no_registration(self) -> None:
        device = Authenticator()
        registered(device)
        answer = device.get(login_options(PARTY, challenge=CHALLENGE, verify_user=True))
        with pytest.raises(PasskeyRefused):
            check_registration(PARTY, answer, CHALLENGE)

    @pytest.mark.parametrize(
        "answer",
        [
            {},
            {"id": 1, "rawId": [], "response": None},
            {"id": "", "rawId": "", "type": "public-key", "response": {"clientDataJSON": "", "attestationObject": ""}},
            {"id": "AA", "rawId": "AA", "type": "public-key", "response": {"clientDataJSON": b64(b"[" * 10_000)}},
        ],
        ids=["empty", "other types", "empty strings", "deep"],
    )
    def test_what_is_no_credential(self, answer: dict[str, Any]) -> None:
        with pytest.raises(PasskeyRefused):
            check_registration(PARTY, answer, CHALLENGE)

    def test_each_byte_of_the_attestation_counts_or_does_no_harm(self) -> None:
        """Flipped one by one: refused, or the same relying party, and never another kind of error."""
        device = Authenticator()
        answer = device.create(options_for())
        whole = unb64(answer["response"]["attestationObject"])
        for place in range(len(whole)):
            flipped = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
            changed = {**answer, "response": {**answer["response"], "attestationObject": b64(flipped)}}
            try:
                check_registration(PARTY, changed, CHALLENGE)
            except PasskeyRefused:
                continue

    def test_devices_that_have_one_are_left_out(self) -> None:
        passkey = registered(Authenticator())
        options = registration_options(
            PARTY, user_id="ann", account="a@b.c", name="Ann", challenge=CHALLENGE, existing=[passkey]
        )
        assert [c["id"] for c in options["excludeCredentials"]] == [b64(passkey.credential_id)]


class TestAssertion:
    def asserted(self, device: Authenticator, passkey: Passkey, **options: Any) -> Any:
        verify_user = options.pop("verify_user", True)
        asked = login_options(PARTY, challenge=CHALLENGE, allowed=[passkey], verify_user=verify_user)
        return check_assertion(PARTY, passkey, device.get(asked), CHALLENGE, verify_user=verify_user)

    def test_proves_its_user(self) -> None:
        device = Authenticator()
        assert self.asserted(device, registered(device)).user_verified

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"origin": "https://localhost:9001"}, "another scheme"),
            ({"origin": "http://evil.example"}, "another site"),
            ({"rp_id": "evil.example"}, "another relying party"),
            ({"present": False}, "nobody was there"),
            ({"verifies": False}, "somebody was there, and it was not asked who"),
            ({"framed": True}, "in somebody's frame"),
            ({"synced": False}, "it cannot have been backed up before, and not now"),
        ],
    )
    def test_refused(self, changes: dict[str, Any], why: str) -> None:
        device = Authenticator()
        passkey = registered(device)
        device.rp_id = ""
        for name, value in changes.items():
            setattr(device, name, value)
        asked = login_options(PARTY, challenge=CHALLENGE, verify_user=True)
        answer = device.get(asked, device.credentials[0])
        with pytest.raises(PasskeyRefused):
            check_assertion(PARTY, passkey, answer, CHALLENGE, verify_user=True)

    def test_who_is_there_need_not_be_verified_for_a_second_factor(self) -> None:
        device = Authenticator(verifies=False)
        assert not self.asserted(device, registered(device), verify_user=False).user_verified

    def test_another_challenge(self) -> None:
        device = Authenticator()
        passkey = registered(device)
        answer = device.get(login_options(PARTY, challenge=CHALLENGE, verify_user=True))
        with pytest.raises(PasskeyRefused):
            check_assertion(PARTY, passkey, answer, challenge_of("another flow"), verify_user=True)

    def test_signed_by_another_key(self) -> None:
        device, other = Authenticator(), Authenticator()
        passkey, others = registered(device), registered(other)
        answer = other.get(login_options(PARTY, challenge=CHALLENGE, verify_user=True))
        with pytest.raises(PasskeyRefused):
            check_assertion(PARTY, replace(others, public_key=passkey.public_key), answer, CHALLENGE, verify_user=True)

    def test_another_credentials_answer(self) -> None:
        device = Authenticator()
        passkey, second = registered(device), registered(device)
        answer = device.get(
            login_options(PARTY, challenge=CHALLENGE, allowed=[second], verify_user=True), device.credentials[1]
        )
        assert named_passkey(answer) == second.id
        with pytest.raises(PasskeyRefused):
            check_assertion(PARTY, passkey, answer, CHALLENGE, verify_user=True)

    def test_a_key_whose_device_says_it_is_anothers(self) -> None:
        device = Authenticator()
        passkey = registered(device, user_id="bob")
        with pytest.raises(PasskeyRefused):
            self.asserted(device, replace(passkey, user_id="ann"))

    def test_a_registration_is_no_login(self) -> None:
        device = Authenticator()
        passkey = registered(device)
        with pytest.raises(PasskeyRefused):
            check_assertion(PARTY, passkey, device.create(options_for()), CHALLENGE, verify_user=True)

    @pytest.mark.parametrize(
        ("stored", "said", "accepted", "why"),
        [
            (0, 0, True, "has no counter"),
            (5, 6, True, "grew"),
            (5, 5, False, "the same again: a copy, or a replay"),
            (5, 4, False, "went back"),
            (5, 0, False, "is gone"),
        ],
    )
    def test_counter(self, stored: int, said: int, accepted: bool, why: str) -> None:
        device = Authenticator()
        passkey = replace(registered(device), sign_count=stored)
        device.credentials[0].counter = said
        if accepted:
            assert self.asserted(device, passkey).sign_count == said, why
        else:
            with pytest.raises(PasskeyRefused, match="counter"):
                self.asserted(device, passkey)


class TestRelyingParty:
    @pytest.mark.parametrize(
        ("configured", "hosts", "public_url", "expected", "why"),
        [
            (
                ("", ()),
                ("casino.example", "www.casino.example", "casino.test"),
                "https://auth.example",
                ("casino.example", ("https://casino.example", "https://www.casino.example")),
                "the first host, and what is below it",
            ),
            (
                ("casino.example", ()),
                ("play.casino.example", "notcasino.example"),
                "https://auth.example",
                ("casino.example", ("https://play.casino.example",)),
                "a domain above the hosts",
            ),
            (("", ()), (), "http://127.0.0.1:9001", ("localhost", ("http://localhost:9001",)), "on a laptop"),
            (("", ()), (), "https://auth.example", ("auth.example", ("https://auth.example",)), "no hosts"),
            (
                ("localhost", ("http://localhost:5173",)),
                ("casino.example",),
                "https://auth.example",
                ("localhost", ("http://localhost:5173",)),
                "as configured",
            ),
        ],
    )
    def test_of(self, configured: Any, hosts: Any, public_url: str, expected: Any, why: str) -> None:
        party = RelyingParty.of(
            "Demo", configured_id=configured[0], configured_origins=configured[1], hosts=hosts, public_url=public_url
        )
        assert (party.id, party.origins) == expected, why


async def sign_in(house: House, device: Authenticator, *, tenant: str = "demo", **options: Any) -> SignedIn | Challenge:
    """With no more than the device."""
    context = house.context(tenant=tenant)
    started = await passkeys.start_login(house.auth, context)
    answer = device.get(started.options, **options)
    return await passkeys.finish_login(house.auth, context, started.flow_token, answer, Device())


class TestAdding:
    async def test_is_a_second_factor(self, house: House) -> None:
        ann = await house.user()
        passkey = await with_passkey(house, ann)
        assert (await now(house, ann)).second_factors == ("passkey",)
        assert isinstance(await log_in(house), Challenge)
        [event] = await house.events("mfa.enabled")
        assert event.data == {"user_id": ann.id, "method": "passkey", "methods": ["passkey"]}
        [row] = await house.rows("passkey.added")
        assert (row["resource"], row["after"]["name"]) == (passkey.id, "a phone")
        assert (await house.sent())[-1].params["what"] == "passkey_added"

    async def test_a_second_one(self, house: House) -> None:
        """Told to the user and the log; that there is a second factor is no news."""
        ann = await house.user()
        first = await with_passkey(house, ann)
        second = await with_passkey(house, ann, level=2)
        found = await factors_of(house.auth, ann.tenant_id, ann.id)
        assert {passkey.id for passkey in found.passkeys} == {first.id, second.id}
        assert len(await house.events("mfa.enabled")) == 1
        assert len(await house.rows("passkey.added")) == 2

    async def test_one_that_is_somebodys(self, house: House) -> None:
        """The same credential once more: by its user, by another, in another tenant."""
        ann, bob = await house.user(), await house.user("bob")
        stranger = await house.user("eve", tenant="other")
        device = Authenticator()
        await with_passkey(house, ann, device)
        for user, level in ((ann, 2), (bob, 1), (stranger, 1)):
            context = house.context(user, level=level)
            started = await passkeys.start_registration(house.auth, context)
            answer = device.create(started.options, device.credentials[0])
            asked = passkeys.finish_registration(house.auth, context, started.flow_token, answer, "mine")
            assert await refusal(asked) == "PASSKEY_TAKEN"
        assert (await now(house, bob)).second_factors == ()

    async def test_the_answer_of_another_users_flow(self, house: House) -> None:
        ann, bob = await house.user(), await house.user("bob")
        started = await passkeys.start_registration(house.auth, house.context(ann))
        answer = Authenticator().create(started.options)
        asked = passkeys.finish_registration(house.auth, house.context(bob), started.flow_token, answer, "mine")
        assert await refusal(asked) == "FLOW_OVER"

    async def test_one_answer_twice(self, house: House) -> None:
        ann = await house.user()
        context = house.context(ann)
        started = await passkeys.start_registration(house.auth, context)
        answer = Authenticator().create(started.options)
        outcomes = await asyncio.gather(
            *(passkeys.finish_registration(house.auth, context, started.flow_token, answer, "mine") for _ in range(3)),
            return_exceptions=True,
        )
        assert [isinstance(outcome, passkeys.Registered) for outcome in outcomes].count(True) == 1

    async def test_no_more_than_twenty(self, house: House) -> None:
        ann = await house.user()
        passkey = await with_passkey(house, ann)
        row = await house.auth.database["passkeys"].find_one({"_id": passkey.id})
        assert row
        await house.auth.database["passkeys"].insert_many([row | {"_id": f"more-{n}"} for n in range(19)])
        asked = passkeys.start_registration(house.auth, house.context(ann, level=2))
        assert await refusal(asked) == "PASSKEY_LIMIT"


class TestSigningIn:
    async def test_with_no_name_and_no_password(self, house: House) -> None:
        ann, device = await house.user(), Authenticator()
        passkey = await with_passkey(house, ann, device)
        signed_in = await sign_in(house, device)
        assert isinstance(signed_in, SignedIn)
        context = await context_of(house, signed_in)
        assert (context.caller.subject, context.caller.level) == (ann.id, 2)
        [row] = await house.rows("login.succeeded")
        assert row["after"]["methods"] == ["swk", "mfa"]
        found = await factors_of(house.auth, ann.tenant_id, ann.id)
        assert found.passkeys[0].last_used_at == house.clock.now()
        assert found.passkeys[0].id == passkey.id

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"verifies": False}, "holding the device is one factor"),
            ({"present": False}, "nobody was there"),
            ({"origin": "https://evil.example"}, "another site"),
            ({"rp_id": "evil.example"}, "another relying party"),
        ],
    )
    async def test_refused(self, house: House, changes: dict[str, Any], why: str) -> None:
        ann, device = await house.user(), Authenticator()
        await with_passkey(house, ann, device)
        hostile = replace(device, **changes)
        assert await refusal(sign_in(house, hostile, credential=device.credentials[0])) == "PASSKEY_REFUSED", why
        [row] = await house.rows("login.failed")
        assert row["reason"] == "passkey_refused"

    async def test_one_that_nobody_has(self, house: House) -> None:
        ann, device = await house.user(), Authenticator()
        passkey = await with_passkey(house, ann, device)
        await passkeys.remove_passkey(house.auth, house.context(ann, level=2), passkey.id)
        assert await refusal(sign_in(house, device)) == "PASSKEY_REFUSED"

    async def test_in_another_tenant(self, house: House) -> None:
        device = Authenticator()
        await with_passkey(house, await house.user(), device)
        assert await refusal(sign_in(house, device, tenant="other")) == "PASSKEY_REFUSED"

    async def test_an_answer_once_more(self, house: House) -> None:
        device = Authenticator()
        await with_passkey(house, await house.user(), device)
        started = await passkeys.start_login(house.auth, house.context())
        answer = device.get(started.options)
        assert await passkeys.finish_login(house.auth, house.context(), started.flow_token, answer, Device())
        again = passkeys.finish_login(house.auth, house.context(), started.flow_token, answer, Device())
        assert await refusal(again) == "FLOW_OVER"
        other = await passkeys.start_login(house.auth, house.context())
        elsewhere = passkeys.finish_login(house.auth, house.context(), other.flow_token, answer, Device())
        assert await refusal(elsewhere) == "PASSKEY_REFUSED"

    async def test_twenty_at_once_with_one_answer(self, house: House) -> None:
        device = Authenticator()
        await with_passkey(house, await house.user(), device)
        started = await passkeys.start_login(house.auth, house.context())
        answer = device.get(started.options)
        outcomes = await asyncio.gather(
            *(
                passkeys.finish_login(house.auth, house.context(), started.flow_token, answer, Device())
                for _ in range(20)
            ),
            return_exceptions=True,
        )
        assert [isinstance(outcome, SignedIn) for outcome in outcomes].count(True) == 1

    async def test_a_copy(self, house: House) -> None:
        """Two devices with one key: its counter tells, as soon as the second is used."""
        ann, device = await house.user(), Authenticator(counts=True)
        await with_passkey(house, ann, device)
        copied = replace(device.credentials[0])
        assert await sign_in(house, device)
        assert await refusal(sign_in(house, device, credential=copied)) == "PASSKEY_REFUSED"
        assert await sign_in(house, device)

    async def test_beginning_without_end(self, new_house: Any) -> None:
        """Each is a document: one address gets to make so many."""
        house = await new_house(passkey_logins_per_h=3)
        for _ in range(3):
            await passkeys.start_login(house.auth, house.context())
        with pytest.raises(RateLimited):
            await passkeys.start_login(house.auth, house.context())
        assert await passkeys.start_login(house.auth, house.context(address="198.51.100.7"))

    async def test_somebody_who_is_suspended(self, house: House) -> None:
        ann, device = await house.user(), Authenticator()
        await with_passkey(house, ann, device)
        await suspend(house, ann)
        assert await refusal(sign_in(house, device)) == "ACCOUNT_SUSPENDED"


class TestAsSecondFactor:
    async def test_after_the_password(self, house: House) -> None:
        ann, device = await house.user(), Authenticator(verifies=False)
        await with_passkey(house, ann, device)
        challenge = await challenged(house)
        options = await passkeys.second_factor_options(house.auth, house.context(), challenge.flow_token)
        assert options
        signed_in = await show(house, challenge, Proof(passkey=device.get(options)))
        assert (await context_of(house, signed_in)).caller.level == 2

    async def test_another_users(self, house: House) -> None:
        ann, bob, device = await house.user(), await house.user("bob"), Authenticator()
        await with_passkey(house, ann)
        await with_passkey(house, bob, device)
        challenge = await challenged(house)
        options = await passkeys.second_factor_options(house.auth, house.context(), challenge.flow_token)
        assert options
        answer = device.get(options, device.credentials[0])
        assert await refusal(show(house, challenge, Proof(passkey=answer))) == "SECOND_FACTOR_WRONG"
        answer["response"]["userHandle"] = b64(ann.id.encode())
        assert await refusal(show(house, challenge, Proof(passkey=answer))) == "SECOND_FACTOR_WRONG"

    async def test_an_answer_for_another_flow(self, house: House) -> None:
        """A login without a password is another matter, and so is a second login."""
        device = Authenticator()
        await with_passkey(house, await house.user(), device)
        first, second = await challenged(house), await challenged(house)
        options = await passkeys.second_factor_options(house.auth, house.context(), first.flow_token)
        assert options
        answer = device.get(options)
        assert await refusal(show(house, second, Proof(passkey=answer))) == "SECOND_FACTOR_WRONG"
        login = passkeys.finish_login(house.auth, house.context(), first.flow_token, answer, Device())
        assert await refusal(login) == "FLOW_OVER"
        assert await show(house, first, Proof(passkey=answer))

    async def test_nothing_to_ask_for(self, house: House) -> None:
        await with_app(house, await house.user())
        challenge = await challenged(house)
        assert await passkeys.second_factor_options(house.auth, house.context(), challenge.flow_token) is None


class TestManaging:
    async def test_renamed(self, house: House) -> None:
        ann = await house.user()
        passkey = await with_passkey(house, ann)
        renamed = await passkeys.rename_passkey(house.auth, house.context(ann), passkey.id, " The blue key ")
        assert renamed.name == "The blue key"
        found = await factors_of(house.auth, ann.tenant_id, ann.id)
        assert [it.name for it in found.passkeys] == ["The blue key"]

    @pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\nb", "a\u202eb"])
    async def test_what_is_no_name(self, house: House, name: str) -> None:
        with pytest.raises(InvalidInput):
            await passkeys.rename_passkey(house.auth, house.context(await house.user()), "an-id", name)

    async def test_another_users(self, house: House) -> None:
        ann, bob = await house.user(), await house.user("bob")
        stranger = await house.user("ann", tenant="other")
        passkey = await with_passkey(house, ann)
        for other in (bob, stranger):
            context = house.context(other, level=2)
            assert await refusal(passkeys.rename_passkey(house.auth, context, passkey.id, "x")) == "FACTOR_NOT_FOUND"
            assert await refusal(passkeys.remove_passkey(house.auth, context, passkey.id)) == "FACTOR_NOT_FOUND"
        assert (await now(house, ann)).second_factors == ("passkey",)

    async def test_removed(self, house: House) -> None:
        ann = await house.user()
        first, second = await with_passkey(house, ann), await with_passkey(house, ann, level=2)
        context = house.context(ann, level=2)
        await passkeys.remove_passkey(house.auth, context, first.id)
        assert (await now(house, ann)).second_factors == ("passkey",)
        assert await house.events("mfa.disabled") == []
        await passkeys.remove_passkey(house.auth, context, second.id)
        assert (await now(house, ann)).second_factors == ()
        assert len(await house.events("mfa.disabled")) == 1

    async def test_the_last_way_in_is_kept(self, house: House) -> None:
        ann = await house.user(email="", password="")
        first, second = await with_passkey(house, ann), await with_passkey(house, ann, level=2)
        context = house.context(ann, level=2)
        await passkeys.remove_passkey(house.auth, context, first.id)
        assert await refusal(passkeys.remove_passkey(house.auth, context, second.id)) == "LAST_WAY_IN"
        assert (await now(house, ann)).second_factors == ("passkey",)


async def suspend(house: House, user: User) -> None:
    row = {"status": UserStatus.SUSPENDED.value}
    await house.auth.database["users"].update_one({"_id": user.key}, {"$set": row})
