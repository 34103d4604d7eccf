"""How subgraphs are asked: what an executor needs of whatever carries its requests.

`gateway.federation.http` carries them over HTTP; a subgraph in the same process, or a test, brings its own.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class SubgraphRequest:
    """One request to one subgraph. `body` is the JSON of `query` and `variables`, ready to be sent."""

    subgraph: str
    query: str
    variables: Mapping[str, Any]
    operation: str  # query, mutation or subscription
    headers: Mapping[str, str]
    deadline: float  # on the clock of the event loop
    body: bytes


class SubgraphFailed(Exception):
    """A subgraph gave no GraphQL response. `code` is one of SUBGRAPH_UNREACHABLE, SUBGRAPH_TIMEOUT,
    SUBGRAPH_INVALID_RESPONSE, SUBGRAPH_TOO_LARGE; `message` may be shown to clients, so it holds no address.
    """

    def __init__(self, subgraph: str, code: str, message: str) -> None:
        super().__init__(f"{subgraph}: {message}")
        self.subgraph = subgraph
        self.code = code
        self.message = message


class Transport(Protocol):
    async def fetch(self, request: SubgraphRequest) -> dict[str, Any]:
        """The response's JSON object, whatever its status; `SubgraphFailed` if there is none."""

    def subscribe(self, request: SubgraphRequest) -> AsyncGenerator[dict[str, Any], None]:
        """The responses of a subscription until it completes; `SubgraphFailed` if it cannot begin or breaks off."""
