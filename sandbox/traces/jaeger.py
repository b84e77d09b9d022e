"""Answers in the shapes of Jaeger's query API (its JSON, version 1), which its page and many tools read.

https://www.jaegertracing.io/docs/1.76/architecture/apis/#query-json-over-http
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.traces.store import Query, tags_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sandbox.traces.spans import Event, Resource, Span, Trace, Value

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_MICROS: Final = {"ns": 0.001, "us": 1, "µs": 1, "ms": 1e3, "s": 1e6, "m": 60e6, "h": 3600e6}
_TRACES_LIMIT: Final = 1500
"""Traces in one answer; Jaeger's own page offers no larger number."""


class QueryError(ValueError):
    """Says which parameter of a search cannot be understood, and what is allowed."""


def query_of(parameters: Mapping[str, str], tag_pairs: Sequence[str] = ()) -> Query:
    """Return the search in the parameters of ``/api/traces``.

    `tag_pairs` are the values of the repeated parameter ``tag=key:value``.
    Raises QueryError.
    """
    return Query(
        service=parameters.get("service", ""),
        operation="" if parameters.get("operation") == "all" else parameters.get("operation", ""),
        tags=_tags(parameters.get("tags", ""), tag_pairs),
        start=_whole(parameters, "start", 0),
        end=_whole(parameters, "end", 0),
        min_duration=_duration(parameters, "minDuration"),
        max_duration=_duration(parameters, "maxDuration"),
        limit=max(1, min(_whole(parameters, "limit", 20), _TRACES_LIMIT)),
    )


def _tags(text: str, pairs: Sequence[str]) -> dict[str, str]:
    """Read tags from a JSON object of texts, or as people type them: ``photo.id=p-1 agent=photo_fetcher``."""
    tags: dict[str, str] = {}
    for pair in pairs:
        name, colon, value = pair.partition(":")
        if not colon:
            raise QueryError(f"tag={pair!r}: expected key:value")
        tags[name] = value
    text = text.strip()
    if text.startswith("{"):
        try:
            tags.update(msgspec.json.decode(text, type=dict[str, str]))
        except msgspec.DecodeError as error:
            raise QueryError(
                'tags: expected a JSON object of texts, for example {"photo.id":"p-1"}'
            ) from error
    else:
        for word in text.split():
            name, equals, value = word.partition("=")
            if not equals:
                raise QueryError(f"tags: {word!r} is not of the form key=value")
            tags[name] = value.strip('"')
    return tags


def _whole(parameters: Mapping[str, str], name: str, default: int) -> int:
    text = parameters.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise QueryError(f"{name}={text[:40]!r}: expected a whole number")
    return int(text)


def _duration(parameters: Mapping[str, str], name: str) -> int:
    text = parameters.get(name, "")
    if not text:
        return 0
    found = _DURATION.fullmatch(text)
    if not found:
        raise QueryError(f"{name}={text[:40]!r}: expected a duration such as 1.2s, 100ms or 500us")
    return int(float(found[1]) * _MICROS[found[2]])


def envelope(data: object, *, total: int = 0) -> dict[str, object]:
    """Wrap the data of an answer."""
    return {"data": data, "total": total, "limit": 0, "offset": 0, "errors": None}


def failure(code: int, message: str) -> dict[str, object]:
    """Return the answer of a request that failed."""
    return {**envelope(None), "errors": [{"code": code, "msg": message}]}


def trace_json(trace: Trace) -> dict[str, Any]:
    """Return a trace in Jaeger's shape: the spans, and the processes that they refer to."""
    processes: dict[str, str] = {}
    listed: dict[str, Any] = {}
    spans: list[dict[str, Any]] = []
    for span in trace.spans:
        key = msgspec.json.encode(span.resource).decode()
        if key not in processes:
            processes[key] = f"p{len(processes) + 1}"
            listed[processes[key]] = _process_json(span.resource)
        spans.append(_span_json(span, processes[key]))
    return {"traceID": trace.trace_id, "spans": spans, "processes": listed, "warnings": None}


def _span_json(span: Span, process: str) -> dict[str, Any]:
    references = []
    if span.parent_id:
        references.append({"refType": "CHILD_OF", "traceID": span.trace_id, "spanID": span.parent_id})
    references += [
        {"refType": "FOLLOWS_FROM", "traceID": link.trace_id, "spanID": link.span_id} for link in span.links
    ]
    tags = tags_of(span)
    if span.scope:
        tags["otel.scope.name"] = span.scope
    if span.trace_state:
        tags["w3c.tracestate"] = span.trace_state
    return {
        "traceID": span.trace_id,
        "spanID": span.span_id,
        "operationName": span.name,
        "references": references,
        "startTime": span.start // 1000,
        "duration": (span.end - span.start) // 1000,
        "tags": _tags_json(tags),
        "logs": [_log_json(event) for event in span.events],
        "processID": process,
        "warnings": None,
    }


def _process_json(resource: Resource) -> dict[str, Any]:
    return {"serviceName": resource.service, "tags": _tags_json(resource.attributes)}


def _log_json(event: Event) -> dict[str, Any]:
    return {
        "timestamp": event.time // 1000,
        "fields": [{"key": "event", "type": "string", "value": event.name}, *_tags_json(event.attributes)],
    }


def _tags_json(values: Mapping[str, Value]) -> list[dict[str, Any]]:
    return [{"key": key, "type": _type_of(value), "value": value} for key, value in values.items()]


def _type_of(value: Value) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64"
    return "float64" if isinstance(value, float) else "string"
