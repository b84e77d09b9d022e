"""Measures what a collector in trouble costs an agent process that traces every delivery.

The figures are hand-offs a second and memory of one agent with a no-op handler. The collector takes the
spans, is not there, takes the connection and never answers, or refuses every batch; all interleaved, in one
run.

    python -m benchmarks.collector [--entries 20000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import statistics
import sys
import tempfile
import time
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc  # type: ignore[import-untyped]  # its stubs are one more dependency for one small server
import psutil
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from benchmarks.subjects.engine import Mode, Valkey, drained, running
from benchmarks.subjects.entries import fill
from sandbox.children import end_with_parent
from sandbox.redis_server import free_port
from sandbox.traces.process import start_traces

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RESULTS: Final = Path(__file__).parent / "results"
AT_LEAST: Final = 0.95
"""Of the hand-offs with a collector that works."""


class Refusing(TraceServiceServicer):
    """Stand in for a collector whose back end is away."""

    def Export(self, _request: object, context: Any) -> None:  # noqa: N802  # the name is the protocol's
        context.abort(grpc.StatusCode.UNAVAILABLE, "no")


def refuse() -> None:
    """Run the refusing collector until standard input closes."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    add_TraceServiceServicer_to_server(Refusing(), server)  # type: ignore[no-untyped-call]  # generated code
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()


@contextlib.asynccontextmanager
async def collectors() -> AsyncIterator[dict[str, str]]:
    """Start the collectors and return the endpoint of each kind."""
    working = await start_traces()
    refusing = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.collector",
        "--refuse",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=end_with_parent(),
    )
    if refusing.stdout is None:
        raise SystemExit("the refusing collector did not start")
    port = int(await refusing.stdout.readline())
    with socket.create_server(("127.0.0.1", 0)) as hole:
        yield {
            "works": working.otlp_endpoint,
            "away": f"http://127.0.0.1:{free_port()}",
            "never_answers": f"http://127.0.0.1:{hole.getsockname()[1]}",
            "refuses": f"http://127.0.0.1:{port}",
        }
    await refusing.communicate(b"")
    await working.stop()


async def handoffs(redis_url: str, endpoint: str, entries: int) -> float:
    """Measure the hand-offs a second of one agent process that sends its spans to `endpoint`."""
    await asyncio.to_thread(fill, redis_url, entries, sampled=True)
    async with running(redis_url, Mode(traced=True), endpoint=endpoint) as client:
        started = time.perf_counter()
        await drained(client, entries)
        seconds = time.perf_counter() - started
    return entries / seconds


async def measure(entries: int, rounds: int) -> dict[str, Any]:
    """Return all figures, medians over the rounds; the ratios are of the same round."""
    rates: dict[str, list[float]] = {}
    memory: list[int] = []
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        server = Valkey(Path(folder), options={"appendfsync": "no"})
        server.start()
        try:
            async with collectors() as endpoints:
                for _ in range(rounds):
                    for name, endpoint in endpoints.items():
                        rates.setdefault(name, []).append(await handoffs(server.url, endpoint, entries))
                    memory.append(process.memory_info().rss)
        finally:
            server.stop()
    ratios = {
        name: round(statistics.median(a / b for a, b in zip(found, rates["works"], strict=True)), 3)
        for name, found in rates.items()
    }
    return {
        "entries": entries,
        "rounds": rounds,
        "per_second": {name: round(statistics.median(found)) for name, found in rates.items()},
        "ratio_to_works": ratios,
        "megabytes_after_each_round": [round(size / 1e6) for size in memory],
        "at_least": AT_LEAST,
        "within": all(ratio >= AT_LEAST for ratio in ratios.values()),
    }


def main() -> int:
    """Print the figures and write them to benchmarks/results/collector.json."""
    parser = argparse.ArgumentParser(description="Hand-offs a second with a collector in trouble.")
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--refuse", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.refuse:
        refuse()
        return 0
    import uvloop

    figures = uvloop.run(measure(given.entries, given.rounds))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "collector.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
