"""Measures the CPU of traces, metrics and log lines per delivery, beside one bare exported SDK span.

The bare span is the least that OpenTelemetry's SDK can do: no attribute, no parent, through its own batch
processor and OTLP exporter to a receiver on this machine. All figures are microseconds of this process's CPU
(the exporter's thread included) per delivery or span; the lowest of several interleaved rounds, because
other load can only add. The figure that counts is the ratio.

    python -m benchmarks.telemetry [--deliveries 10000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, set_span_in_context

from sandbox.traces.process import start_traces
from shared.settings import Settings
from shared.telemetry.export import CountedProcessor, WatchedExporter
from shared.telemetry.logs import configure_logging
from shared.telemetry.manager import ProcessResource
from shared.telemetry.metrics import AgentMetrics
from shared.telemetry.trace_context import span_context_of
from shared.telemetry.tracing import DeliverySpans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.util.types import AnyValue

RESULTS: Final = Path(__file__).parent / "results"
AGENT: Final = "vision_analyzer"
CONSUMER: Final = "bau-1-4711-a3f0"
BATCH: Final = 512
"""Spans per export, the SDK's default."""
TARGETS: Final = {
    "full_before_export": 60.0,
    "full_sampled_1_percent": 12.0,
    "spans_off": 2.0,
    "ratio_full_exported_to_bare_exported": 6.0,
}
"""What each of these figures may be at most: microseconds, the last one times.

A bare span has no attribute and no link; that of a delivery has sixteen and one, all by the SDK's own ways.
"""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Define something to measure: run once per entry, then flush."""

    run: Callable[[dict[str, str]], None]
    entries: list[dict[str, str]]
    flush: Callable[[], object] = lambda: None
    counted: bool = True
    """Whether the flush is part of the figure."""


class Nowhere(SpanExporter):
    """Take spans and drop them, for the figure before export."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS if spans else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Do nothing: there is nothing to close."""


class Traced:
    """Hold a provider with one batch processor, which exports when asked."""

    def __init__(self, processor: BatchSpanProcessor) -> None:
        self._provider = TracerProvider(
            resource=ProcessResource(
                {"service.name": "erni-vision-analyzer", "service.instance.id": CONSUMER}
            )
        )
        self._provider.add_span_processor(processor)
        self._processor = processor
        tracer = self._provider.get_tracer("benchmark")
        if not isinstance(tracer, Tracer):
            raise SystemExit("OTEL_SDK_DISABLED is set: there is nothing to measure")
        self.tracer = tracer

    def flush(self) -> None:
        """Export the waiting spans."""
        self._processor.force_flush()

    def stop(self) -> None:
        """End the exporter's thread."""
        self._provider.shutdown()


class Deliveries:
    """Do what the delivery loop does for telemetry around each entry."""

    def __init__(self, spans: DeliverySpans, *, alone: bool = False) -> None:
        """Prepare spans, metrics and log. `alone`: the span without metrics and log line."""
        self._spans = spans
        self._alone = alone
        self._metrics = AgentMetrics(AGENT)
        self._log = structlog.get_logger()

    def one(self, fields: dict[str, str]) -> None:
        """Account for one delivery that succeeds."""
        if not self._alone:
            self._metrics.in_hand.inc()
        span = self._spans.start(
            AGENT,
            "vision_analysis",
            fields,
            "1780000000000-0",
            "erni:photo.fetched",
            1,
            "seewen",
            "p-4f1d2c7b",
        )
        with span:
            if not self._alone:
                self._log.info("delivery", outcome="done", duration_ms=812.4, attempts=1)
        span.end("done")
        if not self._alone:
            self._metrics.in_hand.dec()
            self._metrics.delivered("done", 0.8124)


class Plain:
    """Make spans with the SDK's defaults."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._attributes: dict[str, AnyValue] = {f"attribute.number.{n}": "value" * 3 for n in range(16)}

    def bare(self, _: dict[str, str]) -> None:
        """Make the smallest possible span."""
        self._tracer.start_span("bare").end()

    def dressed(self, fields: dict[str, str]) -> None:
        """Make a delivery's span with the SDK: a parent, a link, sixteen attributes."""
        parent = span_context_of(fields["traceparent"])
        around = set_span_in_context(NonRecordingSpan(parent), Context())
        attributes = {**self._attributes}
        self._tracer.start_span("dressed", around, SpanKind.CONSUMER, attributes, (Link(parent),)).end()


def entries(count: int, *, sampled_every: int) -> list[dict[str, str]]:
    """Make the fields of entries; the trace of one in `sampled_every` is recorded."""
    return [
        {"traceparent": f"00-{token_hex(16)}-{token_hex(8)}-0{2 + (n % sampled_every == 0)}"}
        for n in range(count)
    ]


def cpu(case: Case) -> float:
    """Return the microseconds of this process's CPU per entry."""
    gc.collect()
    began = time.process_time()
    for fields in case.entries:
        case.run(fields)
    if case.counted:
        case.flush()
    spent = time.process_time() - began
    case.flush()
    return spent / len(case.entries) * 1e6


def measure(endpoint: str, deliveries: int, rounds: int) -> dict[str, float]:
    """Return all figures, in microseconds; the ratio is of the same round."""
    queue: dict[str, Any] = {"max_queue_size": 2 * deliveries, "schedule_delay_millis": 1e9}
    sdk = Traced(BatchSpanProcessor(OTLPSpanExporter(endpoint), max_export_batch_size=BATCH, **queue))
    ours = Traced(
        CountedProcessor(
            WatchedExporter(OTLPSpanExporter(endpoint), endpoint), queue_size=2 * deliveries, batch_size=BATCH
        )
    )
    # exports only when asked, so that the figure contains nothing of it
    kept = Traced(BatchSpanProcessor(Nowhere(), max_export_batch_size=2 * deliveries, **queue))
    plain, plain_kept = Plain(sdk.tracer), Plain(kept.tracer)
    on, before, off = (
        DeliverySpans(ours.tracer, consumer=CONSUMER),
        DeliverySpans(kept.tracer, consumer=CONSUMER),
        DeliverySpans(consumer=CONSUMER),
    )
    every, hundredth = entries(deliveries, sampled_every=1), entries(deliveries, sampled_every=100)
    cases = {
        "bare_exported": Case(run=plain.bare, entries=every, flush=sdk.flush),
        "full_exported": Case(run=Deliveries(on).one, entries=every, flush=ours.flush),
        "sdk_alike_exported": Case(run=plain.dressed, entries=every, flush=sdk.flush),
        "bare_before_export": Case(run=plain_kept.bare, entries=every, flush=kept.flush, counted=False),
        "full_before_export": Case(
            run=Deliveries(before).one, entries=every, flush=kept.flush, counted=False
        ),
        "spans_before_export": Case(
            run=Deliveries(before, alone=True).one, entries=every, flush=kept.flush, counted=False
        ),
        "sdk_alike_before_export": Case(
            run=plain_kept.dressed, entries=every, flush=kept.flush, counted=False
        ),
        "full_sampled_1_percent": Case(run=Deliveries(on).one, entries=hundredth, flush=ours.flush),
        "spans_sampled_1_percent": Case(
            run=Deliveries(on, alone=True).one, entries=hundredth, flush=ours.flush
        ),
        "full_off": Case(run=Deliveries(off).one, entries=every),
        "spans_off": Case(run=Deliveries(off, alone=True).one, entries=every),
    }
    taken = [{name: cpu(case) for name, case in cases.items()} for _ in range(rounds)]
    for traced in (sdk, ours, kept):
        traced.stop()
    figures = {name: round(min(one[name] for one in taken), 2) for name in cases}
    ratios = sorted(one["full_exported"] / one["bare_exported"] for one in taken)
    return {**figures, "ratio_full_exported_to_bare_exported": round(ratios[len(ratios) // 2], 2)}


async def run(deliveries: int, rounds: int) -> dict[str, Any]:
    """Measure against a receiver of our own, which is another process and not in the figures."""
    receiver = await start_traces()
    try:
        figures = await asyncio.to_thread(measure, receiver.otlp_endpoint, deliveries, rounds)
    finally:
        await receiver.stop()
    return {
        "deliveries": deliveries,
        "rounds": rounds,
        "versions": {
            name: version(name)
            for name in (
                "opentelemetry-sdk",
                "opentelemetry-exporter-otlp-proto-grpc",
                "prometheus-client",
                "structlog",
            )
        },
        "microseconds": figures,
        "at_most": TARGETS,
        "within": all(figures[name] <= most for name, most in TARGETS.items()),
    }


def main() -> int:
    """Print the figures and write them to benchmarks/results/telemetry.json."""
    parser = argparse.ArgumentParser(
        description="CPU of telemetry per delivery beside one bare exported span."
    )
    parser.add_argument("--deliveries", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with Path(os.devnull).open("wb") as nowhere:
        # rendered and written like any line, but not shown
        configure_logging(Settings(log_format="json"), agent=AGENT, consumer=CONSUMER, stream=nowhere)
        result = asyncio.run(run(given.deliveries, given.rounds))
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=2)
    (RESULTS / "telemetry.json").write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
