"""A client process: `python -m tests.soak.client TASK.json`. Several sessions that pay, read, and write down all of it.

A session behaves like all who move money: what it was not told the outcome of it asks again, elsewhere, with the same
id, until it knows. Until the deadline it begins new work, then it finishes what is begun, and ends with exit code 0.
"""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import httpx
import orjson

from tests.soak.history import Recorder
from tests.soak.operations import OPERATIONS, QUERIES, Asked, Operation, World
from tests.web import web

# Nothing was sent, or an error says that nothing was done: the same request may go elsewhere at once.
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
NOTHING_DONE = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
REFUSED_CONNECTION, LOST = "REFUSED_CONNECTION", "CONNECTION_LOST"

# What a client may be told when it is not told an outcome.
TROUBLE = {*NOTHING_DONE, "UNKNOWN", REFUSED_CONNECTION, LOST, "CUT_OFF"}
# What is asked under these names is not the operation that it looks like.
REUSE, REHEARSAL = "reuse of an id", "rehearsal"

FINISHED_WITHIN_S = 90.0
BACK_OFF_S = 0.1


@dataclass(frozen=True, slots=True)
class Task:
    """`until` is on the monotonic clock, in seconds. With `watchful`, a process that says it is not ready is avoided,

    as a load balancer does.
    """

    name: str
    seed: str
    urls: Sequence[str]
    token: str
    wallets: Sequence[str]
    dollars: Sequence[str]
    owners: Sequence[str]
    history: str
    until: float
    sessions: int = 4
    # Between one thing and the next: clients that are always at it leave a small machine no time for the others.
    think_s: float = 0.01
    timeout_s: float = 4.0
    watchful: bool = False

    @classmethod
    def load(cls, path: Path) -> "Task":
        return cls(**orjson.loads(path.read_bytes()))


class Service:
    """The payment processes behind one name. Each request goes to the next that may answer."""

    def __init__(self, urls: Sequence[str], token: str, http: httpx.AsyncClient) -> None:
        self._urls = urls
        self._http = http
        self._headers = {"authorization": f"Bearer {token}", "accept": "application/graphql-response+json"}
        self._ready = set(urls)
        self._turn = count()

    def next_url(self) -> str:
        turn = next(self._turn)
        candidates = [url for url in self._urls if url in self._ready] or self._urls
        return candidates[turn % len(candidates)]

    async def post(self, document: str, variables: Mapping[str, Any]) -> httpx.Response:
        body = {"query": document, "variables": variables}
        return await self._http.post(f"{self.next_url()}/graphql", json=body, headers=self._headers)

    async def watch(self) -> None:
        await asyncio.gather(*(self._watch(url) for url in self._urls))

    async def _watch(self, url: str) -> None:
        while True:
            ready = False
            with suppress(httpx.TransportError):
                ready = (await self._http.get(f"{url}/health/ready")).status_code == HTTPStatus.OK
            (self._ready.add if ready else self._ready.discard)(url)
            await asyncio.sleep(0.1)


class Session:
    """One client in the history's sense: it does one thing after the other (or the same thing twice at a time)."""

    def __init__(self, name: str, task: Task, service: Service, recorder: Recorder) -> None:
        self._name = name
        self._task = task
        self._service = service
        self._recorder = recorder
        self._rng = Random(f"{task.seed} {name}")
        self._world = World(task.wallets, task.dollars, name.replace(".", "-"))

    async def run(self) -> None:
        steps = {
            self._operate: 60,
            self._operate_twice: 10,
            self._ask_again: 6,
            self._reuse_an_id: 2,
            self._rehearse: 2,
            self._read: 20,
        }
        while time.monotonic() < self._task.until:
            (step,) = self._rng.choices(list(steps), list(steps.values()))
            await step()
            await asyncio.sleep(self._task.think_s)

    async def _operate(self) -> None:
        operation, asked = self._drawn()
        await self.until_answered(operation, asked)

    async def _operate_twice(self) -> None:
        """A duplicated message: both are on their way at once."""
        operation, asked = self._drawn()
        await asyncio.gather(self.until_answered(operation, asked), self.until_answered(operation, asked))

    async def _ask_again(self) -> None:
        if self._world.accepted:
            name, asked = self._rng.choice(self._world.accepted[-50:])
            await self.until_answered(OPERATIONS[name], asked)

    async def _reuse_an_id(self) -> None:
        """For something else: it must be refused, and move nothing."""
        singles = [asked for name, asked in self._world.accepted[-50:] if name == "transfer"]
        if singles:
            other = dict(self._rng.choice(singles)["input"])
            other["amount"] = str(int(other["amount"]) + 1)
            await self._call(OPERATIONS["transfer"], {"input": other}, as_=REUSE)

    async def _rehearse(self) -> None:
        """A dry run has a verdict and no effect."""
        operation, asked = self._drawn()
        if isinstance(asked["input"], dict) and operation.name not in ("quote", "exchange"):
            await self._call(operation, {"input": {**asked["input"], "dryRun": True}}, as_=REHEARSAL)

    async def _read(self) -> None:
        query = self._rng.choice(list(QUERIES.values()))
        asked = query.draw(self._rng, self._world, self._task.owners)
        call = self._recorder.invoke(self._name, query.name, [], asked)
        data, error = await self._posted(query.document, asked)
        if error:
            self._recorder.answer(call, [error])
        else:
            self._recorder.seen(call, data)

    def _drawn(self) -> tuple[Operation, Asked]:
        weights = [operation.weight for operation in OPERATIONS.values()]
        while True:
            (operation,) = self._rng.choices(list(OPERATIONS.values()), weights)
            asked = operation.draw(self._rng, self._world)
            if asked is not None:
                return operation, asked

    async def until_answered(self, operation: Operation, asked: Asked) -> None:
        """Or until it is clear that it will not be: the checker then says so."""
        give_up = max(self._task.until, time.monotonic()) + FINISHED_WITHIN_S
        surprises = 0
        while time.monotonic() < give_up and surprises < 5:
            answers = await self._call(operation, asked)
            outcomes = {answer["outcome"] for answer in answers}
            if outcomes <= {"ok", "refused"}:
                if outcomes == {"ok"}:
                    self._world.accepted.append((operation.name, asked))
                return
            surprises += any(answer.get("code") not in TROUBLE for answer in answers if answer["outcome"] == "unknown")
            await asyncio.sleep(BACK_OFF_S * self._rng.uniform(0.5, 1.5))  # a polite client's

    async def _call(self, operation: Operation, asked: Asked, as_: str = "") -> list[dict[str, Any]]:
        ids = operation.ids(asked)
        call = self._recorder.invoke(self._name, as_ or operation.name, ids, asked)
        data, error = await self._posted(operation.document, asked)
        answers = (
            [error] * len(ids) if error else [_told(item) for item in (data if isinstance(data, list) else [data])]
        )
        self._recorder.answer(call, answers)
        return answers

    async def _posted(self, document: str, variables: Asked) -> tuple[Any, dict[str, Any] | None]:
        """The answer's root value, or what became of the request."""
        try:
            response = await self._service.post(document, variables)
            body = response.json()
        except NOT_SENT:
            return None, {"outcome": "fail", "code": REFUSED_CONNECTION}
        except (httpx.TransportError, ValueError) as error:
            return None, {"outcome": "unknown", "code": LOST, "why": repr(error)}
        if "errors" not in body:
            return next(iter(body["data"].values())), None
        code = body["errors"][0].get("extensions", {}).get("code", "?")
        outcome = "fail" if code in NOTHING_DONE else "unknown"
        return None, {"outcome": outcome, "code": code, "why": body["errors"][0].get("message", "")}


def _told(item: dict[str, Any]) -> dict[str, Any]:
    """What the service said of one operation. Each of several has an answer of its own, also to being out of time."""
    if item["__typename"] != "Problem":
        return {"outcome": "ok", **item}
    if item["code"] in NOTHING_DONE:
        return {"outcome": "fail", **item}
    return {"outcome": "unknown" if item["code"] == "UNKNOWN" else "refused", **item}


async def run(task: Task) -> None:
    with Recorder(Path(task.history)) as recorder:
        await work(task, recorder)


async def work(task: Task, recorder: Recorder) -> None:
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    async with web(timeout=task.timeout_s, limits=limits) as http:
        service = Service(task.urls, task.token, http)
        sessions = [Session(f"{task.name}.{n}", task, service, recorder) for n in range(task.sessions)]
        watching = asyncio.create_task(service.watch()) if task.watchful else None
        await asyncio.gather(*(session.run() for session in sessions))
        if watching:
            watching.cancel()


if __name__ == "__main__":
    asyncio.run(run(Task.load(Path(sys.argv[1]))))
