"""The short way of encoding says exactly what the SDK's encoder says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.trace import SpanContext, TraceFlags, get_current_span

from shared.telemetry.otlp import request_of
from shared.telemetry.tracing import DeliverySpans

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan

PARENT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03", "tracestate": "a=1,b=2"}
FAILED = "00-11111111111111111111111111111111-2222222222222222-01"


class _Ended:
    """Deliveries whose ended spans are kept instead of queued: what is asked here is how they are written."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        provider = TracerProvider(resource=Resource({"service.name": "x", "n": 1}), shutdown_on_exit=False)
        tracer = provider.get_tracer("scope", "1.0", schema_url="https://example/schema")
        assert isinstance(tracer, Tracer)
        tracer.span_processor.on_end = self.spans.append  # type: ignore[assignment,method-assign]  # no queue
        self.tracer = tracer
        self.deliveries = DeliverySpans(tracer, consumer="bau-1")

    def delivery(self, during: Callable[[Any], None], outcome: str = "done", **how: Any) -> None:
        fields = how.pop("fields", PARENT)
        span = self.deliveries.start("a_b", "c", fields, "1-0", "s", 1, "session", "photo", **how)
        with span.activate():
            during(span)
        span.end(outcome, how.get("error"))


def nothing(_: Any) -> None:
    """A delivery in which nothing happens."""


def retries(span: Any) -> None:
    span.retry(1, 4.25, "TimeoutError", "no answer")


def fails(span: Any) -> None:
    span.end("dead", ValueError("nothing there"))


def adds(_: Any) -> None:
    current = get_current_span()
    current.set_attributes({"t": "x", "i": 7, "f": 0.5, "b": True, "l": ["a", "b"], "n": [1, 2]})
    current.add_link(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1)), {"why": "alike"})
    current.add_event("note", {"x": 1.5})


def overrides(_: Any) -> None:
    get_current_span().set_attribute("agent", "another")


@pytest.mark.parametrize("during", [nothing, retries, fails, adds, overrides])
@pytest.mark.parametrize("fields", [PARENT, {}])
def test_a_delivery_is_written_as_the_sdk_would_write_it(
    during: Callable[[Any], None], fields: dict[str, str]
) -> None:
    ended = _Ended()
    ended.delivery(during, fields=fields, link_traceparent=FAILED)
    (theirs,) = encode_spans(ended.spans).resource_spans
    (ours,) = request_of(ended.spans).resource_spans
    for request in (ours, theirs):
        for span in request.scope_spans[0].spans:
            span.attributes.sort(key=lambda pair: pair.key)
    assert ours == theirs
    keys = [pair.key for pair in ours.scope_spans[0].spans[0].attributes]
    assert len(keys) == len(set(keys)) >= 15


def test_a_batch_of_deliveries_and_others_holds_them_all() -> None:
    ended = _Ended()
    for _ in range(3):
        ended.delivery(nothing)
        ended.tracer.start_span("GET").end()
    ended.delivery(overrides)
    request = request_of(ended.spans)
    names = [
        span.name for group in request.resource_spans for scoped in group.scope_spans for span in scoped.spans
    ]
    assert sorted(names) == ["GET"] * 3 + ["agent_handoff.a_b"] * 4
    assert {group.resource.attributes[0].value.string_value for group in request.resource_spans} == {"x"}
