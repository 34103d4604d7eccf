"""What was sent to users, as long as nothing sends it: in development alone, in the clear."""

from collections.abc import Sequence
from datetime import UTC, datetime

from libs.core.migrations import Index
from libs.core.mongo import Database, Session
from services.auth.domain.messages import Message

COLLECTION = "development_messages"
_KEPT_S = 24 * 3600

DEVELOPMENT_INDEXES = (
    Index(COLLECTION, (("tenant_id", 1), ("recipient", 1), ("_id", -1))),
    Index(COLLECTION, (("at", 1),), ttl_s=_KEPT_S),
)


async def keep(database: Database, session: Session, messages: Sequence[Message]) -> None:
    now = datetime.now(UTC)
    rows = [
        {
            "_id": message.id,
            "tenant_id": message.tenant_id,
            "recipient": message.recipient,
            "channel": message.channel,
            "template": message.template,
            "params": dict(message.params),
            "expires_at": message.expires_at,
            "at": now,
        }
        for message in messages
    ]
    await database[COLLECTION].insert_many(rows, session=session)


async def latest(database: Database, tenant_id: str, recipient: str | None, limit: int) -> list[Message]:
    """The newest first; to everybody if `recipient` is None."""
    wanted = {"tenant_id": tenant_id} if recipient is None else {"tenant_id": tenant_id, "recipient": recipient}
    rows = database[COLLECTION].find(wanted).sort("_id", -1).limit(limit)
    return [
        Message(
            id=row["_id"],
            tenant_id=row["tenant_id"],
            channel=row["channel"],
            recipient=row["recipient"],
            template=row["template"],
            params=row["params"],
            expires_at=row["expires_at"],
        )
        async for row in rows
    ]
