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

_COMMAND = ["node", str(Path(__file__).with_name("hive.mjs"))]


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
    """Its planner is Rust, and some queries end the process: the next question starts another."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._process: subprocess.Popen[str] | None = None
        self._loaded: set[int] = set()
        self._worlds = 0

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """HiveFailed if it throws, or ends."""
        line = self._exchange(json.dumps(question))
        if not line:
            self.stop()
            raise HiveFailed("it ended")
        answer: dict[str, Any] = json.loads(line)
        if "failure" in answer:
            raise HiveFailed(answer["failure"])
        return answer

    def _exchange(self, question: str) -> str:
        if self._process is None:
            self._process = subprocess.Popen(
                _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return ""
        return self._process.stdout.readline()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None
        self._loaded.clear()

    def compose(self, world: World) -> "Graph":
        """Serves the world's subgraphs to Hive. DoesNotCompose if they do not."""
        self._worlds += 1
        self._server.add(self._worlds, world)
        given = [{"name": n, "url": self._server.url(self._worlds, n), "sdl": text} for n, text in world.sdls.items()]
        answer = self.ask({"compose": given})
        if "errors" in answer:
            raise DoesNotCompose(*answer["errors"])
        return Graph(self, self._worlds, answer["supergraph"])

    def load(self, number: int, supergraph: str) -> str:
        """What clients see of it, as SDL."""
        self._loaded.add(number)
        api: str = self.ask({"load": supergraph, "graph": number})["api"]
        return api

    def forget(self, number: int) -> None:
        """Lets go of what Hive and the server keep of it."""
        self._server.remove(number)
        if number in self._loaded:
            self._loaded.remove(number)
            self.ask({"graph": number, "forget": True})

    def is_loaded(self, number: int) -> bool:
        return number in self._loaded


@dataclass(frozen=True, slots=True)
class Graph:
    """A supergraph that Hive's composer made."""

    hive: Hive
    number: int
    sdl: str

    def api(self) -> str:
        return self.hive.load(self.number, self.sdl)

    def execute(
        self,
        query: str,
        variables: Mapping[str, Any] | None = None,
        runtime: Literal["stitching", "router"] = "stitching",
    ) -> dict[str, Any]:
        """As a client would be answered, by the gateway of JavaScript or by the one with the router's planner."""
        return self._ask({"query": query, "variables": variables or {}, "runtime": runtime})

    def plan(self, query: str) -> dict[str, Any]:
        return self._ask({"plan": query})

    def cost(self, query: str) -> Cost:
        return cost(self.plan(query).get("node"))

    def forget(self) -> None:
        self.hive.forget(self.number)

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        if not self.hive.is_loaded(self.number):
            self.hive.load(self.number, self.sdl)
        return self.hive.ask({"graph": self.number, **question})


@contextmanager
def running(server: Server) -> Iterator[Hive]:
    hive = Hive(server)
    try:
        yield hive
    finally:
        hive.stop()


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
