"""Runs one agent process with a no-op handler, as `benchmarks.handoff` measures it."""

from __future__ import annotations

import asyncio
from typing import Final

import uvloop

from benchmarks.peers.stopwatch import PATIENCE_SECONDS, Order, Stopwatch, order
from benchmarks.subjects.engine import Mode, drained, running

MODES: Final = {
    "off": Mode(),
    "sessions": Mode(sessions=True, logs=True),
    "traced": Mode(sessions=True, logs=True, traced=True),
}


async def run(given: Order) -> None:
    """Hand all entries on and print the figures."""
    mode = MODES[given.mode]
    last = asyncio.Event()
    watch = Stopwatch(given.url, given.entries, last.set)
    async with running(given.url, mode, watch.entry, endpoint=given.endpoint) as redis:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await last.wait()
        await drained(redis, given.entries)
        watch.stop()
    if mode.traced:
        watch.flushed()
    watch.report()


if __name__ == "__main__":
    uvloop.run(run(order()))
