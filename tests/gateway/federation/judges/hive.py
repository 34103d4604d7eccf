"""Hive, the other implementation of Federation: its composer, its gateways and its planner, in a Node process."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.gateway.federation.judges.serve import Server
from tests.gateway.federation.judges.world import World


class DoesNotCompose(Exception):
    """`args` are the composer's errors."""


class HiveFailed(Exception):
    """Hive threw: what it said."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a plan: all its requests, and how many of them follow one another at most."""

    fetches: int
    hops: int


class Hive:
    def __init__(self, process: "subprocess.Popen[str]", server: Server) -> None:
        self._process = process
        self._server = server
        self._worlds = 0

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise HiveFailed("it ended")
        answer: dict[str, Any] = json.loads(line)
        if "failure" in answer:
            raise HiveFailed(answer["failure"])
        return answer

    def compose(self, world: World) -> "Graph":
        """Serves the world's subgraphs to Hive. DoesNotCompose if they do not."""
        self._worlds += 1
        self._server.add(self._worlds, world)
        given = [{"name": n, "url": self._server.url(self._worlds, n), "sdl": text} for n, text in world.sdls.items()]
        answer = self.ask({"compose": given})
        if "errors" in answer:
            raise DoesNotCompose(*answer["errors"])
        return Graph(self, answer["graph"], answer["supergraphSdl"], answer["api"])


@dataclass(frozen=True, slots=True)
class Graph:
    """A supergraph that Hive's composer made. `api` is the SDL of what clients see of it."""

    hive: Hive
    number: int
    sdl: str
    api: str

    def execute(
        self,
        query: str,
        variables: Mapping[str, Any] | None = None,
        runtime: Literal["stitching", "router"] = "stitching",
    ) -> dict[str, Any]:
        """As a client would be answered, by the gateway of JavaScript or by the one with the router's planner."""
        return self.hive.ask({"graph": self.number, "query": query, "variables": variables or {}, "runtime": runtime})

    def plan(self, query: str) -> dict[str, Any]:
        return self.hive.ask({"graph": self.number, "plan": query})

    def cost(self, query: str) -> Cost:
        return cost(self.plan(query).get("node"))

    def forget(self) -> None:
        """Lets go of what Hive keeps for it."""
        self.hive.ask({"graph": self.number, "forget": True})


@contextmanager
def running(server: Server) -> Iterator[Hive]:
    command = ["node", str(Path(__file__).with_name("hive.mjs"))]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield Hive(process, server)
    finally:
        assert process.stdin
        assert process.stdout
        process.stdin.close()
        process.wait()
        process.stdout.close()


def cost(node: Mapping[str, Any] | None) -> Cost:
    """Of a node of a plan as Apollo and Hive write it."""
    if node is None:
        return Cost(0, 0)
    if node["kind"] in ("Fetch", "BatchFetch"):
        return Cost(1, 1)
    children = [cost(child) for child in _children(node)]
    hops = [child.hops for child in children]
    return Cost(
        sum(child.fetches for child in children), sum(hops) if node["kind"] == "Sequence" else max(hops, default=0)
    )


def _children(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if node["kind"] == "Condition":
        return [node[clause] for clause in ("ifClause", "elseClause") if node.get(clause)]
    if node["kind"] in ("Sequence", "Parallel"):
        return list(node["nodes"])
    return [node["node"]]
