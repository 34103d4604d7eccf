"""What auth does on a schedule."""

from collections.abc import Iterable
from datetime import timedelta
from functools import partial

from libs.core.app import Platform
from libs.core.jobs import Job
from services.auth.commands.auth import Auth
from services.auth.commands.security_log import publish_heads
from services.auth.settings import AuthConfig

ROTATE_EVERY_S = 60.0
PUBLISH_HEADS_EVERY_S = 900.0


def of_auth(platform: Platform, auth: Auth) -> Iterable[Job]:
    async def rotate() -> None:
        await auth.keys.rotate(timedelta(days=platform.config.get(AuthConfig).signing_key_days))

    return [
        Job("rotate signing keys", ROTATE_EVERY_S, rotate),
        Job("publish heads of security logs", PUBLISH_HEADS_EVERY_S, partial(publish_heads, auth)),
    ]
