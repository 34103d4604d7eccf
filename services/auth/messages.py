"""Messages to users: asked for in the transaction that they tell of, and sent by whoever does that.

What is in them, a code for one, is good for taking over an account. So it leaves this process sealed, with a key that
the notification service has as well: who can read the outbox, Redis, a backup or a log learns that something was sent.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
from prometheus_client import Counter

from libs.core.clock import Clock
from libs.core.crypto import SecretBox
from libs.core.events import Event, Outbox
from libs.core.ids import new_id
from libs.core.mongo import Session
from services.auth.domain.messages import TEMPLATES, Channel, Message
from services.auth.events import MessageRequested

_PURPOSE = "messages to users"

_QUEUED = Counter("auth_messages_queued", "Messages to users asked for, also by transactions run again", ["template"])


class Messages:
    """`keys` as `SecretBox` takes them."""

    def __init__(self, outbox: Outbox, clock: Clock, keys: str) -> None:
        self.queued = 0
        self._outbox = outbox
        self._clock = clock
        self._box = SecretBox(keys, purpose=_PURPOSE)
        # Names a recipient without telling who it is: what is sent to one stays in order.
        self._names_key = hashlib.sha256(f"recipients\0{keys}".encode()).digest()

    async def queue(
        self,
        session: Session,
        tenant_id: str,
        channel: Channel,
        recipient: str,
        template: str,
        params: Mapping[str, Any],
        expires_at: datetime,
    ) -> None:
        """In the caller's transaction, after which the outbox wants a kick. Worthless after `expires_at`: not sent."""
        if template not in TEMPLATES:
            raise ValueError(f"there is no message {template!r}")
        message_id = new_id()
        content = orjson.dumps({"recipient": recipient, "params": dict(params)}).decode()
        requested = MessageRequested(
            message_id=message_id,
            channel=channel,
            template=template,
            expires_at=expires_at,
            sealed=self._box.seal(content, owner=_owner(tenant_id, message_id)).decode(),
        )
        event = Event.new(
            requested,
            source="auth",
            subject=message_id,
            tenant_id=tenant_id,
            partition_key=self._name(tenant_id, recipient),
            time=self._clock.now(),
        )
        await self._outbox.append(session, [event])
        self.queued += 1
        _QUEUED.labels(template).inc()

    def opened(self, event: Event) -> Message:
        """`Misconfigured` if it was sealed with a key that is not among ours, or tampered with."""
        requested = MessageRequested.model_validate(event.data)
        owner = _owner(event.tenant_id, requested.message_id)
        content = orjson.loads(self._box.open(requested.sealed, owner=owner))
        return Message(
            id=requested.message_id,
            tenant_id=event.tenant_id,
            channel=requested.channel,
            recipient=content["recipient"],
            template=requested.template,
            params=content["params"],
            expires_at=requested.expires_at,
        )

    def _name(self, tenant_id: str, recipient: str) -> str:
        named = f"{tenant_id}\0{recipient}".encode()
        return "message-" + hashlib.blake2b(named, key=self._names_key, digest_size=16).hexdigest()


def _owner(tenant_id: str, message_id: str) -> str:
    return f"{tenant_id}:{message_id}"
