"""Where a service is put together, and in which order its parts start and stop.

    settings = PaymentSettings.load()
    app = create_app(settings, schema=schema, indexes=INDEXES, configs=[PaymentConfig], open=open_payment)

Run it with `python -m libs.core.server services.payment.app:app` (see there for signals and limits).

**Start**: connect and wait for MongoDB and Redis; migrate; load configuration, policies and tenants; relay; the
service's own `open`; subscribers; jobs; only then are connections accepted. A start that fails leaves nothing running.

**Stop**: not ready, and streams told to end, at once; connections refused and requests finished (by the server); jobs,
subscribers, the service, the relay, the clients, each in the opposite order of its start, within `shutdown_grace_s`.

Addresses beside the service's own routes: `/graphql`, `/graphql/sdl` (its schema as text, for the gateway),
`/health/live` (the process answers), `/health/ready` (it can work, part by part), `/metrics` (Prometheus). Keep the
port itself from the public: the gateway fronts it.
"""

import asyncio
import math
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from hashlib import sha256
from types import FrameType
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pymongo.errors import PyMongoError
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send
from strawberry import Schema

from libs.core import http, telemetry
from libs.core.access import INDEXES as ACCESS_INDEXES, Access, Requires
from libs.core.cache import Cache
from libs.core.clock import Clock, SystemClock
from libs.core.config import INDEXES as CONFIG_INDEXES, Config, ConfigModel
from libs.core.context import Caller, Context, Deadline, correlation_id
from libs.core.edge import CALLER, Edge
from libs.core.errors import CoreError, InvalidInput, NotFound, RateLimited, Unavailable
from libs.core.events.live import LiveListener
from libs.core.events.outbox import OUTBOX_INDEXES, Outbox
from libs.core.events.relay import Relay
from libs.core.events.subscriber import SUBSCRIBER_INDEXES, Subscriber
from libs.core.graphql import Engine, GraphQLEndpoint, Limits
from libs.core.graphql.errors import json_safe
from libs.core.health import Health
from libs.core.identity import Identity
from libs.core.jobs import INDEXES as JOB_INDEXES, Job, Jobs
from libs.core.migrations import Index, Migration, migrate
from libs.core.mongo import Mongo
from libs.core.proxies import Proxies
from libs.core.redis import AWAY, Redis
from libs.core.revocations import INDEXES as REVOCATION_INDEXES, Revocations, RevokedTokens
from libs.core.settings import Settings
from libs.core.tenants import INDEXES as TENANT_INDEXES, Tenants

log = structlog.get_logger(__name__)

# Of the grace for stopping, what is kept for closing after the last request was answered (see `libs/core/server.py`).
CLOSING_SHARE = 0.4
# Enough for what needs no server to be closed in order.
_CUT_EVERY_S = 0.2
RELAY_LAG_S = 30.0

CORE_INDEXES = (*TENANT_INDEXES, *CONFIG_INDEXES, *ACCESS_INDEXES, *OUTBOX_INDEXES, *REVOCATION_INDEXES)
SERVICE_INDEXES = (*OUTBOX_INDEXES, *SUBSCRIBER_INDEXES, *JOB_INDEXES)


@dataclass(slots=True)
class Platform:
    """What a service stands on, one per process. `outbox` is that of the service's own database."""

    settings: Settings
    clock: Clock
    mongo: Mongo
    redis: Redis
    cache: Cache
    config: Config
    tenants: Tenants
    access: Access
    identity: Identity
    revocations: Revocations
    outbox: Outbox
    live: LiveListener
    health: Health
    # Set as soon as the process is told to stop: what waits for ever, a stream say, ends now.
    stopping: asyncio.Event


Open = Callable[[Platform], AbstractAsyncContextManager[Any]]


@asynccontextmanager
async def _nothing(_: Platform) -> AsyncIterator[None]:
    yield


def _none(_: Platform, __: Any) -> Sequence[Any]:
    return ()


@dataclass(frozen=True, slots=True)
class Parts:
    """What a service brings, as `create_app` was told."""

    settings: Settings
    indexes: Sequence[Index]
    migrations: Sequence[Migration]
    configs: Sequence[type[ConfigModel]]
    open: Open
    subscribers: Callable[[Platform, Any], Iterable[Subscriber]]
    jobs: Callable[[Platform, Any], Iterable[Job]]


class Sdl:
    """A subgraph's schema as text, which is not written before the gateway asks."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    @cached_property
    def text(self) -> str:
        return self._schema.as_str()

    @cached_property
    def etag(self) -> str:
        return f'"{sha256(self.text.encode()).hexdigest()[:32]}"'


class Service(FastAPI):
    """FastAPI inside `Edge`, so that GraphQL passes none of its layers (measured: 10 µs of 60)."""

    edge: Edge

    async def migrate(self, *, wait_s: float) -> int:
        """Brings the databases to what this code expects, as starting does; the version of the service's own."""
        parts: Parts = self.state.parts
        settings = parts.settings
        mongo = Mongo.connect(settings.mongo_url, service=settings.service, namespace=settings.namespace)
        try:
            await _answering("MongoDB", "MONGO_URL", mongo.ping, settings.start_within_s)
            return await _migrate(mongo, parts, wait_s=wait_s)
        finally:
            await mongo.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self.edge(scope, receive, send)


def create_app(
    settings: Settings,
    *,
    schema: Schema | Engine,
    indexes: Sequence[Index] = (),
    migrations: Sequence[Migration] = (),
    configs: Sequence[type[ConfigModel]] = (),
    routers: Iterable[APIRouter] = (),
    open: Open = _nothing,  # noqa: A002
    subscribers: Callable[[Platform, Any], Iterable[Subscriber]] = _none,
    jobs: Callable[[Platform, Any], Iterable[Job]] = _none,
    limits: Limits | None = None,
    keeps_memory: bool = False,
) -> Service:
    """The service as an ASGI application. Nothing is connected until it starts.

    `schema` is the service's own, within `limits`, or an engine that answers in its place and keeps limits itself.
    `open` is the service's own resources, and what it yields is `Context.service`; `subscribers` and `jobs` are made
    of the platform and that. `keeps_memory`: the service wants large blocks again and again (see `give_memory_back` in
    `libs/core/server.py`).
    """
    parts = Parts(settings, indexes, migrations, configs, open, subscribers, jobs)
    proxies = Proxies(settings.trusted_proxies)
    graphql = GraphQLEndpoint(schema, context_of, limits=limits, development=settings.development)
    app = Service(
        title=settings.service,
        lifespan=partial(_lifespan, parts, graphql),
        docs_url="/docs" if settings.development else None,
        openapi_url="/openapi.json" if settings.development else None,
        redoc_url=None,
    )
    app.state.settings, app.state.parts, app.state.stopping = settings, parts, asyncio.Event()
    app.state.proxies, app.state.keeps_memory = proxies, keeps_memory
    app.state.sdl = Sdl(schema) if isinstance(schema, Schema) else None
    app.edge = Edge(super(Service, app).__call__, graphql=graphql, development=settings.development)
    app.add_exception_handler(CoreError, _show_error)
    app.add_exception_handler(RequestValidationError, _show_invalid)
    app.add_exception_handler(Exception, _show_surprise)
    for router in (_operations, *routers):
        app.include_router(router)
    return app


@asynccontextmanager
async def _lifespan(parts: Parts, graphql: GraphQLEndpoint, app: FastAPI) -> AsyncIterator[None]:
    settings, state = parts.settings, app.state
    with _told_by_signals(state.stopping):
        async with _closed_within(settings.shutdown_grace_s * CLOSING_SHARE) as closing:
            ending_streams = asyncio.create_task(_when(state.stopping, graphql.stop))
            closing.callback(ending_streams.cancel)
            state.platform, state.service = await _start(parts, graphql, state.stopping, closing)
            log.info("started", port=settings.port, mode=settings.mode)
            yield
            state.stopping.set()
    log.info("stopped")


async def _start(
    parts: Parts, graphql: GraphQLEndpoint, stopping: asyncio.Event, closing: AsyncExitStack
) -> tuple[Platform, Any]:
    """The platform, and what the service's `open` yielded. `closing` closes what was started, the last first."""
    settings, clock = parts.settings, SystemClock()
    telemetry.start_tracing(settings)
    closing.push_async_callback(telemetry.stop_tracing)

    mongo = Mongo.connect(settings.mongo_url, service=settings.service, namespace=settings.namespace)
    closing.push_async_callback(mongo.close)
    redis = Redis.connect(settings.redis_url, namespace=settings.namespace)
    closing.push_async_callback(redis.close)
    await _answering("MongoDB", "MONGO_URL", mongo.ping, settings.start_within_s)
    await _answering("Redis", "REDIS_URL", redis.ping, settings.start_within_s)
    await _migrate(mongo, parts)

    cache = await closing.enter_async_context(Cache(redis))
    config = await closing.enter_async_context(Config(mongo, redis, parts.configs, clock=clock))
    access = await closing.enter_async_context(
        Access(mongo.core, redis, clock, platform_tenant=settings.platform_tenant)
    )
    core, core_outbox = Mongo(mongo.client, service="core", namespace=settings.namespace), Outbox(mongo.core, clock)
    tenants = await closing.enter_async_context(
        Tenants(mongo, redis, core_outbox, clock=clock, default=settings.default_tenant)
    )
    web = await closing.enter_async_context(http.client())
    identity = await closing.enter_async_context(
        Identity(web, clock, jwks_url=settings.jwks_url, issuer=settings.token_issuer, audience=settings.token_audience)
    )

    def end_session(session_id: str, until: datetime) -> None:
        identity.revoke_session(session_id, until)
        graphql.end_session(session_id)

    def end_tokens(revoked: RevokedTokens) -> None:
        tenant_id, subject = revoked.tenant_id, revoked.subject
        identity.revoke_subject(tenant_id, subject, issued_until=revoked.issued_until, until=revoked.until)
        graphql.end_subject(tenant_id, subject)

    def end_key(kid: str) -> None:
        identity.withdraw_key(kid)
        graphql.end_all()

    revocations = await closing.enter_async_context(
        Revocations(mongo.core, redis, clock, on_session=end_session, on_tokens=end_tokens, on_key=end_key)
    )

    outbox = Outbox(mongo.db, clock)
    # What core publishes, about tenants, is relayed by whichever process holds that lease; a service has its own.
    for relay in (Relay(core, redis, core_outbox, source="core"), Relay(mongo, redis, outbox, source=settings.service)):
        await closing.enter_async_context(relay)
    live = await closing.enter_async_context(LiveListener(redis))

    health = Health()
    health.add("mongo", mongo.ping)
    health.add("redis", redis.ping)
    health.add("relay", partial(_relaying, outbox))
    health.add("policies", access.check)
    health.add("revocations", revocations.check)
    platform = Platform(
        settings=settings,
        clock=clock,
        mongo=mongo,
        redis=redis,
        cache=cache,
        config=config,
        tenants=tenants,
        access=access,
        identity=identity,
        revocations=revocations,
        outbox=outbox,
        live=live,
        health=health,
        stopping=stopping,
    )
    service = await closing.enter_async_context(parts.open(platform))
    for subscriber in parts.subscribers(platform, service):
        await closing.enter_async_context(subscriber)
    await closing.enter_async_context(Jobs(mongo.db, parts.jobs(platform, service)))
    return platform, service


async def _relaying(outbox: Outbox) -> Mapping[str, Any]:
    """For readiness: events that wait for long mean that the other services act on an old world."""
    lag = await outbox.lag()
    if lag.oldest_s > RELAY_LAG_S:
        raise Unavailable(f"the oldest of {lag.waiting} waiting events has waited {lag.oldest_s:.0f} s")
    return {"waiting": lag.waiting}


async def _migrate(mongo: Mongo, parts: Parts, *, wait_s: float = 60.0) -> int:
    try:
        await migrate(mongo.core, CORE_INDEXES, wait_s=wait_s)
        return await migrate(mongo.db, (*SERVICE_INDEXES, *parts.indexes), parts.migrations, wait_s=wait_s)
    except PyMongoError as error:  # a user of MongoDB who may not, say: the first work that it is asked for
        raise Unavailable(f"MongoDB cannot be used as MONGO_URL says: {_briefly(error)}") from error


async def _answering(name: str, variable: str, ping: Callable[[], Awaitable[None]], within_s: float) -> None:
    """Returns once the server answers; `Unavailable` after `within_s`."""
    give_up = time.monotonic() + within_s
    while True:
        try:
            return await ping()
        except (PyMongoError, *AWAY) as error:
            reason = _briefly(error)
            if time.monotonic() > give_up:
                raise Unavailable(f"{name} does not answer at {variable}: {reason}") from error
            log.warning("waiting for a server", server=name, error=reason)
        await asyncio.sleep(0.5)


def _briefly(error: Exception) -> str:
    """PyMongo goes on for half a page."""
    return str(error)[:120]


@asynccontextmanager
async def _closed_within(seconds: float) -> AsyncIterator[AsyncExitStack]:
    """A stack whose closing is cut short after `seconds`: what is left then ends with the process."""
    closing = AsyncExitStack()
    try:
        yield closing
    finally:
        overdue_at = time.monotonic() + seconds
        cutting = asyncio.create_task(_cut_short(asyncio.current_task(), seconds))
        try:
            await closing.aclose()
        except asyncio.CancelledError:
            if time.monotonic() < overdue_at:
                raise
        except Exception:
            log.exception("closing failed")  # which must not hide why a start failed
        finally:
            cutting.cancel()


async def _cut_short(closing: asyncio.Task[Any] | None, after_s: float) -> None:
    """Again and again: a stack that is interrupted goes on with the next of what it holds, as slow as the one before.

    Measured without MongoDB and Redis, which every part waits for: 80 s and more for a grace of 20.
    """
    assert closing is not None
    await asyncio.sleep(after_s)
    log.error("closing takes too long, and is cut short", seconds=after_s)
    while True:
        closing.cancel()
        await asyncio.sleep(_CUT_EVERY_S)


@contextmanager
def _told_by_signals(stopping: asyncio.Event) -> Iterator[None]:
    """Sets `stopping` as soon as the signal comes: plain uvicorn would tell us after the last request was answered."""
    loop = asyncio.get_running_loop()
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def tell(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stopping.set)
        handlers[number](number, frame)

    for number in (signal.SIGTERM, signal.SIGINT):
        handler = signal.getsignal(number)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            handlers[number] = handler
            signal.signal(number, tell)
    try:
        yield
    finally:
        for caught, before in handlers.items():
            signal.signal(caught, before)


async def _when(event: asyncio.Event, then: Callable[[], None]) -> None:
    await event.wait()
    then()


async def context_of(scope: Scope, headers: Headers, params: Mapping[str, Any] | None = None) -> Context:
    """Who asks, for which tenant, until when. `params` is the payload that opened a WebSocket, whose headers a browser
    cannot choose: it may hold `authorization` and `x-tenant` in their place.

    A token that is not accepted is refused, and never taken for none: `Unauthenticated`. Which tenants are refused, and
    how, say `Tenants.resolve` and `Tenants.admit`.
    """
    state = scope["app"].state
    platform: Platform = state.platform
    given = dict(headers.raw)  # of several of one name, the last
    host = given.get(b"host", b"").decode("latin-1")
    named = given.get(b"x-tenant", b"").decode("latin-1") or _text(params, "x-tenant")
    authorization = given.get(b"authorization", b"").decode("latin-1") or _text(params, "authorization")
    if authorization:
        caller = await platform.identity.authenticate(authorization)
        await platform.tenants.admit(caller.tenant_id, host, named)
    else:
        caller = Caller((await platform.tenants.resolve(host, named)).id)
    scope[CALLER] = caller
    deadline = Deadline.after(platform.settings.request_timeout_s)
    agent, forwarded = (given.get(name, b"").decode("latin-1") for name in (b"user-agent", b"x-forwarded-for"))
    client = state.proxies.client((scope.get("client") or ("",))[0] or "", forwarded, agent)
    traceparent = given.get(b"traceparent", b"").decode("latin-1")
    return Context(caller, correlation_id.get(), deadline, platform, state.service, client, authorization, traceparent)


async def request_context(request: Request) -> Context:
    """The context of a route that is not GraphQL: `context: Annotated[Context, Depends(request_context)]`."""
    return await context_of(request.scope, request.headers)


def allowed(action: str, *, level: int = 0) -> Callable[[Context], Awaitable[Context]]:
    """The same, for a caller who may do `action` ("audit:read") with anything at all: `Depends(allowed("audit:read"))`.

    As `Requires` does for a field; with which objects is for the route's command to ask.
    """
    policy = Requires(action, level=level)

    async def context_of_the_allowed(context: Annotated[Context, Depends(request_context)]) -> Context:
        context.platform.access.demand(context.caller, action, level=level)
        return context

    context_of_the_allowed.policy = policy  # type: ignore[attr-defined]
    return context_of_the_allowed


def policy_of_routes(router: APIRouter) -> dict[str, tuple[str, ...]]:
    """What each route requires by `allowed`: {"GET /wallets/{id}": ("wallet:read",)}. Empty: it does not say."""

    def required(dependant: Dependant) -> Iterator[str]:
        policy = getattr(dependant.call, "policy", None)
        if isinstance(policy, Requires):
            yield policy.action
        for each in dependant.dependencies:
            yield from required(each)

    return {
        f"{'|'.join(sorted(route.methods or ()))} {route.path}": tuple(required(route.dependant))
        for route in router.routes
        if isinstance(route, APIRoute)
    }


def _text(params: Mapping[str, Any] | None, name: str) -> str:
    value = next((value for key, value in (params or {}).items() if key.lower() == name), "")
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be a string", field=name)
    return value


_operations = APIRouter(include_in_schema=False)


@_operations.get("/health/live")
async def _live() -> Response:
    """Of the process alone: restarting it would not bring back a database."""
    return JSONResponse({"status": "live"})


@_operations.get("/health/ready")
async def _ready(request: Request) -> Response:
    state = request.app.state
    if state.stopping.is_set():
        return JSONResponse({"status": "stopping"}, status_code=503)
    report = await state.platform.health.report()
    status = "ready" if report.ready else "not ready"
    return JSONResponse({"status": status, "checks": report.checks}, status_code=200 if report.ready else 503)


@_operations.get("/graphql/sdl")
async def _sdl(request: Request) -> Response:
    """For the gateway, which asks again and again: in production, too, where `_service` is not answered."""
    sdl: Sdl | None = request.app.state.sdl
    if sdl is None:
        raise NotFound("what is served here is no subgraph")
    headers = {"etag": sdl.etag, "cache-control": "no-cache"}
    asked = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if sdl.etag in asked or "*" in asked:
        return Response(status_code=304, headers=headers)
    return Response(sdl.text, media_type="text/plain", headers=headers)


@_operations.get("/metrics")
async def _metrics() -> Response:
    return Response(generate_latest(), headers={"content-type": CONTENT_TYPE_LATEST})


async def _show_error(_: Request, error: Exception) -> Response:
    """A `CoreError` of a route: its code and message are written to be seen."""
    assert isinstance(error, CoreError)
    body = {"code": error.code, "message": error.message, "details": json_safe(error.details)}
    headers = {"retry-after": str(math.ceil(error.retry_after_s))} if isinstance(error, RateLimited) else None
    return JSONResponse(body, status_code=error.status, headers=headers)


async def _show_invalid(request: Request, error: Exception) -> Response:
    """FastAPI's own complaint about a route's input, in the same shape; without the input, which may hold secrets."""
    assert isinstance(error, RequestValidationError)
    wrong = [{"field": ".".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()]
    return await _show_error(request, InvalidInput("the request is malformed", errors=wrong))


async def _show_surprise(_: Request, __: Exception) -> Response:
    """Masked; the server logs it under the same correlation id."""
    message = "something went wrong; it was logged under this correlation id"
    body = {"code": "INTERNAL", "message": message, "correlationId": correlation_id.get()}
    return JSONResponse(body, status_code=500)
