"""Where webhooks may go. Every row is a way in that somebody has used against somebody."""

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from libs.core.errors import InvalidInput
from libs.core.testing import eventually
from libs.core.webhooks import EndpointChange, NewEndpoint
from libs.core.webhooks.sending import Sender
from libs.core.webhooks.targets import UNREACHABLE, Resolver, Unreachable, is_public, parse_url
from tests.core.webhooks.conftest import World
from tests.core.webhooks.test_sending import attempted

PUBLIC = "93.184.216.34"


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "https://example.com/hooks?a=b%20c",
            "https://example.com:8443/",
            "https://EXAMPLE.com:443",
            "https://bücher.example/",
            f"https://{PUBLIC}/",
            "https://[2606:2800:220:1::1]/",
        ],
    )
    def test_allowed(self, url: str) -> None:
        assert parse_url(url, development=False)

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("http://example.com/", "https://"),
            ("ftp://example.com/", "https://"),
            ("file:///etc/passwd", "https://"),
            ("gopher://example.com:70/_x", "https://"),
            ("//example.com/", "https://"),
            ("example.com", "https://"),
            ("", "https://"),
            ("https://user:pass@example.com/", "user and password"),
            ("https://token@example.com/", "user and password"),
            ("https://@example.com/", "user and password"),
            ("https://example.com:22/", "port"),
            ("https://example.com:6379/", "port"),
            ("https://example.com:27017/", "port"),
            ("https://example.com:80/", "port"),
            ("https://example.com:0/", "port"),
            ("https://example.com/#part", "fragment"),
            ("https:///hooks", "host"),
            ("https://127.1/", "host"),
            ("https://0x7f000001/", "host"),
            ("https://2130706433/", "host"),
            ("https://0177.0.0.1/", "URL"),
            ("https://1.2.3.4.5/", "host"),
            ("https://exa mple.com/", "URL"),
            ("https://example.com\r\nHost: evil/", "URL"),
            ("https://exam%70le.com/", "URL"),
            ("https://example.com\\@127.0.0.1/", "URL"),
            ("https://[::1/", "URL"),
            ("https://１２７.0.0.1/", "URL"),
            ("https://ⓛocalhost/", "URL"),
            ("https://" + "a" * 300 + ".com/", "URL"),
            ("https://example.com/" + "a" * 2000, "2000"),
        ],
    )
    def test_refused(self, url: str, why: str) -> None:
        with pytest.raises(InvalidInput, match=why):
            parse_url(url, development=False)

    def test_development_allows_http_and_any_port(self) -> None:
        assert parse_url("http://localhost:3000/hooks", development=True)


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",  # the cloud's metadata
            "100.64.0.1",  # carrier-grade NAT, and the metadata of some clouds
            "100.127.255.255",
            "192.0.0.192",  # Oracle's metadata
            "192.0.2.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",  # NAT64 of 169.254.169.254
            "64:ff9b:1::a00:1",
            "2002:7f00:1::",  # 6to4 of 127.0.0.1
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",  # the cloud's metadata
            "fe80::1",
            "fe80::1%eth0",
            "fec0::1",
            "ff02::1",
            "100::1",
            "5f00::1",
            "4000::1",
        ],
    )
    def test_not_public(self, address: str) -> None:
        assert not is_public(address)

    @pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:2800:220:1::1"])
    def test_public(self, address: str) -> None:
        assert is_public(address)


class TestResolve:
    @pytest.mark.parametrize("found", [[], ["10.0.0.1"], [PUBLIC, "10.0.0.1"], [PUBLIC, "::1"]])
    async def test_every_address_must_be_public(self, found: list[str]) -> None:
        with pytest.raises(Unreachable, match=UNREACHABLE):
            await Resolver(development=False, lookup=lambda *_: found).addresses("h", 443)

    async def test_a_private_name_and_one_that_does_not_exist_look_the_same(self) -> None:
        """Else the answer maps what is inside."""

        def nobody(*_: object) -> list[str]:
            raise socket.gaierror(-2, "Name or service not known")

        told = []
        for lookup in (nobody, lambda *_: ["10.0.0.1"]):
            with pytest.raises(Unreachable) as refused:
                await Resolver(development=False, lookup=lookup).addresses("h", 443)
            told.append(str(refused.value))
        assert told == [UNREACHABLE] * 2

    async def test_development_allows_loopback_and_no_more(self) -> None:
        for found, allowed in (("127.0.0.1", True), ("::1", True), ("10.0.0.1", False), ("169.254.169.254", False)):
            resolver = Resolver(development=True, lookup=lambda *_, found=found: [found])
            if allowed:
                assert await resolver.addresses("h", 80) == [found]
            else:
                with pytest.raises(Unreachable):
                    await resolver.addresses("h", 80)

    async def test_lookups_that_never_end_hold_up_no_other(self) -> None:
        go_on = threading.Event()

        def lookup(host: str, _: int) -> list[str]:
            if host != "well":
                go_on.wait()
            return [PUBLIC]

        resolver = Resolver(development=False, lookup=lookup)
        stuck = [asyncio.create_task(resolver.addresses(f"stuck{n}", 443)) for n in range(100)]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(resolver.addresses("well", 443), 5) == [PUBLIC]
        go_on.set()
        await asyncio.gather(*stuck)

    async def test_one_lookup_for_all_who_ask_at_once(self) -> None:
        asked: list[str] = []
        go_on = threading.Event()

        def lookup(host: str, _: int) -> list[str]:
            asked.append(host)
            go_on.wait()
            return [PUBLIC]

        resolver = Resolver(development=False, lookup=lookup)
        asking = [asyncio.create_task(resolver.addresses("h", 443)) for _ in range(10)]
        await eventually(lambda: asked)
        go_on.set()
        await asyncio.gather(*asking)
        assert asked == ["h"]


class TestCreate:
    @pytest.mark.parametrize(
        "url",
        [
            "https://localhost/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://169.254.169.254/latest/meta-data/",
            "https://10.0.0.1/",
            "https://localhost./",
            "https://127。0。0。1/",
        ],
    )
    async def test_an_address_inside_is_refused(self, world: World, url: str) -> None:
        endpoints = world.made(development=False).endpoints
        with pytest.raises(InvalidInput, match=UNREACHABLE):
            await endpoints.create("demo", NewEndpoint(url, ["ping.sent"]), actor="eve")

    async def test_nor_can_one_be_moved_there(self, world: World) -> None:
        made = await world.endpoint(await world.listen())
        endpoints = world.made(development=False).endpoints
        with pytest.raises(InvalidInput):
            await endpoints.update("demo", made.endpoint.id, EndpointChange(url="https://[::1]/"), actor="eve")


class TestRebinding:
    async def test_a_name_that_was_public_and_moved_inside_is_not_connected_to(self, world: World) -> None:
        inside = await world.listen()
        answers: Iterator[list[str]] = iter([["127.0.0.1"], ["10.1.2.3"]])
        webhooks = await world.open(lookup=lambda *_: next(answers))
        url = inside.url.replace("127.0.0.1", "rebind.example")
        await webhooks.endpoints.create("demo", NewEndpoint(url, ["ping.sent"]), actor="eve")
        await world.publish()
        await eventually(lambda: attempted(world))
        assert (await world.only_delivery()).error.endswith(UNREACHABLE)
        assert inside.connections == 0

    async def test_the_address_that_was_checked_is_the_one_that_is_used(self, world: World) -> None:
        """One lookup for one connection: there is no second one to answer differently."""
        here, asked = await world.listen(), []

        def lookup(host: str, _: int) -> list[str]:
            asked.append(host)
            return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

        url = here.url.replace("127.0.0.1", "rebind.example")
        async with Sender(Resolver(development=True, lookup=lookup), development=True) as sender:
            answer = await sender.post(url, {}, b"{}")
        assert (answer.status, asked) == (200, ["rebind.example"])
        assert here.got[0].headers["host"].startswith("rebind.example")

    async def test_production_sends_nothing_to_what_a_changed_document_names(self, world: World) -> None:
        inside = await world.listen()
        async with Sender(Resolver(development=False), development=False) as sender:
            for url in (inside.url, inside.url.replace("http:", "https:"), "https://127.0.0.1/", "https://[::1]:8443/"):
                assert (await sender.post(url, {}, b"{}")).status is None
        assert inside.connections == 0
