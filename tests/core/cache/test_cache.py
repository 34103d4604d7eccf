"""The cache: one load however many miss, invalidations that stay, and service while Redis is away."""

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from libs.core.cache import MISSING, Cache, Key
from libs.core.errors import NotFound, Unavailable
from libs.core.redis import Redis
from libs.core.testing import eventually
from scripts.process import Server

KEY: Key = ("tenant", "t1")
TAG: Key = ("tenants",)


class Source:
    """What is cached. Its `load` waits at the gate while that is closed."""

    def __init__(self, value: Any = "old") -> None:
        self.value = value
        self.loads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self) -> Any:
        self.loads += 1
        value = self.value
        await self.gate.wait()
        if isinstance(value, Exception):
            raise value
        return value

    async def loading(self, loads: int = 1) -> None:
        await eventually(lambda: self.loads == loads)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def cache(redis: Redis, stack: AsyncExitStack) -> Cache:
    return await stack.enter_async_context(Cache(redis))


@pytest.fixture
async def another(redis: Redis, stack: AsyncExitStack) -> Cache:
    """As another process would have it, on the same Redis."""
    return await stack.enter_async_context(Cache(redis))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def ttl_ms(redis: Redis, kind: str = "entry") -> int:
    """The longest time to live of what Redis holds of a kind (entry, lock, generation); 0 if it holds nothing."""
    keys = [key async for key in redis.client.scan_iter(match=redis.key("cache", kind, "*"))]
    return max([await redis.client.pttl(key) for key in keys], default=0)


async def landed(cache: Cache) -> None:
    """No load is under way any more: the listener is the only task that is left."""
    await eventually(lambda: len(cache._tasks) == 1)


async def holding(cache: Cache, value: object) -> None:
    await eventually(lambda: cache.peek(KEY) == value)


class TestGetOrLoad:
    async def test_loads_once(self, cache: Cache, source: Source) -> None:
        assert [await cache.get_or_load(KEY, source.load, 60) for _ in range(3)] == ["old"] * 3
        assert source.loads == 1

    async def test_takes_from_redis_what_another_loaded(self, cache: Cache, another: Cache, source: Source) -> None:
        await cache.get_or_load(KEY, source.load, 60)
        await landed(cache)
        assert await another.get_or_load(KEY, Source("unused").load, 60) == "old"

    async def test_a_thousand_misses_make_one_load(self, cache: Cache, source: Source) -> None:
        answers = await asyncio.gather(*(cache.get_or_load(KEY, source.load, 60) for _ in range(1000)))
        assert (set(answers), source.loads) == ({"old"}, 1)

    async def test_many_caches_make_one_load(self, redis: Redis, stack: AsyncExitStack, source: Source) -> None:
        caches = [await stack.enter_async_context(Cache(redis)) for _ in range(8)]
        answers = await asyncio.gather(*(cache.get_or_load(KEY, source.load, 60) for cache in caches))
        assert (answers, source.loads) == (["old"] * 8, 1)

    async def test_value_has_been_through_json(self, cache: Cache, another: Cache) -> None:
        original = {"a": (1, 2.5, None, True), "é": "\x00\n|"}
        for asked in (cache, another):
            assert await asked.get_or_load(KEY, Source(original).load, 60) == {**original, "a": [1, 2.5, None, True]}

    async def test_every_caller_gets_what_decode_made(self, cache: Cache, another: Cache) -> None:
        for asked in (cache, cache, another):
            assert await asked.get_or_load(KEY, Source([1, 2]).load, 60, decode=tuple) == (1, 2)

    async def test_what_is_not_json_is_refused(self, cache: Cache) -> None:
        with pytest.raises(TypeError):
            await cache.get_or_load(KEY, Source({1, 2}).load, 60)

    async def test_names_that_look_alike_do_not_meet(self, cache: Cache, another: Cache) -> None:
        names: list[Key] = [("a:b", "c"), ("a", "b:c"), ("a", "b", "c"), ('a","b', "c"), ("a", "b:c", ""), ("",), ()]
        for n, name in enumerate(names):
            await cache.get_or_load(name, Source(n).load, 60)
        await another.invalidate(names[0])
        answers = [await another.get_or_load(name, Source("new").load, 60) for name in names]
        assert answers == ["new", *range(1, len(names))]

    async def test_releases_with_different_versions_keep_apart(
        self, cache: Cache, another: Cache, source: Source
    ) -> None:
        await cache.get_or_load(KEY, source.load, 60, version=1)
        assert await another.get_or_load(KEY, Source("shape 2").load, 60, version=2) == "shape 2"
        await another.invalidate(KEY)
        await holding(cache, MISSING)
        source.value = "new"
        assert await cache.get_or_load(KEY, source.load, 60, version=1) == "new"


class TestErrors:
    async def test_reach_everyone_and_are_not_cached(self, cache: Cache, source: Source) -> None:
        source.value = NotFound("no such tenant")
        outcomes = await asyncio.gather(
            *(cache.get_or_load(KEY, source.load, 60) for _ in range(5)), return_exceptions=True
        )
        assert (outcomes, source.loads) == ([source.value] * 5, 1)
        source.value = "there"
        assert await cache.get_or_load(KEY, source.load, 60) == "there"

    async def test_let_another_process_load_at_once(self, cache: Cache, another: Cache, source: Source) -> None:
        with pytest.raises(NotFound):
            await cache.get_or_load(KEY, Source(NotFound("no such tenant")).load, 60)
        async with asyncio.timeout(2):
            assert await another.get_or_load(KEY, source.load, 60) == "old"

    async def test_a_load_that_takes_too_long(self, redis: Redis, stack: AsyncExitStack, source: Source) -> None:
        cache = await stack.enter_async_context(Cache(redis, load_within_s=0.1))
        source.gate.clear()
        with pytest.raises(Unavailable, match=r"longer than 0\.1 s"):
            await cache.get_or_load(KEY, source.load, 60)
        source.gate.set()
        assert await cache.get_or_load(KEY, source.load, 60) == "old"

    async def test_a_cancelled_caller_leaves_the_others_their_load(self, cache: Cache, source: Source) -> None:
        source.gate.clear()
        first, second = (asyncio.create_task(cache.get_or_load(KEY, source.load, 60)) for _ in range(2))
        await source.loading()
        first.cancel()
        await asyncio.wait([first])
        source.gate.set()
        assert await second == "old"
        assert (first.cancelled(), source.loads) == (True, 1)

    async def test_closing_tells_those_who_wait(self, redis: Redis, source: Source) -> None:
        source.gate.clear()
        async with Cache(redis) as cache:
            waiting = asyncio.create_task(cache.get_or_load(KEY, source.load, 60))
            await source.loading()
        with pytest.raises(Unavailable, match="closing"):
            await waiting


class TestTime:
    async def test_fresh_for_nine_tenths_of_its_ttl_and_not_longer(self, redis: Redis, stack: AsyncExitStack) -> None:
        clock = Clock()
        cache = await stack.enter_async_context(Cache(redis, monotonic=clock))
        await cache.get_or_load(KEY, Source().load, 100)
        clock.now += 89.9
        assert cache.peek(KEY) == "old"
        clock.now += 10.2
        assert cache.peek(KEY) is MISSING

    async def test_redis_keeps_it_as_long(self, redis: Redis, cache: Cache, source: Source) -> None:
        await cache.get_or_load(KEY, source.load, 100, stale_s=50)
        assert 138_000 < await eventually(lambda: ttl_ms(redis)) <= 150_000

    async def test_nothing_is_kept_for_a_shorter_time(self, redis: Redis, cache: Cache, source: Source) -> None:
        source.value = None
        assert [await cache.get_or_load(KEY, source.load, 100, stale_s=50, negative_ttl_s=10) for _ in "ab"] == [
            None
        ] * 2
        assert (cache.peek(KEY), source.loads) == (None, 1)
        assert 8_000 < await eventually(lambda: ttl_ms(redis)) <= 10_000

    async def test_a_tag_lasts_as_long_as_its_longest_entry(self, redis: Redis, cache: Cache, source: Source) -> None:
        for key, ttl_s in (("short",), 1), (("long",), 600):
            await cache.get_or_load(key, source.load, ttl_s, tags=(TAG,))
        assert await redis.client.pttl(redis.key("cache", "generation", '["tenants"]')) > 600_000

    async def test_expires(self, cache: Cache, source: Source) -> None:
        await cache.get_or_load(KEY, source.load, 0.05)
        source.value = "new"

        async def renewed() -> bool:
            return bool(await cache.get_or_load(KEY, source.load, 0.05) == "new")

        await eventually(renewed)


class TestStale:
    @pytest.fixture
    async def stale(self, redis: Redis, cache: Cache, source: Source) -> None:
        """Old in memory and in Redis, while the source has something new, behind a closed gate."""
        await cache.get_or_load(KEY, source.load, 0.02, stale_s=60)
        await holding(cache, MISSING)

        async def old_in_redis_too() -> bool:
            return 0 < await ttl_ms(redis) <= 60_000

        await eventually(old_in_redis_too)
        source.gate.clear()
        source.value = "new"

    async def test_is_answered_at_once_and_renewed_behind(self, cache: Cache, source: Source, stale: None) -> None:
        assert [await cache.get_or_load(KEY, source.load, 60, stale_s=60) for _ in range(5)] == ["old"] * 5
        await source.loading(2)
        source.gate.set()
        await holding(cache, "new")
        assert source.loads == 2

    async def test_from_redis_too(self, another: Cache, source: Source, stale: None) -> None:
        assert await another.get_or_load(KEY, source.load, 60, stale_s=60) == "old"
        await source.loading(2)
        source.gate.set()
        await holding(another, "new")

    async def test_one_process_renews_it(self, cache: Cache, another: Cache, source: Source, stale: None) -> None:
        for asked in (cache, another):
            assert await asked.get_or_load(KEY, source.load, 60, stale_s=60) == "old"
        await source.loading(2)
        source.gate.set()
        for asked in (cache, another):
            await holding(asked, "new")
        assert source.loads == 2

    async def test_failed_renewal_leaves_it(self, cache: Cache, source: Source, stale: None) -> None:
        source.value = NotFound("gone")
        source.gate.set()
        assert await cache.get_or_load(KEY, source.load, 60, stale_s=60) == "old"
        await source.loading(2)
        await holding(cache, "old")

    async def test_is_not_answered_once_invalidated(self, cache: Cache, source: Source, stale: None) -> None:
        await cache.invalidate(KEY)
        source.gate.set()
        assert await cache.get_or_load(KEY, source.load, 60, stale_s=60) == "new"


class TestInvalidate:
    @pytest.mark.parametrize("name", [KEY, TAG], ids=["key", "tag"])
    async def test_is_seen_by_the_next_caller(self, cache: Cache, source: Source, name: Key) -> None:
        await cache.get_or_load(KEY, source.load, 60, tags=(TAG,))
        source.value = "new"
        await cache.invalidate(name)
        assert await cache.get_or_load(KEY, source.load, 60, tags=(TAG,)) == "new"

    @pytest.mark.parametrize("name", [KEY, TAG], ids=["key", "tag"])
    async def test_reaches_other_processes(self, cache: Cache, another: Cache, source: Source, name: Key) -> None:
        for asked in (cache, another):
            await asked.get_or_load(KEY, source.load, 60, tags=(TAG,))
        await cache.invalidate(name)
        await holding(another, MISSING)

    async def test_leaves_the_rest(self, cache: Cache, source: Source) -> None:
        for key in (KEY, ("tenant", "t2")):
            await cache.get_or_load(key, source.load, 60, tags=(TAG, key))
        await cache.invalidate(KEY)
        assert cache.peek(("tenant", "t2")) == "old"

    async def test_goes_on_when_its_caller_is_cancelled(self, cache: Cache, another: Cache, source: Source) -> None:
        await another.get_or_load(KEY, source.load, 60)
        invalidation = asyncio.create_task(cache.invalidate(KEY))
        await asyncio.sleep(0)
        invalidation.cancel()
        await holding(another, MISSING)
        assert invalidation.cancelled()


@pytest.mark.parametrize("name", [KEY, TAG], ids=["key", "tag"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
class TestLoadThatBeganBeforeTheInvalidation:
    """It read the old value, is overtaken by the invalidation, and only then comes back."""

    @pytest.fixture
    async def overtaken(
        self, cache: Cache, another: Cache, source: Source, name: Key, elsewhere: bool
    ) -> asyncio.Task[Any]:
        source.gate.clear()
        waiting = asyncio.create_task(cache.get_or_load(KEY, source.load, 60, tags=(TAG,)))
        await source.loading()
        await (another if elsewhere else cache).invalidate(name)
        if elsewhere:
            await eventually(lambda: KEY not in cache._flights)
        return waiting

    async def test_answers_who_waited_and_is_kept_nowhere(
        self, cache: Cache, another: Cache, source: Source, overtaken: asyncio.Task[Any]
    ) -> None:
        source.gate.set()
        source.value = "new"
        assert await overtaken == "old"
        await landed(cache)
        assert cache.peek(KEY) is MISSING
        assert await another.get_or_load(KEY, source.load, 60, tags=(TAG,)) == "new"

    async def test_holds_up_nobody_who_asks_later(
        self, redis: Redis, cache: Cache, another: Cache, source: Source, overtaken: asyncio.Task[Any]
    ) -> None:
        new = Source("new")
        for asked in (cache, another):
            assert await asked.get_or_load(KEY, new.load, 60, tags=(TAG,)) == "new"
        source.gate.set()
        assert await overtaken == "old"
        await landed(cache)
        assert cache.peek(KEY) == another.peek(KEY) == "new"
        async with Cache(redis) as third:
            assert await third.get_or_load(KEY, Source("unused").load, 60, tags=(TAG,)) == "new"

    async def test_a_neighbour_was_loaded_meanwhile(
        self, cache: Cache, another: Cache, source: Source, overtaken: asyncio.Task[Any]
    ) -> None:
        """Which gives the tag a generation again: not the one that the load began with."""
        await another.get_or_load(("neighbour",), Source().load, 60, tags=(TAG, KEY))
        source.gate.set()
        await overtaken
        await landed(cache)
        assert await another.get_or_load(KEY, Source("new").load, 60, tags=(TAG,)) == "new"

    async def test_flushed_in_between(
        self, redis: Redis, cache: Cache, another: Cache, source: Source, overtaken: asyncio.Task[Any]
    ) -> None:
        """As FLUSHALL would: a generation that is made anew is never one that was there before."""
        await redis.client.delete(*[key async for key in redis.client.scan_iter(match=redis.key("cache", "gen*"))])
        source.gate.set()
        await overtaken
        await landed(cache)
        assert await another.get_or_load(KEY, Source("new").load, 60, tags=(TAG,)) == "new"


class Process:
    """`process.py`, running."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    def tell(self, **command: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(command).encode() + b"\n")

    async def says(self) -> dict[str, Any]:
        assert self.process.stdout
        async with asyncio.timeout(20):
            line = await self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def holds(self, key: Key) -> Any:
        self.tell(peek=key)
        return (await self.says())["held"]


Spawn = Callable[..., Awaitable[Process]]


@pytest.fixture
async def spawn(redis_url: str, namespace: str) -> AsyncIterator[Spawn]:
    running: list[asyncio.subprocess.Process] = []

    async def spawn(load_within_s: float = 20) -> Process:
        command = ("-m", "tests.core.cache.process", redis_url, namespace, str(load_within_s))
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(sys.executable, *command, stdin=pipe, stdout=pipe)
        running.append(process)
        started = Process(process)
        assert await started.says() == {"ready": True}
        return started

    yield spawn
    for process in running:
        if process.returncode is None:
            process.kill()
        await process.wait()


class TestMetrics:
    async def test_count_what_each_level_found(self, cache: Cache, another: Cache, source: Source) -> None:
        def counts() -> list[float]:
            return [
                REGISTRY.get_sample_value(f"cache_{level}_lookups_total", {"found": found}) or 0.0
                for level in ("memory", "redis")
                for found in ("hit", "miss")
            ]

        before = counts()
        for asked in (cache, cache, cache):
            await asked.get_or_load(KEY, source.load, 60)
        await landed(cache)
        await another.get_or_load(KEY, source.load, 60)
        assert [now - then for now, then in zip(counts(), before, strict=True)] == [2, 2, 1, 1]


class TestTwoProcesses:
    async def test_one_load(self, spawn: Spawn) -> None:
        one, two = await asyncio.gather(spawn(), spawn())
        one.tell(get=KEY)
        assert await one.says() == {"loading": list(KEY)}
        two.tell(get=KEY)
        one.tell(release="value")
        assert await one.says() == await two.says() == {"got": "value"}

    async def test_invalidation_reaches_the_other(self, spawn: Spawn, cache: Cache) -> None:
        one = await spawn()
        one.tell(get=KEY)
        one.tell(release="value")
        assert [await one.says(), await one.says()] == [{"loading": list(KEY)}, {"got": "value"}]
        assert await one.holds(KEY) == "value"
        await cache.invalidate(KEY)

        async def forgotten() -> bool:
            return await one.holds(KEY) is None

        await eventually(forgotten)

    async def test_a_killed_loader_holds_up_the_other_for_its_lock_alone(self, spawn: Spawn) -> None:
        one, two = await asyncio.gather(spawn(load_within_s=1), spawn(load_within_s=20))
        one.tell(get=KEY)
        assert await one.says() == {"loading": list(KEY)}
        one.process.kill()
        two.tell(get=KEY)
        assert await two.says() == {"loading": list(KEY)}


class TestForeignMessage:
    @pytest.mark.parametrize("message", [b"{", b"5", b"[1, 2]"])
    async def test_deafens_nobody(self, redis: Redis, cache: Cache, source: Source, message: bytes) -> None:
        await cache.get_or_load(KEY, source.load, 60)
        await redis.client.publish(redis.key("cache", "invalidate"), message)
        await eventually(lambda: cache.peek(KEY) is MISSING)
        await cache.trusted(within_s=10)


class TestRedisAway:
    @pytest.fixture
    async def cache(self, own_redis: Server, stack: AsyncExitStack) -> Cache:
        redis = Redis.connect(own_redis.url)
        stack.push_async_callback(redis.close)
        return await stack.enter_async_context(Cache(redis))

    @pytest.fixture
    async def another(self, own_redis: Server, stack: AsyncExitStack) -> Cache:
        redis = Redis.connect(own_redis.url)
        stack.push_async_callback(redis.close)
        return await stack.enter_async_context(Cache(redis))

    @pytest.fixture
    async def direct(self, own_redis: Server, stack: AsyncExitStack) -> Redis:
        redis = Redis.connect(own_redis.url)
        stack.push_async_callback(redis.close)
        return redis

    async def test_opens_and_serves_without_it(self, own_redis: Server, source: Source) -> None:
        own_redis.kill()
        redis = Redis.connect(own_redis.url)
        async with Cache(redis) as cache:
            answers = await asyncio.gather(*(cache.get_or_load(KEY, source.load, 60) for _ in range(100)))
        assert (set(answers), source.loads) == ({"old"}, 1)
        await redis.close()

    @pytest.mark.parametrize("hung", [False, True], ids=["dead", "hung"])
    async def test_costs_the_calls_under_way_a_moment_and_later_ones_nothing(
        self, cache: Cache, own_redis: Server, source: Source, hung: bool
    ) -> None:
        if hung:
            os.kill(own_redis.pid, signal.SIGSTOP)
        else:
            own_redis.kill()
        await asyncio.gather(*(cache.get_or_load((str(n),), source.load, 60) for n in range(50)))
        started = time.monotonic()
        for n in range(50, 100):
            await cache.get_or_load((str(n),), source.load, 60)
            await cache.invalidate((str(n),))
        assert time.monotonic() - started < 0.9  # not one wait for Redis, which would take a second
        if hung:
            os.kill(own_redis.pid, signal.SIGCONT)

    async def test_memory_is_dropped(self, cache: Cache, own_redis: Server, source: Source) -> None:
        await cache.get_or_load(KEY, source.load, 60)
        own_redis.kill()
        await holding(cache, MISSING)

    async def test_memory_is_believed_for_a_second(self, own_redis: Server, source: Source) -> None:
        own_redis.kill()
        redis, clock = Redis.connect(own_redis.url), Clock()
        async with Cache(redis, monotonic=clock) as cache:
            await cache.get_or_load(KEY, source.load, 60)
            clock.now += 0.8
            assert cache.peek(KEY) == "old"
            clock.now += 0.3
            assert cache.peek(KEY) is MISSING
        await redis.close()

    async def test_is_used_again_when_it_is_back(
        self, cache: Cache, another: Cache, own_redis: Server, source: Source
    ) -> None:
        own_redis.kill()
        await cache.get_or_load(KEY, source.load, 60)
        own_redis.start()
        await asyncio.gather(cache.trusted(within_s=10), another.trusted(within_s=10))
        assert cache.peek(KEY) is MISSING
        answers = await asyncio.gather(*(asked.get_or_load(KEY, source.load, 60) for asked in (cache, another)))
        assert (answers, source.loads) == (["old", "old"], 2)

    async def test_what_was_remembered_meanwhile_is_dropped(self, own_redis: Server, source: Source) -> None:
        redis = Redis.connect(own_redis.url)
        async with Cache(redis, monotonic=Clock()) as cache:
            os.kill(own_redis.pid, signal.SIGSTOP)
            await cache.get_or_load(("finds", "out"), source.load, 60)
            await cache.get_or_load(KEY, source.load, 60)
            assert cache.peek(KEY) == "old"
            os.kill(own_redis.pid, signal.SIGCONT)
            await cache.trusted(within_s=10)
            assert cache.peek(KEY) is MISSING
        await redis.close()

    async def test_an_invalidation_it_did_not_hear(
        self, cache: Cache, another: Cache, direct: Redis, source: Source
    ) -> None:
        for asked in (cache, another):
            await asked.get_or_load(KEY, source.load, 60)
        listening = await direct.client.client_list(_type="pubsub")
        await direct.client.client_kill_filter(_id=str(min(int(client["id"]) for client in listening)))
        await eventually(lambda: not cache._trusted.is_set())
        await cache.invalidate(KEY)
        source.value = "new"
        await holding(another, MISSING)
        assert await another.get_or_load(KEY, source.load, 60) == "new"

    async def test_restored_from_before_the_invalidation(
        self, cache: Cache, own_redis: Server, tmp_path: Path, source: Source
    ) -> None:
        await cache.get_or_load(KEY, source.load, 60)
        await landed(cache)
        assert own_redis.data
        shutil.copytree(own_redis.data, tmp_path / "before")
        await cache.invalidate(KEY)
        source.value = "new"
        own_redis.kill()
        shutil.rmtree(own_redis.data)
        shutil.copytree(tmp_path / "before", own_redis.data)
        own_redis.start()
        await eventually(lambda: not cache._trusted.is_set())
        await cache.trusted(within_s=10)
        assert await cache.get_or_load(KEY, source.load, 60) == "new"

    async def test_full(self, cache: Cache, direct: Redis, source: Source) -> None:
        await direct.client.config_set("maxmemory", 1)
        assert await cache.get_or_load(KEY, source.load, 60) == "old"
