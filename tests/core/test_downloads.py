import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from libs.core.downloads import Downloads, harmless, parse_instant
from libs.core.errors import InvalidInput, Unavailable

ANN, BEN = ("demo", "ann"), ("demo", "ben")


class TestDownloads:
    def test_so_many_of_a_caller_and_of_all(self) -> None:
        downloads = Downloads("tests", at_once=3, per_caller=2)
        with ExitStack() as stack:
            for caller in (ANN, ANN, BEN):
                stack.enter_context(downloads.one(caller))
            for caller in (ANN, BEN):
                with pytest.raises(Unavailable), downloads.one(caller):
                    pass
        with downloads.one(ANN):
            pass

    async def test_a_client_that_has_gone_is_dropped_and_counts_no_more(self) -> None:
        downloads = Downloads("tests", at_once=32, per_caller=4, taken_within_s=0.01)

        async def text() -> AsyncIterator[bytes]:
            yield b"a line"

        async def never_taken(*_: Any) -> Any:
            await asyncio.Event().wait()

        for _ in range(8):
            download = downloads.answer("lines.csv", "text/csv", text(), ANN)
            await download({"type": "http", "path": "/", "asgi": {"spec_version": "2.4"}}, never_taken, never_taken)


class TestParseInstant:
    def test_with_and_without_a_zone(self) -> None:
        at = datetime(2026, 3, 1, tzinfo=UTC)
        assert parse_instant("2026-03-01T01:00:00+01:00", "from") == parse_instant("2026-03-01", "from") == at

    @pytest.mark.parametrize("text", ["", "yesterday", "9999-12-31T23:59:59-01:00"])
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(InvalidInput):
            parse_instant(text, "from")


class TestHarmless:
    @pytest.mark.parametrize("text", ["=1+1", " +1", "-1", "@sum", "\t=1", "＝1", "|x", "%x"])
    def test_what_a_spreadsheet_would_run(self, text: str) -> None:
        assert harmless(text) == f"'{text}"

    def test_plain_text(self) -> None:
        assert harmless("rent, march") == "rent, march"
