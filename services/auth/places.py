"""Where an address is, as well as a file knows: for people to read in their list of sessions, and for nothing else."""

from pathlib import Path
from typing import Any, Self

import maxminddb

from libs.core.errors import Misconfigured


class Places:
    """Of an MMDB file in the form of GeoLite2 or DB-IP City, or of none (""). Open (`with`) while it is used."""

    def __init__(self, path: str) -> None:
        """`Misconfigured` if that is not such a file."""
        try:
            self._places = maxminddb.open_database(Path(path)) if path else None
        except (OSError, maxminddb.InvalidDatabaseError) as error:
            raise Misconfigured(f"PLACE_DATABASE: {path} cannot be read: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._places:
            self._places.close()

    def of(self, address: str) -> str:
        """`Lisbon, Portugal`, or `Portugal`, in English; "" where the file says nothing. Reads memory alone."""
        if self._places is None:
            return ""
        try:
            row = self._places.get(address)
        except ValueError:  # no address
            return ""
        if not isinstance(row, dict):
            return ""
        return ", ".join(name for name in (_name(row, "city"), _name(row, "country")) if name)


def _name(row: dict[str, Any], part: str) -> str:
    names = row.get(part, {}).get("names", {})
    return str(names.get("en", ""))
