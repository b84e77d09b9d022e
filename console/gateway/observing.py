"""Counts every request, and makes a span of each request to `/v1` whose trace is recorded.

The names of the span are those of OpenTelemetry's conventions for HTTP servers:
https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from aiohttp import web
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanKind, StatusCode

from shared.telemetry import trace_context
from shared.telemetry.metrics import HTTP_EVENTS, HTTP_REQUESTS, HTTP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.typedefs import Handler, Middleware
    from opentelemetry.trace import Span, Tracer
    from opentelemetry.util.types import AnyValue
    from prometheus_client import Counter

    from shared.telemetry.histogram import Series

EVENTS: Final = web.RequestKey("events", int)
"""Under this name a request holds how many events it brings; it is there once they can be counted."""
STREAM: Final = "/v1/stream"
_STREAMS: Final = frozenset({STREAM, "/live"})
"""Routes whose answers go on as long as a client listens."""
PUBLISHED: Final = HTTP_EVENTS.labels("published")
REPLAYED: Final = HTTP_EVENTS.labels("replayed")
REFUSED: Final = HTTP_EVENTS.labels("refused")
_SPAN: Final = web.RequestKey("span", object)
_NOT_FOUND: Final = "none"
"""Stands in place of a route where no route takes the address."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_TRACE_FIELDS: Final = ("traceparent", "tracestate")
_EMPTY: Final = Context()


class Observing:
    """Watches the requests of one gateway."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        """`tracer`: None makes no spans."""
        self._tracer = tracer
        self._requests: dict[tuple[str, int], Counter] = {}
        self._seconds: dict[str, Series] = {}

    @property
    def middleware(self) -> Middleware:
        """Return the outermost middleware."""

        @web.middleware
        async def observed(request: web.Request, handler: Handler) -> web.StreamResponse:
            route = route_of(request)
            started = time.perf_counter()
            span = self._begin(request, route)
            status, error = 500, ""
            try:
                answer = await handler(request)
                status = answer.status
            except web.HTTPException as raised:
                status = raised.status
                raise
            except BaseException as raised:
                error = type(raised).__name__
                raise
            finally:
                self._count(route, status, time.perf_counter() - started)
                if span is not None:
                    _end(span, status, error)
            return answer

        return observed

    def _count(self, route: str, status: int, seconds: float) -> None:
        counter = self._requests.get((route, status))
        if counter is None:
            counter = self._requests[route, status] = HTTP_REQUESTS.labels(route, str(status))
        counter.inc()
        if route not in _STREAMS:
            # how long a client listens says nothing about us
            series = self._seconds.get(route)
            if series is None:
                series = self._seconds[route] = HTTP_SECONDS.labels(route)
            series.observe_many((seconds,))

    def _begin(self, request: web.Request, route: str) -> Span | None:
        if self._tracer is None or not route.startswith("/v1/") or route == STREAM:
            return None
        incoming = trace_context.read(_fields(request))
        around = _EMPTY
        if incoming.traceparent:
            parent = trace_context.span_context_of(incoming.traceparent, incoming.tracestate)
            around = trace.set_span_in_context(NonRecordingSpan(parent), _EMPTY)
        method = request.method if request.method in _METHODS else "_OTHER"
        name = f"{method if method != '_OTHER' else 'HTTP'} {route}"
        span = self._tracer.start_span(name, around, SpanKind.SERVER, _attributes(request, method, route))
        if span.is_recording() or not incoming.traceparent:
            # also what the sampler said of a trace that begins here holds for the photo
            request[_SPAN] = span
        return span if span.is_recording() else None


def trace_fields(request: web.Request, *, is_one_photo: bool) -> Mapping[str, str]:
    """Return the trace context that a request's photos continue: that of its span, else its headers.

    Many photos continue the trace that their sender began. If it began none, each is a trace of its own.
    """
    span = request.get(_SPAN)
    if not isinstance(span, trace.Span):
        return _fields(request)
    if not is_one_photo and "traceparent" not in request.headers:
        return {}
    context = span.get_span_context()
    return {
        "traceparent": trace_context.traceparent_of(context),
        "tracestate": context.trace_state.to_header(),
    }


def _fields(request: web.Request) -> dict[str, str]:
    return {name: request.headers[name] for name in _TRACE_FIELDS if name in request.headers}


def _attributes(request: web.Request, method: str, route: str) -> dict[str, AnyValue]:
    """Return what is known at the beginning. The query is left out: a key may stand in it."""
    host, _, port = request.host.rpartition(":")
    found: dict[str, AnyValue] = {
        "http.request.method": method,
        "http.route": route,
        "url.path": request.path,
        "url.scheme": request.scheme,
        "server.address": host or request.host,
        "network.protocol.version": f"{request.version.major}.{request.version.minor}",
    }
    if host and port.isdigit():
        found["server.port"] = int(port)
    if agent := request.headers.get("User-Agent"):
        found["user_agent.original"] = agent
    return found


def _end(span: Span, status: int, error: str) -> None:
    """End a span. By the conventions, only a mistake of the server is an error of its span."""
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_attribute("error.type", error or str(status))
        span.set_status(StatusCode.ERROR)
    span.end()


def route_of(request: web.Request) -> str:
    """Return the route of a request, which holds no id and no key."""
    resource = request.match_info.route.resource
    return resource.canonical if resource else _NOT_FOUND
