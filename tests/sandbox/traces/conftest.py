"""A receiver in this process, and hand-made spans that go to it over real gRPC."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc.aio  # type: ignore[import-untyped]  # its stubs are one more dependency for one channel
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from sandbox.traces.service import TraceService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

KINDS = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
NOON = 1_780_000_000_000_000_000
"""Nanoseconds since 1970, where the hand-made traces begin."""


def _fill(pairs: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        pair: KeyValue = pairs.add()
        pair.key = key
        if isinstance(value, bool):
            pair.value.bool_value = value
        elif isinstance(value, int):
            pair.value.int_value = value
        elif isinstance(value, float):
            pair.value.double_value = value
        elif isinstance(value, bytes):
            pair.value.bytes_value = value
        elif isinstance(value, list):
            for item in value:
                pair.value.array_value.values.add().string_value = item
        else:
            pair.value.string_value = value


class Batch:
    """An export in the making."""

    def __init__(self, trace_id: bytes | None = None) -> None:
        self.request = ExportTraceServiceRequest()
        self.trace_id = os.urandom(16) if trace_id is None else trace_id

    def span(
        self,
        name: str = "work",
        *,
        number: int = 1,
        parent: int = 0,
        start: float = 0,
        end: float = 1,
        kind: str = "internal",
        service: str = "erni-foto-agency",
        resource: dict[str, Any] | None = None,
        attributes: dict[str, Any] | None = None,
        error: str = "",
    ) -> Span:
        """Add a span; `number` and `parent` become ids, times are seconds after noon."""
        group = self.request.resource_spans.add()
        _fill(group.resource.attributes, {"service.name": service, **(resource or {})})
        scoped = group.scope_spans.add()
        scoped.scope.name = "tests"
        span: Span = scoped.spans.add()
        span.trace_id = self.trace_id
        span.span_id = number.to_bytes(8, "big")
        span.parent_span_id = parent.to_bytes(8, "big") if parent else b""
        span.name = name
        span.kind = KINDS[kind]  # type: ignore[assignment]  # the wire's number
        span.start_time_unix_nano = NOON + int(start * 1e9)
        span.end_time_unix_nano = NOON + int(end * 1e9)
        _fill(span.attributes, attributes or {})
        if error:
            span.status.code = Status.STATUS_CODE_ERROR
            span.status.message = error
        return span

    @staticmethod
    def event(span: Span, name: str, at: float, attributes: dict[str, Any]) -> None:
        """Add an event to a span."""
        event = span.events.add()
        event.name = name
        event.time_unix_nano = NOON + int(at * 1e9)
        _fill(event.attributes, attributes)

    @staticmethod
    def link(span: Span, trace_id: bytes, number: int, attributes: dict[str, Any]) -> None:
        """Add a link to a span."""
        link = span.links.add()
        link.trace_id = trace_id
        link.span_id = number.to_bytes(8, "big")
        _fill(link.attributes, attributes)


class Receiver:
    """A running service with a channel and an HTTP client to it."""

    def __init__(self, service: TraceService, channel: Any, client: aiohttp.ClientSession) -> None:
        self.service = service
        self._stub = TraceServiceStub(channel)  # type: ignore[no-untyped-call]  # generated code
        self._client = client
        self.url = f"http://127.0.0.1:{service.http_port}"

    async def send(self, batch: Batch) -> ExportTraceServiceResponse:
        """Export a batch over gRPC."""
        response = await self._stub.Export(batch.request)
        assert isinstance(response, ExportTraceServiceResponse)
        return response

    async def ask(self, path: str, **parameters: str) -> tuple[int, Any]:
        """Status and JSON of a path."""
        async with self._client.get(self.url + path, params=parameters) as answer:
            return answer.status, await answer.json()

    async def page(self, path: str, **parameters: str) -> tuple[int, str, dict[str, str]]:
        """Status, text and headers of a page."""
        async with self._client.get(self.url + path, params=parameters) as answer:
            assert answer.content_type == "text/html"
            return answer.status, await answer.text(), dict(answer.headers)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """An empty receiver."""
    service = TraceService(max_bytes=200_000)
    await service.start()
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{service.otlp_port}") as channel,
        aiohttp.ClientSession() as client,
    ):
        yield Receiver(service, channel, client)
    await service.stop()
