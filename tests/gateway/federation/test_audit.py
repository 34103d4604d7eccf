"""What gateways get wrong, by the subjects of the public Federation gateway audit, in subgraphs of our own."""

from collections.abc import Iterator
from functools import cache

import pytest

from tests.gateway.federation.judges.audit import Suite, suites
from tests.gateway.federation.judges.hive import Hive, running
from tests.gateway.federation.judges.ours import Ours
from tests.gateway.federation.judges.serve import serving

CASES = [(name, number) for name in suites() for number in range(len(Suite.load(name).cases))]


@pytest.fixture(scope="module")
def hive() -> Iterator[Hive]:
    with serving() as server, running(server) as hive:
        yield hive


@cache
def _engine(hive: Hive, name: str) -> Ours:
    world = Suite.load(name).world()
    return Ours(world, hive.compose(world).sdl)


@pytest.mark.parametrize(("name", "number"), CASES, ids=[f"{name}-{number}" for name, number in CASES])
def test_audit(hive: Hive, name: str, number: int) -> None:
    case = Suite.load(name).cases[number]
    answer = _engine(hive, name).execute(case["query"], case.get("variables")).answer
    assert answer["data"] == case["data"]
    assert bool(answer.get("errors")) == case.get("errors", False), answer.get("errors")
