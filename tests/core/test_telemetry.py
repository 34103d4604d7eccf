import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from libs.core.context import correlation_id
from libs.core.settings import Settings
from libs.core.telemetry import configure_logging, render, span, start_tracing, stop_tracing
from tests.collector import Collector, collector

JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


def settings(**fields: str) -> Settings:
    return Settings(service="payment", port=9002, mode="development", **fields)  # type: ignore[arg-type]


@pytest.fixture
def configured(capsysbinary: pytest.CaptureFixture[bytes]) -> Iterator[pytest.CaptureFixture[bytes]]:
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    level = root.level
    configure_logging(settings())
    yield capsysbinary
    structlog.reset_defaults()
    root.handlers[:] = before
    root.setLevel(level)


def lines(captured: pytest.CaptureFixture[bytes]) -> list[dict[str, object]]:
    return [json.loads(line) for line in captured.readouterr().out.splitlines()]


class TestLog:
    def test_one_object_a_line(self, configured: pytest.CaptureFixture[bytes]) -> None:
        structlog.get_logger("wallets").info("opened\nby hand", wallet="w1")
        (line,) = lines(configured)
        assert line.items() >= {"event": "opened\nby hand", "wallet": "w1", "level": "info"}.items()
        assert line.items() >= {"service": "payment", "logger": "wallets"}.items()

    def test_correlation_id(self, configured: pytest.CaptureFixture[bytes]) -> None:
        token = correlation_id.set("order-1")
        structlog.get_logger("wallets").info("opened")
        correlation_id.reset(token)
        assert lines(configured)[0]["correlation_id"] == "order-1"

    def test_other_libraries_in_the_same_shape(self, configured: pytest.CaptureFixture[bytes]) -> None:
        logging.getLogger("uvicorn.error").warning("%s is slow", "this")
        (line,) = lines(configured)
        assert (line["event"], line["logger"], line["level"]) == ("this is slow", "uvicorn.error", "warning")

    def test_exception_with_its_traceback(self, configured: pytest.CaptureFixture[bytes]) -> None:
        try:
            raise ValueError("out of luck")
        except ValueError:
            structlog.get_logger("wallets").exception("failed")
        assert "ValueError: out of luck" in str(lines(configured)[0]["exception"])

    def test_below_the_level(self, configured: pytest.CaptureFixture[bytes]) -> None:
        structlog.get_logger("wallets").debug("opened")
        logging.getLogger("httpx").info("GET")
        assert lines(configured) == []


class TestRender:
    @pytest.mark.parametrize(
        "line",
        [
            pytest.param({"error": f"refused {JWT}"}, id="within a text"),
            pytest.param({"headers": {"x": [f"Bearer {JWT}"]}}, id="deep inside"),
            pytest.param({"authorization": "Basic YWxpY2U6c2VjcmV0"}, id="by its name"),
            pytest.param({"exception": f"Traceback\n  {JWT}\n"}, id="in a traceback"),
        ],
    )
    def test_leaves_secrets_out(self, line: dict[str, object]) -> None:
        text = render(None, "info", line).decode()
        assert "eyJ" not in text
        assert "YWxpY2U6c2VjcmV0" not in text

    @pytest.mark.parametrize(
        "value", [2**80, "\ud800", {(1, 2): object()}], ids=["more than 64 bits", "half a character", "no JSON at all"]
    )
    def test_what_json_cannot_hold(self, value: object) -> None:
        """A line must come out whatever is in it: it may be the one that says what went wrong."""
        assert json.loads(render(None, "info", {"event": "odd", "value": value}))["value"]


class TestSpan:
    def test_untraced_is_the_same_empty_context(self) -> None:
        start_tracing(settings())
        assert span("ledger.group") is span("another", operations=1)

    async def test_exported_under_the_trace_that_it_continues(self) -> None:
        trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
        with collector() as endpoint:
            start_tracing(settings(otel_endpoint=endpoint))
            with span("request", kind="server", parent=f"00-{trace_id}-00f067aa0ba902b7-01"), span("group", size=3):
                pass
            await stop_tracing()
        ((path, body),) = Collector.received
        assert path == "/v1/traces"
        assert body.count(bytes.fromhex(trace_id)) == 2
        assert all(name in body for name in (b"request", b"group", b"payment"))
