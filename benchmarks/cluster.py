"""Measures hand-offs on three primaries with LANES=6 beside one server with LANES=1.

Both have the same processes of an agent whose handler does nothing, on this machine. Each primary has two of
the six lanes. The rate is that between the first and the last tenth of the entries, so that the start of the
processes does not count.

    python -m benchmarks.cluster [--entries 60000] [--processes 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import uvloop
from redis.crc import key_slot

from benchmarks.subjects.engine import Mode, NoOp, settings
from benchmarks.subjects.entries import fields
from events.connection import call, connect, servers_of
from events.keys import all_lanes, lane_of
from sandbox.redis_server import HOST, Valkey, free_port
from shared.delivery.process import AgentProcess
from shared.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from events.keys import Keys

RESULTS: Final = Path(__file__).parent / "results"
LANES: Final = 6
PRIMARIES: Final = 3
GOAL: Final = 0.85
"""Of the rate on one server."""
_SLOTS: Final = 16384
_AT_ONCE: Final = 500
_LOOK: Final = 0.02


async def work(url: str, lanes: int) -> None:
    """Run one process of the agent until it gets SIGTERM."""
    chosen = msgspec.structs.replace(settings(url, Mode()), lanes=lanes)
    configure_logging(chosen, agent=NoOp.name, consumer="benchmark")
    async with connect(url) as redis:
        process = AgentProcess(NoOp(chosen, redis), chosen)
        process.handle_signals()
        await process.run(serve=False)


@contextlib.asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[str]:
    """Start three primaries without replicas, which have two lanes each; the block gets the address."""
    options = {"appendfsync": "no", "cluster-enabled": "yes"}
    servers = [
        Valkey(folder / str(number), options=options | {"cluster-port": str(free_port())})
        for number in range(PRIMARIES)
    ]
    with contextlib.ExitStack() as running:
        for server in servers:
            running.enter_context(server)
        homes = {slot: slot * PRIMARIES // _SLOTS for slot in range(_SLOTS)}
        homes |= {
            key_slot(lane.paused.encode()): number % PRIMARIES for number, lane in enumerate(all_lanes(LANES))
        }
        for number, server in enumerate(servers):
            async with connect(server.url) as node:
                await call(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                await call(
                    node, "CLUSTER", "ADDSLOTS", *(slot for slot, home in homes.items() if home == number)
                )
                for other in servers[:number]:
                    await call(node, "CLUSTER", "MEET", HOST, other.port, int(other.options["cluster-port"]))
        for server in servers:
            async with asyncio.timeout(30), connect(server.url) as node:
                while b"cluster_state:ok" not in await call(node, "CLUSTER", "INFO"):  # noqa: ASYNC110 - it has no event
                    await asyncio.sleep(0.05)
        yield "redis+cluster://" + ",".join(f"{HOST}:{server.port}" for server in servers)


async def _fill(redis: Redis, lanes: int, entries: int) -> None:
    """Put the entries into the first stream of their lanes."""
    by_lane: dict[Keys, list[dict[str, str]]] = {lane: [] for lane in all_lanes(lanes)}
    numbers = {lane.lane: lane for lane in by_lane}
    for number in range(entries):
        entry = fields(number)
        by_lane[numbers[lane_of(entry["subject"], lanes).lane]].append(entry)
    for lane, found in by_lane.items():
        stream = lane.stream("photo.submitted")
        for start in range(0, len(found), _AT_ONCE):
            pipe = redis.pipeline(transaction=False)
            for entry in found[start : start + _AT_ONCE]:
                pipe.execute_command("XADD", stream, "*", *(word for pair in entry.items() for word in pair))
            await pipe.execute()


async def _handed_on(redis: Redis, lanes: int) -> int:
    return sum([await redis.xlen(lane.stream("schema.extracted")) for lane in all_lanes(lanes)])


async def rate(url: str, lanes: int, entries: int, processes: int) -> float:
    """Return the hand-offs a second of this number of processes together."""
    async with connect(url) as redis:
        for server in await servers_of(redis):
            await call(server, "FLUSHALL", "SYNC")
        await _fill(redis, lanes, entries)
        words = [sys.executable, "-m", "benchmarks.cluster", "--work", url, str(lanes)]
        workers = [subprocess.Popen(words) for _ in range(processes)]  # noqa: ASYNC220, S603 - ourselves
        try:
            begun = (0, 0.0)
            async with asyncio.timeout(300):
                while True:
                    done, now = await _handed_on(redis, lanes), time.monotonic()
                    if not begun[0] and done >= entries / 10:
                        begun = (done, now)
                    if done >= entries * 9 / 10:
                        return (done - begun[0]) / (now - begun[1])
                    await asyncio.sleep(_LOOK)
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                await asyncio.to_thread(worker.wait)


async def measure(entries: int, processes: int, rounds: int) -> dict[str, Any]:
    """Return the rates, and the median of the ratios of the rounds, in which both take turns."""
    one, several = [], []
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder, contextlib.ExitStack() as running:
        server = running.enter_context(Valkey(Path(folder) / "one", options={"appendfsync": "no"}))
        async with cluster(Path(folder)) as url:
            for _ in range(rounds):
                one.append(await rate(server.url, 1, entries, processes))
                several.append(await rate(url, LANES, entries, processes))
    ratio = statistics.median(many / single for many, single in zip(several, one, strict=True))
    return {
        "entries": entries,
        "processes": processes,
        "one_server_one_lane": round(statistics.median(one)),
        "three_primaries_six_lanes": round(statistics.median(several)),
        "ratio": round(ratio, 3),
        "ratios": [round(many / single, 3) for many, single in zip(several, one, strict=True)],
        "within": ratio >= GOAL,
    }


def main() -> int:
    """Measure, print and write benchmarks/results/cluster.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--entries", type=int, default=60_000, metavar="N")
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        url, lanes = options.work
        uvloop.run(work(url, int(lanes)))
        return 0
    figures = asyncio.run(measure(options.entries, options.processes, options.rounds))
    (RESULTS / "cluster.json").write_text(json.dumps(figures, indent=2) + "\n")
    mark = "✓" if figures["within"] else f"{GOAL - figures['ratio']:.3f} short"
    print(f"hand-offs a second, {options.processes} processes")
    print(f"one server, LANES=1               {figures['one_server_one_lane']:>8}")
    print(f"three primaries, LANES={LANES}          {figures['three_primaries_six_lanes']:>8}")
    print(f"ratio                             {figures['ratio']:>8.3f}  ≥ {GOAL}  {mark}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
