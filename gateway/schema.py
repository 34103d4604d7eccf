"""The gateway's own fields: one more subgraph, that answers in this process."""

from datetime import datetime

import strawberry

from gateway.health import ServiceHealth
from gateway.service import Gateway
from gateway.supergraph import Watch
from libs.core.access import Requires
from libs.core.context import Context
from libs.core.graphql import build_schema

Info = strawberry.Info[Context]


@strawberry.type(name="ServiceCheck", description="One thing that a service needs.")
class Check:
    name: str
    status: str = strawberry.field(description="ok or failed.")


@strawberry.type(name="ServiceHealth", description="A service, as it answered just now.")
class Service:
    name: str
    status: str = strawberry.field(description="ready, not ready or unreachable.")
    checks: list[Check]

    @classmethod
    def of(cls, service: ServiceHealth) -> "Service":
        checks = [Check(name=name, status=str(check.get("status", ""))) for name, check in service.checks.items()]
        return cls(name=service.name, status=service.status, checks=checks)


@strawberry.type(description="The graph that this gateway serves.")
class SupergraphState:
    hash: str | None = strawberry.field(description="Of its text: the same on every gateway that serves the same.")
    composed_at: datetime | None
    unreachable: list[str] = strawberry.field(description="Services that do not tell their schemas now.")
    refused: list[str] = strawberry.field(description="Why the newest schemas are not served; empty if they are.")

    @classmethod
    def of(cls, watch: Watch) -> "SupergraphState":
        graph, refused = watch.graph, watch.refused
        return cls(
            hash=graph.hash if graph else None,
            composed_at=graph.at if graph else None,
            unreachable=watch.unreachable,
            refused=list(refused.errors) if refused else [],
        )


@strawberry.type(description="How the platform is.")
class PlatformHealth:
    ready: bool
    services: list[Service]
    supergraph: SupergraphState


@strawberry.type
class Query:
    @strawberry.field(extensions=[Requires("platform:read")], description="For the platform's own administrators.")
    async def platform_health(self, info: Info) -> PlatformHealth:
        context = info.context
        context.platform.access.demand_shared(context.caller, "platform:read")
        gateway: Gateway = context.service
        services = [Service.of(service) for service in await gateway.health.services()]
        return PlatformHealth(
            ready=all(service.status == "ready" for service in services),
            services=services,
            supergraph=SupergraphState.of(gateway.watch),
        )


schema = build_schema(Query)
