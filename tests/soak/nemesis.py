"""What goes wrong while clients work: a schedule of faults that follows from a seed."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from random import Random

import redis as redis_client
from pymongo import MongoClient

from scripts.process import Server
from tests.soak.history import Recorder
from tests.soak.stack import Stack, set_clock

CLOCKS_AHEAD_S = (-7_200.0, -30.0, 0.0, 30.0, 7_200.0)
# Longer than any lease lives, so that another process has taken what the one that wakes up thinks is its own.
LONG_OUTAGE_S = 12.0


def kill_a_payment_process(stack: Stack, rng: Random) -> None:
    rng.choice(stack.payments).kill()


def kill_all_payment_processes(stack: Stack, rng: Random) -> None:
    for server in stack.payments:
        server.kill()


def freeze_a_payment_process(stack: Stack, rng: Random) -> None:
    _freeze(rng.choice(stack.payments))


def kill_a_process_and_turn_its_clock(stack: Stack, rng: Random) -> None:
    server = rng.choice(stack.payments)
    server.kill()
    set_clock(server, rng.choice(CLOCKS_AHEAD_S))


def restart_all_in_turn(stack: Stack, rng: Random) -> None:
    stack.up()
    for server in stack.payments:
        server.restart()


def kill_mongodb(stack: Stack, rng: Random) -> None:
    stack.mongo.kill()


def freeze_mongodb(stack: Stack, rng: Random) -> None:
    _freeze(stack.mongo)


def kill_redis(stack: Stack, rng: Random) -> None:
    stack.redis.kill()


def freeze_redis(stack: Stack, rng: Random) -> None:
    _freeze(stack.redis)


def empty_redis(stack: Stack, rng: Random) -> None:
    stack.up()
    with redis_client.Redis.from_url(stack.redis.url) as client:
        client.flushall()


def restart_redis_with_nothing(stack: Stack, rng: Random) -> None:
    stack.redis.kill()
    stack.redis.restart(empty=True)


def publish_events_again(stack: Stack, rng: Random) -> None:
    """As a relay does that was killed before it could note what it had sent."""
    stack.up()
    client: MongoClient[dict[str, object]] = MongoClient(stack.mongo.url)
    with client:
        outbox = client["payment_service"]["outbox"]
        sent = [row["_id"] for row in outbox.find({"sent_at": {"$ne": None}}, {"_id": 1}, sort=[("at", -1)], limit=50)]
        outbox.update_many({"_id": {"$in": sent}}, {"$set": {"sent_at": None}})


def kill_the_listening_service(stack: Stack, rng: Random) -> None:
    stack.counter.kill()


def kill_a_client(stack: Stack, rng: Random) -> None:
    """What it was not told of is asked for by others, at the end."""
    stack.replace_client(rng.choice(stack.clients))


def _freeze(server: Server) -> None:
    """`Stack.up` wakes it."""
    if server.running:  # or its number may be another program's by now
        os.kill(server.pid, signal.SIGSTOP)


Fault = Callable[[Stack, Random], None]

FAULTS: tuple[Fault, ...] = (
    kill_a_payment_process,
    kill_all_payment_processes,
    freeze_a_payment_process,
    kill_a_process_and_turn_its_clock,
    restart_all_in_turn,
    kill_mongodb,
    freeze_mongodb,
    kill_redis,
    freeze_redis,
    empty_redis,
    restart_redis_with_nothing,
    publish_events_again,
    kill_the_listening_service,
    kill_a_client,
)


def in_turn(rng: Random, faults: tuple[Fault, ...]) -> Iterator[Fault]:
    """Each before any comes again."""
    while True:
        yield from rng.sample(faults, len(faults))


def torment(
    stack: Stack, rng: Random, recorder: Recorder, until: float, faults: tuple[Fault, ...] = FAULTS, at_most: int = 0
) -> int:
    """Strikes until `until` (monotonic, in seconds), now and then twice at once; all is ready again when it returns.

    How many faults that were: `at_most` so many, or any number if that is 0.
    """
    struck = 0
    long_outages = until - time.monotonic() > 5 * LONG_OUTAGE_S
    schedule = in_turn(rng, faults)
    while time.monotonic() < until and (struck < at_most or not at_most):
        for _ in range(1 if struck + 1 == at_most else rng.choice((1, 1, 1, 2))):
            fault = next(schedule)
            recorder.fault(fault.__name__)
            fault(stack, rng)
            struck += 1
        time.sleep(LONG_OUTAGE_S if long_outages and rng.random() < 0.15 else rng.uniform(0.1, 1.5))
        # Half of the time the next fault meets processes that have only begun to start.
        failures = stack.up(ready=rng.random() < 0.5)
        recorder.fault("all runs", failures=failures)
        time.sleep(rng.uniform(0.2, 2.0))
    recorder.fault("all is well", failures=stack.up())
    return struck
