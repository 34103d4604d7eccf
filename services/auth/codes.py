"""Codes that are sent: six digits, good in the flow that they were sent for and nowhere else."""

import hmac
import secrets
from hashlib import sha256

DIGITS = 6


def new_code() -> str:
    return f"{secrets.randbelow(10**DIGITS):0{DIGITS}}"


def code_hash(flow_token: str, code: str) -> str:
    """Keyed with the token, which the client alone has: a million codes are tried out in a moment, who has the key."""
    return hmac.new(flow_token.encode(), code.encode(), sha256).hexdigest()


def is_code(flow_token: str, code: str, expected: str) -> bool:
    """`expected` "": none was sent. It is compared all the same."""
    return hmac.compare_digest(code_hash(flow_token, code.strip()), expected or "-" * 64) and bool(expected)
