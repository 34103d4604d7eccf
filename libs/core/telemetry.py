"""What an operator sees: log lines in JSON, and traces that follow a request through its events.

Logging is structlog's: `log = structlog.get_logger(__name__)`, `log.info("what happened", wallet=…)`. Lines of other
libraries come out in the same shape. Each carries the correlation id of the request or event it was written for, and
nothing that looks like a token.

Tracing is OpenTelemetry's, by OTLP over HTTP. Without `OTEL_ENDPOINT` its SDK is not even imported, and `span` hands
out the same empty context every time. The SDK's own variables (`OTEL_TRACES_SAMPLER`, …) apply.
"""

import asyncio
import logging
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from libs.core.context import correlation_id
from libs.core.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

SpanKind = Literal["internal", "server", "client", "producer", "consumer"]

# A JWT, whole or cut off: whatever else goes wrong, it is not written down.
_TOKEN = re.compile(rb"eyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*){0,2}")
_SECRETS = frozenset({"authorization", "cookie", "password", "secret", "token"})
NO_SPAN: AbstractContextManager[None] = nullcontext()


@dataclass(slots=True)
class _Tracing:
    """Of this process; empty while nothing is traced."""

    tracer: "Tracer | None" = None
    provider: "TracerProvider | None" = None


_tracing = _Tracing()


def configure_logging(settings: Settings) -> None:
    """Every line of this process becomes one JSON object on standard output, from `settings.log_level` up."""

    def complete(logger: WrappedLogger, level: str, line: EventDict) -> EventDict:
        """One step for what structlog has five for: a line takes 5 µs rather than 9, and each request writes one."""
        line["at"] = datetime.now(UTC)
        line["level"] = level
        line["logger"] = logger.name
        line["service"] = settings.service
        if correlation := correlation_id.get():
            line["correlation_id"] = correlation
        return structlog.processors.format_exc_info(logger, level, line) if "exc_info" in line else line

    level = logging.getLevelNamesMapping()[settings.log_level]
    structlog.configure(
        processors=[complete, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_ToStructlog()], level=level, force=True)
    for chatty in ("httpx", "httpcore", "pymongo"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))


def render(_: WrappedLogger, __: str, line: EventDict) -> bytes:
    """The line as JSON; what cannot be JSON as its `repr`; secrets by name and tokens by shape left out."""
    for name in _SECRETS & line.keys():
        line[name] = "[left out]"
    try:
        text = orjson.dumps(line, default=repr, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z)
    except TypeError:  # integers over 64 bits, halves of characters: a line must come out whatever is in it
        text = orjson.dumps({name: repr(value) for name, value in line.items()})
    return _TOKEN.sub(b"[token]", text) if b"eyJ" in text else text


class _ToStructlog(logging.Handler):
    """Hands the lines of libraries that use the standard `logging` to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(record.name)
        log.log(record.levelno, record.getMessage(), exc_info=record.exc_info)


def tracing() -> bool:
    """Whether spans are kept; where not, what only they need can be left out."""
    return _tracing.tracer is not None


def span(
    name: str, *, kind: SpanKind = "internal", parent: str | None = None, **attributes: str | int | float | bool
) -> AbstractContextManager[Any]:
    """Times a block: `with span("ledger.group", operations=12):`. An exception that leaves it marks it as failed.

    `parent` is a W3C `traceparent`, of a request's header or an event; without one it belongs to the span around it.
    """
    if _tracing.tracer is None:
        return NO_SPAN
    from opentelemetry.trace import SpanKind as Kind

    context = _context_of(parent) if parent else None
    return _tracing.tracer.start_as_current_span(name, context=context, kind=Kind[kind.upper()], attributes=attributes)


def _context_of(parent: str) -> "Context":
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": parent})


def traceparent() -> str:
    """The span around this, for the headers of a request: a W3C `traceparent`. Empty where nothing is traced."""
    if _tracing.tracer is None:
        return ""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent", "")


def start_tracing(settings: Settings) -> None:
    """Exports spans to `settings.otel_endpoint` from a thread, in batches; does nothing without one."""
    if not settings.otel_endpoint:
        return
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": settings.service}))
    exporter = OTLPSpanExporter(endpoint=f"{settings.otel_endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracing.tracer, _tracing.provider = provider.get_tracer("platform"), provider
    trace.set_tracer_provider(provider)  # for the subscribers of events, which ask OpenTelemetry itself


async def stop_tracing(timeout_s: float = 2.0) -> None:
    """Sends what is waiting; an endpoint that is away costs at most `timeout_s`, and its spans."""
    provider, _tracing.tracer, _tracing.provider = _tracing.provider, None, None
    if provider is not None:
        await asyncio.to_thread(provider.force_flush, int(timeout_s * 1000))
        await asyncio.to_thread(provider.shutdown)
