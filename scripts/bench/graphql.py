"""Our endpoint against stock FastAPI + Strawberry, on the same schema. `python -m scripts.bench.graphql`

One uvicorn process each, loaded in turns, by wrk where it is installed and by autocannon where not. Ours is
mounted as `create_app` mounts it. The third is what the same schema costs with one cached document and nothing else.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import strawberry
from fastapi import FastAPI
from graphql import execute, parse
from starlette.types import Receive, Scope, Send
from strawberry.fastapi import GraphQLRouter

from libs.core.context import Caller, Context, Deadline
from libs.core.edge import Edge
from libs.core.graphql import BigInt, GraphQLEndpoint, build_schema
from scripts.process import Server, free_port
from scripts.stack import ROOT

ROUNDS, ROUND_S, CONNECTIONS = 5, 2, 16
UVICORN = ("--lifespan", "off", "--no-access-log", "--log-level", "critical")
TRIVIAL, LIST = "{ hello }", "{ transactions { id walletId direction bucket amount balanceAfter sequence at } }"
# Times stock's requests a second.
TARGETS = {TRIVIAL: 5.0, LIST: 2.0}
NAMES = {TRIVIAL: "trivial query", LIST: "50 transactions of 8 fields"}


@strawberry.type
class Transaction:
    id: str
    wallet_id: str
    direction: str
    bucket: str
    amount: BigInt
    balance_after: BigInt
    sequence: int
    at: datetime


ROWS = [
    Transaction(
        id=f"0190a7c4-0000-7000-8000-{n:012}",
        wallet_id="0190a7c4-1111-7000-8000-000000000000",
        direction="credit",
        bucket="real",
        amount=BigInt(100 + n),
        balance_after=BigInt(100_000 + n),
        sequence=n,
        at=datetime(2026, 3, 1, 12, 0, n, tzinfo=UTC),
    )
    for n in range(50)
]


@strawberry.type
class Query:
    @strawberry.field
    def hello(self) -> str:
        return "world"

    @strawberry.field
    async def transactions(self) -> list[Transaction]:
        return ROWS


schema = build_schema(Query)


async def context(scope: Scope, headers: Mapping[str, str], params: Mapping[str, Any] | None) -> Context:
    platform: Any = None
    return Context(Caller("acme"), "c-1", Deadline.after(15), platform)


ours = Edge(FastAPI(), graphql=GraphQLEndpoint(schema, context), development=False)
stock = FastAPI()
stock.include_router(GraphQLRouter(schema), prefix="/graphql")
_executable = schema._schema  # noqa: SLF001
_documents = {query: parse(query) for query in TARGETS}


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """No negotiation, no limits, no errors, no context."""
    request = orjson.loads((await receive())["body"])
    result: Any = execute(_executable, _documents[request["query"]])
    if hasattr(result, "__await__"):
        result = await result
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps({"data": result.data})})


def main() -> None:
    missed = False
    with tempfile.TemporaryDirectory(prefix="payments-graphql-") as scratch, ExitStack() as running:
        servers = {app: _serve(app, Path(scratch)) for app in ("stock", "bare", "ours")}
        for server in servers.values():
            server.start()
            running.callback(server.kill)
        for query, target in TARGETS.items():
            rates = _compare({app: server.url for app, server in servers.items()}, query, Path(scratch))
            print(f"{NAMES[query]}: requests a second, medians of {ROUNDS}")
            for app, rate in rates.items():
                print(f"  {app:6} {rate:8.0f}   {rate / rates['stock']:5.1f} times stock")
            print(f"  target {target:.0f} times stock")
            missed |= rates["ours"] < target * rates["stock"]
    sys.exit(missed)


def _serve(app: str, scratch: Path) -> Server:
    port = free_port()
    url = f"http://127.0.0.1:{port}/graphql"
    return Server(
        name=app,
        command=[sys.executable, "-m", "uvicorn", f"{__spec__.name}:{app}", *UVICORN, "--port", str(port)],
        port=port,
        url=url,
        log=scratch / f"{app}.log",
        is_ready=lambda: _answers(url),
    )


def _compare(urls: Mapping[str, str], query: str, scratch: Path) -> dict[str, float]:
    """Requests a second. They take turns, so that what else the machine does hits them alike."""
    for url in urls.values():
        assert "errors" not in httpx.post(url, json={"query": query}).json()
        _load(url, query, scratch, 1)
    rounds = [{app: _load(url, query, scratch, ROUND_S) for app, url in urls.items()} for _ in range(ROUNDS)]
    return {app: statistics.median(rates[app] for rates in rounds) for app in urls}


def _answers(url: str) -> bool:
    try:
        return httpx.post(url, json={"query": TRIVIAL}).is_success
    except httpx.TransportError:
        return False


def _load(url: str, query: str, scratch: Path, seconds: int) -> float:
    """Requests a second, all of them answered with 200."""
    body = json.dumps({"query": query})
    if shutil.which("wrk"):
        script = scratch / "request.lua"
        script.write_text(
            f'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\nwrk.body = {json.dumps(body)}\n'
            "function done(summary, _, _)\n"
            "  io.write(summary.requests / summary.duration * 1e6, ' ', summary.errors.status, '\\n')\nend\n"
        )
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), url]
        rate, errors = map(float, _run(command).splitlines()[-1].split())
    else:
        autocannon = ROOT / "tests" / "node_modules" / ".bin" / "autocannon"
        command = [str(autocannon), "-j", "-m", "POST", "-c", str(CONNECTIONS), "-d", str(seconds)]
        report = json.loads(_run([*command, "-H", "content-type=application/json", "-b", body, url]))
        rate, errors = report["requests"]["average"], report["non2xx"]
    assert not errors, f"{errors} requests were not answered with 200"
    return float(rate)


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


if __name__ == "__main__":
    main()
