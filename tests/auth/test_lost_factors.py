"""Second factors that are lost for good, and who may take them away."""

import pytest

from libs.core.context import Context
from libs.core.errors import InvalidInput, NotFound
from services.auth.commands import lost_factors
from services.auth.commands.factors import Factors, factors_of
from services.auth.commands.second_factor import Proof
from services.auth.commands.tokens import SignedIn
from tests.auth.conftest import House
from tests.auth.factors import challenged, log_in, now, refusal, show, with_app, with_passkey


async def root(house: House) -> Context:
    return house.context(await house.user("root", roles=("admin",)))


class TestRemoveAll:
    async def test_a_password_lets_them_in_once_it_was_reset(self, house: House) -> None:
        ann, by = await house.user(), await root(house)
        app = await with_app(house, ann)
        await with_passkey(house, ann, level=2)
        before = await show(house, await challenged(house), Proof(totp=app.code), trust=True)
        await lost_factors.remove_all(house.auth, by, ann.id, "came in with a passport")

        assert await factors_of(house.auth, "demo", ann.id) == Factors(None, [], None)
        assert (await now(house, ann)).second_factors == ()
        await house.auth.platform.revocations.reload()
        assert before.session_id in house.revoked
        assert await refusal(log_in(house)) == "PASSWORD_RESET_REQUIRED"

    async def test_everybody_hears_of_it(self, house: House) -> None:
        ann, by = await house.user(), await root(house)
        await with_app(house, ann)
        await with_passkey(house, ann, level=2)
        await lost_factors.remove_all(house.auth, by, ann.id, "came in with a passport")
        assert [event.data["method"] for event in await house.events("mfa.disabled")] == ["totp", "passkey"]
        [row] = await house.rows("totp.removed")
        assert (row["actor"], row["on_behalf_of"], row["reason"]) == ("root-id", ann.id, "came in with a passport")
        assert (await house.sent())[-1].params["what"] == "second_factors_removed"

    async def test_somebody_without_an_address(self, house: House) -> None:
        ann, by = await house.user(email=""), await root(house)
        await with_app(house, ann)
        await lost_factors.remove_all(house.auth, by, ann.id, "known to me")
        assert isinstance(await log_in(house), SignedIn)

    async def test_by_whom_it_may_not_be(self, house: House) -> None:
        ann, operator = await house.user(), await house.user("olga", roles=("operator",))
        elsewhere = await house.user("eve", tenant="other", roles=("admin",))
        player = await house.user("bob")
        await with_app(house, ann)
        for by in (operator, elsewhere, player):
            with pytest.raises(NotFound):
                await lost_factors.remove_all(house.auth, house.context(by), ann.id, "because")
        assert (await now(house, ann)).second_factors == ("totp",)

    async def test_refused(self, house: House) -> None:
        ann, by = await house.user(), await root(house)
        assert await refusal(lost_factors.remove_all(house.auth, by, ann.id, "because")) == "FACTOR_NOT_FOUND"
        assert await refusal(lost_factors.remove_all(house.auth, by, "root-id", "because")) == "NOT_TO_ONESELF"
        with pytest.raises(InvalidInput):
            await lost_factors.remove_all(house.auth, by, ann.id, " ")
        house.clock.advance(minutes=6)
        assert await refusal(lost_factors.remove_all(house.auth, by, ann.id, "because")) == "REAUTHENTICATION_REQUIRED"
