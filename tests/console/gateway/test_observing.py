"""What the gateway counts of its requests, and the span of a request, which the photo's trace continues."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from console.gateway.server import Gateway
from shared.telemetry.metrics import REGISTRY
from tests.console.gateway.conftest import STRUCTURED, Client, event, key_of
from tests.console.gateway.test_events import TRACE, published

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from redis.asyncio import Redis

    from shared.settings import Settings

UNSAMPLED = TRACE[:-1] + "0"


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_requests_are_counted_by_route_and_status(client: Client) -> None:
    def counts() -> list[float]:
        return [
            value("erni_http_requests_total", route="/v1/photos/{id}", status="404"),
            value("erni_http_request_seconds_count", route="/v1/photos/{id}"),
            value("erni_http_requests_total", route="none", status="404"),
            value("erni_http_requests_total", route="/v1/events", status="401"),
            value("erni_http_requests_total", route="/health", status="200"),
        ]

    before = counts()
    await client.ask("GET", "/v1/photos/p-1")
    await client.ask("GET", "/v1/nothing/here")
    await client.ask("GET", "/health")
    client.key = ""
    await client.publish(event())
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 1, 1, 1, 1]
    text = (await client.ask("GET", "/metrics")).body.decode()
    assert 'erni_http_requests_total{route="/v1/events",status="401"}' in text
    assert "p-1" not in text


@pytest.mark.parametrize("stream", ["/v1/stream", "/live"])
async def test_how_long_a_stream_is_open_is_not_measured(client: Client, stream: str) -> None:
    def counts() -> list[float]:
        return [
            sum(value("erni_http_requests_total", route=stream, status=status) for status in ("303", "401")),
            value("erni_http_request_seconds_count", route=stream),
        ]

    before = counts()
    client.key = ""
    assert (await client.ask("GET", stream)).status in (303, 401)
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 0]


async def test_events_are_counted_by_what_became_of_them(
    client: Client, served: Callable[..., AbstractAsyncContextManager[Client]], settings: Settings
) -> None:
    def counts() -> list[float]:
        outcomes = ("published", "replayed", "refused")
        return [value("erni_http_events_total", outcome=outcome) for outcome in outcomes]

    before = counts()

    async def grew(*expected: int) -> None:
        assert [now - then for now, then in zip(counts(), before, strict=True)] == list(expected)
        before[:] = counts()

    await client.publish([event(1), event(2)])
    await grew(2, 0, 0)
    await client.publish([event(2), event(3)])
    await grew(1, 1, 0)
    await client.publish(event(1))
    await grew(0, 1, 0)
    await client.publish(event(1, data={"source_url": "store:other"}))
    await grew(0, 0, 1)
    await client.publish([event(4), event(5, type="x"), event(6)])
    await grew(0, 0, 3)
    await client.publish(b"no event")
    await grew(0, 0, 1)
    async with served(msgspec.structs.replace(settings, max_backlog=3), name="full") as full:
        await full.publish([event(7), event(8)])
    await grew(0, 0, 2)


@asynccontextmanager
async def traced(
    settings: Settings, redis: Redis, name: str = "traced", **more: Any
) -> AsyncIterator[tuple[Client, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(**more)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    gateway = Gateway(settings, provider.get_tracer("tests"))
    await gateway.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield Client(gateway.port, http, await key_of(redis, "publisher", name=name)), exporter
    finally:
        await gateway.stop()
        provider.shutdown()


def the_span(exporter: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exporter.get_finished_spans()
    exporter.clear()
    return span


def traceparent(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-"


async def test_a_photo_s_trace_continues_the_request_s_span(settings: Settings, redis: Redis) -> None:
    async with traced(settings, redis) as (client, exporter):
        await client.publish(event(1), headers={"traceparent": TRACE, "User-Agent": "camera/1"})
        span = the_span(exporter)
        await client.publish(event(2))
        root = the_span(exporter)
        await client.publish(event(3, traceparent=TRACE))
    first, second, third = await published(redis)
    assert (span.name, span.kind) == ("POST /v1/events", SpanKind.SERVER)
    assert span.parent is not None
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == ("ab" * 16, "cd" * 8)
    assert first["traceparent"] == traceparent(span) + "01"
    assert root.parent is None
    assert second["traceparent"].startswith(traceparent(root))
    assert third["traceparent"] == TRACE
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/v1/events",
        "http.response.status_code": 202,
        "url.path": "/v1/events",
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "server.port": client.port,
        "network.protocol.version": "1.1",
        "user_agent.original": "camera/1",
    }


async def test_photos_of_a_batch_share_the_sender_s_trace_or_have_their_own(
    settings: Settings, redis: Redis
) -> None:
    async with traced(settings, redis) as (client, exporter):
        await client.publish([event(1), event(2)], headers={"traceparent": TRACE})
        span = the_span(exporter)
        await client.publish([event(3), event(4)])
        alone = the_span(exporter)
    entries = [one["traceparent"] for one in await published(redis)]
    assert entries[:2] == [traceparent(span) + "01"] * 2
    traces = {one[3:35] for one in entries[2:]}
    assert len(traces) == 2
    assert traceparent(alone)[3:35] not in traces


async def test_a_trace_that_is_not_recorded_has_no_span_and_goes_on(settings: Settings, redis: Redis) -> None:
    async with traced(settings, redis) as (client, exporter):
        await client.publish(event(1), headers={"traceparent": UNSAMPLED})
        assert exporter.get_finished_spans() == ()
    # the sampler decides for a trace that begins here, and its decision holds for the photo
    sampler = ParentBased(ALWAYS_OFF)
    async with traced(settings, redis, name="unsampled", sampler=sampler) as (client, exporter):
        await client.publish(event(2))
        assert exporter.get_finished_spans() == ()
    first, second = await published(redis)
    assert first["traceparent"] == UNSAMPLED
    assert not int(second["traceparent"][-2:], 16) & 1


@pytest.mark.parametrize(
    ("path", "status", "route"),
    [("/v1/photos/p-9?access_token=erni_x_1", 401, "/v1/photos/{id}"), ("/v1/openapi.json", 200, None)],
)
async def test_a_refusal_is_no_error_of_the_span_and_no_query_is_in_it(
    settings: Settings, redis: Redis, path: str, status: int, route: str | None
) -> None:
    async with traced(settings, redis) as (client, exporter):
        client.key = ""
        assert (await client.ask("GET", path)).status == status
        await client.ask("GET", "/health")
        await client.ask("GET", "/metrics")
        span = the_span(exporter)
    assert span.status.status_code is StatusCode.UNSET
    assert (span.attributes or {})["http.route"] == (route or path)
    assert "access_token" not in str(dict(span.attributes or {}))
    assert "error.type" not in (span.attributes or {})


async def test_a_mistake_of_the_server_is_an_error_of_the_span(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("console.gateway.cloud_events.read_structured", fails)
    async with traced(settings, redis) as (client, exporter):
        answer = await client.ask("POST", "/v1/events", data=b"{}", headers={"Content-Type": STRUCTURED})
        assert answer.status == 500
        span = the_span(exporter)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "500"
