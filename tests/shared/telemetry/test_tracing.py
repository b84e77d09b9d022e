"""Delivery spans and traced functions, as they arrive over gRPC."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from shared.retry.errors import HttpStatusError
from shared.telemetry.metrics import REGISTRY
from shared.telemetry.tracing import DeliverySpans, traced_span
from tests.shared.telemetry.conftest import links_of, parent_of, tags

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.telemetry.manager import TelemetryManager
    from shared.telemetry.tracing import DeliverySpan
    from tests.shared.telemetry.conftest import Traces

TRACE = "0af7651916cd43dd8448eb211c80319c"
CANARY = "kanarienvogel-4711"


def begin(
    spans: DeliverySpans, photo_id: str, fields: dict[str, str] | None = None, **more: Any
) -> DeliverySpan:
    return spans.start(
        "photo_fetcher",
        "photo_fetch",
        fields or {},
        "1780000000000-0",
        "erni:schema.extracted",
        more.pop("deliveries", 1),
        "seewen-2026",
        photo_id,
        **more,
    )


def upstream(photo_id: str, flags: str = "01") -> str:
    """A traceparent whose trace no other test has."""
    return f"00-{photo_id.removeprefix('p-')}-b7ad6b7169203331-{flags}"


def recording(span: DeliverySpan) -> bool:
    """Whether the delivery's span is one that will arrive."""
    with span:
        return trace.get_current_span().is_recording()


def rejected(field: str) -> float:
    return REGISTRY.get_sample_value("erni_trace_context_rejected_total", {"field": field}) or 0


def test_a_delivery_is_a_consumer_span_child_of_and_linked_to_what_the_entry_names(
    start: Callable[..., TelemetryManager], traces: Traces, photo_id: str
) -> None:
    manager = start()
    fields = {"traceparent": upstream(photo_id), "tracestate": "vendor=abc"}
    span = begin(manager.deliveries, photo_id, fields, deliveries=2)
    span.end("done")
    manager.shutdown()
    (found,) = traces.spans_of(photo_id.removeprefix("p-"))
    assert found["operationName"] == "agent_handoff.photo_fetcher"
    assert parent_of(found) == "b7ad6b7169203331"
    assert links_of(found) == ["b7ad6b7169203331"]
    named = tags(found)
    process = tags(found["process"])
    assert process["deployment.environment.name"] == "development"
    assert process["agent"] == "photo_fetcher"
    assert found["process"]["serviceName"] == "erni-photo-fetcher"
    assert process["service.namespace"] == "erni-foto-agency"
    assert {key: named[key] for key in named if not key.startswith("otel.")} == {
        "agent": "photo_fetcher",
        "handoff_type": "photo_fetch",
        "function.name": "PhotoFetcher.handle",
        "messaging.system": "redis",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "erni:schema.extracted",
        "messaging.consumer.group.name": "photo_fetcher",
        "messaging.client.id": process["service.instance.id"],
        "messaging.message.id": "1780000000000-0",
        "messaging.message.conversation_id": photo_id,
        "session.id": "seewen-2026",
        "photo.id": photo_id,
        "delivery.count": 2,
        "outcome": "done",
        "server.address": "localhost",
        "span.kind": "consumer",
        "w3c.tracestate": "vendor=abc",
    }


def test_what_it_publishes_carries_its_own_span_and_the_tracestate(
    start: Callable[..., TelemetryManager], photo_id: str
) -> None:
    span = begin(
        start().deliveries, photo_id, {"traceparent": upstream(photo_id, "03"), "tracestate": "vendor=abc"}
    )
    version, trace_id, span_id, flags = span.traceparent.split("-")
    assert (version, trace_id, flags) == ("00", photo_id.removeprefix("p-"), "03")
    assert span_id != "b7ad6b7169203331"
    assert span.tracestate == "vendor=abc"
    span.end("done")


def test_retries_are_events_on_the_span_with_attempt_wait_and_error(
    start: Callable[..., TelemetryManager], traces: Traces, photo_id: str
) -> None:
    manager = start()
    span = begin(manager.deliveries, photo_id, {"traceparent": upstream(photo_id)})
    span.retry(1, 4.1234, "HttpStatusError", f"503 from https://host/x?sig={CANARY}")
    span.retry(2, 8.0, "TimeoutError", "no answer")
    span.end("done")
    manager.shutdown()
    (found,) = traces.spans_of(photo_id.removeprefix("p-"))
    first, second = (tags(log) for log in found["logs"])
    assert first == {
        "event": "retry",
        "attempt": 1,
        "wait_seconds": 4.123,
        "error.type": "HttpStatusError",
        "error.message": "503 from https://host/x?***",
    }
    assert (second["attempt"], second["wait_seconds"]) == (2, 8.0)
    assert "error" not in tags(found)


def test_a_failed_delivery_is_found_by_its_error_and_tells_the_cause_without_secrets(
    start: Callable[..., TelemetryManager], traces: Traces, photo_id: str
) -> None:
    manager = start()
    span = begin(manager.deliveries, photo_id)

    def fetch() -> None:
        raise HttpStatusError(
            f"GET https://host/x?sig={CANARY} answered 404 at 47.376888, 8.541694", status=404
        )

    try:
        fetch()
    except HttpStatusError as error:
        span.end("dead", error)
    manager.shutdown()
    (found,) = traces.tagged(
        photo__id=photo_id, error__type="HttpStatusError", error="true", agent="photo_fetcher"
    )
    (only,) = found["spans"]
    assert tags(only)["otel.status_description"] == "GET https://host/x?*** answered 404 at [position]"
    (exception,) = (tags(log) for log in only["logs"])
    assert exception["exception.type"] == "shared.retry.errors.HttpStatusError"
    assert "test_tracing.py" in exception["exception.stacktrace"]
    assert CANARY not in str(found)
    assert "8.541694" not in str(found)


@pytest.mark.parametrize(
    ("outcome", "error", "reason", "error_type"),
    [
        ("dead", "delivered 6 times, 5 are allowed", None, "delivery_limit"),
        ("dead", "no photo.submitted event", "undecodable", "undecodable"),
        ("fenced", "the entry was no longer ours", None, "fenced"),
        ("dead", ValueError("nothing there"), "permanent", "ValueError"),
    ],
)
def test_a_failed_delivery_has_an_error_type_also_without_an_exception(
    start: Callable[..., TelemetryManager],
    traces: Traces,
    photo_id: str,
    outcome: str,
    error: BaseException | str,
    reason: str | None,
    error_type: str,
) -> None:
    manager = start()
    begin(manager.deliveries, photo_id).end(outcome, error, reason=reason)
    manager.shutdown()
    (found,) = traces.tagged(photo__id=photo_id)
    named = tags(found["spans"][0])
    assert (named["error.type"], named["otel.status_description"]) == (error_type, str(error))


def test_an_entry_that_is_no_event_keeps_the_trace_that_it_names(
    start: Callable[..., TelemetryManager], traces: Traces, photo_id: str
) -> None:
    manager = start()
    fields = {b"data": b"\xff", b"traceparent": upstream(photo_id).encode(), b"tracestate": b"A=1"}
    before = rejected("tracestate")
    span = manager.deliveries.start("photo_fetcher", "photo_fetch", fields, "1-0", "s", 1, None, None)
    span.end("dead", "no event", reason="undecodable")
    manager.shutdown()
    (found,) = traces.spans_of(photo_id.removeprefix("p-"))
    assert parent_of(found) == "b7ad6b7169203331"
    assert span.tracestate == ""
    assert rejected("tracestate") == before + 1


def test_an_unsampled_context_with_a_malformed_tracestate_stays_unsampled(
    start: Callable[..., TelemetryManager], photo_id: str
) -> None:
    fields = {"traceparent": upstream(photo_id, "00"), "tracestate": "x" * 100_000}
    span = begin(start().deliveries, photo_id, fields)
    assert not recording(span)
    assert (span.traceparent, span.tracestate) == (upstream(photo_id, "00"), "")


def test_a_replay_keeps_its_trace_and_links_to_the_failed_span(
    start: Callable[..., TelemetryManager], traces: Traces, photo_id: str
) -> None:
    manager = start()
    fields = {"traceparent": upstream(photo_id)}
    failed = begin(manager.deliveries, photo_id, fields)
    failed.end("dead", "the photo is not there")
    replayed = begin(manager.deliveries, photo_id, fields, link_traceparent=failed.traceparent)
    replayed.end("done")
    manager.shutdown()
    first, second = traces.spans_of(photo_id.removeprefix("p-"))
    assert parent_of(first) == parent_of(second) == "b7ad6b7169203331"
    assert links_of(second) == ["b7ad6b7169203331", first["spanID"]]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"traceparent": "00-nonsense"}, "traceparent"),
        ({"traceparent": "0" * 1_000_000}, "traceparent"),
    ],
)
def test_a_malformed_context_starts_a_new_trace_and_is_counted(
    start: Callable[..., TelemetryManager], traces: Traces, photo_id: str, fields: dict[str, str], field: str
) -> None:
    manager = start()
    before = rejected(field)
    span = begin(manager.deliveries, photo_id, fields)
    span.end("done")
    manager.shutdown()
    assert rejected(field) == before + 1
    (found,) = traces.tagged(photo__id=photo_id)
    assert found["traceID"] == span.traceparent[3:35] != TRACE
    assert found["spans"][0]["references"] == []
    assert span.tracestate == ""


async def test_what_an_agent_does_outside_is_under_its_span_and_without_secrets(
    start: Callable[..., TelemetryManager], traces: Traces, photo_id: str
) -> None:
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["traceparent"])
        return web.Response(status=404)

    async def broken(_: web.Request) -> web.Response:
        return web.Response(status=503)

    app = web.Application()
    app.router.add_get("/photos/a.jpg", answer)
    app.router.add_get("/broken", broken)
    manager = start()
    async with TestServer(app) as host:
        address = str(host.make_url("/photos/a.jpg"))
        span = begin(manager.deliveries, photo_id, {"traceparent": upstream(photo_id)})
        with span:
            async with aiohttp.ClientSession() as client:
                await client.get(f"{address}?sig={CANARY}")
                await client.get(host.make_url("/broken"))
                with pytest.raises(aiohttp.ClientConnectionError):
                    await client.get(f"http://user:{CANARY}@127.0.0.1:1/photos/b.jpg?sig={CANARY}")
        span.end("done")
    manager.shutdown()
    handoff, first, failed, second = traces.spans_of(photo_id.removeprefix("p-"))
    # that something is not there is an answer; a server that breaks is an error
    assert "error" not in tags(first)
    assert tags(failed)["error"] is True
    assert parent_of(first) == parent_of(second) == handoff["spanID"]
    assert tags(first)["span.kind"] == "client"
    assert tags(first)["url.full"] == address
    assert tags(first)["http.response.status_code"] == 404
    assert seen == [f"00-{photo_id.removeprefix('p-')}-{first['spanID']}-01"]
    assert CANARY not in str([handoff, first, second])


async def test_deliveries_at_the_same_time_keep_apart(
    start: Callable[..., TelemetryManager], traces: Traces, photo_id: str
) -> None:
    manager = start()
    everyone = asyncio.Barrier(20)

    @traced_span("work")
    async def work() -> None:
        await everyone.wait()

    async def one(number: int) -> None:
        span = begin(manager.deliveries, f"{photo_id}.{number}")
        with span:
            await work()
            await everyone.wait()
        span.end("done")

    await asyncio.gather(*(one(number) for number in range(20)))
    manager.shutdown()
    for number in range(20):
        (found,) = traces.tagged(photo__id=f"{photo_id}.{number}")
        handoff, inner = found["spans"]
        assert parent_of(inner) == handoff["spanID"]


async def test_an_unsampled_parent_has_no_span_below_it_and_its_context_goes_on(
    start: Callable[..., TelemetryManager], traces: Traces, photo_id: str
) -> None:
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["traceparent"])
        return web.Response()

    app = web.Application()
    app.router.add_get("/", answer)
    manager = start()

    @traced_span("work")
    async def work() -> bool:
        return trace.get_current_span().is_recording()

    async with TestServer(app) as host:
        span = begin(
            manager.deliveries,
            photo_id,
            {"traceparent": upstream(photo_id, "00"), "tracestate": "vendor=abc"},
        )
        with span:
            assert not await work()
            async with aiohttp.ClientSession() as client:
                await client.get(host.make_url("/"))
        span.retry(1, 4, "TimeoutError", "x")
        span.end("dead", ValueError("x"))
    manager.shutdown()
    assert (span.traceparent, span.tracestate) == (upstream(photo_id, "00"), "vendor=abc")
    assert seen[0].startswith(f"00-{photo_id.removeprefix('p-')}-")
    assert seen[0].endswith("-00")
    assert traces.tagged(photo__id=photo_id) == []


def test_a_photo_without_context_is_sampled_as_the_standard_variables_say(
    start: Callable[..., TelemetryManager], traces: Traces, photo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    manager = start()
    sampled = 0
    for _ in range(200):
        span = begin(manager.deliveries, photo_id)
        assert recording(span) is bool(int(span.traceparent[-2:], 16) & 1)
        following = begin(manager.deliveries, photo_id, {"traceparent": span.traceparent})
        assert recording(following) is recording(span)
        sampled += recording(span)
        span.end("done")
        following.end("done")
    manager.shutdown()
    assert 50 < sampled < 150
    found = traces.tagged(photo__id=photo_id)
    assert len(found) == min(sampled, 100)
    assert all(len(one["spans"]) == 2 for one in found)


def test_a_sampler_that_does_not_ask_the_parent_is_obeyed(
    start: Callable[..., TelemetryManager], photo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    assert recording(begin(start().deliveries, photo_id, {"traceparent": upstream(photo_id, "00")}))
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    assert not recording(begin(start().deliveries, photo_id, {"traceparent": upstream(photo_id, "01")}))


def test_what_an_agent_adds_itself_is_kept_bounded_and_without_secrets(
    start: Callable[..., TelemetryManager], traces: Traces, photo_id: str
) -> None:
    manager = start()
    span = begin(manager.deliveries, photo_id, {"traceparent": upstream(photo_id)})
    with span:
        current = trace.get_current_span()
        current.set_attribute("photo.width", 4032)
        current.set_attributes({"url": f"https://host/?{CANARY}", "latitude": 47.376888, "tags": ["a", "b"]})
        current.set_attribute("long", "x" * 100_000)
        for number in range(100):
            current.set_attribute(f"many.{number}", number)
        for number in range(1000):
            current.add_event("note", {"number": number})
        current.add_link(trace.SpanContext(1, 2, is_remote=True), {"why": "alike"})
        current.record_exception(ValueError(f"token={CANARY}"))
        current.set_status(StatusCode.ERROR, f"password={CANARY}")
    span.end("done")
    current.set_attribute("too", "late")
    current.end()
    manager.shutdown()
    (found,) = traces.spans_of(photo_id.removeprefix("p-"))
    named = tags(found)
    assert named["photo.width"] == 4032
    assert named["url"] == "https://host/?***"
    assert named["tags"] == "a, b"
    assert len(named["long"]) == 2048
    assert len(found["logs"]) == 128
    assert links_of(found)[-1] == "0000000000000002"
    assert "too" not in named
    assert CANARY not in str(found)
    assert "47.376888" not in str(found)


async def test_a_traced_function_is_a_span_sync_and_async_and_its_exception_is_recorded(
    start: Callable[..., TelemetryManager], traces: Traces, photo_id: str
) -> None:
    manager = start()

    @traced_span("outer", {"step": 1})
    async def outer() -> str:
        """Docs."""
        return inner(3)

    @traced_span("inner")
    def inner(count: int) -> str:
        if count == 0:
            raise ValueError(f"nothing at https://host/?{CANARY}")
        return "x" * count

    assert (outer.__name__, outer.__doc__) == ("outer", "Docs.")
    span = begin(manager.deliveries, photo_id, {"traceparent": upstream(photo_id)})
    with span:
        assert await outer() == "xxx"
        with pytest.raises(ValueError, match="nothing"):
            inner(0)
    span.end("done")
    manager.shutdown()
    handoff, first, second, failed = traces.spans_of(photo_id.removeprefix("p-"))
    assert [one["operationName"] for one in (first, second, failed)] == ["outer", "inner", "inner"]
    assert [parent_of(one) for one in (first, second, failed)] == [
        handoff["spanID"],
        first["spanID"],
        handoff["spanID"],
    ]
    assert tags(first)["step"] == 1
    assert tags(first)["function.name"].endswith("outer")
    assert tags(failed)["error"] is True
    assert tags(failed["logs"][0])["exception.message"] == "nothing at https://host/?***"
    assert CANARY not in str(failed)


async def test_without_tracing_the_context_goes_on_and_functions_are_just_called(photo_id: str) -> None:
    @traced_span("work")
    async def work() -> int:
        return 7

    span = begin(DeliverySpans(), photo_id, {"traceparent": upstream(photo_id), "tracestate": "vendor=abc"})
    with span:
        assert await work() == 7
        assert not trace.get_current_span().get_span_context().is_valid
    span.end("done")
    assert (span.traceparent, span.tracestate) == (upstream(photo_id), "vendor=abc")
    assert begin(DeliverySpans(), photo_id, {"traceparent": "nonsense"}).traceparent == ""
