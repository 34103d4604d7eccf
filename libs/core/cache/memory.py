"""The first level: this process's memory, bounded, least recently used first out."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter

Key = tuple[str, ...]

_EVICTIONS = Counter("cache_evictions", "Entries that memory dropped to stay within its bounds")


@dataclass(slots=True)
class Entry:
    """Fresh until `fresh_until`; until `expires_at`, good enough to answer with while it is loaded anew."""

    value: Any
    fresh_until: float
    expires_at: float
    size_bytes: int
    tags: tuple[Key, ...] = ()


class Memory:
    """At most `max_entries` and about `max_bytes`. Instants are on the caller's monotonic clock."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._tagged: dict[Key, set[Key]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def get(self, key: Key, now: float) -> Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_at <= now:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: Key, entry: Entry) -> None:
        """Replaces what is there. An entry that is too big for all of the memory is not kept."""
        self._drop(key)
        if entry.size_bytes > self._max_bytes:
            return
        self._entries[key] = entry
        self._bytes += entry.size_bytes
        for tag in entry.tags:
            self._tagged.setdefault(tag, set()).add(key)
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))
            _EVICTIONS.inc()

    def invalidate(self, name: Key) -> None:
        """Drops the entry whose key it is, and those that have it among their tags."""
        self._drop(name)
        for key in list(self._tagged.get(name, ())):
            self._drop(key)

    def clear(self) -> None:
        self._entries.clear()
        self._tagged.clear()
        self._bytes = 0

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._bytes -= entry.size_bytes
        for tag in set(entry.tags):
            self._tagged[tag].discard(key)
            if not self._tagged[tag]:
                del self._tagged[tag]
