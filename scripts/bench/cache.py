"""What the cache costs, and how fast an invalidation travels. `python -m scripts.bench.cache`"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

from libs.core.cache import MISSING, Cache
from libs.core.redis import Redis
from libs.core.testing import scratch_namespace

HIT_NS, INVALIDATION_MS = 2_000, 50.0
HITS, ROUNDS = 100_000, 9
MISSES, KEYS, INVALIDATIONS = 1_000, 20, 300


async def main() -> bool:
    redis = Redis.connect(os.environ["REDIS_URL"], namespace=scratch_namespace())
    async with Cache(redis) as cache:
        results = [
            await memory_hit(cache),
            await misses_here(cache),
            await misses_in_two_processes(redis, cache),
            await invalidation(redis, cache),
        ]
    await redis.client.unlink(*[key async for key in redis.client.scan_iter(match=redis.key("*"), count=1000)])
    await redis.close()
    return all(results)


async def memory_hit(cache: Cache) -> bool:
    """Against the bare dict, each in the same loop, with the loop's own cost in both."""
    key, bare = ("hit",), {("hit",): "value"}

    async def load() -> str:
        return "value"

    await cache.get_or_load(key, load, 600)
    await asyncio.sleep(0.1)  # what goes on behind the first call, so that it is not measured
    dict_ns, cache_ns, peek_ns = [], [], []
    for _ in range(ROUNDS):
        started = time.perf_counter_ns()
        for _ in range(HITS):
            bare.get(key)
        dict_ns.append((time.perf_counter_ns() - started) / HITS)
        started = time.perf_counter_ns()
        for _ in range(HITS):
            await cache.get_or_load(key, load, 600)
        cache_ns.append((time.perf_counter_ns() - started) / HITS)
        started = time.perf_counter_ns()
        for _ in range(HITS):
            cache.peek(key)
        peek_ns.append((time.perf_counter_ns() - started) / HITS)
    in_dict, in_cache, peeked = map(statistics.median, (dict_ns, cache_ns, peek_ns))
    above = in_cache - in_dict
    print(
        f"memory hit: dict {in_dict:.0f} ns, peek {peeked:.0f} ns, get_or_load {in_cache:.0f} ns: {above:.0f} ns above"
    )
    return said(above <= HIT_NS, f"at most {HIT_NS} ns above a dict's get")


async def misses_here(cache: Cache) -> bool:
    loads = 0

    async def load() -> str:
        nonlocal loads
        loads += 1
        await asyncio.sleep(0.005)
        return "value"

    started = time.perf_counter()
    await asyncio.gather(*(cache.get_or_load(("missed",), load, 600) for _ in range(MISSES)))
    took_ms = (time.perf_counter() - started) * 1000
    print(f"{MISSES} concurrent misses, a load of 5 ms: {loads} load(s), {took_ms:.1f} ms")
    return said(loads == 1, "one load")


async def misses_in_two_processes(redis: Redis, cache: Cache) -> bool:
    """The same keys missed in both at once, MISSES callers for each in either process."""
    async with Other(redis, "miss") as other:
        await other.says("ready")
        other.tell("go")
        took_ms = await miss_all(redis, cache)
        await other.says("done")
    loads = int(await redis.client.get(redis.key("loads")) or 0)
    print(f"{KEYS} keys missed in 2 processes at once: {loads} loads, {took_ms / KEYS:.1f} ms each, a load being 5 ms")
    return said(loads == KEYS, "one load for each")


async def miss_all(redis: Redis, cache: Cache) -> float:
    async def load() -> str:
        await redis.client.incr(redis.key("loads"))
        await asyncio.sleep(0.005)
        return "value"

    started = time.perf_counter()
    for n in range(KEYS):
        await asyncio.gather(*(cache.get_or_load(("shared", str(n)), load, 600) for _ in range(MISSES)))
    return (time.perf_counter() - started) * 1000


async def invalidation(redis: Redis, cache: Cache) -> bool:
    """From the call to the moment when the other process, which looks every millisecond, has it no more."""
    took_ms = []
    async with Other(redis, "hold") as other:
        for _ in range(INVALIDATIONS):
            await other.says("held")
            started = time.monotonic()  # one clock for all processes of a machine
            await cache.invalidate(("held",))
            took_ms.append((float(await other.answer()) - started) * 1000)
    p50, p99 = statistics.median(took_ms), statistics.quantiles(took_ms, n=100)[98]
    print(f"invalidation reaches another process: p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {max(took_ms):.1f} ms")
    return said(p99 <= INVALIDATION_MS, f"p99 within {INVALIDATION_MS:.0f} ms")


def said(held: bool, target: str) -> bool:
    print(f"    {'holds' if held else 'MISSED'}: {target}")
    return held


class Other:
    """This program in another process, in one of the `ROLES`. Talks in lines."""

    def __init__(self, redis: Redis, role: str) -> None:
        self._command = ("-m", "scripts.bench.cache", role, redis.key(""))

    async def __aenter__(self) -> "Other":
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(sys.executable, *self._command, stdin=pipe, stdout=pipe)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def tell(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line.encode() + b"\n")

    async def answer(self) -> str:
        assert self._process.stdout
        async with asyncio.timeout(30):
            return (await self._process.stdout.readline()).decode().strip()

    async def says(self, expected: str) -> None:
        if (answer := await self.answer()) != expected:
            raise RuntimeError(f"the other process said {answer!r} and not {expected!r}")


async def miss(redis: Redis, cache: Cache) -> None:
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await miss_all(redis, cache)
    print("done", flush=True)


async def hold(redis: Redis, cache: Cache) -> None:
    async def load() -> str:
        return "value"

    while True:
        await cache.get_or_load(("held",), load, 600)
        if cache.peek(("held",)) is not MISSING:
            print("held", flush=True)
            while cache.peek(("held",)) is not MISSING:  # noqa: ASYNC110 - looking is what is measured
                await asyncio.sleep(0.001)
            print(time.monotonic(), flush=True)


ROLES: dict[str, Callable[[Redis, Cache], Awaitable[None]]] = {"miss": miss, "hold": hold}


async def play(role: str, prefix: str) -> None:
    redis = Redis.connect(os.environ["REDIS_URL"], namespace=prefix.rstrip(":"))
    async with Cache(redis) as cache:
        await ROLES[role](redis, cache)
    await redis.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(play(*sys.argv[1:]))
    else:
        sys.exit(0 if asyncio.run(main()) else 1)
