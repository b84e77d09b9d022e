"""Measures streaQ: one task per entry, which enqueues the next one. Results are not kept (ttl 0).

streaQ finishes a task by one script. It has retries and time limits, but no dead letters.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import uvloop
from streaq import Worker

from benchmarks.peers.stopwatch import Order, Stopwatch, order, when_settled
from benchmarks.subjects.entries import fields

CONCURRENCY: Final = 64
OUTPUT: Final = ("XLEN", "streaq:out:queues:normal")
REST: Final = ("XLEN", "streaq:in:queues:normal")


async def run(given: Order) -> None:
    """Enqueue all entries, or hand all on and print the figures."""
    logging.disable(logging.WARNING)
    last = asyncio.Event()
    watch = Stopwatch(given.url, given.entries, last.set)
    source: Any = Worker(redis_url=given.url, queue_name="in", concurrency=CONCURRENCY, handle_signals=False)
    target: Any = Worker(redis_url=given.url, queue_name="out", handle_signals=False)

    async def take(event: dict[str, str]) -> None:
        """End here: no worker reads this queue."""

    output = target.task(silent=True, ttl=0, name="take")(take)

    async def forward(event: dict[str, str]) -> None:
        watch.entry()
        await output.enqueue(event)

    task = source.task(silent=True, ttl=0, name="forward")(forward)
    if given.action == "fill":
        async with source:
            for start in range(0, given.entries, 500):
                rows = range(start, min(start + 500, given.entries))
                await source.enqueue_many([task.enqueue(fields(n)) for n in rows])
        return
    async with target:
        working = asyncio.create_task(source.run_async())
        await when_settled(given.url, given.entries, OUTPUT, REST, last)
        watch.stop()
        watch.report()
        working.cancel()
        await asyncio.wait({working})


if __name__ == "__main__":
    uvloop.run(run(order()))
