"""What one process revokes, all others refuse: told or not, and whoever was not there reads it later."""

import os
import signal
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from libs.core.clock import SystemClock
from libs.core.errors import Unavailable
from libs.core.migrations import migrate
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.revocations import INDEXES, Revocations, RevokedKey, RevokedSession, RevokedTokens
from libs.core.testing import eventually
from scripts.process import Server


class Process:
    """What a process was told of."""

    def __init__(self, mongo: Mongo, redis: Redis, **more: Any) -> None:
        self.sessions: list[str] = []
        self.tokens: list[RevokedTokens] = []
        self.keys: list[str] = []
        self.revocations = Revocations(
            mongo.core,
            redis,
            SystemClock(),
            on_session=self._session,
            on_tokens=self.tokens.append,
            on_key=self.keys.append,
            **more,
        )

    def _session(self, session_id: str, _: datetime) -> None:
        self.sessions.append(session_id)


@pytest.fixture
async def process(mongo: Mongo, redis: Redis) -> Callable[..., Process]:
    await migrate(mongo.core, INDEXES)
    return lambda **more: Process(mongo, redis, **more)


def soon() -> datetime:
    return SystemClock().now() + timedelta(minutes=5)


async def revoke(mongo: Mongo, by: Process, *revoked: Any, told: bool = True) -> None:
    await mongo.transaction(lambda session: by.revocations.add(session, revoked))
    if told:
        await by.revocations.tell()


class TestRevocations:
    async def test_another_process_is_told(self, mongo: Mongo, process: Callable[..., Process]) -> None:
        here, there = process(), process(poll_s=60)
        async with there.revocations:
            await revoke(mongo, here, RevokedSession("s1", soon()), RevokedKey("k1", soon()))
            assert await eventually(lambda: (there.sessions, there.keys) == (["s1"], ["k1"]))

    async def test_a_subjects_tokens_are_named_with_their_tenant_and_when_they_were_issued(
        self, mongo: Mongo, process: Callable[..., Process]
    ) -> None:
        here, there = process(), process(poll_s=60)
        tokens = RevokedTokens("demo", "ann", SystemClock().now().replace(microsecond=0), soon().replace(microsecond=0))
        async with there.revocations:
            await revoke(mongo, here, tokens)
            assert await eventually(lambda: there.tokens == [tokens])
            assert there.sessions == []

    async def test_untold_it_is_found(self, mongo: Mongo, process: Callable[..., Process]) -> None:
        here, there = process(), process()
        async with there.revocations:
            await revoke(mongo, here, RevokedSession("s1", soon()), told=False)
            assert await eventually(lambda: there.sessions, within_s=4)

    async def test_while_redis_hangs_it_is_found(self, mongo: Mongo, own_redis: Server) -> None:
        await migrate(mongo.core, INDEXES)
        redis = Redis.connect(own_redis.url)
        there = Process(mongo, redis)
        async with there.revocations:
            os.kill(own_redis.pid, signal.SIGSTOP)
            for n in range(8):  # however far its subscription is with finding out
                await revoke(mongo, there, RevokedSession(f"s{n}", soon()), told=False)
                await eventually(lambda n=n: f"s{n}" in there.sessions, within_s=1.5)  # type: ignore[misc]
            os.kill(own_redis.pid, signal.SIGCONT)
        await redis.close()

    async def test_a_process_that_starts_knows_what_was_revoked_before(
        self, mongo: Mongo, process: Callable[..., Process]
    ) -> None:
        here, later = process(), process()
        await revoke(mongo, here, RevokedSession("s1", soon()), told=False)
        async with later.revocations:
            assert later.sessions == ["s1"]

    async def test_a_transaction_that_was_slow_to_commit_is_not_missed(
        self, mongo: Mongo, process: Callable[..., Process]
    ) -> None:
        here, there = process(), process(poll_s=60)
        await revoke(mongo, here, RevokedSession("s2", soon()), told=False)
        async with there.revocations:
            early = {"_id": "slow", "kind": "session", "of": "s1", "until": soon()}
            await mongo.core["revocations"].insert_one({**early, "at": SystemClock().now() - timedelta(seconds=20)})
            await there.revocations.reload()
            assert there.sessions == ["s2", "s1"]

    async def test_a_clock_that_is_far_ahead_hides_nobody_elses(
        self, mongo: Mongo, process: Callable[..., Process]
    ) -> None:
        here, there = process(), process(poll_s=60)
        ahead = SystemClock().now() + timedelta(minutes=5)
        await mongo.core["revocations"].insert_one(
            {"_id": "ahead", "kind": "session", "of": "s1", "until": ahead, "at": ahead}
        )
        async with there.revocations:
            await revoke(mongo, here, RevokedSession("s2", soon()), told=False)
            for _ in range(3):
                await there.revocations.reload()
            assert there.sessions == ["s1", "s2"]

    async def test_each_is_told_once_while_nothing_is_lost(self, mongo: Mongo, process: Callable[..., Process]) -> None:
        here, there = process(), process(poll_s=60)
        await revoke(mongo, here, RevokedSession("s1", soon()), told=False)
        for _ in range(3):
            await there.revocations.reload()
        assert there.sessions == ["s1"]

    async def test_what_is_over_is_not_read(self, mongo: Mongo, process: Callable[..., Process]) -> None:
        here, later = process(), process()
        await revoke(mongo, here, RevokedSession("s1", SystemClock().now() - timedelta(seconds=1)), told=False)
        await later.revocations.reload()
        assert later.sessions == []

    async def test_not_ready_before_the_first_reading(self, process: Callable[..., Process]) -> None:
        unread = process().revocations
        with pytest.raises(Unavailable):
            await unread.check()
        await unread.reload()
        assert await unread.check() == {"known": 0}
