"""The gateway: one GraphQL endpoint over all services. `python -m libs.core.server gateway.app:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway import routes, sdl
from gateway.engine import FederationEngine
from gateway.federation import Subgraph
from gateway.federation.http import HttpTransport
from gateway.health import PlatformHealth
from gateway.schema import schema
from gateway.service import Gateway
from gateway.settings import OWN, GatewayConfig, GatewaySettings
from gateway.supergraph import Watch
from gateway.transport import Subgraphs
from libs.core import http
from libs.core.app import Platform, create_app
from libs.core.graphql import Limits, SchemaEngine

settings = GatewaySettings.load()
# Those of the service that allows the most: each holds to its own.
limits = Limits(variable_values=20_000)
own = Subgraph(OWN, "", schema.as_str())


@asynccontextmanager
async def open_gateway(platform: Platform) -> AsyncIterator[Gateway]:
    async with HttpTransport({}) as subgraphs, http.client() as web:
        engine = SchemaEngine(schema, limits, development=settings.development)
        transport = Subgraphs(subgraphs, engine, platform.config)
        async with Watch(platform, settings, own, subgraphs, transport, web, limits) as watch:
            platform.health.add("supergraph", watch.check)
            yield Gateway(watch, PlatformHealth(web, watch, platform.health))


app = create_app(
    settings,
    schema=FederationEngine(limits),
    indexes=sdl.INDEXES,
    configs=[GatewayConfig],
    routers=[routes.router],
    open=open_gateway,
)
