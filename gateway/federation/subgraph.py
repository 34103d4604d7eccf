"""A subgraph as composition is given it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subgraph:
    """`name` is unique in its supergraph; `url` is where its GraphQL is asked over HTTP; `sdl` is its schema's text
    with federation's directives, as `_service { sdl }` gives it."""

    name: str
    url: str
    sdl: str
