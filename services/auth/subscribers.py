"""What auth does when it is told something."""

from collections.abc import Iterable, Sequence

import structlog

from libs.core.app import Platform
from libs.core.events import Event, Subscriber
from libs.core.mongo import Session
from services.auth.commands.auth import Auth
from services.auth.events import MessageRequested
from services.auth.store import messages as stored

log = structlog.get_logger(__name__)


def of_auth(platform: Platform, auth: Auth) -> Iterable[Subscriber]:
    return [_of_messages(platform, auth)] if platform.settings.development else []


def _of_messages(platform: Platform, auth: Auth) -> Subscriber:
    """In development nothing is sent: messages are kept where `make messages` and GET /development/messages find them,
    and are written to the log. Elsewhere the notification service alone can open them."""

    async def on_requested(events: Sequence[Event], session: Session) -> None:
        messages = [auth.messages.opened(event) for event in events]
        await stored.keep(platform.mongo.db, session, messages)
        for message in messages:
            log.info(
                "message, not sent in development",
                channel=message.channel,
                recipient=message.recipient,
                template=message.template,
                **message.params,
            )

    return Subscriber(
        platform.mongo,
        platform.redis,
        group="development-messages",
        source="auth",
        handlers={MessageRequested.event_type: on_requested},
    )
