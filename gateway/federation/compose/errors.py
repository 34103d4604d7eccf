"""What is wrong with subgraphs, told all at once."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CompositionError:
    """`code` is one of Apollo's. `coordinates` are schema coordinates (`Product.price`, `Query.find(id:)`, `@tag`), and
    `subgraphs` the names of those that take part in it."""

    code: str
    message: str
    coordinates: tuple[str, ...] = ()
    subgraphs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class CompositionFailed(Exception):
    """`errors` are all that one step of composition found: each step needs what the one before it made."""

    def __init__(self, errors: Iterable[CompositionError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(map(str, self.errors)))


class Report:
    """Collects errors, each told once."""

    def __init__(self) -> None:
        self._errors: dict[CompositionError, None] = {}

    def add(self, code: str, message: str, coordinate: str | Iterable[str], subgraphs: str | Iterable[str]) -> None:
        coordinates = (coordinate,) if isinstance(coordinate, str) else tuple(coordinate)
        names = (subgraphs,) if isinstance(subgraphs, str) else tuple(subgraphs)
        self._errors[CompositionError(code, message, coordinates, names)] = None

    def raise_any(self) -> None:
        if self._errors:
            raise CompositionFailed(self._errors)


class SubgraphReport:
    """The same for one subgraph, whose name is put before each message."""

    def __init__(self, report: Report, subgraph: str) -> None:
        self.subgraph = subgraph
        self._report = report

    def add(self, code: str, message: str, *coordinates: str) -> None:
        self._report.add(code, f"[{self.subgraph}] {message}", coordinates, self.subgraph)

    def invalid(self, message: str, *coordinates: str) -> None:
        self.add("INVALID_GRAPHQL", message, *coordinates)
