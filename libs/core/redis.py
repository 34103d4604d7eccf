"""The way to Redis. Redis is fast and may lose everything: nothing here is the only copy of a fact."""

import asyncio
from typing import Any, Self

from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError, TimeoutError as RedisTimeoutError

# What a caller of Redis catches when Redis is away; anything else is a mistake in the command.
AWAY = (RedisConnectionError, RedisTimeoutError, OSError)


class _Cancellable(Connection):
    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """As the library sends, without its `asyncio.wait_for`.

        Before Python 3.12 that drops a cancellation that comes in the same turn of the event loop as its result, one in
        four of those that meet a command. A task that was told to stop, or whose time has run out, would go on.
        """
        timeout_s, self.socket_timeout = self.socket_timeout, None
        try:
            async with asyncio.timeout(timeout_s):
                await super().send_packed_command(command, check_health)
        finally:
            self.socket_timeout = timeout_s


class Redis:
    """One pool a process. `key("cache", "x")` puts the installation's namespace before a key or channel name."""

    def __init__(self, client: Client, *, namespace: str = "") -> None:
        self.client = client
        self._prefix = f"{namespace}:" if namespace else ""

    @classmethod
    def connect(cls, url: str, *, namespace: str = "") -> Self:
        """Does not wait for the server. A command without one fails in about 2 s, with one of `AWAY`."""
        pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
            url,
            max_connections=64,
            timeout=2,
            socket_connect_timeout=2,
            socket_timeout=10,  # above the longest blocking read (5 s)
            health_check_interval=15,
            retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.2), 2),
            decode_responses=False,
        )
        pool.connection_class = type("CancellableConnection", (_Cancellable, pool.connection_class), {})
        return cls(Client(connection_pool=pool), namespace=namespace)

    def key(self, *parts: str) -> str:
        return self._prefix + ":".join(parts)

    def unretried(self) -> Client:
        """A client of its own that sends no command twice, for those that would do more the second time. Close it with
        `aclose(close_connection_pool=True)`."""
        shared = self.client.connection_pool
        options = {**shared.connection_kwargs, "retry": Retry(NoBackoff(), 0)}
        return Client(connection_pool=ConnectionPool(shared.connection_class, **options))

    async def ping(self) -> None:
        await self.client.ping()

    async def close(self) -> None:
        await self.client.aclose()
        await self.client.connection_pool.disconnect()
