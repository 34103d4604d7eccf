"""API keys: how they look, and what one may be used for.

    ppk_0199f2c87b1e7c0c8f1d2a3b4c5d6e7f_8Jw…43 characters…Qx4a9ZkT
        the id                           the secret            a CRC-32

The prefix and the checksum are for whoever looks for keys that leaked, into a repository say: they can tell one from
all that merely looks random, without asking us.
"""

import hmac
import re
import secrets
import zlib
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from libs.core.errors import InvalidInput
from libs.core.ids import new_id

PREFIX = "ppk"
# All of them travel in each token, which has 8 KB at most.
MAX_SCOPES = 32
MAX_SCOPE_CHARS = 100
MAX_NETWORKS = 16

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_CHARS = 43  # of 62: 256 bits
_CRC_CHARS = 6
_KEY = re.compile(
    rf"({PREFIX}_([0-9a-f]{{32}})_([0-9A-Za-z]{{{_SECRET_CHARS}}}))([0-9A-Za-z]{{{_CRC_CHARS}}})", re.ASCII
)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """`hash` is of the secret, which nobody but its holder has. `scopes` narrow what the account may do."""

    id: str
    tenant_id: str
    account_id: str
    name: str
    hash: str
    scopes: tuple[str, ...]
    networks: tuple[str, ...]
    created_at: datetime
    created_by: str
    expires_at: datetime
    last_used_at: datetime | None = None
    last_address: str = ""
    revoked_at: datetime | None = None
    revoked_by: str = ""

    def refused(self, secret: str, address: str, now: datetime) -> str | None:
        """Why it is not good, for our log alone; None if it is."""
        if not hmac.compare_digest(self.hash, secret_hash(secret)):
            return "wrong secret"
        if self.revoked_at is not None:
            return "revoked"
        if now >= self.expires_at:
            return "expired"
        return None if _within(address, self.networks) else "wrong network"


def new_key() -> tuple[str, str, str]:
    """The key as its holder is shown it, once; its id, and its secret's hash."""
    key_id, secret = new_id().replace("-", ""), "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_CHARS))
    text = f"{PREFIX}_{key_id}_{secret}"
    return text + _checksum(text), key_id, secret_hash(secret)


def parse_key(text: str) -> tuple[str, str] | None:
    """Its id and its secret, if it is spelt like a key at all."""
    found = _KEY.fullmatch(text.strip())
    if found is None or not hmac.compare_digest(_checksum(found[1]), found[4]):
        return None
    return found[2], found[3]


def secret_hash(secret: str) -> str:
    """256 random bits need no salt and no slow hash."""
    return sha256(secret.encode()).hexdigest()


def parse_networks(texts: list[str], field: str) -> tuple[str, ...]:
    """Networks as in `192.0.2.0/24` or `2001:db8::/32`, and single addresses."""
    try:
        return tuple(sorted({str(ip_network(text.strip())) for text in texts}))
    except ValueError:
        raise InvalidInput(
            f"{field} are networks such as 192.0.2.0/24, without bits beyond the mask", field=field
        ) from None


def _checksum(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CRC_CHARS):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


def _within(address: str, networks: tuple[str, ...]) -> bool:
    if not networks:
        return True
    try:
        found = ip_address(address)
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    allowed: list[IPv4Network | IPv6Network] = [ip_network(network) for network in networks]
    return any(found.version == network.version and found in network for network in allowed)
