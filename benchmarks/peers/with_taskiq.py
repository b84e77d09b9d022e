"""Measures taskiq with RedisStreamBroker: one task per entry, which sends the next one.

taskiq acknowledges after the task, by a separate command. It has no fence and no dead letters.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import uvloop
from taskiq.receiver import Receiver
from taskiq_redis import RedisStreamBroker

from benchmarks.peers.stopwatch import Order, Stopwatch, order, when_settled
from benchmarks.subjects.entries import fields

CONCURRENCY: Final = 100
"""What its command line takes by default."""
OUTPUT: Final = ("XLEN", "out")
REST: Final = ("XPENDING", "in", "taskiq")


async def run(given: Order) -> None:
    """Send all entries, or hand all on and print the figures."""
    logging.disable(logging.WARNING)
    last = asyncio.Event()
    watch = Stopwatch(given.url, given.entries, last.set)
    source = RedisStreamBroker(given.url, queue_name="in", consumer_id="0")
    target = RedisStreamBroker(given.url, queue_name="out")

    async def take(event: dict[str, str]) -> None:
        """End here: no worker reads this queue."""

    output = target.register_task(take, task_name="take")

    async def forward(event: dict[str, str]) -> None:
        watch.entry()
        await output.kiq(event)

    task = source.register_task(forward, task_name="forward")
    if given.action == "fill":
        await source.startup()
        for start in range(0, given.entries, 100):
            await asyncio.gather(
                *(task.kiq(fields(n)) for n in range(start, min(start + 100, given.entries)))
            )
        await source.shutdown()
        return
    await target.startup()
    source.is_worker_process = True
    finish = asyncio.Event()
    listening = asyncio.create_task(Receiver(source, max_async_tasks=CONCURRENCY).listen(finish))
    await when_settled(given.url, given.entries, OUTPUT, REST, last)
    watch.stop()
    finish.set()
    await listening
    await source.shutdown()
    await target.shutdown()
    watch.report()


if __name__ == "__main__":
    uvloop.run(run(order()))
