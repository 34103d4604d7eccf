"""A process with a cache of its own, for tests that need two. Reads commands from stdin, answers on stdout, in JSON.

{"get": key}  answers {"got": value}; its loader says {"loading": key} and waits for the value
{"release": value}   is what the loader returns
{"peek": key}  answers {"held": value or null}
"""

import asyncio
import json
import sys
from typing import Any

from libs.core.cache import MISSING, Cache
from libs.core.redis import Redis


def say(**answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def serve(url: str, namespace: str, load_within_s: float) -> None:
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    redis = Redis.connect(url, namespace=namespace)
    released: asyncio.Queue[Any] = asyncio.Queue()
    async with Cache(redis, load_within_s=load_within_s) as cache, asyncio.TaskGroup() as tasks:

        async def get(key: tuple[str, ...]) -> None:
            async def load() -> Any:
                say(loading=key)
                return await released.get()

            say(got=await cache.get_or_load(key, load, 60))

        say(ready=True)
        async for line in stdin:
            match json.loads(line):
                case {"get": key}:
                    tasks.create_task(get(tuple(key)))
                case {"release": value}:
                    released.put_nowait(value)
                case {"peek": key}:
                    value = cache.peek(tuple(key))
                    say(held=None if value is MISSING else value)
    await redis.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], float(sys.argv[3])))
