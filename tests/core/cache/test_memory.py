"""The memory level, against a model that is too slow to be wrong."""

from dataclasses import dataclass, field

from hypothesis import given, strategies as st

from libs.core.cache.memory import Entry, Key, Memory

MAX_ENTRIES, MAX_BYTES = 4, 100

keys = st.sampled_from([("a",), ("b",), ("c",), ("d",), ("e",), ("f",)])
tags = st.lists(st.sampled_from([("t",), ("u",), ("a",)]), max_size=3).map(tuple)
entries = st.builds(
    Entry, st.integers(), st.just(0.0), st.integers(1, 20).map(float), st.sampled_from([10, 30, 60, 100, 101]), tags
)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, entries),
        st.tuples(st.just("get"), keys, st.none()),
        st.tuples(st.just("invalidate"), st.one_of(keys, st.sampled_from([("t",), ("u",)])), st.none()),
        st.tuples(st.just("wait"), st.none(), st.integers(1, 5)),
        st.tuples(st.just("clear"), st.none(), st.none()),
    ),
    max_size=60,
)


@dataclass
class Model:
    """A list, the least recently used first."""

    entries: list[tuple[Key, Entry]] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for _, entry in self.entries)

    def get(self, key: Key, now: float) -> Entry | None:
        found = [entry for k, entry in self.entries if k == key]
        self.entries = [(k, e) for k, e in self.entries if k != key]
        if not found or found[0].expires_at <= now:
            return None
        self.entries.append((key, found[0]))
        return found[0]

    def put(self, key: Key, entry: Entry) -> None:
        self.entries = [(k, e) for k, e in self.entries if k != key]
        if entry.size_bytes <= MAX_BYTES:
            self.entries.append((key, entry))
        while len(self.entries) > MAX_ENTRIES or self.size_bytes > MAX_BYTES:
            self.entries.pop(0)

    def invalidate(self, name: Key) -> None:
        self.entries = [(k, e) for k, e in self.entries if k != name and name not in e.tags]


@given(operations)
def test_behaves_like_the_model(steps: list[tuple[str, Key, Entry]]) -> None:
    memory, model, now = Memory(MAX_ENTRIES, MAX_BYTES), Model(), 0.0
    for operation, key, argument in steps:
        match operation:
            case "put":
                memory.put(key, argument)
                model.put(key, argument)
            case "get":
                assert memory.get(key, now) is model.get(key, now)
            case "invalidate":
                memory.invalidate(key)
                model.invalidate(key)
            case "wait":
                now += float(argument)  # type: ignore[arg-type]
            case "clear":
                memory.clear()
                model.entries.clear()
        assert (len(memory), memory.size_bytes) == (len(model.entries), model.size_bytes)


def test_leaves_nothing_of_a_tag_behind() -> None:
    memory = Memory(MAX_ENTRIES, MAX_BYTES)
    for n in range(1000):
        memory.put((str(n),), Entry(n, 1.0, 1.0, 1, ((f"tag-{n}",),)))
    assert len(memory._tagged) == MAX_ENTRIES
