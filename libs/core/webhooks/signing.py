"""Signatures as the Standard Webhooks specification says, so that a receiver may use any of its libraries.

    webhook-id: <the event's id>
    webhook-timestamp: <Unix seconds>
    webhook-signature: v1,<base64 of HMAC-SHA256 over "id.timestamp.body"> v1,<the same with another secret>

A secret is `whsec_` and base64; the key is what the base64 stands for. There are several signatures while a secret is
being rotated, and a receiver accepts the message if one of them is right.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime

from libs.core.clock import SystemClock
from libs.core.errors import Unauthenticated

PREFIX = "whsec_"
KEY_BYTES = 32  # the specification allows 24 to 64; SHA-256 gains nothing from more
TOLERANCE_S = 300

_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def signed_headers(keys: Iterable[str], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The three headers of a message that is sent `at` this instant, with a signature for each of the secrets."""
    timestamp = str(int(at.timestamp()))
    signatures = " ".join(_signature(secret, message_id, timestamp, body) for secret in keys)
    return {ID: message_id, TIMESTAMP: timestamp, SIGNATURE: signatures}


def verify(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: datetime | None = None,
    tolerance_s: float = TOLERANCE_S,
) -> str:
    """The message's id if it was signed with `secret`, at most `tolerance_s` before or after `now`; else
    `Unauthenticated`.

    The id is what a receiver remembers, so that a message that arrives twice has its effect once.
    """
    given = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp = given.get(ID, ""), given.get(TIMESTAMP, "")
    expected = _signature(secret, message_id, timestamp, body).encode()
    # Every one is compared, and each in constant time: how long it takes tells nothing about which nearly fitted.
    matches = [hmac.compare_digest(expected, one.encode()) for one in given.get(SIGNATURE, "").split(" ")]
    if not message_id or not any(matches):
        raise Unauthenticated("this webhook is not signed with the secret of its endpoint")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise Unauthenticated("this webhook's timestamp is not a number of seconds")
    if abs(int(timestamp) - (now or SystemClock().now()).timestamp()) > tolerance_s:
        raise Unauthenticated("this webhook was sent too long ago, or is dated in the future")
    return message_id


def _signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    return "v1," + base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)).decode()


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"a webhook's secret is {PREFIX} and base64") from None
