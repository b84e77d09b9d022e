"""Keeps spans in memory, as the bytes in which they arrived and up to a limit, and searches them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import msgspec

from sandbox.traces.spans import Resource, Span, Trace, Value, decode, kind_of, resource_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource as WireResource

BYTES_LIMIT: Final = 128 * 1024 * 1024
"""Bytes of spans that are kept (about 100,000 of our spans); above it the least recently written go."""
_SPANS_PER_TRACE_LIMIT: Final = 10_000
_OPERATIONS_LIMIT: Final = 5000
_OVERHEAD: Final = 400
"""Bytes that one kept span takes besides its own, roughly."""

DERIVED_TAGS: Final = frozenset({"error", "span.kind", "otel.status_code", "otel.status_description"})
"""Tags that are no attributes: Jaeger derives them from the span's kind and status."""


class _Kept(msgspec.Struct, frozen=True, gc=False):
    wire: bytes
    resource: Resource
    scope: str


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Says what a trace must have. Times and durations are microseconds, as in Jaeger's API."""

    service: str = ""
    operation: str = ""
    tags: dict[str, str] = {}
    """All of them must be on one span of the trace: in its attributes, its process's or its events'."""
    start: int = 0
    end: int = 0
    """0: no limit."""
    min_duration: int = 0
    max_duration: int = 0
    """Of one matching span; 0: no limit."""
    limit: int = 20


class TraceStore:
    """Keeps traces by id, the most recently written at the end."""

    def __init__(self, *, max_bytes: int = BYTES_LIMIT) -> None:
        """Keep at most about `max_bytes` of spans."""
        self._max_bytes = max_bytes
        self._bytes = 0
        self._traces: OrderedDict[str, dict[str, _Kept]] = OrderedDict()
        self._resources: OrderedDict[bytes, Resource] = OrderedDict()
        self._operations: set[tuple[str, str, str]] = set()
        self.received = 0
        """Spans that were ever received."""
        self.evicted = 0
        """Traces removed because of the limit."""

    def __len__(self) -> int:
        return len(self._traces)

    def add(self, request: ExportTraceServiceRequest) -> int:
        """Keep what an exporter sent; a span sent twice is kept once. Returns how many were refused.

        Spans without ids are refused, and further spans of a trace that has 10,000.
        """
        refused = 0
        for group in request.resource_spans:
            resource = self._resource(group.resource)
            for scoped in group.scope_spans:
                for span in scoped.spans:
                    if len(span.trace_id) != 16 or len(span.span_id) != 8:
                        refused += 1
                        continue
                    if len(self._operations) < _OPERATIONS_LIMIT:
                        self._operations.add((resource.service, span.name, kind_of(span.kind)))
                    kept = _Kept(span.SerializeToString(), resource, scoped.scope.name)
                    refused += not self._keep(span.trace_id.hex(), span.span_id.hex(), kept)
        while self._bytes > self._max_bytes and len(self._traces) > 1:
            _, gone = self._traces.popitem(last=False)
            self._bytes -= sum(len(kept.wire) + _OVERHEAD for kept in gone.values())
            self.evicted += 1
        return refused

    def _keep(self, trace_id: str, span_id: str, kept: _Kept) -> bool:
        spans = self._traces.setdefault(trace_id, {})
        before = spans.get(span_id)
        if before is None and len(spans) >= _SPANS_PER_TRACE_LIMIT:
            return False
        if before is not None:
            self._bytes -= len(before.wire) + _OVERHEAD
        spans[span_id] = kept
        self._bytes += len(kept.wire) + _OVERHEAD
        self._traces.move_to_end(trace_id)
        self.received += 1
        return True

    def _resource(self, wire: WireResource) -> Resource:
        """Return one object per process, however often it exports."""
        key = wire.SerializeToString(deterministic=True)
        found = self._resources.get(key)
        if found is None:
            found = resource_of(wire.attributes)
            self._resources[key] = found
            if len(self._resources) > 1000:
                self._resources.popitem(last=False)
        return found

    def get(self, trace_id: str) -> Trace | None:
        """Return a trace by its id (leading zeros may be missing, as Jaeger allows)."""
        spans = self._traces.get(trace_id.lower().zfill(32))
        if not spans:
            return None
        decoded = [decode(kept.wire, kept.resource, kept.scope) for kept in spans.values()]
        decoded.sort(key=lambda span: (span.start, span.end))
        return Trace(trace_id=decoded[0].trace_id, spans=tuple(decoded))

    def services(self) -> list[str]:
        """Return the names of the services that sent spans."""
        return sorted({resource.service for resource in self._resources.values()})

    def operations(self, service: str = "", kind: str = "") -> list[tuple[str, str]]:
        """Return span names and kinds, of one service and kind or of all."""
        return sorted(
            {
                (name, of_kind)
                for of_service, name, of_kind in self._operations
                if (not service or of_service == service) and (not kind or of_kind == kind)
            }
        )

    def search(self, query: Query) -> list[Trace]:
        """Return the traces that match, the most recently written first, at most `query.limit`."""
        found: list[Trace] = []
        for trace_id in reversed(self._traces):
            if len(found) >= query.limit:
                break
            if not self._may_match(trace_id, query):
                continue
            trace = self.get(trace_id)
            if trace is not None and any(_matches(span, query) for span in trace.spans):
                found.append(trace)
        return found

    def _may_match(self, trace_id: str, query: Query) -> bool:
        """Return whether the trace is worth decoding: names and texts are in a span's bytes as they are."""
        wanted = [query.operation.encode()] if query.operation else []
        wanted += [name.encode() for name in query.tags if name not in DERIVED_TAGS]
        for kept in self._traces[trace_id].values():
            if query.service and kept.resource.service != query.service:
                continue
            # A tag may belong to the process, which is not in the span's bytes.
            if all(word in kept.wire or word.decode() in kept.resource.attributes for word in wanted):
                return True
        return False


def tags_of(span: Span) -> dict[str, Value]:
    """Return a span's attributes and the tags that Jaeger derives from its kind and status."""
    tags: dict[str, Value] = dict(span.attributes)
    if span.kind:
        tags["span.kind"] = span.kind
    if span.status:
        tags["otel.status_code"] = span.status
    if span.failed:
        tags["error"] = True
    if span.message:
        tags["otel.status_description"] = span.message
    return tags


def as_text(value: Value) -> str:
    """Return a value as it is compared and shown: ``true``, not ``True``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _matches(span: Span, query: Query) -> bool:
    if query.service and span.resource.service != query.service:
        return False
    if query.operation and span.name != query.operation:
        return False
    micros = (span.end - span.start) // 1000
    if (query.min_duration and micros < query.min_duration) or (
        query.max_duration and micros > query.max_duration
    ):
        return False
    began = span.start // 1000
    if (query.start and began < query.start) or (query.end and began > query.end):
        return False
    return all(
        any(as_text(places[name]) == wanted for places in _places(span) if name in places)
        for name, wanted in query.tags.items()
    )


def _places(span: Span) -> Iterator[Mapping[str, Value]]:
    """Yield the places where a tag may be."""
    yield tags_of(span)
    yield span.resource.attributes
    for event in span.events:
        yield event.attributes
