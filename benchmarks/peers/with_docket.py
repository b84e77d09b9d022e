"""Measures docket: one task per entry, which adds the next one. It keeps no records (execution_ttl 0).

docket acknowledges by a script. It has retries, leases and take-over, but no dead letters.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Final

import uvloop
from docket import Docket, Worker

from benchmarks.peers.stopwatch import Order, Stopwatch, order, when_settled
from benchmarks.subjects.entries import fields

CONCURRENCY: Final = 64
OUTPUT: Final = ("XLEN", "out:stream")
REST: Final = ("XLEN", "in:stream")


async def run(given: Order) -> None:
    """Add all entries, or hand all on and print the figures."""
    logging.disable(logging.WARNING)
    last = asyncio.Event()
    watch = Stopwatch(given.url, given.entries, last.set)
    async with (
        Docket(name="in", url=given.url, execution_ttl=timedelta(0)) as source,
        Docket(name="out", url=given.url, execution_ttl=timedelta(0)) as target,
    ):

        async def take(event: dict[str, str]) -> None:
            """End here: no worker reads this docket."""

        async def forward(event: dict[str, str]) -> None:
            watch.entry()
            await target.add(take)(event)

        source.register(forward)
        target.register(take)
        if given.action == "fill":
            await source.add_many(source.call(forward)(fields(n)) for n in range(given.entries))
            return
        async with Worker(
            source, concurrency=CONCURRENCY, minimum_check_interval=timedelta(milliseconds=10)
        ) as worker:
            working = asyncio.create_task(worker.run_forever())
            await when_settled(given.url, given.entries, OUTPUT, REST, last)
            watch.stop()
            watch.report()
            working.cancel()
            await asyncio.wait({working})


if __name__ == "__main__":
    uvloop.run(run(order()))
