"""Measures what sessions cost: a touch beside a bare HGETALL, memory, and the bound over a long run.

The bare command is the least that could look at a session: one HGETALL of the same hash over the same
client, in the same run. The figure that counts is the ratio, and it must stay the same when the number of
sessions grows.

    python -m benchmarks.sessions [--created 200000] [--most 10000]

`--created 1000000` is the run of the promise; it takes five times as long.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from events.connection import connect
from events.keys import Keys
from sandbox.redis_server import Valkey
from shared.delivery.startup import check_redis
from shared.sessions.store import SessionStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from redis.asyncio import Redis

RESULTS: Final = Path(__file__).parent / "results"
SIZES: Final = (1_000, 10_000, 100_000)
ROUNDS: Final = 5
CALLS: Final = 1_000
WRITERS: Final = 8
COUNTERS: Final = {
    "received": 84,
    "schema_extractor": 84,
    "photo_fetcher": 84,
    "vision_analyzer": 83,
    "sharepoint_uploader": 83,
    "validation_reporter": 82,
    "validated": 82,
    "dead": 2,
    "postponed": 0,
}
"""Of a session of 84 photos that is through."""
LANE: Final = Keys()


async def _send(redis: Redis, *words: Any) -> Any:
    call: Callable[..., Awaitable[Any]] = redis.execute_command
    return await call(*words)


async def _timed(call: Callable[[str], Awaitable[object]], ids: Iterator[str]) -> float:
    """Return the microseconds one call takes, one after the other."""
    names = [next(ids) for _ in range(CALLS)]
    started = time.perf_counter()
    for name in names:
        await call(name)
    return (time.perf_counter() - started) / CALLS * 1_000_000


async def _round_trips(redis: Redis, url: str) -> int:
    """Count the requests that the server got for one touch."""
    store = SessionStore(redis)
    await store.touch("s1")
    async with connect(url) as other, other.monitor() as monitor:
        await store.touch("s1")
        await _send(redis, "ECHO", "end")
        requests = 0
        async for line in monitor.listen():
            if line["command"].startswith("ECHO"):
                break
            requests += line["client_type"] != "lua"
    return requests


async def _fill(store: SessionStore, start: int, end: int) -> None:
    numbers = iter(range(start, end))

    async def write() -> None:
        for number in numbers:
            await store.set(f"s{number}", site="/sites/Bau", library="Referenzfotos")

    await asyncio.gather(*(write() for _ in range(WRITERS)))


async def growth(redis: Redis) -> list[dict[str, Any]]:
    """Measure touch and set at each size, beside a bare HGETALL."""
    store = SessionStore(redis, limit=max(SIZES) + 1)
    figures: list[dict[str, Any]] = []
    filled = 0
    for size in SIZES:
        await _fill(store, filled, size)
        filled = size
        # spread over all sessions, always the same way
        ids = iter(f"s{number * 7919 % size}" for number in range(10 * ROUNDS * CALLS))
        touch: list[float] = []
        put: list[float] = []
        bare: list[float] = []
        for _ in range(ROUNDS):
            bare.append(await _timed(lambda name: _send(redis, "HGETALL", LANE.session(name)), ids))
            touch.append(await _timed(store.touch, ids))
            put.append(await _timed(store.set, ids))
        figures.append(
            {
                "sessions": size,
                "bare_hgetall_us": round(statistics.median(bare), 1),
                "touch_us": round(statistics.median(touch), 1),
                "set_us": round(statistics.median(put), 1),
                "touch_to_bare": round(_ratio(touch, bare), 2),
                "set_to_bare": round(_ratio(put, bare), 2),
            }
        )
    return figures


def _ratio(ours: list[float], bare: list[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(ours, bare, strict=True))


async def memory(redis: Redis, sessions: int = 10_000) -> dict[str, Any]:
    """Measure the bytes of Redis that sessions with all their counters take."""
    await _send(redis, "FLUSHALL", "SYNC")
    before = (await redis.info("memory"))["used_memory"]
    store = SessionStore(redis, limit=sessions)
    await _fill(store, 0, sessions)
    counters = [word for pair in COUNTERS.items() for word in pair]
    pipe = redis.pipeline(transaction=False)
    for number in range(sessions):
        trace = f"00-{number:032x}-{number:016x}-01"
        pipe.execute_command(
            "HSET", LANE.session(f"s{number}"), "traceparent", trace, "expected", 84, *counters
        )
        if number % 1000 == 999:
            await pipe.execute()
    used = (await redis.info("memory"))["used_memory"] - before
    return {"sessions": sessions, "megabytes": round(used / 1e6, 2), "bytes_each": round(used / sessions)}


class Run:
    """Create many sessions with several writers, some with a photo in flight; watch the counts."""

    def __init__(self, url: str, created: int, limit: int) -> None:
        self.redis, self.watching = connect(url), connect(url)
        self.store = SessionStore(self.redis, limit=limit)
        self.numbers = iter(range(created))
        self.tenth = max(1, created // 10)
        self.marks: list[float] = []
        self.finished = self.memory = 0

    async def write(self) -> None:
        for number in self.numbers:
            if number % self.tenth == 0:
                self.marks.append(time.perf_counter())
            await self.store.set(f"s{number}", expected=1 if number % 100 == 0 else 0)
            if number % 100 == 50:
                await self.store.delete(f"s{number - 50}")

    async def watch(self) -> None:
        while True:
            self.finished = max(self.finished, int(await _send(self.watching, "ZCARD", LANE.session_lru)))
            self.memory = max(self.memory, int((await self.watching.info("memory"))["used_memory"]))
            # looking every hundredth of a second leaves the processor to the writers
            await asyncio.sleep(0.01)

    async def run(self) -> None:
        await _send(self.redis, "FLUSHALL", "SYNC")
        watcher = asyncio.create_task(self.watch())
        await asyncio.gather(*(self.write() for _ in range(WRITERS)))
        self.marks.append(time.perf_counter())
        watcher.cancel()
        await asyncio.wait([watcher])


async def bound(url: str, created: int, limit: int) -> dict[str, Any]:
    """Create many sessions, and see how many there are at most."""
    run = Run(url, created, limit)
    await run.run()
    stats = await run.store.stats()
    for client in (run.redis, run.watching):
        await client.aclose()
    if run.finished > limit + WRITERS:
        raise SystemExit(f"{run.finished} finished sessions with {WRITERS} writers and a limit of {limit}")
    return {
        "created": stats.created,
        "limit": limit,
        "writers": WRITERS,
        "finished_sessions_at_most": run.finished,
        "sessions_at_the_end": stats.sessions,
        "evicted": stats.evicted,
        "redis_megabytes_at_most": round(run.memory / 1e6, 1),
        "us_per_session_by_tenth": [round((b - a) / run.tenth * 1e6) for a, b in pairwise(run.marks)],
    }


async def measure(created: int, limit: int) -> dict[str, Any]:
    """Return all figures, measured on a server of our own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Valkey(Path(folder), options={"appendfsync": "no"}) as server,
    ):
        async with connect(server.url) as redis:
            findings = await check_redis(redis, lanes=1, allow_volatile=False)
            figures: dict[str, Any] = {"server": findings[0].sentence, "growth": await growth(redis)}
            figures["touch_round_trips"] = await _round_trips(redis, server.url)
            figures["memory"] = await memory(redis)
        figures["bound"] = await bound(server.url, created, limit)
    return figures


def main() -> int:
    """Print the figures and write them to benchmarks/results/sessions.json."""
    parser = argparse.ArgumentParser(description="What sessions cost beside a bare HGETALL, and their bound.")
    parser.add_argument("--created", type=int, default=200_000, help="sessions the bound is shown with")
    parser.add_argument("--most", type=int, default=10_000, help="the limit (SESSION_MAX)")
    given = parser.parse_args()
    import uvloop

    figures = uvloop.run(measure(given.created, given.most))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "sessions.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
