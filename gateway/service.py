"""What the gateway's fields and routes are handed: `Context.service`."""

from dataclasses import dataclass

from gateway.health import PlatformHealth
from gateway.supergraph import Watch


@dataclass(frozen=True, slots=True)
class Gateway:
    watch: Watch
    health: PlatformHealth
