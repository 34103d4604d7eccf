"""Events: what one service tells the others, with at-least-once delivery, order per key, and exactly-once effect.

    transaction ─ Outbox.append ─> outbox (MongoDB) ─ Relay ─┬─> stream per partition (Redis) ─ Subscriber ───> effect
                                                             └─> channel per type (Redis) ───── LiveListener ─> screen

The outbox is the truth for the retention window; Redis carries, and may lose everything at any time.
"""

from libs.core.events.event import Event, EventData, EventView
from libs.core.events.live import RESYNC, LiveListener
from libs.core.events.outbox import OUTBOX_INDEXES, Outbox
from libs.core.events.relay import Relay
from libs.core.events.subscriber import SUBSCRIBER_INDEXES, Subscriber

__all__ = [
    "OUTBOX_INDEXES",
    "RESYNC",
    "SUBSCRIBER_INDEXES",
    "Event",
    "EventData",
    "EventView",
    "LiveListener",
    "Outbox",
    "Relay",
    "Subscriber",
]
