"""Decodes a span from OTLP into plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status as WireStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

Value: TypeAlias = str | int | float | bool
_LONGEST: Final = 8192
"""Characters of one value that are kept."""

_KINDS: Final[dict[int, str]] = {
    WireSpan.SPAN_KIND_UNSPECIFIED: "",
    WireSpan.SPAN_KIND_INTERNAL: "internal",
    WireSpan.SPAN_KIND_SERVER: "server",
    WireSpan.SPAN_KIND_CLIENT: "client",
    WireSpan.SPAN_KIND_PRODUCER: "producer",
    WireSpan.SPAN_KIND_CONSUMER: "consumer",
}
_STATUSES: Final[dict[int, str]] = {
    WireStatus.STATUS_CODE_UNSET: "",
    WireStatus.STATUS_CODE_OK: "OK",
    WireStatus.STATUS_CODE_ERROR: "ERROR",
}


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """Describes the process that a span comes from."""

    service: str
    attributes: dict[str, Value]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Is something that happened during a span. Times are nanoseconds since 1970, as everywhere here."""

    name: str
    time: int
    attributes: dict[str, Value]


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """Names another span."""

    trace_id: str
    span_id: str
    attributes: dict[str, Value]


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Is one span. Ids are lower-case hex."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty for a root."""
    name: str
    kind: str
    """``client``, ``consumer`` and so on; empty if the span has none."""
    start: int
    end: int
    attributes: dict[str, Value]
    events: tuple[Event, ...]
    links: tuple[Link, ...]
    status: str
    """Empty, ``OK`` or ``ERROR``."""
    message: str
    """The description in the status."""
    trace_state: str
    scope: str
    resource: Resource

    @property
    def failed(self) -> bool:
        """Return whether the span ended with an error."""
        return self.status == "ERROR"


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Holds all spans of one trace that have arrived, the earliest first."""

    trace_id: str
    spans: tuple[Span, ...]

    @property
    def start(self) -> int:
        """Return when the earliest span began."""
        return min(span.start for span in self.spans)

    @property
    def end(self) -> int:
        """Return when the last span ended."""
        return max(span.end for span in self.spans)


def _plain(value: AnyValue) -> Value:
    """Return an OTLP value as one Python value; arrays and maps become the text of their values."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value[:_LONGEST]
    if kind == "bool_value":
        return value.bool_value
    if kind == "int_value":
        return value.int_value
    if kind == "double_value":
        return value.double_value
    if kind == "array_value":
        return ", ".join(str(_plain(item)) for item in value.array_value.values)[:_LONGEST]
    if kind == "kvlist_value":
        return ", ".join(f"{pair.key}={_plain(pair.value)}" for pair in value.kvlist_value.values)[:_LONGEST]
    if kind == "bytes_value":
        return value.bytes_value.hex()[:_LONGEST]
    return ""


def kind_of(number: int) -> str:
    """Return the word for OTLP's number of a span kind."""
    return _KINDS.get(number, "")


def attributes_of(pairs: Iterable[KeyValue]) -> dict[str, Value]:
    """Return OTLP attributes as a dict."""
    return {pair.key: _plain(pair.value) for pair in pairs}


def resource_of(pairs: Iterable[KeyValue]) -> Resource:
    """Return the process that an OTLP resource describes."""
    attributes = attributes_of(pairs)
    return Resource(service=str(attributes.pop("service.name", "unknown_service")), attributes=attributes)


def decode(wire: bytes, resource: Resource, scope: str) -> Span:
    """Decode one span from its OTLP bytes."""
    span = WireSpan.FromString(wire)
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name[:_LONGEST],
        kind=kind_of(span.kind),
        start=span.start_time_unix_nano,
        end=max(span.end_time_unix_nano, span.start_time_unix_nano),
        attributes=attributes_of(span.attributes),
        events=tuple(
            Event(name=event.name, time=event.time_unix_nano, attributes=attributes_of(event.attributes))
            for event in span.events
        ),
        links=tuple(
            Link(
                trace_id=link.trace_id.hex(),
                span_id=link.span_id.hex(),
                attributes=attributes_of(link.attributes),
            )
            for link in span.links
        ),
        status=_STATUSES.get(span.status.code, ""),
        message=span.status.message[:_LONGEST],
        trace_state=span.trace_state,
        scope=scope,
        resource=resource,
    )
