"""What one service adds to another's objects may be missing, and the rest is answered."""

from pathlib import Path

from gateway.federation import SubgraphFailed, Supergraph
from tests.gateway.federation.saying import executed

SUPERGRAPH = Path(__file__).parents[2] / "docs/reference/graphql/supergraph.graphql"


async def test_who_somebody_is_without_payment() -> None:
    answer = await executed(
        Supergraph.parse(SUPERGRAPH.read_text()),
        "{ me { email balances { currency } } }",
        auth={"data": {"me": {"__typename": "User", "id": "ann", "email": "ann@example.com"}}},
        payment=SubgraphFailed("payment", "SUBGRAPH_TIMEOUT", "it did not answer in time"),
    )
    assert answer["data"] == {"me": {"email": "ann@example.com", "balances": None}}
    assert [error["path"] for error in answer["errors"]] == [["me"]]
