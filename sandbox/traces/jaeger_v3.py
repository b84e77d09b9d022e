"""Answers in the shapes of Jaeger's API v3, which its current page reads: OTLP's JSON and short summaries.

https://github.com/jaegertracing/jaeger-idl/blob/main/swagger/api_v3/query_service.openapi.yaml; ids are hex,
and 64-bit numbers are texts (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding).
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sandbox.traces.jaeger import QueryError, query_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sandbox.traces.spans import Resource, Span, Trace, Value
    from sandbox.traces.store import Query

_NAMES: Final = {
    "service_name": "service",
    "operation_name": "operation",
    "span_name": "operation",
    "start_time_min": "start",
    "start_time_max": "end",
    "duration_min": "minDuration",
    "duration_max": "maxDuration",
    "num_traces": "limit",
    "search_depth": "limit",
    "attributes": "tags",
}
"""The parameters of a search after ``query.``, and what version 1 calls them."""
_KINDS: Final = ("", "internal", "server", "client", "producer", "consumer")
_STATUSES: Final = ("", "OK", "ERROR")


def query_v3(parameters: Mapping[str, str]) -> Query:
    """Return the search in the parameters ``query.…``. Raises QueryError."""
    found = {
        _NAMES[name]: value
        for name, value in ((key.removeprefix("query."), value) for key, value in parameters.items())
        if name in _NAMES
    }
    for name in ("start", "end"):
        if found.get(name):
            found[name] = _micros(name, found[name])
    return query_of(found)


def _micros(name: str, text: str) -> str:
    try:
        return str(int(datetime.fromisoformat(text).timestamp() * 1_000_000))
    except ValueError:
        raise QueryError(f"{name}={text[:40]!r}: expected a time such as 2026-11-24T21:35:31Z") from None


def summary(trace: Trace) -> dict[str, Any]:
    """Return what the list of found traces shows of one."""
    here = {span.span_id for span in trace.spans}
    root = next((span for span in trace.spans if span.parent_id not in here), trace.spans[0])
    spans = Counter(span.resource.service for span in trace.spans)
    errors = Counter(span.resource.service for span in trace.spans if span.failed)
    return {
        "traceId": trace.trace_id,
        # what older versions of the page call it
        "traceID": trace.trace_id,
        "rootServiceName": root.resource.service,
        "rootOperationName": root.name,
        "minStartTimeUnixNano": str(trace.start),
        "maxEndTimeUnixNano": str(trace.end),
        "spanCount": len(trace.spans),
        "errorSpanCount": errors.total(),
        "orphanSpanCount": sum(bool(span.parent_id) and span.parent_id not in here for span in trace.spans),
        "services": [
            {"name": name, "spanCount": count, "errorSpanCount": errors[name]}
            for name, count in sorted(spans.items())
        ],
    }


def dependencies(traces: Iterable[Trace]) -> list[dict[str, Any]]:
    """Return which service calls which, and how often: a span below one of another service is a call."""
    calls: Counter[tuple[str, str]] = Counter()
    for trace in traces:
        service = {span.span_id: span.resource.service for span in trace.spans}
        for span in trace.spans:
            parent = service.get(span.parent_id, span.resource.service)
            if parent != span.resource.service:
                calls[parent, span.resource.service] += 1
    return [
        {"parent": parent, "child": child, "callCount": count}
        for (parent, child), count in sorted(calls.items())
    ]


def otlp_json(traces: Sequence[Trace]) -> dict[str, Any]:
    """Return traces as OTLP's JSON, in the wrapping of a streamed answer."""
    groups: dict[int, tuple[Resource, list[Span]]] = {}
    for trace in traces:
        for span in trace.spans:
            groups.setdefault(id(span.resource), (span.resource, []))[1].append(span)
    return {
        "result": {
            "resourceSpans": [
                {
                    "resource": {
                        "attributes": _pairs({"service.name": resource.service, **resource.attributes})
                    },
                    "scopeSpans": [{"scope": {"name": span.scope}, "spans": [_span(span)]} for span in spans],
                }
                for resource, spans in groups.values()
            ]
        }
    }


def _span(span: Span) -> dict[str, Any]:
    parent = {"parentSpanId": span.parent_id} if span.parent_id else {}
    status = {"code": _STATUSES.index(span.status), "message": span.message} if span.status else {}
    return {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        **parent,
        "traceState": span.trace_state,
        "name": span.name,
        "kind": _KINDS.index(span.kind),
        "startTimeUnixNano": str(span.start),
        "endTimeUnixNano": str(span.end),
        "attributes": _pairs(span.attributes),
        "events": [
            {"timeUnixNano": str(event.time), "name": event.name, "attributes": _pairs(event.attributes)}
            for event in span.events
        ],
        "links": [
            {"traceId": link.trace_id, "spanId": link.span_id, "attributes": _pairs(link.attributes)}
            for link in span.links
        ],
        "status": status,
    }


def _pairs(values: Mapping[str, Value]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


def _value(value: Value) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}
