"""Sessions: refresh tokens that are good once, and ends that everybody hears of."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from libs.core.errors import Refusal, Unauthenticated
from libs.core.pubsub import subscribed
from libs.core.testing import eventually
from services.auth.commands.sessions import end, logout, refresh
from services.auth.commands.tokens import SignedIn
from services.auth.domain.sessions import EndReason, level_of
from services.auth.store.sessions import alive_of
from tests.auth.conftest import House
from tests.auth.test_login import log_in
from tests.auth.test_registration import refused


async def refreshed(house: House, token: str, tenant: str = "demo") -> SignedIn:
    return await refresh(house.auth, house.context(tenant=tenant), token)


class TestRefresh:
    async def test_the_session_goes_on(self, house: House) -> None:
        await house.user("ann")
        first = await log_in(house)
        house.clock.advance(minutes=10)
        second = await refreshed(house, first.refresh_token)
        assert (second.session_id, second.refresh_token != first.refresh_token) == (first.session_id, True)
        caller = (await house.of_token(second)).caller
        assert caller.authenticated_at == house.clock.now().replace(minute=0)

    async def test_fifty_at_once_have_one_successor_and_nobody_is_logged_out(self, house: House) -> None:
        await house.user("ann")
        first = await log_in(house)
        done = await asyncio.gather(*(refreshed(house, first.refresh_token) for _ in range(50)))
        assert len({it.refresh_token for it in done}) == 1
        assert await house.auth.database["refresh_tokens"].count_documents({}) == 2
        assert await refreshed(house, done[0].refresh_token)

    async def test_an_answer_that_was_lost_is_given_again(self, house: House) -> None:
        await house.user("ann")
        first = await log_in(house)
        second = await refreshed(house, first.refresh_token)
        house.clock.advance(seconds=9)
        assert (await refreshed(house, first.refresh_token)).refresh_token == second.refresh_token

    async def test_used_again_later_it_ends_the_session(self, house: House) -> None:
        await house.user("ann")
        first = await log_in(house)
        second = await refreshed(house, first.refresh_token)
        house.clock.advance(seconds=11)
        assert await refused(refreshed(house, first.refresh_token)) == "SESSION_OVER"
        assert await refused(refreshed(house, second.refresh_token)) == "SESSION_OVER"
        [row] = await house.rows("session.revoked")
        assert row["reason"] == EndReason.REPLAY

    async def test_used_again_after_its_successor_was_it_ends_the_session(self, house: House) -> None:
        await house.user("ann")
        first = await log_in(house)
        second = await refreshed(house, first.refresh_token)
        third = await refreshed(house, second.refresh_token)
        assert await refused(refreshed(house, first.refresh_token)) == "SESSION_OVER"
        assert await refused(refreshed(house, third.refresh_token)) == "SESSION_OVER"

    async def test_a_thief_who_was_quicker_ends_it_for_both(self, house: House) -> None:
        await house.user("ann")
        stolen = (await log_in(house)).refresh_token
        thiefs = await refreshed(house, stolen)
        house.clock.advance(minutes=4)
        await refused(refreshed(house, stolen))
        with pytest.raises(Unauthenticated):
            await eventually_refused(house, thiefs)

    async def test_idle_for_too_long(self, house: House) -> None:
        await house.user("ann")
        first = await log_in(house)
        house.clock.advance(days=14, seconds=1)
        assert await refused(refreshed(house, first.refresh_token)) == "SESSION_OVER"

    async def test_in_use_it_ends_after_ninety_days_all_the_same(self, house: House) -> None:
        await house.user("ann")
        token = (await log_in(house)).refresh_token
        for _ in range(8):
            house.clock.advance(days=10)
            token = (await refreshed(house, token)).refresh_token
        house.clock.advance(days=10, seconds=1)
        assert await refused(refreshed(house, token)) == "SESSION_OVER"

    @pytest.mark.parametrize("token", ["", "x", "x" * 10_000, "\0"])
    async def test_what_is_no_token(self, house: House, token: str) -> None:
        assert await refused(refreshed(house, token)) == "SESSION_OVER"

    async def test_what_ended_nothing_has_nobody_look(self, house: House) -> None:
        """Whoever has no token at all could else have every process of every service ask the database."""
        redis = house.auth.platform.redis
        channel = redis.key("revocations")
        async with subscribed(redis, channel) as heard:
            await refused(refreshed(house, "no token"))
            await redis.client.publish(channel, b"the first")
            assert await heard.receive() == (channel, b"the first")

    async def test_at_another_tenant(self, house: House) -> None:
        await house.user("ann")
        first = await log_in(house)
        assert await refused(refreshed(house, first.refresh_token, tenant="other")) == "SESSION_OVER"
        assert await refreshed(house, first.refresh_token)

    async def test_no_token_is_stored(self, house: House) -> None:
        await house.user("ann")
        first = await log_in(house)
        second = await refreshed(house, first.refresh_token)
        stored = str([await house.auth.database[name].find().to_list() for name in ("sessions", "refresh_tokens")])
        assert not any(token in stored for token in (first.refresh_token, second.refresh_token, second.access_token))


async def eventually_refused(house: House, signed_in: SignedIn) -> None:
    await eventually(lambda: signed_in.session_id in house.revoked, within_s=4)
    await house.of_token(signed_in)


class TestEnd:
    async def test_its_tokens_are_refused_by_every_process(self, new_house: Callable[..., Awaitable[House]]) -> None:
        here, there = await new_house(), await new_house()
        await here.user("ann")
        signed_in = await log_in(here)
        context = await here.of_token(signed_in)
        assert await there.of_token(signed_in)
        await logout(here.auth, context)
        for house in (here, there):
            with pytest.raises(Unauthenticated):
                await eventually_refused(house, signed_in)
        assert await refused(refreshed(there, signed_in.refresh_token)) == "SESSION_OVER"

    async def test_all_others(self, house: House) -> None:
        user = await house.user("ann")
        mine, other, third = await log_in(house), await log_in(house), await log_in(house)
        context = await house.of_token(mine)
        ended = await end(house.auth, context, user.id, keep=mine.session_id, reason=EndReason.REVOKED)
        assert set(ended) == {other.session_id, third.session_id}
        assert await refreshed(house, mine.refresh_token)

    async def test_somebody_elses(self, house: House) -> None:
        eve = await house.user("eve")
        await house.user("ann")
        anns, eves = await log_in(house, "ann"), await log_in(house, "eve")
        context = await house.of_token(eves)
        assert await end(house.auth, context, eve.id, only=anns.session_id, reason=EndReason.REVOKED) == []
        assert await refreshed(house, anns.refresh_token)

    async def test_twice(self, house: House) -> None:
        user = await house.user("ann")
        context = await house.of_token(await log_in(house))
        done = await asyncio.gather(
            *(end(house.auth, context, user.id, reason=EndReason.REVOKED) for _ in range(10)), return_exceptions=True
        )
        assert sum(len(it) for it in done if isinstance(it, list)) == 1
        assert not [it for it in done if isinstance(it, Exception) and not isinstance(it, Refusal)]


class TestAlive:
    async def test_those_that_ended_cost_a_login_nothing(self, house: House) -> None:
        """Whoever signs in every minute has tens of thousands of them."""
        await house.user("ann")
        row = await _row(house, await log_in(house))
        ended = [row | {"_id": f"s{n}", "ended_at": house.clock.now()} for n in range(200)]
        await house.auth.database["sessions"].insert_many(ended)
        command = {"find": "sessions", "filter": alive_of("demo", row["user_id"], house.clock.now())}
        for more in ({}, {"sort": {"created_at": -1, "_id": -1}, "limit": 21}):
            explained = await house.auth.database.command("explain", command | more, verbosity="executionStats")
            assert explained["executionStats"]["totalDocsExamined"] == 1


async def _row(house: House, signed_in: SignedIn) -> dict[str, Any]:
    row = await house.auth.database["sessions"].find_one({"_id": signed_in.session_id})
    assert row
    return row


class TestLevel:
    @pytest.mark.parametrize(
        ("methods", "level", "why"),
        [
            (("pwd",), 1, "one thing that is known"),
            (("pwd", "otp"), 2, "known, and had"),
            (("email", "sms"), 1, "two messages are one kind"),
            (("email", "otp"), 2, "a mailbox, and an app"),
            (("fed", "email"), 1, "a provider vouches as a mailbox does"),
            (("mfa",), 2, "a passkey that its owner unlocked"),
            ((), 0, "nothing"),
        ],
    )
    def test_of_methods(self, methods: tuple[str, ...], level: int, why: str) -> None:
        assert level_of(methods) == level, why
