"""Breaks a payment platform at work, and proves from what its clients saw that no money was made, lost or moved twice.

    make soak SEED=7 SECONDS=300

What happened is in a folder: each client's history, the faults, the servers' logs. It is kept if something was wrong,
and the same seed asks for the same things and strikes in the same order again (what meets what is up to the machine).
"""

import asyncio
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from scripts.process import Failure
from scripts.stack import say
from tests.soak import nemesis
from tests.soak.checker import Evidence, violations
from tests.soak.client import Service, Session, Task
from tests.soak.final import read_ledger, untold
from tests.soak.history import Call, Read, Recorder, load
from tests.soak.nemesis import Fault, torment
from tests.soak.operations import CURRENCY, OPENING, OPERATIONS, OTHER_CURRENCY, TRANSFER_LIMIT, deposit
from tests.soak.stack import Stack, named, running
from tests.web import web

OWNERS = tuple(f"p{n}" for n in range(8))
WALLET = """mutation ($input: CreateWalletInput!) { createWallet(input: $input) { __typename
    ... on Wallet { id } ... on Problem { code message } } }"""
SET_LIMIT = """mutation ($input: SetLimitInput!) { setLimit(input: $input) { __typename
    ... on Problem { code message } } }"""
LIMIT = {
    "ownerId": OWNERS[0],
    "source": "OPERATOR",
    "operation": "TRANSFER",
    "window": "LIFETIME",
    "currency": CURRENCY,
    "amount": str(TRANSFER_LIMIT),
    "reason": "soak",
}
TOLD_WITHIN_S = 60.0
SHOWN = 50
PATIENCE_S = (3.0, 20.0, 8.0)


@dataclass(frozen=True, slots=True)
class Plan:
    seed: str
    seconds: float
    processes: int = 3
    clients: int = 3
    sessions: int = 4
    faults: tuple[Fault, ...] = nemesis.FAULTS
    at_most: int = 0  # faults; 0 for as many as there is time for
    watchful: bool = False
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    plan: Plan
    faults: int
    outcomes: Counter[str]
    # Why calls, and reads, were not answered: each of them was asked again, with the same id.
    troubles: Counter[str]
    reads: int
    accepted: Counter[str]  # by operation
    transfers: int
    took_s: float
    violations: Sequence[str]

    def __str__(self) -> str:
        return (
            f"seed {self.plan.seed}: {self.faults} faults in {self.took_s:.0f} s; calls: {_listed(self.outcomes)} "
            f"({_listed(self.troubles)}); {self.reads} reads; {self.transfers} transfers in the ledger; "
            f"accepted: {_listed(self.accepted)}; {len(self.violations)} violations"
        )


def _troubles(calls: Sequence[Call], reads: Sequence[Read]) -> Counter[str]:
    codes = Counter(read.trouble for read in reads if read.trouble)
    codes.update(call.answer["code"] for call in calls if call.outcome in ("fail", "unknown"))
    return codes


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(counts.items()))


def run(plan: Plan, folder: Path) -> Result:
    """Everything that it starts has ended when this returns."""
    begun = time.monotonic()
    rng = Random(plan.seed)
    clocks = [rng.choice(nemesis.CLOCKS_AHEAD_S) if n else 0.0 for n in range(plan.processes)]
    with running(folder, clocks, **plan.environment) as stack:
        task = asyncio.run(_prepare(plan, stack))
        faults = _work(plan, stack, task, rng)
        asyncio.run(_settle(task, folder, load(folder)[0]))
        _wait_until_all_is_told(stack)
        stack.stop()
        ledger = replace(read_ledger(stack.mongo.url), limited=task.wallets[0], diverged=asyncio.run(stack.diverged()))
    calls, reads = load(folder)
    return Result(
        plan=plan,
        faults=faults,
        outcomes=Counter(call.outcome for call in calls),
        troubles=_troubles(calls, reads),
        reads=len(reads),
        accepted=Counter(op for _, op in {(call.id, call.op) for call in calls if call.outcome == "ok"}),
        transfers=len(ledger.transfers),
        took_s=time.monotonic() - begun,
        violations=violations(Evidence(calls, reads, ledger)),
    )


async def _prepare(plan: Plan, stack: Stack) -> Task:
    """Wallets with money in them."""
    task = Task(
        name="setup",
        seed=plan.seed,
        urls=[server.url for server in stack.payments],
        token=stack.token,
        wallets=[],
        dollars=[],
        owners=OWNERS,
        history="",
        until=time.monotonic() + plan.seconds,
        sessions=plan.sessions,
        watchful=plan.watchful,
    )
    async with _auditor(named(task, "setup", stack.folder)) as (session, service):
        wallets = [await _open_wallet(service, owner, CURRENCY) for owner in OWNERS]
        dollars = [await _open_wallet(service, owner, OTHER_CURRENCY) for owner in OWNERS]
        await _ask(service, SET_LIMIT, LIMIT)
        for n, wallet_id in enumerate(wallets):
            await session.until_answered(OPERATIONS["deposit"], deposit(f"opening-{n}", wallet_id, OPENING))
    return replace(task, wallets=wallets, dollars=dollars)


@asynccontextmanager
async def _auditor(task: Task) -> AsyncIterator[tuple[Session, Service]]:
    """A client in this process, before and after those that work."""
    with Recorder(Path(task.history)) as recorder:
        async with web(timeout=30) as http:
            service = Service(task.urls, task.token, http)
            yield Session(task.name, task, service, recorder), service


async def _open_wallet(service: Service, owner: str, currency: str) -> str:
    wallet_id: str = (await _ask(service, WALLET, {"ownerId": owner, "currency": currency}))["id"]
    return wallet_id


async def _ask(service: Service, document: str, given: Mapping[str, Any]) -> Any:
    answer = (await service.post(document, {"input": given})).json()
    assert "errors" not in answer, answer
    data = next(iter(answer["data"].values()))
    assert data["__typename"] != "Problem", data
    return data


def _work(plan: Plan, stack: Stack, task: Task, rng: Random) -> int:
    for n in range(plan.clients):
        # Those that lose patience leave something on its way behind; the others hear what the service itself says.
        stack.start_client(replace(named(task, f"c{n}", stack.folder), timeout_s=PATIENCE_S[n % len(PATIENCE_S)]))
    try:
        with Recorder(stack.folder / "faults.jsonl") as recorder:
            faults = torment(stack, rng, recorder, task.until, plan.faults, plan.at_most)
        for client in stack.clients:
            if client.wait(timeout=180):
                raise Failure(f"a client ended with exit code {client.returncode}, see {stack.folder}/c*.log")
    finally:
        for client in stack.clients:
            client.kill()
            client.wait()
    return faults


async def _settle(task: Task, folder: Path, calls: Sequence[Call]) -> None:
    """Asks once more, of a service that is well: all that nobody was told the outcome of, and some of the rest."""
    answered = {call.id for call in calls if call.outcome in ("ok", "refused")}
    accepted = [call for call in calls if call.outcome == "ok"]
    again = [call for call in calls if call.id not in answered]
    again += Random(task.seed).sample(accepted, min(len(accepted), 100))
    requests = {call.call: call for call in again if call.op in OPERATIONS}
    async with _auditor(named(task, "settle", folder)) as (session, _):
        for call in requests.values():
            await session.until_answered(OPERATIONS[call.op], call.asked)


def _wait_until_all_is_told(stack: Stack) -> None:
    """If it never is, the checker says of what."""
    deadline = time.monotonic() + TOLD_WITHIN_S
    while untold(stack.mongo.url) and time.monotonic() < deadline:
        time.sleep(0.1)


def main() -> int:
    seed = os.environ.get("SEED") or secrets.token_hex(3)
    seconds = os.environ.get("SOAK_SECONDS") or "60"
    if not seconds.isdecimal() or not int(seconds):
        say(f"SECONDS is how long clients work, not {seconds!r}")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="payments-soak-"))
    say(f"make soak SEED={seed} SECONDS={seconds} does this again; what happens is in {folder}")
    result = run(Plan(seed=seed, seconds=float(seconds)), folder)
    say(str(result))
    for violation in result.violations[:SHOWN]:
        say(violation)
    if result.violations:
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(str(failure))
