"""Set-up and end of tracing: across processes, by the standard variables, with a collector that fails."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
import time
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]  # its stubs are one more dependency for one stub server
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from redis.exceptions import ResponseError

from events import topology
from shared.telemetry.metrics import REGISTRY
from tests.shared.telemetry.conftest import links_of, parent_of, tags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from redis.asyncio import Redis

    from shared.telemetry.manager import TelemetryManager
    from tests.shared.telemetry.conftest import Lines, Traces

ROOT = Path(__file__).resolve().parents[3]


def deliver(manager: TelemetryManager, photo_id: str, count: int = 1) -> None:
    """So many deliveries, one after the other."""
    for _ in range(count):
        span = manager.deliveries.start("photo_fetcher", "photo_fetch", {}, "1-0", "s", 1, None, photo_id)
        with span:
            pass
        span.end("done")


def failures() -> float:
    """Spans that never arrived, for whatever reason."""
    return sum(
        REGISTRY.get_sample_value("erni_span_export_failures_total", {"reason": reason}) or 0
        for reason in ("queue_full", "export", "shutdown")
    )


async def test_five_processes_make_one_trace_from_the_upstreams_span_to_the_validation(
    traces: Traces, photo_id: str
) -> None:
    app = web.Application()

    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    app.router.add_get("/", answer)
    trace_id = photo_id.removeprefix("p-")
    fields = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01", "tracestate": "vendor=1"}
    lines = []
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OTLP_ENDPOINT": traces.endpoint,
        "LOG_FORMAT": "json",
    }
    async with TestServer(app) as host:
        for stage in topology.PIPELINE:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.shared.telemetry.agent_process",
                stage.agent,
                stage.handoff_type,
                photo_id,
                str(host.make_url("/")),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
            )
            out, err = await process.communicate(json.dumps(fields).encode())
            assert process.returncode == 0, err.decode()
            fields = json.loads(out)
            lines += [json.loads(line) for line in err.splitlines()]
    spans = traces.spans_of(trace_id)
    handoffs = [span for span in spans if span["operationName"].startswith("agent_handoff.")]
    assert [span["operationName"] for span in handoffs] == [
        f"agent_handoff.{name}" for name in topology.AGENTS
    ]
    before = "b7ad6b7169203331"
    for span in handoffs:
        assert parent_of(span) == before
        assert links_of(span) == [before]
        (request,) = (one for one in spans if parent_of(one) == span["spanID"] and one not in handoffs)
        assert tags(request["process"]) == tags(span["process"])
        before = span["spanID"]
    assert len({tags(span["process"])["service.instance.id"] for span in handoffs}) == 5
    assert [span["process"]["serviceName"] for span in handoffs] == [
        "erni-schema-extractor",
        "erni-photo-fetcher",
        "erni-vision-analyzer",
        "erni-sharepoint-uploader",
        "erni-validation-reporter",
    ]
    assert [(line["trace_id"], line["span_id"]) for line in lines] == [
        (trace_id, span["spanID"]) for span in handoffs
    ]
    assert fields["tracestate"] == "vendor=1"


def test_the_standard_variables_win_also_from_dotenv(
    start: Callable[..., TelemetryManager], traces: Traces, photo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what `.env` says lands in the environment: to be taken out again afterwards
    monkeypatch.setenv("OTEL_SERVICE_NAME", "")
    monkeypatch.delenv("OTEL_SERVICE_NAME")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", traces.endpoint)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=bern,team=bau")
    Path(".env").write_text("OTEL_SERVICE_NAME=erni-foto-agency-probe\n")
    manager = start(otlp_endpoint="http://127.0.0.1:1", environment="production")
    span = manager.deliveries.start("photo_fetcher", "photo_fetch", {}, "1-0", "s", 1, None, photo_id)
    span.end("done")
    manager.shutdown()
    (found,) = traces.spans_of(span.traceparent[3:35])
    assert found["process"]["serviceName"] == "erni-foto-agency-probe"
    process = tags(found["process"])
    assert (process["deployment.environment.name"], process["team"]) == ("bern", "bau")


@pytest.mark.parametrize(("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_the_standard_switches_turn_tracing_off(
    start: Callable[..., TelemetryManager],
    traces: Traces,
    photo_id: str,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
) -> None:
    monkeypatch.setenv(name, value)
    manager = start()
    assert not manager.tracing
    deliver(manager, photo_id)
    manager.shutdown()
    assert traces.tagged(photo__id=photo_id) == []


def test_enable_tracing_off_makes_no_thread_and_no_span(
    start: Callable[..., TelemetryManager], traces: Traces, photo_id: str
) -> None:
    before = set(threading.enumerate())
    manager = start(enable_tracing=False)
    assert not manager.tracing
    deliver(manager, photo_id)
    assert set(threading.enumerate()) == before
    manager.shutdown()
    assert traces.tagged(photo__id=photo_id) == []


async def test_commands_of_an_agents_redis_client_are_spans_and_the_engines_are_not(
    start: Callable[..., TelemetryManager], traces: Traces, photo_id: str, redis: Redis, redis_url: str
) -> None:
    manager = start()
    own = redis.from_url(redis_url, protocol=2)
    manager.instrument_redis(own)
    span = manager.deliveries.start("photo_fetcher", "photo_fetch", {}, "1-0", "s", 1, None, photo_id)
    with span:
        await own.set("erni:session:geheim", "kanarienvogel-4711", ex=5)
        await redis.get("engine")
        await redis.eval("return 1", 0)
        # a script that the server does not know yet: loaded and run again, so nothing failed
        assert await own.register_script("return 'loaded'")() == b"loaded"
        with pytest.raises(ResponseError):
            await own.hincrby("erni:session:geheim", "x", 1)
    span.end("done")
    manager.shutdown()
    await own.aclose()
    handoff, command, unknown, *_, refused = traces.spans_of(span.traceparent[3:35])
    assert (unknown["operationName"], unknown["logs"]) == ("EVALSHA", [])
    assert "error" not in tags(unknown)
    assert tags(refused)["error"] is True
    assert parent_of(command) == handoff["spanID"]
    assert command["operationName"] == "SET"
    assert "kanarienvogel" not in str(command)


@contextmanager
def collector(answer: Callable[[Any], None]) -> Iterator[str]:
    """A collector that does with each export what `answer` says, given the call's context."""

    class Servicer(TraceServiceServicer):
        def Export(self, _request: ExportTraceServiceRequest, context: Any) -> Any:  # noqa: N802  # gRPC's name
            answer(context)
            return ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    add_TraceServiceServicer_to_server(Servicer(), server)  # type: ignore[no-untyped-call]  # generated code
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(grace=None).wait()


def test_a_collector_that_is_away_costs_one_line_one_metric_and_no_time(
    start: Callable[..., TelemetryManager], logged: Lines, photo_id: str
) -> None:
    before = failures()
    manager = start(otlp_endpoint="http://127.0.0.1:1")
    began = time.monotonic()
    deliver(manager, photo_id, 5000)
    assert time.monotonic() - began < 3
    manager.shutdown()
    assert time.monotonic() - began < 8
    # the batch under way may not have been given up yet
    assert failures() - before >= 5000 - 512
    assert [line["event"] for line in logged.lines].count(
        "traces do not reach the collector; photos go on without, check OTLP_ENDPOINT"
    ) == len(logged.lines)
    assert len(logged.lines) <= 1


@pytest.fixture
def _short_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Don't wait long for a collector that will not answer."""
    monkeypatch.setattr("shared.telemetry.export.SHUTDOWN_SECONDS", 0.2)


@pytest.mark.usefixtures("_short_end")
def test_a_collector_that_takes_the_call_and_never_answers_holds_up_neither_photos_nor_the_end(
    start: Callable[..., TelemetryManager], photo_id: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        manager = start(otlp_endpoint=f"http://127.0.0.1:{hole.getsockname()[1]}")
        began = time.monotonic()
        deliver(manager, photo_id, 5000)
        assert time.monotonic() - began < 3
        manager.shutdown()
        assert time.monotonic() - began < 8


def test_a_collector_that_refuses_is_told_once_and_its_return_too(
    start: Callable[..., TelemetryManager], logged: Lines, photo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    refusing = True
    calls = threading.Semaphore(0)

    def answer(context: Any) -> None:
        calls.release()
        if refusing:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")

    before = failures()
    with collector(answer) as endpoint:
        manager = start(otlp_endpoint=endpoint)
        for _ in range(3):
            deliver(manager, photo_id)
            assert calls.acquire(timeout=10)
        refusing = False
        deliver(manager, photo_id)
        assert calls.acquire(timeout=10)
        manager.shutdown()
    assert failures() - before == 3
    # the exporter of an earlier test may still be giving up on its own collector
    lines = [line for line in logged.lines if line["endpoint"] == endpoint]
    assert [(line["level"], line["event"].split(";")[0]) for line in lines] == [
        ("warning", "traces do not reach the collector"),
        ("info", "traces reach the collector again"),
    ]


@pytest.mark.usefixtures("_short_end")
def test_an_endpoint_that_makes_no_sense_does_not_stop_the_start(
    start: Callable[..., TelemetryManager], photo_id: str
) -> None:
    manager = start(otlp_endpoint="nonsense://user:geheim@???")
    deliver(manager, photo_id)


@pytest.mark.usefixtures("_short_end")
def test_memory_stays_bounded_however_long_nobody_takes_the_spans(
    start: Callable[..., TelemetryManager], photo_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "600")
    before = failures()
    with socket.create_server(("127.0.0.1", 0)) as hole:
        manager = start(otlp_endpoint=f"http://127.0.0.1:{hole.getsockname()[1]}")
        deliver(manager, photo_id, 3000)
        # what is in the queue and, of at most 512, one batch under way; nothing else is missing
        assert 3000 - 600 - 512 <= failures() - before <= 3000 - 600
        manager.shutdown()


def test_starting_and_stopping_again_is_harmless(
    start: Callable[..., TelemetryManager], photo_id: str
) -> None:
    for _ in range(2):
        manager = start()
        deliver(manager, photo_id)
        manager.shutdown()
        manager.shutdown()
        deliver(manager, photo_id)
