"""Fair turns for processes that write the same wallets.

MongoDB lets the first to write a wallet win and aborts the other, whose group begins anew; a process with larger groups
loses almost always. Measured, two processes on 1,000 shared wallets: 2,595 transfers a second and 144. So once a
conflict was met, all processes take turns for a while, a group each, in the order in which they came.

The turn is a token in Redis that whoever is next waits for. It only saves work: MongoDB's conflicts stay the guard, and
a lost token, a lost Redis or a process that dies with its turn cost speed alone.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self, cast

from libs.core.ids import new_id
from libs.core.pubsub import subscribed, tell
from libs.core.redis import AWAY, Redis
from libs.core.tasks import ended

# How long turns are taken after a conflict; then one more conflict shows whether they are still needed.
TAKEN_FOR_S = 10.0
# A turn that is not handed on within this time is lost, or in the hands of a process that hangs.
HANDED_ON_WITHIN_S = 1.0
FORGOTTEN_AFTER_S = 60
TOLD_EVERY_S = 1.0

# Whose turn it is; taken at once if it is nobody's.
_TAKE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[2]) then return 1 end
return 0
"""
# Handed to whoever waits longest, unless it was declared lost and made anew meanwhile.
_HAND_ON = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2])
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1
"""


class Turns:
    """One per process, open (`async with`) while it commits."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._channel = redis.key("ledger", "conflicts")
        self._keys = [redis.key("ledger", "turn"), redis.key("ledger", "turn", "next")]
        self._until = 0.0
        self._told_at = 0.0
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._listening = asyncio.create_task(self._listen(), name="turns")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listening:
            await ended(self._listening)

    async def conflicted(self) -> None:
        """Another process writes the same wallets: from now on, turns, for it too."""
        now = time.monotonic()
        self._until = now + TAKEN_FOR_S
        if now - self._told_at > TOLD_EVERY_S:
            self._told_at = now
            await tell(self._redis, self._channel)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for this process's turn if turns are taken, for a moment at most."""
        if time.monotonic() > self._until:
            yield
            return
        token = await self._take()
        try:
            yield
        finally:
            if token:
                await self._hand_on(token)

    async def _take(self) -> bytes | None:
        """None without Redis, which is not asked again until there is another conflict."""
        turn, waiting = self._keys
        fresh = new_id().encode()
        try:
            async with asyncio.timeout(2 * HANDED_ON_WITHIN_S):
                if await self._redis.client.eval(_TAKE, 1, turn, fresh, FORGOTTEN_AFTER_S):
                    return fresh
                handed = await self._redis.client.blpop([waiting], timeout=HANDED_ON_WITHIN_S)
                if handed:
                    return cast("bytes", handed[1])
                await self._redis.client.set(turn, fresh, ex=FORGOTTEN_AFTER_S)  # lost: this is the turn from now on
                return fresh
        except AWAY:
            self._until = 0.0
            return None

    async def _hand_on(self, token: bytes) -> None:
        with suppress(*AWAY):
            async with asyncio.timeout(HANDED_ON_WITHIN_S):
                await self._redis.client.eval(_HAND_ON, 2, *self._keys, token, FORGOTTEN_AFTER_S)

    async def _listen(self) -> None:
        while True:
            try:
                async with subscribed(self._redis, self._channel) as subscription:
                    while True:
                        if await subscription.receive():
                            self._until = time.monotonic() + TAKEN_FOR_S
            except AWAY:
                await asyncio.sleep(1.0)
