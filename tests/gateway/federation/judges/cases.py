"""Random cases that Hive's composer accepts, each made of one number."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from random import Random

from graphql import GraphQLError, parse, validate

from tests.gateway.federation.judges import generate, queries
from tests.gateway.federation.judges.hive import DoesNotCompose, Graph, Hive
from tests.gateway.federation.judges.ours import Ours
from tests.gateway.federation.judges.queries import Query
from tests.gateway.federation.judges.shrink import shrunk_query
from tests.gateway.federation.judges.truth import Truth
from tests.gateway.federation.judges.world import World


@dataclass(frozen=True, slots=True)
class Case:
    seed: int
    world: World
    graph: Graph
    truth: Truth
    ours: Ours

    def queries(self, number: int, operation: str = "query") -> Iterator[Query]:
        """None if there are no such operations in this graph."""
        roots = {"mutation": self.truth.schema.mutation_type, "subscription": self.truth.schema.subscription_type}
        for n in range(number) if roots.get(operation, True) else ():
            yield queries.query(Random(f"{self.seed} {operation} {n}"), self.truth.schema, operation)

    def smallest(self, query: Query, fails: Callable[[Query], bool]) -> str:
        """What to read when a query fails: one that fails like it, and the subgraphs."""
        small = shrunk_query(query.text, lambda text: self._is_valid(text) and fails(Query(text, query.variables)))
        subgraphs = "\n".join(f"# subgraph {name}\n{sdl}" for name, sdl in self.world.sdls.items())
        return f"seed {self.seed}\n{small}\n{query.variables}\n{subgraphs}"

    def _is_valid(self, text: str) -> bool:
        try:
            return not validate(self.truth.schema, parse(text))
        except GraphQLError:
            return False


def case(hive: Hive, seed: int) -> Case:
    for attempt in count():
        world = World(generate.supergraph(Random(f"{seed} {attempt}")))
        try:
            return case_of(hive, seed, world)
        except DoesNotCompose:
            continue
    raise AssertionError  # never: it counts on


def case_of(hive: Hive, seed: int, world: World) -> Case:
    graph = hive.compose(world)
    return Case(seed, world, graph, Truth(world, graph.api()), Ours(world, graph.sdl))
