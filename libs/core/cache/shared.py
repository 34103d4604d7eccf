"""The second level: Redis, shared by all processes. It decides who loads, and what an invalidation leaves readable.

Every name (a key or a tag) that an entry goes by has a *generation*: a random token, made by whoever first looks an
entry of that name up, and deleted by an invalidation. The generations of an entry's names are its *stamp*. A load is
given the stamp at its start, and what it brings carries that stamp and is read only while it is still the current one.
So the loss of a generation, to an invalidation, an eviction or FLUSHALL, costs a load and never shows an old value.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass

import orjson
from prometheus_client import Counter, Histogram
from redis.exceptions import RedisError

from libs.core.cache.memory import Key
from libs.core.redis import Redis

# What any method here may raise: Redis is away, or too slow, or full, or loading, or read-only.
FAILED = (RedisError, OSError)
# Above any round trip to a healthy Redis on a busy machine: what a dead one costs the calls that are under way.
_WITHIN_S = 1.0
# In every Redis key, so that code of different releases does not misread each other's entries.
_LAYOUT = 1
EVERYTHING = b"*"

_LOOKUPS = Counter("cache_redis_lookups", "Lookups in Redis, by what they found: hit, stale, miss", ("found",))
_SECONDS = Histogram("cache_redis_lookup_seconds", "How long lookups in Redis took")

# KEYS entry, lock, generations…   ARGV token, lock_ms, generation_ms
# Answers {json or nil, ms to live, stale_ms, stamp if loading is now up to the caller}
_LOOK_UP = """
local stamp = ''
for i = 3, #KEYS do
  local generation = redis.call('GET', KEYS[i])
  if not generation then
    generation = ARGV[1]
    redis.call('SET', KEYS[i], generation, 'PX', ARGV[3])
  end
  stamp = stamp .. generation .. '|'
end

local json, ttl_ms, stale_ms = false, 0, 0
local entry = redis.call('GET', KEYS[1])
if entry and string.sub(entry, 1, #stamp) == stamp then
  stale_ms, json = string.match(entry, '^(%d+)|(.*)$', #stamp + 1)
  stale_ms, ttl_ms = tonumber(stale_ms), redis.call('PTTL', KEYS[1])
  if ttl_ms > stale_ms then return {json, ttl_ms, stale_ms, false} end
end

local holder = redis.call('GET', KEYS[2])
if holder and string.sub(holder, -#stamp) == stamp then return {json, ttl_ms, stale_ms, false} end
redis.call('SET', KEYS[2], ARGV[1] .. stamp, 'PX', ARGV[2])
for i = 3, #KEYS do
  if redis.call('PTTL', KEYS[i]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[i], ARGV[3]) end
end
return {json, ttl_ms, stale_ms, stamp}
"""

# KEYS entry, lock   ARGV token, stamp, ttl_ms (0: nothing to store), stale_ms, json
_FINISH = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] .. ARGV[2] then return end
redis.call('DEL', KEYS[2])
if ARGV[3] ~= '0' then redis.call('SET', KEYS[1], ARGV[2] .. ARGV[4] .. '|' .. ARGV[5], 'PX', ARGV[3]) end
"""

# KEYS server, root generation, channel   ARGV run_id, 1 if an invalidation was not passed on
_RECOVER = """
if redis.call('GET', KEYS[1]) == ARGV[1] and ARGV[2] == '0' then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', KEYS[3], '*')
return 1
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to load an entry and to store it, for as long as the lock lasts."""

    keys: list[str]
    token: str
    stamp: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """`json` if there is a value, stale where `fresh_s` ≤ 0; `turn` if it is the caller's turn to load it."""

    json: bytes | None
    fresh_s: float
    stale_s: float
    turn: Turn | None


class Shared:
    """Every method answers within a second or raises one of `FAILED`."""

    def __init__(self, redis: Redis, *, lock_s: float) -> None:
        self.channel = redis.key("cache", "invalidate")
        self._redis = redis
        self._lock_ms = int(lock_s * 1000)
        self._root = redis.key("cache", "generation")
        self._look_up_script = redis.client.register_script(_LOOK_UP)
        self._finish_script = redis.client.register_script(_FINISH)
        self._recover_script = redis.client.register_script(_RECOVER)

    async def look_up(self, key: Key, tags: tuple[Key, ...], *, version: int, longest_ttl_s: float) -> Found:
        """`longest_ttl_s`: what may come of it is stored for no longer. Generations have to outlive their entries."""
        keys, token = self._keys(key, tags, version), secrets.token_hex(8)
        generation_ms = int(longest_ttl_s * 1000) + 2 * self._lock_ms
        started = time.perf_counter()
        async with asyncio.timeout(_WITHIN_S):
            json, ttl_ms, stale_ms, stamp = await self._look_up_script(keys, (token, self._lock_ms, generation_ms))
        _SECONDS.observe(time.perf_counter() - started)
        _LOOKUPS.labels("miss" if json is None else "hit" if ttl_ms > stale_ms else "stale").inc()
        turn = None if stamp is None else Turn(keys, token, stamp)
        return Found(json, (ttl_ms - stale_ms) / 1000, stale_ms / 1000, turn)

    async def store(self, turn: Turn, json: bytes, fresh_s: float, stale_s: float) -> None:
        """Ends the turn, if it is not another's by now. What was invalidated since it began will not be read."""
        ttl_ms, stale_ms = int((fresh_s + stale_s) * 1000), int(stale_s * 1000)
        async with asyncio.timeout(_WITHIN_S):
            await self._finish_script(turn.keys[:2], (turn.token, turn.stamp, ttl_ms, stale_ms, json))

    async def give_up(self, turn: Turn) -> None:
        """Ends the turn with nothing to store: another may load at once, and need not wait for the lock's end."""
        await self.store(turn, b"", 0, 0)

    async def invalidate(self, names: tuple[Key, ...], *, sender: str) -> None:
        async with asyncio.timeout(_WITHIN_S), self._redis.client.pipeline(transaction=True) as pipeline:
            pipeline.delete(*(self._generation(name) for name in names))
            pipeline.publish(self.channel, orjson.dumps((sender, *names)))
            await pipeline.execute()

    async def recover(self, *, unsent: bool) -> None:
        """Abandons everything cached if an invalidation is `unsent`, or if this is not the server it was before:

        one that restarted or was failed over to may have brought back what had been invalidated.
        """
        async with asyncio.timeout(_WITHIN_S):
            server = await self._redis.client.info("server")
            await self._recover_script(
                keys=(self._redis.key("cache", "server"), self._root, self.channel),
                args=(server["run_id"], int(unsent)),
            )

    def _keys(self, key: Key, tags: tuple[Key, ...], version: int) -> list[str]:
        name = f"{_LAYOUT}.{version}.{_text(key)}"
        return [
            self._redis.key("cache", "entry", name),
            self._redis.key("cache", "lock", name),
            self._root,
            *(self._generation(name) for name in (key, *tags)),
        ]

    def _generation(self, name: Key) -> str:
        return self._redis.key("cache", "generation", _text(name))


def _text(name: Key) -> str:
    """Unambiguous, whatever the parts hold: `["tenant","t1"]`."""
    return orjson.dumps(name).decode()
