"""The gateway over HTTP that is not GraphQL: `GET /health`, for everybody."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from gateway.service import Gateway

router = APIRouter(include_in_schema=False)


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.service
    return gateway


@router.get("/health")
async def health(gateway: Annotated[Gateway, Depends(_gateway)]) -> JSONResponse:
    """The whole platform: 200 if every service is ready, else 503. Without tokens, so nothing but who is ready."""
    services = await gateway.health.services()
    ready = all(service.status == "ready" for service in services)
    body = {
        "status": "ready" if ready else "not ready",
        "services": {service.name: {"status": service.status} for service in services},
    }
    return JSONResponse(body, status_code=200 if ready else 503)
