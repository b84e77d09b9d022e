"""Measures what more processes and a long backlog cost, and what the autoscaler sees meanwhile.

    python -m benchmarks.scaling [--backlog 1000000] [--entries 60000] [--rounds 3] [--idle 10]

Rates depend on the machine, so each stands beside the one of the bare redis-py loop in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import uvloop

from benchmarks.peers.stopwatch import ask
from benchmarks.subjects.bare import BATCH, SCRIPT
from benchmarks.subjects.engine import Mode, NoOp, running, settings
from benchmarks.subjects.entries import OUTPUT, SIZE, STREAM, fields, fill
from benchmarks.subjects.figures import Goal
from events.connection import call, connect
from sandbox.redis_server import Valkey
from shared.delivery.process import AgentProcess
from shared.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis.asyncio import Redis

RESULTS: Final = Path(__file__).parent / "results"
PROCESSES: Final = (1, 2, 4)
SHORT: Final = 1_000
"""The short backlog beside which the long one is judged."""
_LOOK: Final = 0.02
_LIMIT: Final = 300.0


async def bare(url: str, consumer: str) -> None:
    """Move entries by the bare loop until none is left."""
    async with connect(url) as redis:
        with contextlib.suppress(Exception):
            await redis.xgroup_create(STREAM, "bare", id="0")
        sha = await call(redis, "SCRIPT LOAD", SCRIPT)
        while reply := await call(
            redis, "XREADGROUP", "GROUP", "bare", consumer, "COUNT", BATCH, "STREAMS", STREAM, ">"
        ):
            args = [part for entry_id, found in reply[0][1] for part in (entry_id, found[-1])]
            await call(redis, "EVALSHA", sha, 2, STREAM, OUTPUT, "bare", *args)


async def agent(url: str, lanes: int) -> None:
    """Run one agent process until it gets SIGTERM."""
    chosen = msgspec.structs.replace(settings(url, Mode()), lanes=lanes)
    configure_logging(chosen, agent=NoOp.name, consumer="benchmark")
    async with connect(url) as redis:
        process = AgentProcess(NoOp(chosen, redis), chosen)
        process.handle_signals()
        await process.run(serve=False)


@contextlib.asynccontextmanager
async def processes(*words: str, count: int = 1) -> AsyncIterator[None]:
    """Run processes of this module inside the block; each gets its number as its last word."""
    command = [sys.executable, "-m", "benchmarks.scaling", *words]
    started = [
        subprocess.Popen([*command, str(number)])  # noqa: ASYNC220, S603 - ourselves
        for number in range(count)
    ]
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            await asyncio.to_thread(process.wait)


async def rate(url: str, kind: str, count: int, entries: int) -> float:
    """Return the hand-offs a second of this number of processes, without their start."""
    await asyncio.to_thread(fill, url, entries)
    async with connect(url) as redis, processes("--work", kind, url, count=count), asyncio.timeout(_LIMIT):
        begun = (0, 0.0)
        while True:
            done, now = int(await redis.xlen(OUTPUT)), time.monotonic()
            if not begun[0] and done >= entries / 5:
                begun = (done, now)
            if done >= entries * 9 / 10:
                return (done - begun[0]) / (now - begun[1])
            await asyncio.sleep(_LOOK)


async def factors(url: str, entries: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return, for the bare loop and for the agent, how many times as fast more processes are than one."""
    found: dict[str, dict[str, float]] = {}
    for kind in ("bare", "agent"):
        rates = [[await rate(url, kind, count, entries) for count in PROCESSES] for _ in range(rounds)]
        found[kind] = {
            str(count): round(statistics.median(row[place] / row[0] for row in rates), 2)
            for place, count in enumerate(PROCESSES)
        }
    return found


async def looks(url: str, entries: int) -> tuple[int, int]:
    """Return how often the autoscaler's number was looked at during work, and how often it was right."""
    await asyncio.to_thread(fill, url, entries)
    seen = right = 0
    async with running(url, Mode()), connect(url) as redis:
        left = entries
        while left:
            async with redis.pipeline(transaction=True) as both:
                both.xlen(STREAM)
                both.xlen(f"{STREAM}.bulk")
                both.xlen(OUTPUT)
                waiting, bulk, done = await both.execute()
            # the ledger: what was put in and has not come out waits or is in flight
            left = entries - done
            seen, right = seen + 1, right + int(waiting + bulk == left)
            await asyncio.sleep(0.001)
    return seen, right


async def _cost(redis: Redis, work: Callable[[], Any], entries: int) -> float:
    """Return the server's microseconds per hand-off of what `work` waits for."""
    await call(redis, "CONFIG", "RESETSTAT")
    await work()
    stats = await redis.info("commandstats")
    used = sum(stats.get(f"cmdstat_{name}", {}).get("usec", 0) for name in ("evalsha", "xreadgroup"))
    return float(used) / entries


async def costs(url: str, backlog: int, entries: int) -> dict[str, float]:
    """Return the server's µs per hand-off with a short and a long backlog, and what the long one takes."""
    batch = [fields(number) for number in range(SHORT)]

    async def short() -> None:
        for _ in range(max(1, entries // SHORT)):
            async with redis.pipeline(transaction=True) as many:
                for entry in batch:
                    many.execute_command(
                        "XADD", STREAM, "*", *(word for pair in entry.items() for word in pair)
                    )
                await many.execute()
            while await redis.xlen(STREAM):  # noqa: ASYNC110 - the server has no event for that
                await asyncio.sleep(_LOOK)

    async def long() -> None:
        while await redis.xlen(OUTPUT) < entries:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(_LOOK)

    await asyncio.to_thread(fill, url, 1)
    async with running(url, Mode()) as redis:
        at_short = await _cost(redis, short, max(1, entries // SHORT) * SHORT)
    await asyncio.to_thread(fill, url, backlog)
    status = await asyncio.to_thread(_status, url)
    async with connect(url) as client:
        size = int(await call(client, "MEMORY USAGE", STREAM, "SAMPLES", 0)) / backlog
    async with running(url, Mode()) as redis:
        at_long = await _cost(redis, long, entries)
    return {
        "short": round(at_short, 2),
        "long": round(at_long, 2),
        "ratio": round(at_long / at_short, 3),
        "status_seconds": round(status, 2),
        "bytes_per_event": round(size, 1),
        "bytes_to_fields": round(size / SIZE, 3),
    }


def _status(url: str) -> float:
    """Return the seconds of `erni status`, the median of three."""
    found = []
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "console.main", "status", "--json"],
            env={**os.environ, "REDIS_URL": url, "LANES": "1"},
            stdout=subprocess.DEVNULL,
            # 1: the backlog is old
            check=False,
            timeout=60,
        )
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


async def idle(url: str, lanes: int, seconds: float) -> float:
    """Return the commands a second that an idle process sends."""
    ask(url, "FLUSHALL", "SYNC")
    async with connect(url) as redis, processes("--work", "agent", url, str(lanes)):
        async with asyncio.timeout(60):
            while not await redis.keys("*beats*"):  # noqa: ASYNC110 - another process's doing has no event
                await asyncio.sleep(_LOOK)
        await asyncio.sleep(2.0)
        before, begun = await _commands(redis), time.monotonic()
        await asyncio.sleep(seconds)
        # one command of our own
        return (await _commands(redis) - before - 1) / (time.monotonic() - begun)


async def _commands(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_commands_processed"])


async def measure(url: str, backlog: int, entries: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Return all figures."""
    found: dict[str, Any] = {"backlog": backlog, "entries": entries}
    found["looks"], found["looks_right"] = await looks(url, entries)
    found["factors"] = await factors(url, entries, rounds)
    found["cost"] = await costs(url, backlog, min(entries, backlog))
    found["idle"] = {str(lanes): round(await idle(url, lanes, seconds), 1) for lanes in (1, 8)}
    return found


def goals(found: dict[str, Any]) -> list[Goal]:
    """Return what we want to reach, and what was reached."""
    agents, loop, cost, calls = (
        found["factors"]["agent"],
        found["factors"]["bare"],
        found["cost"],
        found["idle"],
    )
    return [
        Goal(
            text="looks in which the number for the autoscaler is what waits and what is in flight, in %",
            figure=100 * found["looks_right"] / max(1, found["looks"]),
            limit=100,
        ),
        *(
            Goal(
                text=f"{count} processes beside one (the bare loop: {loop[str(count)]:.2f})",
                figure=agents[str(count)],
                limit=loop[str(count)],
            )
            for count in PROCESSES[1:]
        ),
        Goal(
            text=f"server µs per hand-off with {found['backlog']:,} waiting, beside {SHORT:,}",
            figure=cost["ratio"],
            limit=1.1,
            at_most=True,
        ),
        Goal(
            text=f"seconds of `erni status` with {found['backlog']:,} waiting",
            figure=cost["status_seconds"],
            limit=1.0,
            at_most=True,
        ),
        Goal(
            text="bytes of Redis per waiting event, beside its fields",
            figure=cost["bytes_to_fields"],
            limit=1.4,
            at_most=True,
        ),
        Goal(
            text=f"commands a second of an idle process: 8 lanes ({calls['8']}) beside one ({calls['1']})",
            figure=round(calls["8"] / max(calls["1"], 0.1), 2),
            limit=2.0,
            at_most=True,
        ),
    ]


def main() -> int:
    """Measure, print and write benchmarks/results/scaling.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--backlog", type=int, default=1_000_000, metavar="N", help="events that wait")
    parser.add_argument("--entries", type=int, default=60_000, metavar="N", help="hand-offs of each run")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--idle", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--output", type=Path, default=RESULTS / "scaling.json", metavar="FILE")
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        kind, url, *rest = options.work
        uvloop.run(bare(url, rest[-1]) if kind == "bare" else agent(url, int(rest[0]) if rest[1:] else 1))
        return 0
    with (
        tempfile.TemporaryDirectory(prefix="scaling-") as folder,
        Valkey(Path(folder), options={"appendfsync": "no"}) as server,
    ):
        found = uvloop.run(
            measure(server.url, options.backlog, options.entries, options.rounds, options.idle)
        )
    reached = goals(found)
    document = {**found, "within": all(goal.within for goal in reached)}
    options.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    for goal in reached:
        print(goal.line())
    return 0


if __name__ == "__main__":
    sys.exit(main())
