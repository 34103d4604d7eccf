"""Our engine over random supergraphs, beside what is true and beside Hive; FEDERATION_CASES is how many queries."""

import os
from collections.abc import Iterator

import pytest

from tests.gateway.federation.judges.cases import Case, case
from tests.gateway.federation.judges.hive import Hive, HiveFailed, running
from tests.gateway.federation.judges.queries import Query
from tests.gateway.federation.judges.serve import serving

PER_GRAPH = 8
SEEDS = range(int(os.environ.get("FEDERATION_CASES", "320")) // PER_GRAPH)
# Hive's planner takes longer for one than all else together.
FEW = 3


@pytest.fixture(scope="module")
def hive() -> Iterator[Hive]:
    with serving() as server, running(server) as hive:
        yield hive


@pytest.fixture(scope="module", params=SEEDS)
def drawn(hive: Hive, request: pytest.FixtureRequest) -> Iterator[Case]:
    drawn = case(hive, request.param)
    yield drawn
    drawn.graph.forget()


def test_queries_are_answered_with_what_is_true(drawn: Case) -> None:
    for query in drawn.queries(PER_GRAPH):
        assert _is_true(drawn, query), drawn.smallest(query, lambda smaller: not _is_true(drawn, smaller))


def test_mutations_are_made_once_and_in_order(drawn: Case) -> None:
    for query in drawn.queries(FEW, "mutation"):
        drawn.world.mutated.clear()
        assert _is_true(drawn, query), drawn.smallest(query, lambda smaller: not _is_true(drawn, smaller))
        assert drawn.world.mutated == drawn.truth.mutations(query.text, query.variables), query.text


def test_each_event_of_a_subscription_is_answered(drawn: Case) -> None:
    for query in drawn.queries(FEW, "subscription"):
        events = drawn.ours.subscribe(query.text, query.variables)
        assert events == drawn.truth.events(query.text, query.variables), query.text


def test_no_plan_takes_more_round_trips_than_theirs(drawn: Case) -> None:
    for query in drawn.queries(FEW):
        assert not _is_longer(drawn, query), drawn.smallest(query, lambda smaller: _is_longer(drawn, smaller))


def _is_true(drawn: Case, query: Query) -> bool:
    answer = drawn.ours.execute(query.text, query.variables).answer
    return answer == drawn.truth.answer(query.text, query.variables)


def _is_longer(drawn: Case, query: Query) -> bool:
    """Where their planner gives up, ours has won."""
    try:
        theirs = drawn.graph.cost(query.text).hops
    except HiveFailed:
        return False
    return drawn.ours.plan(query.text, query.variables).hops > theirs
