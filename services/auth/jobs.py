"""What auth does on a schedule."""

from collections.abc import Iterable
from datetime import timedelta
from functools import partial

import structlog

from libs.core.app import Platform
from libs.core.jobs import Job
from services.auth.commands import totp
from services.auth.commands.auth import Auth
from services.auth.commands.security_log import publish_heads
from services.auth.settings import AuthConfig

ROTATE_EVERY_S = 60.0
PUBLISH_HEADS_EVERY_S = 900.0
SEAL_ANEW_EVERY_S = 3600.0

log = structlog.get_logger(__name__)


def of_auth(platform: Platform, auth: Auth) -> Iterable[Job]:
    async def rotate() -> None:
        await auth.keys.rotate(timedelta(days=platform.config.get(AuthConfig).signing_key_days))

    async def seal_anew() -> None:
        if sealed := await totp.seal_anew(auth):
            log.info("secrets of authenticator apps sealed with the newest key", users=sealed)

    return [
        Job("rotate signing keys", ROTATE_EVERY_S, rotate),
        Job("seal secrets anew", SEAL_ANEW_EVERY_S, seal_anew),
        Job("publish heads of security logs", PUBLISH_HEADS_EVERY_S, partial(publish_heads, auth)),
    ]
