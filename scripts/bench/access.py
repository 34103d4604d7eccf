"""Checks a second beside pycasbin, and what a filter adds to a list. `python -m scripts.bench.access`

300 rules with wildcards, inheritance, ids and denials, the same in both; each request is about another object, whose
owner and tenant decide. Both must answer every request alike. Needs MONGO_URL and REDIS_URL.
"""

import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from libs.access_engine import Object, Policy, Role, Subject
from libs.core.access import BUILT_IN, INDEXES, Access, Scope
from libs.core.clock import SystemClock
from libs.core.context import Caller
from libs.core.decisions import Decisions
from libs.core.migrations import migrate
from libs.core.mongo import Collection, Document
from libs.core.redis import Redis
from libs.core.testing import scratch_mongo, scratch_namespace
from scripts.bench.contenders.casbin_policy import enforcer

RULES, MANY_RULES = 300, 10_000
TIMES_CASBIN, CACHED_A_SECOND, MANY_COST = 500, 1_000_000, 2.0
REQUESTS, CASBIN_REQUESTS, REPEATED = 20_000, 60, 200_000
ROUNDS, LISTS, CHANGES, CHANGE_MS = 7, 600, 100, 250.0

Request = tuple[Subject, str, str, Object]


def roles_of(rules: int) -> list[Role]:
    """Ten roles in two chains; of ten rules one is for any resource or any action, one an id's, one a denial."""
    rng = random.Random(7)
    allow: list[list[str]] = [[] for _ in range(10)]
    deny: list[list[str]] = [[] for _ in range(10)]
    seen: set[str] = set()
    while len(seen) < rules:
        resource, action = _resource(rng, rules), f"act{rng.randrange(12)}"
        kind = rng.randrange(10)
        target = f"x{rng.randrange(rules)}" if kind == 0 else rng.choice(["own", "own", "tenant"])
        if kind == 1:
            resource, action = rng.choice([("*", action), (resource, "*")])
        permission = f"{resource}:{action}:{target}"
        if permission not in seen:
            seen.add(permission)
            (deny if kind == 2 else allow)[rng.randrange(10)].append(permission)
    inherits = [[f"role{n + 1}"] if n % 5 != 4 else [] for n in range(10)]
    return [Role.of(f"role{n}", allow=allow[n], deny=deny[n], inherits=inherits[n]) for n in range(10)]


def _resource(rng: random.Random, rules: int) -> str:
    return f"res{rng.randrange(min(rules // 12, 100))}"


def members() -> list[Subject]:
    return [Subject(f"user{n}", f"tenant{n % 3}", (f"role{n % 10}",)) for n in range(50)]


def requests(count: int, rules: int, seed: int) -> list[Request]:
    rng, people = random.Random(seed), members()
    return [
        (
            rng.choice(people),
            _resource(rng, rules),
            f"act{rng.randrange(12)}",
            Object(f"x{rng.randrange(rules)}", f"user{rng.randrange(50)}", f"tenant{rng.randrange(3)}"),
        )
        for _ in range(count)
    ]


def main() -> bool:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    return all([*checks(), asyncio.run(lists()), asyncio.run(changes()), denials()])


def checks() -> list[bool]:
    roles = roles_of(RULES)
    policy, many = Policy(roles), Policy(roles_of(MANY_RULES))
    other = enforcer(roles, members())
    asked, asked_many = requests(REQUESTS, RULES, 1), requests(REQUESTS, MANY_RULES, 2)
    alike = [policy.check(*each) == other.enforce(*each) for each in asked[: 5 * CASBIN_REQUESTS]]
    allowed = sum(policy.check(*each) for each in asked)
    print(f"{len(alike)} answers compared, {alike.count(False)} differ; {allowed / REQUESTS:.0%} are allowed")

    for each in asked_many:  # what roles reach is found once, in either
        many.check(*each)
    measured: dict[str, list[float]] = {}
    for turn in range(ROUNDS):
        part = asked[turn * CASBIN_REQUESTS :][:CASBIN_REQUESTS]
        for name, work in {
            "pycasbin": partial(_each, other.enforce, part),
            "cold": partial(_each, policy.check, asked),
            "scope": partial(_each_anew, policy, asked[:2_000]),
            "cached": partial(_same, policy, asked[0]),
            "many": partial(_each, many.check, asked_many),
            "many scope": partial(_each_anew, many, asked_many[:2_000]),
        }.items():
            measured.setdefault(name, []).append(_rate(work))
    rate = {name: statistics.median(rates) for name, rates in measured.items()}
    times = {name: each / rate["pycasbin"] for name, each in rate.items()}
    print(f"pycasbin                                 {rate['pycasbin']:12,.0f} a second")
    print(f"ours, each about another object          {rate['cold']:12,.0f} a second, {times['cold']:,.0f} times")
    print(f"  and what the roles reach found anew    {rate['scope']:12,.0f} a second, {times['scope']:,.0f} times")
    print(f"ours, the same again                     {rate['cached']:12,.0f} a second")
    print(f"ours, {MANY_RULES:,} rules                      {rate['many']:12,.0f} a second")
    print(f"  and what the roles reach found anew    {rate['many scope']:12,.0f} a second")
    slower = rate["cold"] / rate["many"]
    return [
        said(all(alike), "the same answers"),
        said(times["cold"] >= TIMES_CASBIN, f"at least {TIMES_CASBIN} times pycasbin's ({times['cold']:,.0f})"),
        said(rate["cached"] >= CACHED_A_SECOND, f"at least {CACHED_A_SECOND:,} cached a second"),
        said(
            slower <= MANY_COST, f"{MANY_RULES:,} rules cost at most {MANY_COST} times what {RULES} do ({slower:.2f})"
        ),
    ]


def _each(check: Callable[..., bool], asked: Sequence[Request]) -> int:
    for subject, resource, action, obj in asked:
        check(subject, resource, action, obj)
    return len(asked)


def _each_anew(policy: Policy, asked: Sequence[Request]) -> int:
    """The rules of each set of roles are compiled; which of them are about this action is not remembered."""
    find = policy._find_scope  # noqa: SLF001
    for subject, resource, action, obj in asked:
        find(subject.roles, resource, action).permits(subject, obj)
    return len(asked)


def _same(policy: Policy, request: Request) -> int:
    check, (subject, resource, action, obj) = policy.check, request
    for _ in range(REPEATED):
        check(subject, resource, action, obj)
    return REPEATED


def _rate(work: Callable[[], int]) -> float:
    began = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - began)


async def lists() -> bool:
    """A page of 20 by an index, with a filter written by hand and with the scope's, in turns."""
    caller = Caller("acme", "user7", ("player",), "s1", "user")
    policy = Policy(BUILT_IN)
    by_hand: Document = {"$and": [{"tenant_id": "acme"}, {"owner_id": "user7"}]}
    async with scratch_mongo(os.environ["MONGO_URL"]) as mongo:
        rows = mongo.db["wallets"]
        await rows.create_index([("tenant_id", 1), ("owner_id", 1), ("_id", 1)])
        await rows.insert_many([{"_id": n, "tenant_id": "acme", "owner_id": f"user{n % 50}"} for n in range(5_000)])

        def scoped() -> Document:
            return Scope(caller, policy.filter(caller.roles, "wallet", "read")).query()

        assert scoped() == by_hand
        began = time.perf_counter()
        for _ in range(REPEATED // 20):
            scoped()
        made_us = (time.perf_counter() - began) / (REPEATED // 20) * 1e6
        took: dict[bool, list[float]] = {True: [], False: []}
        for turn in range(2 * LISTS):
            ours = turn % 2 == 0
            began = time.perf_counter()
            await _page(rows, scoped() if ours else by_hand)
            took[ours].append((time.perf_counter() - began) * 1e6)
    scoped_us, plain_us = statistics.median(took[True]), statistics.median(took[False])
    share = made_us / plain_us
    print(
        f"a page of 20: {plain_us:.0f} µs by hand, {scoped_us:.0f} µs by scope; its filter is made in {made_us:.1f} µs"
    )
    return said(share <= 0.02, f"making the filter is at most 2 % of the shortest list ({share:.1%})")


async def _page(rows: Collection, where: Document) -> None:
    assert len(await rows.find(where).sort("_id", 1).limit(20).to_list()) == 20


async def changes() -> bool:
    """From the call that grants, its commit included, to when another `Access` has it: as in a process of its own."""
    root, ben = Caller("acme", "root", ("admin",), "s1", "user"), Caller("acme", "ben", (), "s2", "user")
    redis = Redis.connect(os.environ["REDIS_URL"], namespace=scratch_namespace())
    took_ms = []
    async with scratch_mongo(os.environ["MONGO_URL"]) as mongo:
        await migrate(mongo.core, INDEXES)
        async with Access(mongo.core, redis, SystemClock()) as here, Access(mongo.core, redis, SystemClock()) as there:
            for n in range(CHANGES):
                began = time.perf_counter()
                grant = await here.grant(root, "ben", f"wallet:act{n}:own", reason="measured")
                while not there.allows(ben, f"wallet:act{n}"):  # noqa: ASYNC110  (as soon as it can be seen)
                    await asyncio.sleep(0)
                took_ms.append((time.perf_counter() - began) * 1000)
                await here.revoke_grant(root, grant.id, reason="measured")
    await redis.close()
    p50, p99 = statistics.median(took_ms), statistics.quantiles(took_ms, n=100)[98]
    print(f"a grant is in force elsewhere: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    return said(p99 <= CHANGE_MS, f"p99 within {CHANGE_MS:.0f} ms")


def denials() -> bool:
    """A flood of them, as the log of decisions has it: each is counted, few are written."""
    decisions, caller = Decisions(), Caller("acme", "user7", ("player",), "s1", "user")
    began = time.perf_counter()
    for _ in range(REPEATED):
        decisions.denied(caller, "wallet:close", "w1")
    denied_us = (time.perf_counter() - began) / REPEATED * 1e6
    began = time.perf_counter()
    for _ in range(REPEATED):
        decisions.allowed(caller, "wallet:read")
    allowed_us = (time.perf_counter() - began) / REPEATED * 1e6
    print(f"the log of decisions: {denied_us:.2f} µs for each denial of a flood, {allowed_us:.2f} µs for an allowance")
    return said(denied_us <= 5, "at most 5 µs for a denial")


def said(holds: bool, target: str) -> bool:
    print(f"  {'as it should be' if holds else 'MISSED'}: {target}")
    return holds


if __name__ == "__main__":
    sys.exit(not main())
