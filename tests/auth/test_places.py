from pathlib import Path

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet  # type: ignore[import-untyped]

from libs.core.errors import Misconfigured
from services.auth.places import Places

LISBON = {"city": {"names": {"en": "Lisbon", "pt-BR": "Lisboa"}}, "country": {"names": {"en": "Portugal"}}}


@pytest.fixture
def file(tmp_path: Path) -> str:
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True)
    writer.insert_network(IPSet(["192.0.2.0/24", "2001:db8::/32"]), LISBON)
    writer.insert_network(IPSet(["198.51.100.0/24"]), {"country": {"names": {"en": "Portugal"}}})
    writer.insert_network(IPSet(["203.0.113.0/24"]), {"autonomous_system_number": 64496})
    path = tmp_path / "places.mmdb"
    writer.to_db_file(str(path))
    return str(path)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.9", "Lisbon, Portugal"),
        ("2001:db8::1", "Lisbon, Portugal"),
        ("198.51.100.1", "Portugal"),
        ("203.0.113.1", ""),
        ("127.0.0.1", ""),
        ("", ""),
        ("unix", ""),
    ],
)
def test_place(file: str, address: str, place: str) -> None:
    with Places(file) as places:
        assert places.of(address) == place


def test_without_a_file() -> None:
    with Places("") as places:
        assert places.of("192.0.2.9") == ""


@pytest.mark.parametrize("content", [None, b"", b"city,country\n"])
def test_a_file_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "places.mmdb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Misconfigured, match="PLACE_DATABASE"):
        Places(str(path))
