"""Measures FastStream on a Redis stream: message by message, in batches, or with its tracing and metrics.

It acknowledges after the output is published, as two commands: a crash between them hands on twice. It has no
fence, no dead letters, and no take-over unless a second subscriber claims what is idle.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import uvloop
from faststream.redis import RedisBroker, StreamSub

from benchmarks.peers.stopwatch import Order, Stopwatch, order, when_settled
from benchmarks.subjects.entries import fields

BATCH: Final = 100
WORKERS: Final = 32
OUTPUT: Final = ("XLEN", "out")
REST: Final = ("XPENDING", "in", "group")


async def fill(given: Order) -> None:
    """Publish the entries as FastStream does: the trace context is a header."""
    async with RedisBroker(given.url, logger=None) as broker:
        redis = await broker.connect()
        await redis.xgroup_create("in", "group", id="0", mkstream=True)
        for start in range(0, given.entries, 1000):
            async with redis.pipeline(transaction=False) as pipe:
                for number in range(start, min(start + 1000, given.entries)):
                    event = fields(number, sampled=given.mode == "traced")
                    headers = {"traceparent": event.pop("traceparent")}
                    await broker.publish(event, stream="in", headers=headers, pipeline=pipe)
                await pipe.execute()


def observed(endpoint: str) -> tuple[list[Any], Any]:
    """Return FastStream's middlewares for OpenTelemetry and Prometheus, and the provider to shut down."""
    from faststream.redis.opentelemetry import RedisTelemetryMiddleware
    from faststream.redis.prometheus import RedisPrometheusMiddleware
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from prometheus_client import CollectorRegistry

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, insecure=True)))
    middlewares = [
        RedisTelemetryMiddleware(tracer_provider=provider),
        RedisPrometheusMiddleware(registry=CollectorRegistry()),
    ]
    return middlewares, provider


async def run(given: Order) -> None:
    """Hand all entries on and print the figures."""
    middlewares, provider = observed(given.endpoint) if given.mode == "traced" else ([], None)
    last = asyncio.Event()
    watch = Stopwatch(given.url, given.entries, last.set)
    broker = RedisBroker(given.url, logger=None, middlewares=middlewares)

    if given.mode == "batch":

        async def forward_all(events: list[dict[str, str]]) -> None:
            redis = await broker.connect()
            async with redis.pipeline(transaction=False) as pipe:
                for event in events:
                    watch.entry()
                    await broker.publish(event, stream="out", pipeline=pipe)
                await pipe.execute()

        source = StreamSub("in", group="group", consumer="me", batch=True, max_records=BATCH)
        broker.subscriber(stream=source)(forward_all)
    else:

        async def forward(event: dict[str, str]) -> dict[str, str]:
            watch.entry()
            return event

        source = StreamSub("in", group="group", consumer="me", max_records=BATCH)
        subscriber = broker.subscriber(stream=source, max_workers=WORKERS)
        subscriber(broker.publisher(stream="out")(forward))
    await broker.start()
    await when_settled(given.url, given.entries, OUTPUT, REST, last)
    watch.stop()
    await broker.stop()
    if provider:
        await asyncio.to_thread(provider.shutdown)
        watch.flushed()
    watch.report()


if __name__ == "__main__":
    given = order()
    uvloop.run(fill(given) if given.action == "fill" else run(given))
