"""The client's address is the last that no proxy of ours vouches for."""

import pytest

from libs.core.errors import Misconfigured
from libs.core.proxies import Proxies

OURS = "10.0.0.0/8, fd00::/8"


class TestClient:
    @pytest.mark.parametrize(
        ("trusted", "peer", "forwarded", "address", "why"),
        [
            ("", "1.2.3.4", "", "1.2.3.4", "nothing in between"),
            ("", "1.2.3.4", "9.9.9.9", "1.2.3.4", "nobody is trusted"),
            (OURS, "1.2.3.4", "9.9.9.9", "1.2.3.4", "who connected is none of ours"),
            (OURS, "10.0.0.1", "9.9.9.9", "9.9.9.9", "our proxy says who"),
            (OURS, "10.0.0.1", "9.9.9.9, 10.0.0.2", "9.9.9.9", "two proxies of ours"),
            (OURS, "10.0.0.1", "7.7.7.7, 9.9.9.9", "9.9.9.9", "what the client put there itself is not believed"),
            (OURS, "10.0.0.1", "9.9.9.9, nonsense", "10.0.0.1", "no address"),
            (OURS, "fd00::1", "2001:db8::5", "2001:db8::5", "version 6"),
            (OURS, "::ffff:10.0.0.1", "9.9.9.9", "9.9.9.9", "our proxy, as a socket for both versions names it"),
            (OURS, "10.0.0.1", "9.9.9.9, ::FFFF:10.0.0.2", "9.9.9.9", "another of ours, named so by the first"),
            (OURS, "::ffff:1.2.3.4", "9.9.9.9", "1.2.3.4", "and the same of anybody else"),
            (OURS, "", "9.9.9.9", "", "a peer without an address"),
        ],
    )
    def test_address(self, trusted: str, peer: str, forwarded: str, address: str, why: str) -> None:
        assert Proxies(trusted).client(peer, forwarded, "").address == address, why

    def test_a_long_agent_is_cut(self) -> None:
        assert len(Proxies().client("1.2.3.4", "", "x" * 10_000).agent) == 300

    def test_an_agent_is_plain_text(self) -> None:
        assert Proxies().client("1.2.3.4", "", "Brow\x85ser\t\x9b2J 1.0 é").agent == "Browser2J 1.0 é"

    def test_a_wrong_network(self) -> None:
        with pytest.raises(Misconfigured, match="TRUSTED_PROXIES"):
            Proxies("10.0.0.0/99")
