"""Takes ended spans out of the process: in batches, scrubbed, and without ever delaying a photo.

A collector that is away, slow or broken costs a photo nothing. Spans wait in a bounded queue, the others are
dropped and counted, and one log line reports the beginning of the trouble and one its end.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status

from shared.telemetry.metrics import SPAN_EXPORT_FAILURES
from shared.telemetry.redact import hidden_name, scrub, scrub_value
from shared.telemetry.tracing import OWN_ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.util.types import AnyValue

    from shared.telemetry.trace_target import TraceTarget

log = structlog.get_logger()

SHUTDOWN_SECONDS: Final = 3.0
"""Seconds that a process waits at its end for its last spans to leave."""
_SHUTDOWN_SECONDS_AWAY: Final = 0.5
"""The same if the last export failed."""

_DROPPED: Final = SPAN_EXPORT_FAILURES.labels("queue_full")
_FAILED: Final = SPAN_EXPORT_FAILURES.labels("export")
_LEFT: Final = SPAN_EXPORT_FAILURES.labels("shutdown")
_EXPORTERS: Final = (
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)
# These log every failed attempt and every dropped span; `WatchedExporter` logs the same once.
_CHATTY: Final = (
    *_EXPORTERS,
    "opentelemetry.attributes",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.trace",
    "opentelemetry.sdk.trace.export",
)


def exporter_for(target: TraceTarget) -> SpanExporter:
    """Return the SDK's exporter for a target. What `target` does not say, it reads from OTEL_* itself."""
    if target.protocol == "grpc":
        # gRPC's core writes to standard error by itself, past every log; what fails we log once.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from grpc import Compression  # type: ignore[import-untyped]  # its stubs are one more dependency
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        gzip = target.compression == "gzip"
        return OTLPSpanExporter(
            endpoint=target.endpoint,
            insecure=not target.secure,
            timeout=target.timeout,
            compression=Compression.Gzip if gzip else Compression.NoCompression,
            # gRPC has rules of its own for the environment's proxies.
            channel_options=_channel_options(target.proxy),  # type: ignore[arg-type]  # annotated for one pair
        )
    import requests
    from opentelemetry.exporter.otlp.proto.http import Compression as OverHttp
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter

    session = requests.Session()
    session.trust_env = False
    if target.proxy:
        session.proxies = {"http": target.proxy, "https": target.proxy}
    return HttpSpanExporter(
        endpoint=target.endpoint,
        timeout=target.timeout,
        compression=OverHttp(target.compression),
        session=session,
    )


def _channel_options(proxy: str | None) -> tuple[tuple[str, str | int], ...]:
    """https://grpc.github.io/grpc/core/group__grpc__arg__keys.html: http_proxy and enable_http_proxy."""
    return (("grpc.http_proxy", proxy),) if proxy else (("grpc.enable_http_proxy", 0),)


def send_nothing(target: TraceTarget) -> str:
    """Send an empty export, as `erni doctor` does. Returns what went wrong; empty if the collector took it.

    It takes the way of the spans: endpoint, protocol, headers, certificates. Blocks for five seconds at most.
    """
    heard = _Heard()
    loggers = [logging.getLogger(name) for name in _EXPORTERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(heard)
        # in a process whose SDK was silenced, its words are wanted here all the same
        logger.setLevel(logging.WARNING)
    try:
        exporter = exporter_for(msgspec.structs.replace(target, timeout=min(target.timeout, 5.0)))
        result = exporter.export([])
        exporter.shutdown()
    except Exception as error:  # noqa: BLE001  # whatever an exporter raises is the finding
        return scrub(f"{type(error).__name__}: {error}")
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(heard)
            logger.setLevel(level)
    return "" if result is SpanExportResult.SUCCESS else scrub(heard.last or "the export was refused")


class _Heard(logging.Handler):
    """Keeps the last thing that the SDK's exporter logged: its result says only that the export failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


def quieten_sdk() -> None:
    """Keep the SDK's own log lines about exporting out of the log."""
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)


class WatchedExporter(SpanExporter):
    """Scrubs spans, exports them, counts the failures, and logs when they begin and end."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        """`endpoint` is for the log line."""
        self._exporter = exporter
        self._endpoint = scrub(endpoint)
        self._closed = False
        self.away = False
        """Whether the last export failed."""
        self.received = 0
        """Spans that have left the queue."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._closed:
            return SpanExportResult.FAILURE
        self.received += len(spans)
        cause = "the collector refused the batch or could not be reached in time"
        try:
            result = self._exporter.export([scrubbed(span) for span in spans])
        except Exception as error:  # noqa: BLE001  # whatever an exporter raises: telemetry never fails a photo
            result = SpanExportResult.FAILURE
            cause = f"{type(error).__name__}: {error}"
        failed = result is not SpanExportResult.SUCCESS
        if failed:
            _FAILED.inc(len(spans))
        if failed != self.away:
            self.away = failed
            if failed:
                log.warning(
                    "traces do not reach the collector; photos go on without, check OTLP_ENDPOINT",
                    endpoint=self._endpoint,
                    error=cause,
                )
            else:
                log.info("traces reach the collector again", endpoint=self._endpoint)
        return result

    def shutdown(self) -> None:
        """Take no more spans, and interrupt an export that waits."""
        if not self._closed:
            self._closed = True
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class CountedProcessor(BatchSpanProcessor):
    """Is the SDK's batch processor, with dropped spans counted and its end bounded in time.

    The SDK reports a full queue only to its log. So this one counts what is in the queue, as what went in
    less what the exporter received, and keeps a span out itself when the queue is full.
    """

    def __init__(
        self,
        exporter: WatchedExporter,
        *,
        queue_size: int = 2048,
        batch_size: int = 512,
        delay_millis: int = 1000,
    ) -> None:
        """`queue_size` bounds the memory; the defaults are the SDK's, but for the delay (5 s there)."""
        super().__init__(
            exporter,
            max_queue_size=queue_size,
            max_export_batch_size=batch_size,
            schedule_delay_millis=delay_millis,
        )
        self._watched = exporter
        self._queue_size = queue_size
        self._taken = 0
        # Spans end on several threads.
        self._counting = threading.Lock()

    def on_end(self, span: ReadableSpan) -> None:
        with self._counting:
            full = self._taken - self._watched.received >= self._queue_size
            self._taken += not full
        if full:
            _DROPPED.inc()
        else:
            super().on_end(span)

    def shutdown(self) -> None:
        # The SDK waits 30 s for a collector that may be gone, and takes no shorter time.
        seconds = _SHUTDOWN_SECONDS_AWAY if self._watched.away else SHUTDOWN_SECONDS
        sending = threading.Thread(target=super().shutdown, name="last spans", daemon=True)
        sending.start()
        sending.join(seconds)
        self._watched.shutdown()
        _LEFT.inc(self._taken - self._watched.received)


def scrubbed(span: ReadableSpan) -> ReadableSpan:
    """Return the span without secrets, positions and handled errors; the same object if there were none."""
    attributes = _clean(span.attributes)
    handled = any(_is_handled(event) for event in span.events)
    events = [(event, _clean(event.attributes)) for event in span.events if not _is_handled(event)]
    status = Status() if handled else span.status
    description = scrub(status.description) if status.description else None
    if (
        not handled
        and attributes is None
        and description == span.status.description
        and all(cleaned is None for _, cleaned in events)
    ):
        return span
    return ReadableSpan(
        name=span.name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes if attributes is None else attributes,
        events=[
            event if cleaned is None else Event(event.name, cleaned, event.timestamp)
            for event, cleaned in events
        ],
        links=span.links,
        kind=span.kind,
        status=Status(status.status_code, description),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _is_handled(event: Event) -> bool:
    """Return whether an exception is none for people: redis-py's script objects load what is missing."""
    kind = (event.attributes or {}).get("exception.type", "") if event.name == "exception" else ""
    return str(kind).endswith("NoScriptError")


def _clean(attributes: Mapping[str, AnyValue] | None) -> dict[str, AnyValue] | None:
    """Return the attributes scrubbed, or None if there was nothing to scrub."""
    changed: dict[str, AnyValue] = {}
    for key, value in (attributes or {}).items():
        if key in OWN_ATTRIBUTES:
            continue
        cleaned: object = hidden_name(key)
        if cleaned is None:
            if isinstance(value, bool | int | float):
                continue
            cleaned = scrub_value(value)
        if isinstance(cleaned, str) and cleaned != value:
            changed[key] = cleaned
        elif isinstance(cleaned, list) and cleaned != list(value if isinstance(value, list | tuple) else ()):
            changed[key] = [str(item) for item in cleaned]
    return {**(attributes or {}), **changed} if changed else None
