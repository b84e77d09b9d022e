"""How ended spans leave the process: in batches, scrubbed, and never in anybody's way.

A collector that is away, slow or broken costs the photo nothing: spans wait in a bounded queue, the oldest
fall out, a counter says how many, and one log line says that it began and one that it ended.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

import structlog
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status

from shared.telemetry.handoff_span import EndedHandoff
from shared.telemetry.metrics import SPAN_EXPORT_FAILURES
from shared.telemetry.redact import hidden_name, scrub, scrub_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.util.types import AnyValue

log = structlog.get_logger()

SHUTDOWN_SECONDS: Final = 3.0
"""How long a process that ends waits for its last spans to leave."""
_SHUTDOWN_SECONDS_AWAY: Final = 0.5
"""The same when the collector was away at the last try."""
SCHEDULE_MILLIS: Final = 1000
"""A span is seen about a second after it ended (the SDK's default, 5 s, feels broken in a demo)."""

_DROPPED: Final = SPAN_EXPORT_FAILURES.labels("queue_full")
_FAILED: Final = SPAN_EXPORT_FAILURES.labels("export")
_LEFT: Final = SPAN_EXPORT_FAILURES.labels("shutdown")
# These tell of every failed attempt and every dropped span; `WatchedExporter` tells the same once.
_CHATTY: Final = (
    "opentelemetry.attributes",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.trace.export",
)


def quieten_sdk() -> None:
    """Keep the SDK's own log lines about exporting out of the log."""
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)


class WatchedExporter(SpanExporter):
    """Scrubs what other instrumentations wrote, exports, counts what failed, and logs only the turns."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        """`endpoint` is for the log line."""
        self._exporter = exporter
        self._endpoint = scrub(endpoint)
        self.away = False
        """Whether the last export failed."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
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
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class HandoffProcessor(BatchSpanProcessor):
    """The SDK's batch processor with its drops counted and its end bounded in time."""

    def __init__(self, exporter: WatchedExporter) -> None:
        """The standard OTEL_BSP_* variables win over our shorter delay."""
        own_delay = None if os.environ.get("OTEL_BSP_SCHEDULE_DELAY") else SCHEDULE_MILLIS
        super().__init__(exporter, schedule_delay_millis=own_delay)
        self._watched = exporter

    def on_end(self, span: ReadableSpan) -> None:
        batch = self._batch_processor
        # The SDK drops the oldest span of a full queue and tells only its log.
        if len(batch._queue) == batch._max_queue_size:  # noqa: SLF001  # there is no public way to see a drop
            _DROPPED.inc()
        super().on_end(span)

    def shutdown(self) -> None:
        # The SDK's default waits 30 s for a collector that may be gone.
        seconds = _SHUTDOWN_SECONDS_AWAY if self._watched.away else SHUTDOWN_SECONDS
        batch = self._batch_processor
        batch.shutdown(timeout_millis=int(seconds * 1000))
        _LEFT.inc(len(batch._queue))  # noqa: SLF001  # as above


def scrubbed(span: ReadableSpan) -> ReadableSpan:
    """The span without secrets and positions; the same object when there were none."""
    if isinstance(span, EndedHandoff):
        return span
    attributes = _clean(span.attributes)
    events = [(event, _clean(event.attributes)) for event in span.events]
    description = scrub(span.status.description) if span.status.description else None
    if (
        attributes is None
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
        status=Status(span.status.status_code, description),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _clean(attributes: Mapping[str, AnyValue] | None) -> dict[str, AnyValue] | None:
    """The attributes scrubbed, or None when nothing had to be."""
    if not attributes:
        return None
    changed: dict[str, AnyValue] = {}
    for key, value in attributes.items():
        if isinstance(value, bool | int | float):
            continue
        cleaned = hidden_name(key) or scrub_value(value)
        if isinstance(cleaned, str) and cleaned != value:
            changed[key] = cleaned
        elif isinstance(cleaned, list) and cleaned != list(value if isinstance(value, list | tuple) else ()):
            changed[key] = [str(item) for item in cleaned]
    return {**attributes, **changed} if changed else None
