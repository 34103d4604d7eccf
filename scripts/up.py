"""Starts MongoDB, Redis, the token issuer and every service, writes demo data, and keeps it all running until Ctrl-C.

Data, logs and keys are in `.run/`. MONGO_URL and REDIS_URL name servers to be used instead of our own. A child that
ends by itself is started again, unless it keeps ending. None outlives this process.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from httpx import HTTPError
from pymongo.errors import PyMongoError

from libs.core.errors import CoreError
from scripts import embedded, issuer, seed, stack
from scripts.process import Failure, Server
from scripts.stack import LOGS, RUN, say

# A child that ends this often in this time would only end again.
ENDS, ENDS_WITHIN_S = 3, 60.0

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    for name in SIGNALS:
        signal.signal(name, _stop)
    try:
        with stack.held(stack.LOCK) as ours, ExitStack() as started:
            if not ours:
                raise Failure(f"it is up already, as process {stack.holder(stack.LOCK)}: make down stops it")
            up(started)
    except KeyboardInterrupt:
        say("stopped")
    except Failure as failure:
        sys.exit(f"  {failure}")


def _stop(*_: object) -> NoReturn:
    for name in SIGNALS:  # once: a terminal, make and a time limit may each send theirs
        signal.signal(name, signal.SIG_IGN)
    say("stopping")
    raise KeyboardInterrupt


def up(started: ExitStack) -> NoReturn:
    """Whatever it starts is stopped by `started`, the services first."""
    _fresh_logs()
    environment = {
        "MODE": "development",
        "JWKS_URL": f"{issuer.ISSUER}/.well-known/jwks.json",
        "TOKEN_ISSUER": issuer.ISSUER,
        "TOKEN_AUDIENCE": issuer.AUDIENCE,
        "DEFAULT_TENANT": stack.DEMO_TENANT,
    }
    servers = []
    for variable, start, port in (
        ("MONGO_URL", embedded.mongo, stack.MONGO_PORT),
        ("REDIS_URL", embedded.redis, stack.REDIS_PORT),
    ):
        if os.environ.get(variable):
            environment[variable] = os.environ[variable]
        else:
            servers.append(_started(start, port, started))
            environment[variable] = servers[-1].url
    stack.ENVIRONMENT.write_text(json.dumps(environment, indent=2))
    issuer.serve()
    services = [stack.server(name, environment) for name in stack.services()]
    started.callback(_stop_all, services)
    _start_all(services)
    _seed()
    _tell(services, environment)
    _watch([*servers, *services])


def _fresh_logs() -> None:
    """Those of the run before stay, for whoever asks how it ended."""
    previous = LOGS.with_name("logs.previous")
    if LOGS.exists():
        shutil.rmtree(previous, ignore_errors=True)
        LOGS.rename(previous)
    LOGS.mkdir(parents=True)


def _started(start: Callable[[Path, int, Path], Server], port: int, started: ExitStack) -> Server:
    name = start.__name__
    server = start(RUN / name, port, LOGS / f"{name}.log")
    started.callback(server.stop)
    _say_ready(server)
    return server


def _start_all(services: Sequence[Server]) -> None:
    for service in services:
        service.begin()
    for service in services:
        service.wait_until_ready()
        _say_ready(service)


def _stop_all(services: Sequence[Server]) -> None:
    for service in services:
        service.ask_to_stop()
    for service in services:
        service.stop()


def _say_ready(server: Server) -> None:
    say(f"{server.name:14}ready on port {server.port} after {time.monotonic() - server.begun_at:.1f} s")


def _seed() -> None:
    try:
        asyncio.run(seed.main())
    except (CoreError, HTTPError, PyMongoError) as error:
        raise Failure(f"the demo data could not be written: {error}") from error


def _tell(services: Sequence[Server], environment: dict[str, str]) -> None:
    say("")
    for service in services:
        say(f"{service.name:14}{service.url}/graphql")
    say(f"{'MongoDB':14}{environment['MONGO_URL']}")
    say(f"{'Redis':14}{environment['REDIS_URL']}")
    say(f"{'demo logins':14}alice and bob play, olga operates, all at the tenant {stack.DEMO_TENANT}:")
    say(f"{'':14}make token USER=alice ROLE=player")
    say(f"{'':14}make token USER=olga ROLE=operator")
    say("")
    say("up. Logs are in .run/logs; Ctrl-C stops everything.")


def _watch(servers: Sequence[Server]) -> NoReturn:
    """Starts again what ends, and lends to `make dev` what it asks for, until a signal puts an end to it."""
    ends: dict[str, deque[float]] = {server.name: deque(maxlen=ENDS) for server in servers}
    while True:
        for server in servers:
            lent = stack.holder(stack.development_lock(server.name)) is not None
            if lent and server.running:
                say(f"{server.name} is run by make dev from now on")
                server.stop()
            elif not lent and not server.running:
                _start_again(server, ends[server.name])
        time.sleep(0.2)


def _start_again(server: Server, ends: deque[float]) -> None:
    if server.end:
        ends.append(time.monotonic())
        if len(ends) == ENDS and ends[-1] - ends[0] < ENDS_WITHIN_S:
            raise Failure(f"{server.name} keeps ending ({server.end}), see {server.log}:{server.last_words()}")
        say(f"{server.name} ended by itself ({server.end}) and is started again; it said last:{server.last_words()}")
    server.start()
    _say_ready(server)


if __name__ == "__main__":
    main()
