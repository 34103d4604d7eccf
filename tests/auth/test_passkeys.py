"""Passkeys: made, used, renamed and removed; and what is refused of one that is not what it says."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

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
from tests.auth.authenticator import ORIGIN, Authenticator, b64, unb64

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
