"""Measures what publishing over HTTP costs: single events and batches, beside an empty answer of aiohttp.

The server runs in a process of its own; this process asks it over several connections and reads the CPU time
of the server. The subjects take turns, and the figures are medians over the rounds. Rates depend on the
machine and on what else it does; the goals are ratios to the empty answer of the same round.

    python -m benchmarks.gateway [--requests 3000] [--rounds 3] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec
import psutil
from aiohttp import web

from benchmarks.subjects.engine import Valkey
from console.gateway.server import Gateway
from events.connection import call, connect
from sandbox.children import end_with_parent
from shared.delivery.process import calm_collector
from shared.operations import access_keys
from shared.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS: Final = Path(__file__).parent / "results"
SOURCE: Final = "urn:benchmark"
BATCH: Final = 100
BATCHES_TO_ONE: Final = 4
"""Events in batches to single ones: they take less time, which would be too short to measure."""
CONNECTIONS: Final = 32
GOALS: Final = {"single": 3.3, "batches": 0.66}
"""CPU for one event to the CPU for an empty answer, at most: where a core gives 10,000 empty answers a
second, these are 3,000 single events a second, and 15,000 in batches.
"""
_KINDS: Final = {
    "single": "application/cloudevents+json",
    "batches": "application/cloudevents-batch+json",
    "empty": "application/cloudevents+json",
}


class Taken(msgspec.Struct, frozen=True):
    """What one round of a subject took."""

    events: int
    seconds: float
    cpu: float
    """Seconds of CPU of the server's process."""

    @property
    def per_second(self) -> float:
        """Return the events a second."""
        return self.events / self.seconds

    @property
    def micros(self) -> float:
        """Return microseconds of CPU for one event."""
        return self.cpu / self.events * 1e6


async def serve(redis_url: str) -> None:
    """Run the gateway and the empty server until standard input closes; print their ports."""

    async def empty(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=202)

    app = web.Application()
    app.router.add_post("/v1/events", empty)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    gateway = Gateway(
        Settings(redis_url=redis_url, http_port=0, http_rate_per_minute=0, max_backlog=10_000_000)
    )
    await gateway.start()
    calm_collector()
    print(gateway.port, runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await gateway.stop()
    await runner.cleanup()


def _event(number: int) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "type": "photo.submitted",
        "source": SOURCE,
        "id": f"upload-{number}",
        "data": {
            "source_url": f"https://photos.example.org/IMG_{number}.jpg",
            "session_id": f"session-{number // 500}",
            "file_name": f"IMG_{number}.jpg",
            "hints": {"project": "Wohnhaus Seewen", "place": "Seewen", "photographer": "M. Muster"},
        },
    }


def _bodies(subject: str, requests: int, first: int) -> list[bytes]:
    if subject == "batches":
        return [
            msgspec.json.encode([_event(first + at * BATCH + n) for n in range(BATCH)])
            for at in range(max(1, requests // BATCH * BATCHES_TO_ONE))
        ]
    return [msgspec.json.encode(_event(first + at)) for at in range(requests)]


async def ask(
    address: str, key: str, subject: str, bodies: Sequence[bytes], process: psutil.Process
) -> Taken:
    """Send the bodies over several connections; each must be accepted."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": _KINDS[subject]}
    rest = iter(bodies)

    async def work(http: aiohttp.ClientSession) -> None:
        for body in rest:
            async with http.post(address, data=body, headers=headers) as answer:
                await answer.read()
                if answer.status != 202:
                    raise SystemExit(f"{subject}: the answer was {answer.status}")

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS)) as http:
        before, started = process.cpu_times(), time.perf_counter()
        await asyncio.gather(*(work(http) for _ in range(CONNECTIONS)))
        seconds, after = time.perf_counter() - started, process.cpu_times()
    events = len(bodies) * (BATCH if subject == "batches" else 1)
    return Taken(events, seconds, after.user + after.system - before.user - before.system)


async def measure(requests: int, rounds: int) -> dict[str, Any]:
    """Return all figures, medians over the rounds; ratios are of the same round."""
    found: dict[str, list[Taken]] = {name: [] for name in _KINDS}
    with tempfile.TemporaryDirectory() as folder:
        server = Valkey(Path(folder), options={"appendfsync": "everysec"})
        server.start()
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "benchmarks.gateway", "--serve", server.url),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=end_with_parent(),
        )
        try:
            if child.stdout is None:
                raise SystemExit("the gateway did not start")
            ours, empty = (int(port) for port in (await child.stdout.readline()).split())
            process = psutil.Process(child.pid)
            async with connect(server.url) as redis:
                key = await access_keys.add(redis, "benchmark", "publisher", source=SOURCE)
                number = 0
                for _ in range(rounds):
                    for subject, taken in found.items():
                        await call(redis, "DEL", "erni:photo.submitted")
                        address = f"http://127.0.0.1:{empty if subject == 'empty' else ours}/v1/events"
                        bodies = _bodies(subject, requests, number)
                        number += (requests + BATCH) * BATCHES_TO_ONE
                        taken.append(await ask(address, key, subject, bodies, process))
        finally:
            await child.communicate(b"")
            server.stop()
    return {
        "requests": requests,
        "rounds": rounds,
        "events_in_a_batch": BATCH,
        "events_per_second": {
            name: _median([one.per_second for one in all_]) for name, all_ in found.items()
        },
        "server_cpu_micros_per_event": {
            name: _median([one.micros for one in all_]) for name, all_ in found.items()
        },
        "cpu_to_an_empty_answer": {
            name: _median([a.micros / b.micros for a, b in zip(found[name], found["empty"], strict=True)])
            for name in ("single", "batches")
        },
    }


def table(figures: dict[str, Any]) -> str:
    """Return the figures for people, each goal with ✓ or what is missing."""
    rows = [f"{'subject':10}{'events/s':>12}{'server CPU':>14}{'to empty':>10}  goal"]
    for name in _KINDS:
        ratio = figures["cpu_to_an_empty_answer"].get(name, 1.0)
        goal = GOALS.get(name)
        verdict = ""
        if goal is not None:
            missing = "✓" if ratio <= goal else f"{ratio / goal - 1:.0%} too much"
            verdict = f"  ≤ {goal:g} x  {missing}"
        rows.append(
            f"{name:10}{figures['events_per_second'][name]:>12,.0f}"
            f"{figures['server_cpu_micros_per_event'][name]:>11,.0f} µs{ratio:>8.2f} x{verdict}"
        )
    return "\n".join(rows)


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 2)


def main() -> int:
    """Print the figures and write them to benchmarks/results/gateway.json."""
    parser = argparse.ArgumentParser(description="What publishing over HTTP costs.")
    parser.add_argument("--requests", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a few requests, which only show that it runs")
    parser.add_argument("--output", type=Path, default=RESULTS / "gateway.json")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    import uvloop

    if given.serve:
        uvloop.run(serve(given.serve))
        return 0
    figures = uvloop.run(measure(200 if given.quick else given.requests, 1 if given.quick else given.rounds))
    given.output.parent.mkdir(exist_ok=True)
    given.output.write_text(json.dumps(figures, indent=2) + "\n")
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
