"""The whole platform's readiness: every service's own, asked together."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from gateway.settings import OWN, Address
from gateway.supergraph import Watch
from libs.core.health import Health

# As for a service: probes come from several sides at once, and each would ask everybody.
FRESH_S = 1.0
_WITHIN_S = 2.5
_MAX_BYTES = 100_000


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """`status`: ready, not ready, or unreachable. `checks` as the service shows them; none of one that is not ours."""

    name: str
    status: str
    checks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class PlatformHealth:
    def __init__(self, web: httpx.AsyncClient, watch: Watch, own: Health) -> None:
        self._web = web
        self._watch = watch
        self._own = own
        self._lock = asyncio.Lock()
        self._report: list[ServiceHealth] = []
        self._at = float("-inf")

    async def services(self) -> list[ServiceHealth]:
        """The gateway first, then by name; at most a second old."""
        async with self._lock:
            if time.monotonic() - self._at > FRESH_S:
                addresses = sorted(self._watch.addresses.values(), key=lambda address: address.name)
                self._report = await asyncio.gather(self._gateway(), *map(self._ask, addresses))
                self._at = time.monotonic()
            return self._report

    async def _gateway(self) -> ServiceHealth:
        report = await self._own.report()
        return ServiceHealth(OWN, "ready" if report.ready else "not ready", report.checks)

    async def _ask(self, address: Address) -> ServiceHealth:
        try:
            async with asyncio.timeout(_WITHIN_S):
                answer = await self._web.get(address.ready_url)
        except (httpx.HTTPError, TimeoutError):
            return ServiceHealth(address.name, "unreachable")
        if answer.status_code == httpx.codes.NOT_FOUND:  # not one of ours: all we know is whether it tells its schema
            away = address.name in self._watch.unreachable
            return ServiceHealth(address.name, "unreachable" if away else "ready")
        status = "ready" if answer.status_code == httpx.codes.OK else "not ready"
        return ServiceHealth(address.name, status, _checks(answer.content))


def _checks(body: bytes) -> Mapping[str, Mapping[str, Any]]:
    try:
        checks = orjson.loads(body[:_MAX_BYTES])["checks"]
        return {str(name): dict(check) for name, check in checks.items()}
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return {}
