"""What rarely changes is asked for rarely: an answer is kept, and asked for anew when it is old or wrong."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import structlog

from libs.core.errors import Unavailable

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Kept(Generic[T]):
    """`load` answers for a URL, or raises `Unavailable`. One load of a URL at a time, shared by all who wait for it."""

    def __init__(
        self,
        load: Callable[[str], Awaitable[T]],
        *,
        fresh_s: float = 3600.0,
        keep_s: float = 24 * 3600.0,
        at_most_every_s: float = 5.0,
        most: int = 500,
    ) -> None:
        """After `fresh_s` it is loaded again; while that fails, what there is counts for `keep_s`."""
        self._load = load
        self._fresh_s = fresh_s
        self._keep_s = keep_s
        self._at_most_every_s = at_most_every_s
        self._most = most
        self._entries: OrderedDict[str, _Entry[T]] = OrderedDict()

    async def get(self, url: str, *, anew: bool = False) -> T:
        """`anew`: what is kept was no good. Not even then is it loaded again within `at_most_every_s`."""
        entry = self._entries.setdefault(url, _Entry())
        self._entries.move_to_end(url)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)
        async with entry.lock:
            if self._due(entry, anew):
                await self._refresh(entry, url)
            if entry.value is None or _age_s(entry.loaded_at) > self._keep_s:
                raise Unavailable("the identity provider does not answer as it should", url=url)
            return entry.value

    def _due(self, entry: "_Entry[T]", anew: bool) -> bool:
        wanted = anew or entry.value is None or _age_s(entry.loaded_at) > self._fresh_s
        return wanted and _age_s(entry.tried_at) >= self._at_most_every_s

    async def _refresh(self, entry: "_Entry[T]", url: str) -> None:
        entry.tried_at = time.monotonic()
        try:
            entry.value = await self._load(url)
        except Unavailable as error:
            log.warning("an identity provider cannot be asked", url=url, error=error.message)
        else:
            entry.loaded_at = entry.tried_at


@dataclass(slots=True)
class _Entry(Generic[T]):
    value: T | None = None
    loaded_at: float = -math.inf
    tried_at: float = -math.inf
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


def _age_s(at: float) -> float:
    return time.monotonic() - at
