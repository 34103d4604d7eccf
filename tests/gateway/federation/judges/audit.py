"""The suites of `audit/`: in each folder the subgraphs of a supergraph, and queries with what they are answered.

python -m tests.gateway.federation.judges.audit    # writes the answers anew, and says where Hive's gateways differ
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gateway.federation.judges.hive import Graph, HiveFailed, running
from tests.gateway.federation.judges.serve import serving
from tests.gateway.federation.judges.truth import Truth
from tests.gateway.federation.judges.world import Quirks, World

ROOT = Path(__file__).parents[1] / "audit"


@dataclass(frozen=True, slots=True)
class Suite:
    name: str
    sdls: Mapping[str, str]
    quirks: Quirks
    cases: list[dict[str, Any]]
    answered_by: str | None  # Hive's runtime to ask; None: the truth

    @classmethod
    def load(cls, name: str) -> "Suite":
        sdls = {path.stem: path.read_text() for path in sorted((ROOT / name).glob("*.graphql"))}
        content = json.loads((ROOT / name / "cases.json").read_text())
        return cls(name, sdls, Quirks(**content.get("quirks", {})), content["cases"], content.get("answered_by"))

    def world(self) -> World:
        return World(self.sdls, self.quirks)


def suites() -> list[str]:
    return sorted(path.parent.name for path in ROOT.glob("*/cases.json"))


def _record() -> None:
    with serving() as server, running(server) as hive:
        for name in suites():
            suite = Suite.load(name)
            world = suite.world()
            graph = hive.compose(world)
            for case in suite.cases:
                answer = _answer(graph, world, suite, case)
                case["data"] = answer["data"]
                case.pop("errors", None)
                if answer.get("errors"):
                    case["errors"] = True
            content = {"quirks": _written(suite.quirks), "answered_by": suite.answered_by, "cases": suite.cases}
            (ROOT / name / "cases.json").write_text(json.dumps(content, indent=2) + "\n")


def _written(quirks: Quirks) -> dict[str, list[str]]:
    return {name: list(values) for name in quirks.__slots__ if (values := getattr(quirks, name))}


def _answer(graph: Graph, world: World, suite: Suite, case: Mapping[str, Any]) -> dict[str, Any]:
    query, variables = case["query"], case.get("variables", {})
    theirs = dict(_theirs(graph, query, variables))
    by = suite.answered_by
    answer = theirs[by] if by else Truth(world, graph.api()).answer(query, variables)
    for runtime, other in theirs.items():
        if (other.get("data"), bool(other.get("errors"))) != (answer["data"], bool(answer.get("errors"))):
            print(f"{suite.name}: {runtime} differs on {query}\n  {json.dumps(other)}\n  {json.dumps(answer)}")  # noqa: T201
    return answer


def _theirs(graph: Graph, query: str, variables: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for runtime in ("stitching", "router"):
        try:
            yield runtime, graph.execute(query, variables, runtime)
        except HiveFailed as failure:
            yield runtime, {"data": None, "errors": [{"message": str(failure)}]}


if __name__ == "__main__":
    _record()
