"""The supergraph in force: composed of what the services say their schemas are, and anew whenever one of them changes.

A set that does not compose is refused, and the one before serves on. A service that is away keeps the schema that it
had: its fields answer with errors, and the others are answered. One that is taken from the configuration goes. Requests
that have begun end on the supergraph they began with.
"""

import asyncio
import random
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Self
from weakref import WeakKeyDictionary

import httpx
import structlog
from prometheus_client import Counter, Gauge
from pymongo.errors import PyMongoError

from gateway import sdl
from gateway.federation import Executor, InvalidSupergraph, Operation, Plan, Planner, Subgraph, Supergraph, Transport
from gateway.federation.compose import CompositionFailed, compose
from gateway.federation.http import HttpTransport
from gateway.sdl import Sdl
from gateway.settings import OWN, Address, GatewayConfig, GatewaySettings
from gateway.transport import Subgraphs
from libs.core.app import Platform
from libs.core.errors import Misconfigured, Unavailable
from libs.core.graphql import Limits
from libs.core.graphql.documents import Documents, Operation as AskedOperation
from libs.core.tasks import ended

_SHOWN_ERRORS = 20
# Two threads that are both busy change places every 5 ms, unless told otherwise: each turn of a request would wait as
# long for composing, which takes half a second, or for the plan of a large document.
_TURN_S = 0.0005

log = structlog.get_logger(__name__)

_SETS = Counter("gateway_supergraphs", "Sets of schemas, by what became of them: served or refused", ("outcome",))
_REFUSED = Gauge("gateway_supergraph_refused", "1 while the newest set of schemas is refused, and an older one serves")
_REACHABLE = Gauge("gateway_subgraph_reachable", "Whether it answered when last asked for its schema", ("subgraph",))


class Graph:
    """A supergraph, and what was made for it."""

    def __init__(
        self,
        text: str,
        transport: Transport,
        limits: Limits,
        *,
        development: bool,
        at: datetime,
    ) -> None:
        """Takes tenths of a second. `InvalidSupergraph`."""
        supergraph = Supergraph.parse(text)
        self.hash = sha256(text.encode()).hexdigest()[:16]
        self.at = at
        self.urls = {member.name: member.url for member in supergraph.subgraphs.values()}
        self.documents = Documents(supergraph.api_schema, limits, development=development)
        self.planner = Planner(supergraph)
        self._planning = ThreadPoolExecutor(1, "planning")
        self.executor = Executor(supergraph, transport)
        self._operations: WeakKeyDictionary[AskedOperation, Operation] = WeakKeyDictionary()

    def operation(self, asked: AskedOperation) -> Operation:
        operation = self._operations.get(asked)
        if operation is None:
            operation = Operation(asked.node, asked.document.fragment_definitions)
            self._operations[asked] = operation
        return operation

    async def plan(self, operation: Operation, variables: Mapping[str, Any]) -> Plan:
        """In a thread, one after the other, beside the requests whose plans are known. `PlanTooLarge`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._planning, self.planner.plan, operation, variables)


@dataclass(slots=True)
class _Seen:
    """A subgraph as the watch knows it."""

    sdl: Sdl | None = None
    reachable: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    """A set of schemas that is not served, and why."""

    at: datetime
    errors: tuple[str, ...]


@dataclass(slots=True)
class _Wanted:
    """What is to be in force: schemas to compose, or a supergraph's text."""

    subgraphs: Sequence[Subgraph] = ()
    text: str = ""
    sdls: Mapping[str, Sdl] = field(default_factory=dict)

    def compose(self) -> str:
        return self.text or compose(self.subgraphs)


class Watch:
    """Open (`async with`) while it is used. `graph` is in force, None until there is one."""

    def __init__(
        self,
        platform: Platform,
        settings: GatewaySettings,
        own: Subgraph,
        http: HttpTransport,
        transport: Subgraphs,
        web: httpx.AsyncClient,
        limits: Limits,
    ) -> None:
        self.graph: Graph | None = None
        self.refused: Refused | None = None
        self._platform = platform
        self._settings = settings
        self._own = own
        self._http = http
        self._transport = transport
        self._web = web
        self._limits = limits
        self._seen: dict[str, _Seen] = {}
        self._complete = False  # whether all subgraphs were known at once, now or when the gateway last ran
        self._tried: _Wanted | None = None
        self._unsaved: Mapping[str, Sdl] | None = None
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Puts in force what was served last, and what is served now. `Misconfigured` if there is a file, and it is no
        supergraph."""
        sys.setswitchinterval(_TURN_S)
        if not self._settings.supergraph_file:
            await self._restore()
        await self.look()
        if self._settings.supergraph_file and self.graph is None:
            why = self.refused.errors[0] if self.refused else ""
            raise Misconfigured(f"SUPERGRAPH_FILE holds no supergraph: {why}")
        self._platform.config.on_change(GatewayConfig, lambda _: self._changed.set())
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        await ended(self._following)

    @property
    def addresses(self) -> dict[str, Address]:
        return self._config.addresses(self._settings)

    @property
    def unreachable(self) -> list[str]:
        """Those that did not answer when they were last asked for their schema."""
        return sorted(name for name, seen in self._seen.items() if not seen.reachable)

    async def check(self) -> Mapping[str, Any]:
        """For readiness."""
        if self.graph is None or not self._complete:
            missing = sorted(name for name in self.addresses if not self._known(name))
            raise Unavailable(f"the schemas of these are not known yet: {', '.join(missing)}")
        refused = {"refused": self.refused.errors[0]} if self.refused else {}
        away = {"unreachable": ",".join(self.unreachable)} if self.unreachable else {}
        return {"hash": self.graph.hash, **away, **refused}

    async def look(self) -> None:
        """Asks every subgraph, and puts in force what has changed."""
        wanted = await (self._read() if self._settings.supergraph_file else self._ask())
        if wanted != self._tried:
            self._tried = wanted
            await self._put_in_force(wanted)
        await self._save()

    @property
    def _config(self) -> GatewayConfig:
        return self._platform.config.get(GatewayConfig)

    def _known(self, name: str) -> Sdl | None:
        seen = self._seen.get(name)
        return seen.sdl if seen else None

    async def _follow(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._config.poll_s * random.uniform(0.8, 1.2)):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self.look()
            except Exception:  # it looks again in a moment, and what is in force stays
                log.exception("looking for changed schemas failed")

    async def _restore(self) -> None:
        stored = await sdl.load(self._platform.mongo.db)
        addresses = self.addresses
        self._seen = {name: _Seen(stored[name]) for name in addresses if name in stored}
        if self._seen:
            self._complete = True
            self._tried = self._wanted(addresses)
            await self._put_in_force(self._tried)

    async def _read(self) -> _Wanted:
        path = Path(self._settings.supergraph_file)
        try:
            text = await asyncio.to_thread(path.read_text)
        except (OSError, UnicodeDecodeError) as error:
            if self._tried:
                log.warning("the supergraph's file cannot be read", path=str(path), error=str(error))
                return self._tried
            raise Misconfigured(f"SUPERGRAPH_FILE cannot be read: {error}") from error
        self._complete = True
        return _Wanted(text=text)

    async def _ask(self) -> _Wanted:
        addresses = self.addresses
        for gone in self._seen.keys() - addresses:
            del self._seen[gone]
            with suppress(KeyError):
                _REACHABLE.remove(gone)
        await asyncio.gather(*map(self._ask_one, addresses.values()))
        self._complete = self._complete or all(self._known(name) for name in addresses)
        return self._wanted(addresses)

    async def _ask_one(self, address: Address) -> None:
        seen = self._seen.setdefault(address.name, _Seen())
        try:
            seen.sdl = await sdl.ask(self._web, address, seen.sdl)
        except Unavailable as error:
            if seen.reachable:
                log.warning("a subgraph does not tell its schema", subgraph=address.name, error=error.message)
            seen.reachable = False
        else:
            if not seen.reachable:
                log.info("a subgraph is back", subgraph=address.name)
            seen.reachable = True
        _REACHABLE.labels(address.name).set(seen.reachable)

    def _wanted(self, addresses: Mapping[str, Address]) -> _Wanted:
        known = {name: told for name in sorted(addresses) if (told := self._known(name))}
        subgraphs = [Subgraph(name, addresses[name].url, told.text) for name, told in known.items()]
        return _Wanted([*subgraphs, self._own], sdls=known)

    async def _put_in_force(self, wanted: _Wanted) -> None:
        if not wanted.text and len(wanted.subgraphs) == 1:  # nobody has told theirs yet
            return
        try:
            graph = await asyncio.to_thread(self._build, wanted)
        except CompositionFailed as failed:
            self._refuse([str(error) for error in failed.errors])
        except InvalidSupergraph as error:
            self._refuse([str(error)])
        except Exception as error:  # whatever a schema may do to the composer, the one before serves on
            log.exception("composing failed")
            self._refuse([f"INTERNAL: composing failed with {type(error).__name__}"])
        else:
            self._serve(graph)
            self._unsaved = wanted.sdls

    def _build(self, wanted: _Wanted) -> Graph:
        """In a thread: requests go on meanwhile."""
        text = wanted.compose()
        development, now = self._settings.development, self._platform.clock.now()
        return Graph(text, self._transport, self._limits, development=development, at=now)

    def _serve(self, graph: Graph) -> None:
        urls = {name: url for name, url in graph.urls.items() if name != OWN}
        before = self.graph.urls if self.graph else {}
        gone = {name: url for name, url in before.items() if name != OWN and name not in urls}
        self._http.update({**gone, **urls})
        if gone:  # until the last request that may still ask them has ended
            asyncio.get_running_loop().call_later(self._settings.request_timeout_s, self._forget_addresses)
        self.graph, self.refused = graph, None
        _SETS.labels("served").inc()
        _REFUSED.set(0)
        log.info("a supergraph is in force", hash=graph.hash, subgraphs=sorted(urls))

    def _forget_addresses(self) -> None:
        if self.graph:
            self._http.update({name: url for name, url in self.graph.urls.items() if name != OWN})

    def _refuse(self, errors: Sequence[str]) -> None:
        self.refused = Refused(self._platform.clock.now(), tuple(errors[:_SHOWN_ERRORS]))
        _SETS.labels("refused").inc()
        _REFUSED.set(1)
        log.error("a set of schemas is refused, and what was served is served on", errors=self.refused.errors)

    async def _save(self) -> None:
        """What was put in force, unless it was saved. It is tried again until it succeeds."""
        if self._unsaved is not None and not self._settings.supergraph_file:
            try:
                await sdl.save(self._platform.mongo.db, dict(self._unsaved))
                self._unsaved = None
            except PyMongoError as error:
                log.warning("the schemas in force could not be saved", error=str(error)[:200])
