"""Which type is always another one: within one subgraph, or in all of them together."""

from collections.abc import Callable, Iterable

from gateway.federation.compose.model import Composite, Schema, Union, is_list, item


class Subtypes:
    def __init__(self) -> None:
        self._above: dict[str, set[str]] = {}

    @classmethod
    def of(cls, *schemas: Schema) -> "Subtypes":
        subtypes = cls()
        for schema in schemas:
            for type_ in schema.types.values():
                if isinstance(type_, Composite):
                    subtypes._above.setdefault(type_.name, set()).update(type_.interfaces)
                elif isinstance(type_, Union):
                    for member in type_.members:
                        subtypes._above.setdefault(member, set()).add(type_.name)
        return subtypes

    def holds(self, type_: str, of: str) -> bool:
        """Whether every `type_` is an `of`."""
        while True:
            if of.endswith("!"):
                if not type_.endswith("!"):
                    return False
                of = of[:-1]
            type_ = type_.removesuffix("!")
            if not is_list(of) or not is_list(type_):
                return type_ == of or of in self._above.get(type_, ())
            type_, of = item(type_), item(of)

    def widest(self, types: Iterable[str]) -> str | None:
        """That of the types that all others are, or None."""
        return self._most(list(dict.fromkeys(types)), lambda one, other: self.holds(other, one))

    def narrowest(self, types: Iterable[str]) -> str | None:
        """That of the types that is all others, or None."""
        return self._most(list(dict.fromkeys(types)), self.holds)

    def _most(self, types: list[str], beats: Callable[[str, str], bool]) -> str | None:
        return next((one for one in types if all(beats(one, other) for other in types)), None)
