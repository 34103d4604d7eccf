"""Apollo Federation 2 in Python: subgraphs composed to a supergraph, operations planned over it, plans executed."""

from gateway.federation.compose import CompositionError, CompositionFailed, compose
from gateway.federation.execute import Executor
from gateway.federation.plan import Operation, Plan, Planner, PlanTooLarge, Unreachable, explain
from gateway.federation.subgraph import Subgraph
from gateway.federation.supergraph import InvalidSupergraph, Supergraph
from gateway.federation.transport import SubgraphFailed, SubgraphRequest, Transport

__all__ = [
    "CompositionError",
    "CompositionFailed",
    "Executor",
    "InvalidSupergraph",
    "Operation",
    "Plan",
    "PlanTooLarge",
    "Planner",
    "Subgraph",
    "SubgraphFailed",
    "SubgraphRequest",
    "Supergraph",
    "Transport",
    "Unreachable",
    "compose",
    "explain",
]
