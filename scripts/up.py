"""Starts MongoDB, Redis, every service and the gateway, writes demo data, and keeps it all running until Ctrl-C.

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
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NoReturn

from httpx import HTTPError
from pymongo.errors import PyMongoError

from libs.core.errors import CoreError
from scripts import embedded, stack
from scripts.process import Failure, Server
from scripts.stack import LOGS, ROOT, RUN, say

# A child that ends this often in this time would only end again.
ENDS, ENDS_WITHIN_S = 3, 60.0

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    for name in SIGNALS:
        signal.signal(name, _interrupt)
    try:
        with stack.held(stack.LOCK) as ours, ExitStack() as started:
            if not ours:
                raise Failure(f"it is up already, as process {stack.holder(stack.LOCK)}: make down stops it")
            up(started)
    except KeyboardInterrupt:
        say("stopped")
    except Failure as failure:
        sys.exit(f"  {failure}")


def _interrupt(*_: object) -> NoReturn:
    for name in SIGNALS:  # once: a terminal, make and a time limit may each send theirs
        signal.signal(name, signal.SIG_IGN)
    say("stopping")
    raise KeyboardInterrupt


def up(started: ExitStack) -> NoReturn:
    """Whatever it starts is stopped by `started`, the services first."""
    _fresh_logs()
    servers, environment = _servers()
    stack.ENVIRONMENT.write_text(json.dumps(environment, indent=2))
    started.callback(_stop, servers)
    _begin(servers)
    services = [stack.server(name, environment) for name in stack.processes()]
    started.callback(_stop, services)
    _begin(services)  # they wait for the servers themselves, and load meanwhile
    for server in (*servers, *services):
        server.wait_until_ready()
        _say_ready(server)
    _seed()
    _tell(services, environment)
    _watch([*servers, *services])


def _servers() -> tuple[list[Server], dict[str, str]]:
    """Our own MongoDB and Redis, where the environment names none; and the environment that every service gets."""
    environment = {
        "MODE": "development",
        "JWKS_URL": f"{stack.AUTH_URL}/.well-known/jwks.json",
        "TOKEN_ISSUER": stack.AUTH_URL,
        "PUBLIC_URL": stack.AUTH_URL,
        "DEFAULT_TENANT": stack.DEMO_TENANT,
        "PLATFORM_TENANT": stack.DEMO_TENANT,
        "SUBGRAPHS": stack.subgraphs(),
        "TRUSTED_PROXIES": "127.0.0.0/8,::1/128",  # the gateway, which says where a request came from
    }
    servers = []
    for variable, server_on, port, name in (
        ("MONGO_URL", embedded.mongo_on, stack.MONGO_PORT, "mongo"),
        ("REDIS_URL", embedded.redis_on, stack.REDIS_PORT, "redis"),
    ):
        if os.environ.get(variable):
            environment[variable] = os.environ[variable]
        else:
            servers.append(server_on(port, RUN / name, LOGS / f"{name}.log"))
            environment[variable] = servers[-1].url
    return servers, environment


def _fresh_logs() -> None:
    """Those of the run before stay, for whoever asks how it ended."""
    previous = LOGS.with_name("logs.previous")
    if LOGS.exists():
        shutil.rmtree(previous, ignore_errors=True)
        LOGS.rename(previous)
    LOGS.mkdir(parents=True)


def _begin(servers: Sequence[Server]) -> None:
    for server in servers:
        server.begin()


def _stop(servers: Sequence[Server]) -> None:
    for server in servers:
        server.ask_to_stop()
    for server in servers:
        server.stop()


def _say_ready(server: Server) -> None:
    say(f"{server.name:14}ready on port {server.port} after {time.monotonic() - server.begun_at:.1f} s")


def _seed() -> None:
    from scripts import seed  # costs a second to load, which MongoDB needs to start anyway

    try:
        asyncio.run(seed.main())
    except (CoreError, HTTPError, PyMongoError) as error:
        raise Failure(f"the demo data could not be written: {error}") from error


def _tell(services: Sequence[Server], environment: dict[str, str]) -> None:
    say("")
    for service in sorted(services, key=lambda service: service.name != stack.GATEWAY):
        say(f"{service.name:14}{service.url}/graphql")
    say(f"{'MongoDB':14}{environment['MONGO_URL']}")
    say(f"{'Redis':14}{environment['REDIS_URL']}")
    say(f"{'demo logins':14}alice and bob play, olga operates, ada administers, all at the tenant {stack.DEMO_TENANT}")
    say(f"{'':14}with the password: {stack.DEMO_PASSWORD}")
    say(f"{'a token':14}make token USER=alice")
    say("")
    say(f"up. Logs are in {LOGS.relative_to(ROOT) if LOGS.is_relative_to(ROOT) else LOGS}; Ctrl-C stops everything.")


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
