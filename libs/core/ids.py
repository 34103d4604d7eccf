"""Identifiers: the ones we make, the ones we are given, and the ones that follow from another."""

import re
import uuid

import uuid_utils

from libs.core.errors import InvalidInput

# What a client may choose as an id: it becomes part of index keys, log lines and URLs, so 64 plain characters.
ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)

_DERIVED = uuid.UUID("6f1d2c0a-4b1e-5f0e-9a53-0c6f2f4f8a11")


def new_id() -> str:
    """A UUIDv7 (RFC 9562): unique without coordination, roughly ordered by time, so that index inserts are local."""
    return str(uuid_utils.uuid7())


def derived_id(*parts: str) -> str:
    """The same id for the same parts, always (UUIDv5): an effect named after its cause can be applied once.

    `derived_id(event.id, "welcome-bonus")` is the ledger id of what that event causes.
    """
    return str(uuid.uuid5(_DERIVED, "\x1f".join(parts)))


def parse_id(value: object, field: str) -> str:
    """`value` if it is a well-formed id, else `InvalidInput` naming `field`."""
    if not isinstance(value, str) or not ID_PATTERN.fullmatch(value):
        raise InvalidInput(
            f"{field} must be 1 to 64 letters, digits, '-' or '_', beginning with a letter or digit", field=field
        )
    return value
