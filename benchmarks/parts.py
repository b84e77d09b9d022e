"""Measures what the parts of a hand-off cost, so that the figures of `benchmarks.handoff` are explained.

Each part of the client is called alone, many times, with a real entry; the figure is the best of several
rounds, because other work on the machine can only add to it. The server's parts are what its own statistics
say while an agent hands entries on. "The rest" is what no part explains: for the server the network, the
command parser and the append-only file, which takes every argument of every command once more.

    python -m benchmarks.parts [--entries 20000]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import hiredis
import structlog
import uvloop
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from benchmarks.subjects import entries
from benchmarks.subjects.engine import Mode, NoOp, Valkey, connect, drained, running, settings
from events import codec
from shared.delivery import packing
from shared.delivery.delivery import Delivery
from shared.delivery.lane_worker import LaneWorker
from shared.delivery.outcome import Outcomes
from shared.delivery.process import AgentProcess
from shared.retry.policy import Succeeded, attempt
from shared.telemetry.tracing import SCOPE, DeliverySpans

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from events.types import PhotoSubmitted

RESULTS: Final = Path(__file__).parent / "results" / "parts.json"
BATCH: Final = 200
_ROUNDS: Final = 7
_COMMANDS: Final = {
    "XREADGROUP": ("xreadgroup",),
    "XPENDING, the fence": ("xpending",),
    "XADD of the output": ("xadd",),
    "XACK and XDEL": ("xack", "xdel"),
    "photo record and session": ("hset", "pexpire", "hmget", "hincrby", "zadd", "zrem", "zcard"),
}


def best(call: Callable[[], object], *, times: int, each: int = 1) -> float:
    """Return the µs of one call, of one of its `each` entries."""
    found = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        for _ in range(times):
            call()
        found.append((time.perf_counter() - begun) / times / each)
    return round(min(found) * 1e6, 2)


async def best_awaited(call: Callable[[], Awaitable[object]], *, times: int) -> float:
    """Return the µs of one awaited call."""
    found = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        for _ in range(times):
            await call()
        found.append((time.perf_counter() - begun) / times)
    return round(min(found) * 1e6, 2)


async def client(mode: Mode) -> dict[str, float]:
    """Return the µs of each part of the client. No server answers: nothing here sends a command."""
    made = entries.fields(7, session=mode.sessions)
    flat = [part.encode() for pair in made.items() for part in pair]
    chosen = settings("redis://127.0.0.1:1", mode)
    redis = connect(chosen.redis_url)
    agent = NoOp(chosen, redis)
    process = AgentProcess(agent, chosen, spans=DeliverySpans())
    runtime, lane_keys = process.runtime, process.keys[0]
    worker = LaneWorker(runtime, lane_keys, process._info)  # noqa: SLF001 - the part, without its process
    handler, settler = worker._handler, worker._settlers[0]  # noqa: SLF001 - the same
    delivery = Delivery(0, "1795853146865-49", 1, flat)
    envelope = delivery.envelope = codec.decode("photo.submitted", delivery.entry_id, flat)
    delivery.span = handler._begin_span(delivery, None)  # noqa: SLF001 - the same
    delivery.started = time.time()
    outcomes = Outcomes(runtime, lane_keys)
    event = cast("PhotoSubmitted", envelope.event)
    result = Succeeded(await agent.handle(event))
    delivery.outcome, delivery.slots = outcomes.done(delivery, envelope, result), 0
    batch = [delivery] * BATCH
    reply = _reply(flat)
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("this coroutine runs as a task")

    def held() -> None:
        one = Delivery(0, delivery.entry_id, 1, flat)
        worker.in_flight.hold(one)
        worker.in_flight.release((one,))

    def parsed() -> None:
        reader = hiredis.Reader()
        reader.feed(reply)
        reader.gets()

    with runtime.limits.of(task) as limit:
        attempted = await best_awaited(
            lambda: attempt(
                agent.handle,
                event,
                limit=limit,
                breakers=runtime.breakers,
                observer=handler,
                stopping=runtime.stopping,
            ),
            times=5_000,
        )
    found = {
        "parse the reply of the read": best(parsed, times=50, each=BATCH),
        "take into flight and out again": best(held, times=5_000),
        "decode and check": best(
            lambda: codec.decode("photo.submitted", delivery.entry_id, flat), times=5_000
        ),
        "trace context and span": best(
            lambda: handler._begin_span(delivery, None),  # noqa: SLF001 - the same
            times=5_000,
        ),
        "call the handler, with deadline and breaker": attempted,
        "outcome: output event, step, counts": best(
            lambda: outcomes.done(delivery, envelope, result), times=5_000
        ),
        "pack for settle.lua": best(lambda: settler._pack(batch), times=50, each=BATCH),  # noqa: SLF001 - the same
        "metrics, log line, release": best(
            lambda: worker.accounting.end(batch, ["OK"] * BATCH), times=50, each=BATCH
        ),
    }
    await worker.close()
    await redis.aclose()
    return found


def _reply(flat: Sequence[bytes]) -> bytes:
    """Return the server's answer to a read of BATCH entries."""
    fields = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in flat)
    one = b"*2\r\n$15\r\n1795853146865-4\r\n*%d\r\n%s" % (len(flat), fields)
    return b"*1\r\n*2\r\n$20\r\nerni:photo.submitted\r\n*%d\r\n" % BATCH + one * BATCH


def span() -> dict[str, float]:
    """Return the µs of one recorded delivery span in OpenTelemetry's SDK."""
    kept: list[ReadableSpan] = []

    class Keep(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            kept.extend(spans)
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Keep()))
    spans = DeliverySpans(provider.get_tracer(SCOPE), consumer="benchmark", server=("127.0.0.1", 6379))  # type: ignore[arg-type]  # the SDK's provider makes the SDK's tracer
    context = {"traceparent": f"00-{5:032x}-{6:016x}-01"}

    def one() -> None:
        spans.start(NoOp.name, "schema_extraction", context, "1-1", "erni:photo.submitted", 1, "s", "p").end(
            "done"
        )

    begun = best(one, times=500)
    some = kept[:BATCH]
    encoded = best(lambda: encode_spans(some).SerializeToString(), times=5, each=BATCH)
    return {"begin and end it": begun, "encode it for OTLP": encoded}


async def server(url: str, mode: Mode, count: int) -> dict[str, float]:
    """Return the server's µs per hand-off, by what it did."""
    last = asyncio.Event()
    handled = 0

    def on_entry() -> None:
        nonlocal handled
        handled += 1
        if handled == count:
            last.set()

    async with running(url, mode, on_entry) as redis:
        before = await redis.info("cpu")
        await redis.config_resetstat()
        await last.wait()
        await drained(redis, count)
        stats: dict[str, Any] = await redis.info("commandstats")
        after = await redis.info("cpu")
    cpu = sum(after[name] - before[name] for name in ("used_cpu_user", "used_cpu_sys")) * 1e6

    def used(*names: str) -> float:
        return float(sum(stats.get(f"cmdstat_{name}", {}).get("usec", 0) for name in names))

    found = {title: used(*names) for title, names in _COMMANDS.items()}
    scripts = used("evalsha", "eval")
    found["settle.lua itself"] = scripts - sum(found.values()) + found["XREADGROUP"]
    found["the rest"] = cpu - scripts - found["XREADGROUP"]
    return {title: round(usec / count, 2) for title, usec in found.items()}


def unpacking(url: str) -> float:
    """Return the server's µs to unpack one entry of a batch from the script's argument."""
    made = {"entries": [{"id": "1-1", "n": 1, "what": "done", "outputs": [(7, _output())]}] * BATCH}
    packed = packing.pack(made)

    async def run() -> float:
        redis = connect(url)
        text = "#!lua\nlocal a = cmsgpack.unpack(ARGV[1]) return #a.entries"
        call: Callable[..., Awaitable[Any]] = redis.eval
        await redis.config_resetstat()
        for _ in range(100):
            await call(text, 0, packed)
        stats: dict[str, Any] = await redis.info("commandstats")
        await redis.aclose()
        return float(stats["cmdstat_eval"]["usec"]) / 100 / BATCH

    return round(uvloop.run(run()), 2)


def _output() -> list[str]:
    return [part for pair in entries.fields(7, session=True).items() for part in pair]


def main() -> int:
    """Print the parts and write them to benchmarks/results/parts.json."""
    parser = argparse.ArgumentParser(description="What the parts of a hand-off cost.")
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--output", type=Path, default=RESULTS, help="where results go")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    modes = {"off": Mode(), "with sessions": Mode(sessions=True)}
    found: dict[str, dict[str, float]] = {}
    gc.disable()
    for name, mode in modes.items():
        found[f"client, {name}"] = uvloop.run(client(mode))
    found["a span of the SDK"] = span()
    gc.enable()
    for name, mode in modes.items():
        options = {"appendfsync": "no", "auto-aof-rewrite-percentage": "0"}
        with tempfile.TemporaryDirectory() as folder, Valkey(Path(folder), options=options) as valkey:
            entries.fill(valkey.url, given.entries, session=mode.sessions)
            parts = uvloop.run(server(valkey.url, mode, given.entries))
            found[f"server, {name}"] = {**parts, "of settle.lua itself: unpacking": unpacking(valkey.url)}
    for title, parts in found.items():
        print(f"\n{title}: µs per hand-off")
        for part, usec in parts.items():
            print(f"  {usec:7.2f}  {part}")
    given.output.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
