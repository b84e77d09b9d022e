"""Hand-offs a second: one agent process with a no-op handler beside a bare redis-py loop, in one run.

The bare loop is the least that could be called a hand-off: read 100 entries, move them with one script
(XADD, XACK, XDEL), no check of ownership, no decoding, no counters. It is the yardstick because it runs on
the same machine at the same time; the figure that counts is the ratio.

    python -m benchmarks.handoff [--entries 40000] [--rounds 3]
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

from events.connection import connect
from events.types import LibraryRef, PhotoSubmitted, SchemaExtracted
from sandbox.redis_server import Valkey
from shared.delivery.agent import Agent
from shared.delivery.process import AgentProcess
from shared.settings import Settings
from shared.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

RESULTS: Final = Path(__file__).parent / "results"
BATCH: Final = 100
_BARE: Final = """#!lua
local ids = {}
for i = 2, #ARGV, 2 do
  redis.call('XADD', KEYS[2], '*', 'data', ARGV[i + 1])
  ids[#ids + 1] = ARGV[i]
end
redis.call('XACK', KEYS[1], ARGV[1], unpack(ids))
redis.call('XDEL', KEYS[1], unpack(ids))
return #ids
"""
_LIBRARY: Final = LibraryRef(
    site_id="site",
    list_id="list",
    drive_id="drive",
    site="/sites/Bau",
    library="Fotos",
    web_url="http://localhost",
)


class NoOp(Agent[PhotoSubmitted, SchemaExtracted]):
    """Hands on what it gets."""

    name = "schema_extractor"

    async def handle(self, event: PhotoSubmitted) -> SchemaExtracted:
        return SchemaExtracted(
            photo_id=event.photo_id,  # type: ignore[arg-type]  # the machinery gives every photo an id
            session_id=event.session_id,
            source_url=event.source_url,
            library=_LIBRARY,
            schema_digest="0" * 64,  # type: ignore[arg-type]  # any text will do
            schema_ref="store:schemas/x",  # type: ignore[arg-type]  # any text will do
        )


async def fill(redis: Redis, entries: int, *, session: bool) -> None:
    """Put events into the first stream."""
    await redis.flushall()
    for start in range(0, entries, 1000):
        async with redis.pipeline(transaction=False) as pipe:
            for number in range(start, min(start + 1000, entries)):
                data: dict[str, Any] = {"source_url": f"https://example.org/{number}.jpg"}
                if session:
                    data["session_id"] = f"session-{number % 20}"
                pipe.xadd("erni:photo.submitted", {"id": f"e{number}", "data": json.dumps(data)})
            await pipe.execute()


async def bare(url: str, entries: int) -> float:
    """Seconds the bare loop needs for all entries."""
    redis = connect(url)
    call: Callable[..., Awaitable[Any]] = redis.execute_command
    await fill(redis, entries, session=False)
    await redis.xgroup_create("erni:photo.submitted", "bare", id="0")
    sha = await call("SCRIPT", "LOAD", _BARE)
    started, moved = time.perf_counter(), 0
    while moved < entries:
        reply = await call(
            "XREADGROUP", "GROUP", "bare", "me", "COUNT", BATCH, "STREAMS", "erni:photo.submitted", ">"
        )
        args: list[bytes] = []
        for entry_id, fields in reply[0][1]:
            args += (entry_id, fields[3])
        moved += await call("EVALSHA", sha, 2, "erni:photo.submitted", "out", "bare", *args)
    seconds = time.perf_counter() - started
    await redis.aclose()
    return seconds


async def ours(url: str, entries: int, *, session: bool) -> float:
    """Seconds one agent process needs for all entries, from its first to its last hand-off."""
    redis = connect(url)
    await fill(redis, entries, session=session)
    settings = Settings(
        redis_url=url, concurrency=400, metrics_port=0, enable_tracing=False, log_level="warning",
        photo_record_hours=48 if session else 0,
    )  # fmt: skip
    configure_logging(settings)
    process = AgentProcess(NoOp(settings, redis), settings)
    task = asyncio.create_task(process.run(serve=False))
    await process.ready.wait()
    started = time.perf_counter()
    # settling deletes: an empty stream means that the last hand-off is done
    while await redis.xlen("erni:photo.submitted"):  # noqa: ASYNC110 - the server has no event for that
        await asyncio.sleep(0.005)
    seconds = time.perf_counter() - started
    process.stop()
    await task
    moved = await redis.xlen("erni:schema.extracted")
    if moved != entries:
        raise SystemExit(f"{moved} of {entries} entries were handed off: this figure would be a lie")
    await redis.aclose()
    return seconds


async def measure(entries: int, rounds: int) -> dict[str, Any]:
    """All figures, medians over the rounds; the ratios are of the same round."""
    rates: dict[str, list[float]] = {"bare": [], "ours": [], "ours_with_sessions": []}
    with tempfile.TemporaryDirectory() as folder:
        server = Valkey(Path(folder), options={"appendfsync": "no"})
        server.start()
        try:
            for _ in range(rounds):
                rates["bare"].append(entries / await bare(server.url, entries))
                rates["ours"].append(entries / await ours(server.url, entries, session=False))
                rates["ours_with_sessions"].append(entries / await ours(server.url, entries, session=True))
        finally:
            server.stop()
    return {
        "entries": entries,
        "per_second": {name: round(statistics.median(values)) for name, values in rates.items()},
        "ratio_to_bare": {
            name: round(statistics.median(a / b for a, b in zip(values, rates["bare"], strict=True)), 3)
            for name, values in rates.items()
        },
    }


def main() -> int:
    """Print the figures and write them to benchmarks/results/handoff.json."""
    parser = argparse.ArgumentParser(description="Hand-offs a second beside a bare redis-py loop.")
    parser.add_argument("--entries", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    import uvloop

    figures = uvloop.run(measure(given.entries, given.rounds))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "handoff.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
