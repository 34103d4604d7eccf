"""Limits that all processes count together, in Redis: how often, how soon after failures, of how many.

    limiter = Limiter(redis, "auth")
    await limiter.take(
        Take(f"sends:{recipient}", Rates.of((1, 30), (5, 3600))),       # at most 1 in 30 s and 5 in an hour
        Take(f"sends-from:{address}", Rates.of((20, 3600))),
    )

    tries = Take(f"login:{account}", Backoff(free=5, first_s=1, longest_s=900, forgiven_s=3600))
    await limiter.take(tries)           # before the password is looked at: 20 at once are 20 tries
    await limiter.clear(tries)          # after it was right

All that one call takes is taken, or nothing is: in one step of Redis, one round trip, by the clock of Redis alone.
Without Redis nothing is let through (`Unavailable`). If it loses its memory the counting begins anew. A connection that
breaks may have what it asked for counted twice, and never not at all.

Keys may hold what is personal, and be of any length: Redis sees their SHA-256. Every entry expires by itself.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import orjson
import structlog
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from libs.core.errors import RateLimited, Unavailable
from libs.core.redis import Redis

# Above any round trip to a healthy Redis on a busy machine.
_WITHIN_S = 2.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` in any `per_s` seconds: in every such stretch of time, and not in the calendar's."""

    limit: int
    per_s: float


@dataclass(frozen=True, slots=True)
class Rates:
    """All of them hold. Exact, at the price of some 10 bytes for each of the highest `limit`: let that be hundreds."""

    rates: tuple[Rate, ...]

    @classmethod
    def of(cls, *rates: tuple[int, float]) -> Self:
        return cls(tuple(Rate(limit, per_s) for limit, per_s in rates))

    def spec(self) -> list[Any]:
        return ["rates", [[rate.limit, _ms(rate.per_s)] for rate in self.rates]]


@dataclass(frozen=True, slots=True)
class Backoff:
    """`free` tries without a delay; then `first_s` after the try before, twice that after the next, up to `longest_s`.

    Every `forgiven_s` one try is forgiven, until none is left. A try that comes too early is refused and not counted,
    so that whoever hammers does not prolong it.
    """

    free: int
    first_s: float
    longest_s: float
    forgiven_s: float

    def spec(self) -> list[Any]:
        return ["backoff", self.free, _ms(self.first_s), _ms(self.longest_s), _ms(self.forgiven_s)]


@dataclass(frozen=True, slots=True)
class Distinct:
    """At most `limit` different members in any `per_s` seconds; one of those is always let through."""

    member: str
    limit: int
    per_s: float

    def spec(self) -> list[Any]:
        return ["distinct", _hashed(self.member), self.limit, _ms(self.per_s)]


@dataclass(frozen=True, slots=True)
class Take:
    """What is asked for: one of what `rule` gives under `key`. A key has one sort of rule, always."""

    key: str
    rule: Rates | Backoff | Distinct


@dataclass(frozen=True, slots=True)
class Refused:
    """`by` asks for the longest wait of all, which is `retry_after_s`."""

    by: Take
    retry_after_s: float


class Limiter:
    """Counts under `name`, apart from all other limiters of the installation."""

    def __init__(self, redis: Redis, name: str) -> None:
        self._redis = redis
        self._name = name
        self._take = redis.client.register_script(_TAKE)
        self._give_back = redis.client.register_script(_GIVE_BACK)

    async def take(self, *takes: Take) -> None:
        """`RateLimited` says when all of them could be taken; `Unavailable` without Redis."""
        if refused := await self.refused(*takes):
            raise RateLimited("too often: try again later", retry_after_s=refused.retry_after_s)

    async def refused(self, *takes: Take) -> Refused | None:
        """As `take`, but answers the refusal; None if all were taken."""
        by, wait_ms = await self._run(self._take, takes)
        return Refused(takes[by - 1], wait_ms / 1000) if by else None

    async def give_back(self, *takes: Take) -> None:
        """What was taken last: as if that had not been. A delay that it caused is over."""
        await self._run(self._give_back, takes)

    async def clear(self, *takes: Take) -> None:
        """Forgets all that was counted under their keys."""
        try:
            async with asyncio.timeout(_WITHIN_S):
                await self._redis.client.delete(*(self._key(take) for take in takes))
        except (RedisError, OSError) as error:
            raise _away(error) from error

    async def _run(self, script: AsyncScript, takes: Sequence[Take]) -> Any:
        specs = orjson.dumps([take.rule.spec() for take in takes])
        try:
            async with asyncio.timeout(_WITHIN_S):
                return await script([self._key(take) for take in takes], [specs])
        except (RedisError, OSError) as error:
            raise _away(error) from error

    def _key(self, take: Take) -> str:
        return self._redis.key("limit", self._name, _hashed(take.key))


def _away(error: Exception) -> Unavailable:
    log.warning("limits cannot be counted, nothing is let through", error=repr(error)[:200])
    return Unavailable("this is limited, and what counts it does not answer: try again in a moment")


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


# What each sort keeps: rates a list of instants, the newest first; backoff a hash {tries, at, next}; distinct a sorted
# set. Should the clock be set back, an instant of the future costs no longer wait than one of now.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local wait, count = {}, {}

function wait.rates(key, rates)
  local longest = 0
  for _, rate in ipairs(rates) do
    local at = redis.call('LINDEX', key, rate[1] - 1)
    if at then longest = math.max(longest, math.min(at - now, 0) + rate[2]) end
  end
  return longest
end

function count.rates(key, rates)
  local limit, ms = 0, 0
  for _, rate in ipairs(rates) do
    limit, ms = math.max(limit, rate[1]), math.max(ms, rate[2])
  end
  redis.call('LPUSH', key, string.format('%.0f', now))
  redis.call('LTRIM', key, 0, limit - 1)
  redis.call('PEXPIRE', key, ms)
end

function wait.backoff(key, free, first_ms, longest_ms)
  local next_at = redis.call('HGET', key, 'next')
  return next_at and math.min(next_at - now, longest_ms) or 0
end

function count.backoff(key, free, first_ms, longest_ms, forgiven_ms)
  local tries, at = unpack(redis.call('HMGET', key, 'tries', 'at'))
  local forgiven = at and math.max(0, math.floor((now - at) / forgiven_ms)) or 0
  tries = math.max(0, (tries or 0) - forgiven)
  at = tries > 0 and math.min(now, at + forgiven * forgiven_ms) or now
  tries = tries + 1
  local delay_ms = 0
  if tries >= free then
    delay_ms = math.min(longest_ms, first_ms * 2 ^ (tries - free))
    -- More would delay no longer, only take longer to be forgiven.
    tries = math.min(tries, free + math.ceil(math.log(longest_ms / first_ms) / math.log(2)))
  end
  local next_at = now + delay_ms
  redis.call('HSET', key, 'tries', tries, 'at', string.format('%.0f', at), 'next', string.format('%.0f', next_at))
  redis.call('PEXPIRE', key, math.ceil(math.max(delay_ms, tries * forgiven_ms)))
end

function wait.distinct(key, member, limit, ms)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - ms)
  if redis.call('ZSCORE', key, member) or redis.call('ZCARD', key) < limit then return 0 end
  return math.min(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] - now, 0) + ms
end

function count.distinct(key, member, limit, ms)
  redis.call('ZADD', key, now, member)
  redis.call('PEXPIRE', key, ms)
end

local by, longest = 0, 0
local specs = cjson.decode(ARGV[1])
for i, spec in ipairs(specs) do
  local ms = wait[spec[1]](KEYS[i], unpack(spec, 2))
  if ms > longest then by, longest = i, ms end
end
if by == 0 then
  for i, spec in ipairs(specs) do count[spec[1]](KEYS[i], unpack(spec, 2)) end
end
return {by, math.ceil(longest)}
"""

_GIVE_BACK = """
for i, spec in ipairs(cjson.decode(ARGV[1])) do
  local key = KEYS[i]
  if spec[1] == 'rates' then
    redis.call('LPOP', key)
  elseif spec[1] == 'distinct' then
    redis.call('ZREM', key, spec[2])
  elseif redis.call('EXISTS', key) == 1 then
    redis.call('HDEL', key, 'next')
    if redis.call('HINCRBY', key, 'tries', -1) <= 0 then redis.call('DEL', key) end
  end
end
"""
