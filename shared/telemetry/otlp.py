"""The OTLP exporter, with a short way for the spans of deliveries.

The SDK's encoder spends some 40 µs of Python on a span with sixteen attributes, more than everything else a
delivery costs. Nine of the sixteen are the same for every delivery of an agent from a stream: their bytes
are made once and merged in by protobuf's own code. What arrives is the same, byte for byte once decoded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import SpanFlags

from shared.telemetry.handoff_span import EndedHandoff

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue as WireValue
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext
    from opentelemetry.util.types import AnyValue


_LOCAL: Final = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE: Final = _LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


class HandoffExporter(OTLPSpanExporter):
    """OTLP over gRPC. Spans of other instrumentations take the SDK's way."""

    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        """The exporter's own hook for making a request of spans."""
        return request_of(data)


class Pairs(Protocol):
    """OTLP's list of attributes, anywhere in a message."""

    def add(self, *, key: str) -> KeyValue:
        """Append a pair and return it."""


def request_of(spans: Iterable[ReadableSpan]) -> ExportTraceServiceRequest:
    """The export request for a batch of spans."""
    groups: dict[tuple[int, int], list[EndedHandoff]] = {}
    others: list[ReadableSpan] = []
    for span in spans:
        # An agent may have set one of the fixed attributes anew; merged bytes would then say it twice.
        if isinstance(span, EndedHandoff) and span.own.keys().isdisjoint(span.fixed.values):
            groups.setdefault((id(span.resource), id(span.instrumentation_scope)), []).append(span)
        else:
            others.append(span)
    request = encode_spans(others) if others else ExportTraceServiceRequest()
    for group in groups.values():
        # The SDK encodes resource and scope, around one span which then makes way for all of them.
        frame = encode_spans(group[:1])
        target = frame.resource_spans[0].scope_spans[0].spans
        del target[:]
        target.extend(_encoded(span) for span in group)
        request.resource_spans.extend(frame.resource_spans)
    return request


def _encoded(span: EndedHandoff) -> WireSpan:
    """One span as OTLP has it."""
    wire = WireSpan()
    fixed = span.fixed
    if fixed.wire is None:
        only_fixed = WireSpan()
        _put_all(only_fixed.attributes, fixed.values)
        fixed.wire = only_fixed.SerializeToString()
    wire.MergeFromString(fixed.wire)
    _put_all(wire.attributes, span.own)
    context = span.context
    wire.trace_id = context.trace_id.to_bytes(16, "big")
    wire.span_id = context.span_id.to_bytes(8, "big")
    if context.trace_state:
        wire.trace_state = ",".join(f"{key}={value}" for key, value in context.trace_state.items())
    wire.flags = _LOCAL
    if span.parent is not None:
        wire.parent_span_id = span.parent.span_id.to_bytes(8, "big")
        wire.flags = _flags(span.parent)
    wire.name = span.name
    wire.kind = WireSpan.SPAN_KIND_CONSUMER
    wire.start_time_unix_nano = span.start_time or 0
    wire.end_time_unix_nano = span.end_time or 0
    wire.status.code = span.status.status_code.value  # type: ignore[assignment]  # the enum is a number there
    if span.status.description:
        wire.status.message = span.status.description
    for event in span.events:
        added = wire.events.add(name=event.name, time_unix_nano=event.timestamp)
        _put_all(added.attributes, event.attributes or {})
    for link in span.links:
        linked = wire.links.add(
            trace_id=link.context.trace_id.to_bytes(16, "big"),
            span_id=link.context.span_id.to_bytes(8, "big"),
            flags=_flags(link.context),
        )
        if link.attributes:
            _put_all(linked.attributes, link.attributes)
    return wire


def _flags(context: SpanContext) -> int:
    return _REMOTE if context.is_remote else _LOCAL


def _put_all(pairs: Pairs, attributes: Mapping[str, AnyValue]) -> None:
    """Attributes as OTLP's list of pairs."""
    for key, value in attributes.items():
        _put(pairs.add(key=key).value, value)


def _put(wire: WireValue, value: AnyValue) -> None:
    if isinstance(value, str):
        wire.string_value = value
    elif isinstance(value, bool):
        wire.bool_value = value
    elif isinstance(value, int):
        wire.int_value = value
    elif isinstance(value, float):
        wire.double_value = value
    elif isinstance(value, list | tuple):
        for item in value:
            _put(wire.array_value.values.add(), item)
    else:
        wire.string_value = str(value)
