"""Where a request really came from, when it came through a load balancer or the gateway."""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from libs.core.context import Client
from libs.core.errors import Misconfigured

_AGENT_CHARS = 300


class Proxies:
    """`trusted`: networks, with commas between them, whose `X-Forwarded-For` is believed."""

    def __init__(self, trusted: str = "") -> None:
        """`Misconfigured` if one of them is no network."""
        try:
            self._trusted = [ip_network(network.strip()) for network in trusted.split(",") if network.strip()]
        except ValueError as error:
            raise Misconfigured(f"TRUSTED_PROXIES: {error}") from None
        self._is_trusted = lru_cache(maxsize=1_024)(lambda address: _within(address, self._trusted))

    def client(self, peer: str, forwarded: str, agent: str) -> Client:
        """`peer` is who connected. Each proxy adds who connected to it: the last that is none of ours is the client.

        What a client puts there itself stands before that, and is never looked at.
        """
        address = _plain(peer)
        for hop in reversed([hop.strip() for hop in forwarded.split(",")] if self._trusted and forwarded else []):
            if not self._is_trusted(address) or not _is_address(hop):
                break
            address = _plain(hop)
        return Client(address, _shown(agent[:_AGENT_CHARS]))


def _within(address: str, networks: list[IPv4Network | IPv6Network]) -> bool:
    return _is_address(address) and any(ip_address(address) in network for network in networks)


def _shown(agent: str) -> str:
    """It is kept, listed and logged: without what would begin a line of its own there, or move a cursor."""
    return agent if agent.isprintable() else "".join(filter(str.isprintable, agent))


def _plain(address: str) -> str:
    """A socket for both versions names the peers of version 4 as addresses of version 6."""
    return address.lower().removeprefix("::ffff:") if "." in address else address


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
