"""Signing keys: shown before they sign, for a while after, and not at all once withdrawn."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import jwt
import pytest

from libs.core.crypto import SecretBox
from libs.core.errors import Misconfigured, NotFound
from libs.core.migrations import migrate
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.testing import FrozenClock, eventually
from services.auth import store
from services.auth.keys import SHOWN_AFTER, SHOWN_BEFORE, SigningKeys

MONTH = timedelta(days=30)


@pytest.fixture
async def new_keys(
    mongo: Mongo, redis: Redis, clock: FrozenClock
) -> AsyncIterator[Callable[..., Awaitable[SigningKeys]]]:
    """`await new_keys()`: as each process has them."""
    await migrate(mongo.db, [index for index in store.INDEXES if index.collection == "signing_keys"])
    async with AsyncExitStack() as stack:

        async def make(secret: str = "one", **more: Any) -> SigningKeys:
            keys = SigningKeys(mongo.db, redis, clock, SecretBox(secret, purpose="auth secrets"), **more)
            return await stack.enter_async_context(keys)

        yield make


def signed_with(keys: SigningKeys) -> str:
    return str(jwt.get_unverified_header(keys.sign({}, typ="at+jwt"))["kid"])


def shown(keys: SigningKeys) -> list[str]:
    return [key["kid"] for key in keys.jwks()["keys"]]


class TestSigningKeys:
    async def test_the_first_signs_at_once(self, new_keys: Callable[..., Awaitable[SigningKeys]]) -> None:
        keys = await new_keys()
        assert shown(keys) == [signed_with(keys)]

    async def test_processes_that_start_at_once_have_one_key(
        self, new_keys: Callable[..., Awaitable[SigningKeys]]
    ) -> None:
        one, two = await new_keys(), await new_keys()
        assert signed_with(one) == signed_with(two)

    async def test_the_next_is_shown_before_it_signs_and_the_last_after(
        self, new_keys: Callable[..., Awaitable[SigningKeys]], clock: FrozenClock
    ) -> None:
        keys = await new_keys()
        first = signed_with(keys)
        clock.advance(days=30, seconds=-SHOWN_BEFORE.total_seconds())
        await keys.rotate(MONTH)
        assert (len(shown(keys)), signed_with(keys)) == (2, first)
        clock.advance(seconds=SHOWN_BEFORE.total_seconds())
        second = signed_with(keys)
        assert (second != first, shown(keys)) == (True, [first, second])
        clock.advance(seconds=SHOWN_AFTER.total_seconds())
        assert shown(keys) == [second]

    async def test_nothing_happens_before_it_is_time(
        self, new_keys: Callable[..., Awaitable[SigningKeys]], clock: FrozenClock
    ) -> None:
        keys = await new_keys()
        clock.advance(days=29)
        await keys.rotate(MONTH)
        assert len(shown(keys)) == 1

    async def test_two_processes_rotate_to_the_same_key(
        self, new_keys: Callable[..., Awaitable[SigningKeys]], clock: FrozenClock
    ) -> None:
        one, two = await new_keys(), await new_keys()
        clock.advance(days=30)
        await one.rotate(MONTH)
        await two.rotate(MONTH)
        clock.advance(seconds=SHOWN_BEFORE.total_seconds())
        assert signed_with(one) == signed_with(two)
        assert len(one.all) == 2

    async def test_after_a_long_absence_a_key_is_not_used_before_it_was_shown(
        self, new_keys: Callable[..., Awaitable[SigningKeys]], clock: FrozenClock
    ) -> None:
        keys = await new_keys()
        first = signed_with(keys)
        clock.advance(days=90)
        await keys.rotate(MONTH)
        assert signed_with(keys) == first

    async def test_one_that_was_withdrawn_is_replaced_at_once_everywhere(
        self, new_keys: Callable[..., Awaitable[SigningKeys]], mongo: Mongo
    ) -> None:
        here, there = await new_keys(), await new_keys()
        stolen = signed_with(here)
        await mongo.transaction(lambda session: here.withdraw(session, stolen))
        await here.replace()
        assert stolen not in shown(here)
        assert signed_with(here) != stolen
        await eventually(lambda: shown(there) == shown(here))
        assert signed_with(there) == signed_with(here)

    async def test_the_one_before_does_not_sign_again(
        self, new_keys: Callable[..., Awaitable[SigningKeys]], mongo: Mongo, clock: FrozenClock
    ) -> None:
        keys = await new_keys()
        first = signed_with(keys)
        clock.advance(days=30, seconds=-SHOWN_BEFORE.total_seconds())
        await keys.rotate(MONTH)
        clock.advance(seconds=(SHOWN_BEFORE + SHOWN_AFTER).total_seconds() + 60)
        stolen = signed_with(keys)
        assert shown(keys) == [stolen]  # the first is still known, and not shown any more
        await mongo.transaction(lambda session: keys.withdraw(session, stolen))
        await keys.replace()
        assert signed_with(keys) not in (first, stolen)
        assert signed_with(keys) in shown(keys)

    async def test_one_withdrawn_before_its_time_leaves_the_one_before_signing(
        self, new_keys: Callable[..., Awaitable[SigningKeys]], mongo: Mongo, clock: FrozenClock
    ) -> None:
        keys = await new_keys()
        first = signed_with(keys)
        clock.advance(days=30, seconds=-SHOWN_BEFORE.total_seconds())
        await keys.rotate(MONTH)
        [early] = [kid for kid in shown(keys) if kid != first]
        await mongo.transaction(lambda session: keys.withdraw(session, early))
        await keys.replace()
        assert [signed_with(keys)] == shown(keys) == [first]

    async def test_one_that_is_not_there_cannot_be_withdrawn(
        self, new_keys: Callable[..., Awaitable[SigningKeys]], mongo: Mongo
    ) -> None:
        keys = await new_keys()
        with pytest.raises(NotFound):
            await mongo.transaction(lambda session: keys.withdraw(session, "none"))

    async def test_the_database_alone_cannot_sign(
        self, new_keys: Callable[..., Awaitable[SigningKeys]], mongo: Mongo
    ) -> None:
        await new_keys("one")
        other = await new_keys("another")
        with pytest.raises(Misconfigured):
            other.sign({}, typ="at+jwt")

    async def test_the_process_itself_learns_what_is_shown(
        self, new_keys: Callable[..., Awaitable[SigningKeys]]
    ) -> None:
        learnt: list[bytes] = []
        keys = await new_keys(learnt=learnt.append)
        assert shown(keys)[0].encode() in learnt[-1]
