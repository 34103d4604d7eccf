"""The Redis side of events: one stream per partition of a source, and one pub/sub channel per event type.

What is sent together is added and published in one script, which refuses if this is not the Redis that the relay
left: another epoch (flushed, or restarted empty), a stream that ends too early (a tail lost in a failover, a key
evicted), or a later relay at work. Entry ids are `<ms>-<n>` with the relay's own ms, which never goes back.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from redis.exceptions import ResponseError

from libs.core.errors import Unavailable
from libs.core.events.event import PARTITIONS
from libs.core.redis import Redis

# One holder per partition and group, so the consumer's name can be the same for all: its pending entries are the ones
# that the last holder had in hand.
CONSUMER = "holder"
BODY = b"e"

EntryId = tuple[int, int]
NOTHING: EntryId = (0, 0)

_PUBLISH = r"""
local state = redis.call('HMGET', KEYS[1], 'epoch', 'token')
if state[1] ~= ARGV[1] then return {'lost'} end
if tonumber(state[2]) > tonumber(ARGV[2]) then return {'fenced'} end
local now, limit = tonumber(ARGV[3]), tonumber(ARGV[4])
for p = 2, #KEYS do
  local entry = redis.call('XREVRANGE', KEYS[p], '+', '-', 'COUNT', 1)[1]
  -- what was sent at once was lost or kept at once, so the time is enough
  local last = entry and tonumber(string.match(entry[1], '^%d+')) or 0
  if last < tonumber(ARGV[4 + p]) then return {'lost'} end
  if last >= now then now = last + 1 end
  if redis.call('XLEN', KEYS[p]) >= limit then return {'full'} end
end
local ms, n, used = string.format('%.0f', now), 0, {}
for p, type, body in string.gmatch(ARGV[#ARGV], '(%d+) (%S+)\n([^\n]*)\n') do
  redis.call('XADD', KEYS[2 + tonumber(p)], ms .. '-' .. n, 'e', body)
  redis.call('PUBLISH', ARGV[5] .. type, body)
  used[p] = n
  n = n + 1
end
redis.call('HSET', KEYS[1], 'token', ARGV[2])
local sent = {'sent', ms}
for p, last in pairs(used) do table.insert(sent, p .. '-' .. last) end
return sent
"""

_RESET = """
for p = 3, #KEYS do redis.call('DEL', KEYS[p]) end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'token', ARGV[2])
redis.call('DEL', KEYS[2])
for i = 3, #ARGV do redis.call('HSET', KEYS[2], ARGV[i], 'away') end
"""

# A group that was left behind must not go on with what is there now: first it is sent what it missed.
_CREATE_GROUP = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], ARGV[1], 'back')
  return 0
end
for p = 2, #KEYS do
  local made = redis.pcall('XGROUP', 'CREATE', KEYS[p], ARGV[1], '0', 'MKSTREAM')
  if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
end
return 1
"""

_LEAVE_BEHIND = """
redis.call('HSET', KEYS[1], ARGV[1], 'away')
for p = 2, #KEYS do redis.pcall('XGROUP', 'DESTROY', KEYS[p], ARGV[1]) end
"""

_PLACES = """
local places = {}
for p = 1, #KEYS do
  local oldest = redis.call('XRANGE', KEYS[p], '-', '+', 'COUNT', 1)[1]
  if oldest then
    local newest = redis.call('XREVRANGE', KEYS[p], '+', '-', 'COUNT', 1)[1]
    for _, fields in ipairs(redis.call('XINFO', 'GROUPS', KEYS[p])) do
      local group = {}
      for i = 1, #fields, 2 do group[fields[i]] = fields[i + 1] end
      local pending = group.pending > 0 and redis.call('XPENDING', KEYS[p], group.name)[2] or ''
      table.insert(places, {p - 1, group.name, oldest[1], newest[1], group['last-delivered-id'], pending})
    end
  end
end
return places
"""


@dataclass(frozen=True, slots=True)
class Published:
    """`ms` is the time in the ids of what was sent, and `tails` the new last entries, by partition."""

    outcome: Literal["sent", "lost", "fenced", "full"]
    ms: int = 0
    tails: Mapping[int, EntryId] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """What a group was given. `body` is None if it was trimmed while it was pending."""

    partition: int
    id: bytes
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a group stands in a partition: everything before the entry `unsettled` has been acknowledged by it, and
    everything there is if that is None."""

    partition: int
    group: str
    unsettled: EntryId | None


class Stream:
    """The streams of one `source`. Raises redis-py's errors as they are: the callers know how to wait."""

    def __init__(self, redis: Redis, source: str) -> None:
        self.source = source
        self.client = redis.client
        # To read is to be given: a read that is sent again after its answer was lost is given what comes *next*.
        self._reader = redis.unretried()
        self.kick_channel = redis.key("events", source, "kick")
        self._keys = [redis.key("events", source, str(partition)) for partition in range(PARTITIONS)]
        self._partitions = {key.encode(): partition for partition, key in enumerate(self._keys)}
        self._state_key = redis.key("events", source, "relay")
        self._channel_prefix = channel(redis, "")
        self._publish = self.client.register_script(_PUBLISH)
        self._left_behind_key = redis.key("events", source, "left-behind")
        self._create_group = self.client.register_script(_CREATE_GROUP)
        self._leave_behind = self.client.register_script(_LEAVE_BEHIND)
        self._reset = self.client.register_script(_RESET)
        self._places = self.client.register_script(_PLACES)

    async def publish(
        self, epoch: str, token: int, now_ms: int, tails: Sequence[EntryId], lines: str, *, limit: int
    ) -> Published:
        """Adds and publishes the events of `lines` (see `Outbox.append`), all or none.

        `tails` are the last entries that the streams must still have. "full": one has `limit` entries or more.
        """
        arguments: list[str | int] = [
            epoch,
            token,
            now_ms,
            limit,
            self._channel_prefix,
            *(ms for ms, _ in tails),
            lines,
        ]
        outcome, *sent = await self._publish([self._state_key, *self._keys], arguments)
        if outcome != b"sent":
            return Published(outcome.decode())
        ms = int(sent[0])
        return Published("sent", ms, {partition: (ms, n) for partition, n in map(_entry_id, sent[1:])})

    async def reset(self, epoch: str, token: int, left_behind: Iterable[str]) -> None:
        """Empties the streams, and with them the groups' places, for a new epoch. Needs no fence: a relay that finds
        another's epoch instead of its own does the same again."""
        await self._reset([self._state_key, self._left_behind_key, *self._keys], [epoch, token, *left_behind])

    async def places(self) -> list[Place]:
        """Of every group in every partition that has entries, at one instant."""
        return [_place(*row) for row in await self._places(self._keys)]

    async def trim(self, keep_from: Mapping[int, EntryId]) -> None:
        """Removes what is older than the given ids, by partition."""
        pipe = self.client.pipeline(transaction=False)
        for partition, (ms, n) in keep_from.items():
            pipe.xtrim(self._keys[partition], minid=f"{ms}-{n}", approximate=False)
        await pipe.execute()

    async def create_group(self, group: str) -> None:
        """Where it does not exist, before the oldest entry that is there. `Unavailable` to a group that was left
        behind, until the relay has sent again what it missed."""
        if not await self._create_group([self._left_behind_key, *self._keys], [group]):
            raise Unavailable(f"{group} was left behind, and waits for {self.source} to send again what it missed")

    async def leave_behind(self, group: str) -> None:
        await self._leave_behind([self._left_behind_key, *self._keys], [group])

    async def back(self) -> set[str]:
        """The groups that were left behind and want to go on."""
        groups: Any = await self.client.hgetall(self._left_behind_key)
        return {group.decode() for group, state in groups.items() if state == b"back"}

    async def read(
        self, group: str, partitions: Iterable[int], *, count: int, block_ms: int | None = None
    ) -> list[Entry]:
        """New entries, at most `count` per partition, waiting up to `block_ms` for the first. Creates a lost group."""
        return await self._read(group, dict.fromkeys(partitions, b">"), count, block_ms)

    async def read_pending(self, group: str, partitions: Iterable[int], *, count: int) -> list[Entry]:
        """What was given before and never acknowledged."""
        return await self._read(group, dict.fromkeys(partitions, b"0"), count, None)

    async def _read(self, group: str, since: Mapping[int, bytes], count: int, block_ms: int | None) -> list[Entry]:
        streams: dict[Any, Any] = {self._keys[partition]: start for partition, start in since.items()}
        try:
            answer: Any = await self._reader.xreadgroup(group, CONSUMER, streams, count=count, block=block_ms)
        except ResponseError as error:
            # Redis 7 says UNBLOCKED to one who waits on a stream that is deleted.
            if not str(error).startswith(("NOGROUP", "UNBLOCKED")):
                raise
            await self.create_group(group)
            return []
        return [
            Entry(self._partitions[key], entry_id, fields.get(BODY))
            for key, entries in answer
            for entry_id, fields in entries
        ]

    async def acknowledge(self, group: str, entries: Iterable[Entry]) -> None:
        by_partition: dict[int, list[bytes]] = {}
        for entry in entries:
            by_partition.setdefault(entry.partition, []).append(entry.id)
        pipe = self.client.pipeline(transaction=False)
        for partition, ids in by_partition.items():
            pipe.xack(self._keys[partition], group, *ids)
        await pipe.execute()

    async def close(self) -> None:
        await self._reader.aclose(close_connection_pool=True)

    async def kick(self) -> None:
        await self.client.publish(self.kick_channel, b"")


def channel(redis: Redis, event_type: str) -> str:
    """The pub/sub channel of an event type."""
    return redis.key("events", "live", event_type)


def _entry_id(text: bytes) -> EntryId:
    ms, n = text.split(b"-")
    return int(ms), int(n)


def _place(partition: int, group: bytes, oldest: bytes, newest: bytes, delivered: bytes, pending: bytes) -> Place:
    unsettled: EntryId | None = None
    if pending:
        unsettled = _entry_id(pending)
    elif _entry_id(delivered) < _entry_id(newest):
        unsettled = max(_entry_id(delivered), _entry_id(oldest))
    return Place(partition, group.decode(), unsettled)
