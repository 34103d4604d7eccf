"""What a subgraph may cost."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds for each subgraph by itself.

    At most `connections` requests are under way at once, and `waiting` more wait for their turn; subscriptions are not
    counted among them. An answer, or one event of a stream, has at most `max_response_bytes`. A connection that is not
    used for `idle_s` is closed. A stream of which nothing is heard for `stream_silence_s`, not even a sign of life, has
    broken off.
    """

    connections: int = 100
    waiting: int = 1_000
    max_response_bytes: int = 16_000_000
    idle_s: float = 15.0
    stream_silence_s: float = 60.0
