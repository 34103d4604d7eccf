"""An authenticator app: its codes, and setting it up and taking it away."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyotp
import pytest
from hypothesis import given, strategies as st

from libs.core.crypto import SecretBox
from libs.core.errors import Misconfigured, Refusal, Unauthenticated
from services.auth.commands import passkeys, totp
from services.auth.commands.factors import factors_of
from services.auth.commands.fresh import demand_fresh
from services.auth.commands.recovery_codes import regenerate_recovery_codes
from services.auth.commands.second_factor import Proof
from services.auth.commands.sign_in import Challenge
from services.auth.commands.tokens import SignedIn
from services.auth.domain.totp import STEP_S, accepted_step, new_totp_secret, provisioning_uri, step_of
from services.auth.domain.users import UserStatus
from tests.auth.authenticator import Authenticator
from tests.auth.conftest import House
from tests.auth.factors import App, challenged, log_in, now, refusal, show, with_app, with_passkey

SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"  # RFC 6238's, "12345678901234567890"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def code_at(at: datetime, secret: str = SECRET) -> str:
    return pyotp.TOTP(secret).at(at)


class TestAcceptedStep:
    @pytest.mark.parametrize(
        ("seconds", "code"),
        [
            (59, "287082"),
            (1111111109, "081804"),
            (1111111111, "050471"),
            (1234567890, "005924"),
            (2000000000, "279037"),
            (20000000000, "353130"),
        ],
    )
    def test_the_rfcs_own_examples(self, seconds: int, code: str) -> None:
        at = datetime.fromtimestamp(seconds, UTC)
        assert accepted_step(SECRET, code, at, last_step=0) == seconds // STEP_S

    @pytest.mark.parametrize(
        ("steps_off", "accepted"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)], ids=str
    )
    def test_a_clock_that_is_off(self, steps_off: int, accepted: bool) -> None:
        shown = code_at(NOW + timedelta(seconds=STEP_S * steps_off))
        found = accepted_step(SECRET, shown, NOW, last_step=0)
        assert found == (step_of(NOW) + steps_off if accepted else None)

    def test_a_step_that_was_used(self) -> None:
        assert accepted_step(SECRET, code_at(NOW), NOW, last_step=step_of(NOW)) is None

    def test_a_step_before_one_that_was_used(self) -> None:
        earlier = code_at(NOW - timedelta(seconds=STEP_S))
        assert accepted_step(SECRET, earlier, NOW, last_step=step_of(NOW)) is None

    def test_the_step_after_one_that_was_used(self) -> None:
        assert accepted_step(SECRET, code_at(NOW), NOW, last_step=step_of(NOW) - 1) == step_of(NOW)

    def test_as_apps_show_it_with_a_blank(self) -> None:
        code = code_at(NOW)
        assert accepted_step(SECRET, f"{code[:3]} {code[3:]}", NOW, last_step=0) == step_of(NOW)

    @pytest.mark.parametrize("code", ["", "12345", "1234567", "12345a", "１２３４５６", "123456\n", "null", "-12345"])
    def test_what_is_no_code(self, code: str) -> None:
        assert accepted_step(SECRET, code, NOW, last_step=0) is None

    def test_another_secrets_code(self) -> None:
        other = new_totp_secret()
        shown = {code_at(NOW + timedelta(seconds=STEP_S * n)) for n in (-1, 0, 1)}
        code = code_at(NOW, other)
        assert code in shown or accepted_step(SECRET, code, NOW, last_step=0) is None


class TestSteps:
    @given(st.lists(st.tuples(st.integers(0, 90), st.integers(-2, 2)), max_size=30))
    def test_only_ever_forwards(self, moves: list[tuple[int, int]]) -> None:
        """Whatever codes are shown, whenever: each step is taken once, none after a later one, none from afar."""
        at, taken = NOW, [0]
        for seconds, steps_off in moves:
            at += timedelta(seconds=seconds)
            shown = code_at(at + timedelta(seconds=STEP_S * steps_off))
            step = accepted_step(SECRET, shown, at, last_step=taken[-1])
            if step is not None:
                assert step > taken[-1]
                assert abs(step - step_of(at)) <= 1
                assert accepted_step(SECRET, shown, at, last_step=step) is None
                taken.append(step)


class TestProvisioning:
    def test_an_app_reads_back_what_we_mean(self) -> None:
        read = pyotp.parse_uri(provisioning_uri(SECRET, issuer="Lucky: Casino & Co", account="ann+1@example.com"))
        assert isinstance(read, pyotp.TOTP)
        assert (read.secret, read.name, read.issuer) == (SECRET, "ann+1@example.com", "Lucky  Casino & Co")
        assert (read.digits, read.interval) == (6, STEP_S)

    def test_secrets_have_160_bits(self) -> None:
        assert len(pyotp.TOTP(new_totp_secret()).byte_secret()) == 20
        assert new_totp_secret() != new_totp_secret()


class TestSetup:
    async def test_counts_once_it_is_confirmed(self, house: House) -> None:
        ann = await house.user()
        setup = await totp.start_totp(house.auth, house.context(ann))
        assert (await now(house, ann)).second_factors == ()
        assert isinstance(await log_in(house), SignedIn)

        codes = await totp.confirm_totp(house.auth, house.context(ann), setup.flow_token, App(house, setup.secret).code)
        assert len(codes) == 10
        assert (await now(house, ann)).second_factors == ("totp",)
        assert isinstance(await log_in(house), Challenge)

    async def test_everybody_is_told_and_so_is_the_user(self, house: House) -> None:
        ann = await house.user()
        await with_app(house, ann)
        [event] = await house.events("mfa.enabled")
        assert event.data == {"user_id": ann.id, "method": "totp", "methods": ["totp"]}
        [row] = await house.rows("totp.enabled")
        assert (row["actor"], row["origin"], row["after"]) == (ann.id, "192.0.2.1", {"secondFactors": ["totp"]})
        assert (await house.sent())[-1].params["what"] == "totp_enabled"

    async def test_the_uri_names_tenant_and_account(self, house: House) -> None:
        setup = await totp.start_totp(house.auth, house.context(await house.user()))
        read = pyotp.parse_uri(setup.uri)
        assert (read.secret, read.issuer, read.name) == (setup.secret, "demo", "ann@example.com")

    async def test_a_wrong_code(self, house: House) -> None:
        ann = await house.user()
        setup = await totp.start_totp(house.auth, house.context(ann))
        app = App(house, setup.secret)
        assert (
            await refusal(totp.confirm_totp(house.auth, house.context(ann), setup.flow_token, app.wrong))
            == "CODE_WRONG"
        )
        assert await totp.confirm_totp(house.auth, house.context(ann), setup.flow_token, app.code)

    async def test_five_wrong_codes(self, house: House) -> None:
        ann = await house.user()
        setup = await totp.start_totp(house.auth, house.context(ann))
        app = App(house, setup.secret)
        for _ in range(5):
            await refusal(totp.confirm_totp(house.auth, house.context(ann), setup.flow_token, app.wrong))
        assert (
            await refusal(totp.confirm_totp(house.auth, house.context(ann), setup.flow_token, app.code)) == "FLOW_OVER"
        )

    async def test_twice_at_once(self, house: House) -> None:
        ann = await house.user()
        setup = await totp.start_totp(house.auth, house.context(ann))
        code = App(house, setup.secret).code
        outcomes = await asyncio.gather(
            *(totp.confirm_totp(house.auth, house.context(ann), setup.flow_token, code) for _ in range(4)),
            return_exceptions=True,
        )
        assert [isinstance(outcome, list) for outcome in outcomes].count(True) == 1

    @pytest.mark.parametrize("changes", [{"session_id": "s2"}], ids=["another session"])
    async def test_a_flow_of_another_session(self, house: House, changes: dict[str, str]) -> None:
        ann = await house.user()
        setup = await totp.start_totp(house.auth, house.context(ann))
        code = App(house, setup.secret).code
        asked = totp.confirm_totp(house.auth, house.context(ann, **changes), setup.flow_token, code)
        assert await refusal(asked) == "FLOW_OVER"

    async def test_a_flow_of_another_user(self, house: House) -> None:
        ann, bob = await house.user(), await house.user("bob")
        setup = await totp.start_totp(house.auth, house.context(ann))
        code = App(house, setup.secret).code
        assert await refusal(totp.confirm_totp(house.auth, house.context(bob), setup.flow_token, code)) == "FLOW_OVER"
        assert (await now(house, bob)).second_factors == ()

    async def test_a_flow_of_another_tenant(self, house: House) -> None:
        ann = await house.user()
        stranger = await house.user("ann", tenant="other")
        setup = await totp.start_totp(house.auth, house.context(ann))
        code = App(house, setup.secret).code
        assert ann.id == stranger.id
        asked = totp.confirm_totp(house.auth, house.context(stranger), setup.flow_token, code)
        assert await refusal(asked) == "FLOW_OVER"

    async def test_the_secret_is_nowhere_in_the_clear(self, house: House) -> None:
        app = await with_app(house, await house.user())
        for name in await house.auth.database.list_collection_names():
            async for row in house.auth.database[name].find():
                assert app.secret not in str(row), name

    async def test_another_users_sealed_secret_opens_nothing(self, house: House) -> None:
        """Whoever writes to the database cannot give their own app to another."""
        ann, bob = await house.user(), await house.user("bob")
        await with_app(house, ann)
        mallory = await with_app(house, bob)
        row = await house.auth.database["totp"].find_one({"user_id": bob.id})
        assert row
        await house.auth.database["totp"].update_one({"user_id": ann.id}, {"$set": {"sealed": row["sealed"]}})
        with pytest.raises(Misconfigured):
            await show(house, await challenged(house), Proof(totp=mallory.code))

    async def test_begun_with_one_factor_and_confirmed_when_there_are_two(self, house: House) -> None:
        """A stolen session begins, its owner adds a passkey: the thief's app comes too late."""
        ann = await house.user()
        thief = house.context(ann, session_id="stolen")
        setup = await totp.start_totp(house.auth, thief)
        passkey = await passkeys.start_registration(house.auth, thief)
        await with_passkey(house, ann)
        code = App(house, setup.secret).code
        asked = totp.confirm_totp(house.auth, thief, setup.flow_token, code)
        assert await refusal(asked) == "REAUTHENTICATION_REQUIRED"
        answer = Authenticator().create(passkey.options)
        added = passkeys.finish_registration(house.auth, thief, passkey.flow_token, answer, "mine")
        assert await refusal(added) == "REAUTHENTICATION_REQUIRED"
        assert (await now(house, ann)).second_factors == ("passkey",)

    async def test_another_app_takes_its_place(self, house: House) -> None:
        ann = await house.user()
        old = await with_app(house, ann)
        new = await with_app(house, ann, level=2)
        assert new.recovery_codes == []
        assert len(await house.events("mfa.enabled")) == 1
        assert await refusal(show(house, await challenged(house), Proof(totp=old.code))) == "SECOND_FACTOR_WRONG"
        assert await show(house, await challenged(house), Proof(totp=new.code))


class TestFresh:
    @pytest.mark.parametrize(
        ("caller", "rule", "why"),
        [
            ({"age_s": 301, "level": 2}, "authentication.fresh", "too long ago"),
            ({"age_s": 0, "level": 1}, "authentication.level", "the password alone"),
            ({"age_s": None, "level": 2}, "authentication.fresh", "never"),
            ({"age_s": 0, "level": 2, "scopes": ()}, "authentication.fresh", "a key and nobody"),
        ],
    )
    async def test_what_is_not(self, house: House, caller: dict[str, Any], rule: str, why: str) -> None:
        ann = await house.user()
        await with_app(house, ann)
        age_s = caller.pop("age_s")
        at = None if age_s is None else house.clock.now() - timedelta(seconds=age_s)
        context = house.context(ann, authenticated_at=at, **caller)
        for asked in (totp.start_totp, totp.remove_totp, passkeys.start_registration, regenerate_recovery_codes):
            with pytest.raises(Refusal) as caught:
                await asked(house.auth, context)
            assert (caught.value.code, caught.value.rule) == ("REAUTHENTICATION_REQUIRED", rule), why

    async def test_the_first_factor_of_all_needs_it_too(self, house: House) -> None:
        ann = await house.user()
        context = house.context(ann, authenticated_at=house.clock.now() - timedelta(seconds=301))
        assert await refusal(totp.start_totp(house.auth, context)) == "REAUTHENTICATION_REQUIRED"

    async def test_two_are_demanded_of_somebody_who_has_one(self, house: House) -> None:
        context = house.context(await house.user())
        assert await refusal(demand_fresh(house.auth, context, level=2)) == "SECOND_FACTOR_MISSING"

    async def test_somebody_suspended_meanwhile(self, house: House) -> None:
        ann = await house.user(status=UserStatus.SUSPENDED)
        with pytest.raises(Unauthenticated):
            await demand_fresh(house.auth, house.context(ann))


class TestRemove:
    async def test_a_password_alone_lets_them_in_again(self, house: House) -> None:
        ann = await house.user()
        await with_app(house, ann)
        await totp.remove_totp(house.auth, house.context(ann, level=2))
        assert (await now(house, ann)).second_factors == ()
        assert isinstance(await log_in(house), SignedIn)
        [event] = await house.events("mfa.disabled")
        assert event.data == {"user_id": ann.id, "method": "totp", "methods": []}
        assert (await house.sent())[-1].params["what"] == "totp_disabled"

    async def test_there_is_none(self, house: House) -> None:
        ann = await house.user()
        assert await refusal(totp.remove_totp(house.auth, house.context(ann, level=2))) == "FACTOR_NOT_FOUND"

    async def test_while_a_passkey_is_added(self, house: House) -> None:
        """Whichever is first, what the user is said to have is what they have."""
        ann = await house.user()
        await with_app(house, ann)
        await asyncio.gather(
            totp.remove_totp(house.auth, house.context(ann, level=2)), with_passkey(house, ann, level=2)
        )
        assert (await now(house, ann)).second_factors == ("passkey",)
        found = await factors_of(house.auth, ann.tenant_id, ann.id)
        assert (found.totp, len(found.passkeys), found.recovery_codes is None) == (None, 1, False)

    async def test_while_one_is_added_by_another_process(self, new_house: Any) -> None:
        here, there = await new_house(), await new_house()
        ann = await here.user()
        await with_app(here, ann)
        await asyncio.gather(totp.remove_totp(here.auth, here.context(ann, level=2)), with_passkey(there, ann, level=2))
        assert (await now(here, ann)).second_factors == ("passkey",)


class TestKeys:
    async def test_a_new_one(self, house: House) -> None:
        """AUTH_KEY is changed: `new,old`, and after a while `new`."""
        app = await with_app(house, await house.user())
        both = replace(house.auth, box=SecretBox("a newer key,a key of tests", purpose="auth secrets"))
        assert await totp.seal_anew(both) == 1
        assert await totp.seal_anew(both) == 0
        house.auth = replace(house.auth, box=SecretBox("a newer key", purpose="auth secrets"))
        assert await show(house, await challenged(house), Proof(totp=app.code))

    async def test_one_that_is_lost(self, house: House) -> None:
        """Said, and not taken for a wrong code; and a job that meets it does not go round for ever."""
        app = await with_app(house, await house.user())
        house.auth = replace(house.auth, box=SecretBox("a newer key", purpose="auth secrets"))
        with pytest.raises(Misconfigured):
            await show(house, await challenged(house), Proof(totp=app.code))
        with pytest.raises(Misconfigured):
            await totp.seal_anew(house.auth)

    async def test_one_that_is_lost_does_not_keep_the_others_from_a_new_key(self, house: House) -> None:
        ann, bob = await house.user(), await house.user("bob")
        await with_app(house, ann)
        await with_app(house, bob)
        await house.auth.database["totp"].update_one({"_id": ann.key}, {"$set": {"sealed": b"x", "sealed_with": "0"}})
        newer = replace(house.auth, box=SecretBox("a newer key,a key of tests", purpose="auth secrets"))
        with pytest.raises(Misconfigured, match="1 of them"):
            await totp.seal_anew(newer)
        row = await house.auth.database["totp"].find_one({"_id": bob.key})
        assert row
        assert row["sealed_with"] == newer.box.key_id
