"""Measures redis-stream-queue: one handler call per batch, one pipeline for the outputs, then one XACK.

It has no fence, no time limit and no outcome per message: a batch succeeds or fails as one. It has dead
letters and take-over.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import uvloop
from redis_stream_queue import ConsumerConfig, StreamClient, StreamConsumer, StreamProducer

from benchmarks.peers.stopwatch import Order, Stopwatch, order, when_settled
from benchmarks.subjects.entries import fields

BATCH: Final = 100
OUTPUT: Final = ("XLEN", "out")
REST: Final = ("XPENDING", "in", "group")


async def fill(given: Order) -> None:
    """Publish the entries."""
    client = StreamClient.from_url(given.url)
    producer = StreamProducer(client=client, stream="in", group="group")
    await producer.ensure_group()
    for start in range(0, given.entries, 1000):
        await producer.push_many([fields(n) for n in range(start, min(start + 1000, given.entries))])
    await client.close()


async def run(given: Order) -> None:
    """Hand all entries on and print the figures."""
    client = StreamClient.from_url(given.url)
    output = StreamProducer(client=client, stream="out")
    last = asyncio.Event()
    watch = Stopwatch(given.url, given.entries, last.set)

    async def forward(messages: list[Any]) -> list[str]:
        for _ in messages:
            watch.entry()
        await output.push_many([message.data for message in messages])
        return [message.id for message in messages]

    config = ConsumerConfig(group="group", batch_size=BATCH, block_ms=100)
    consumer = StreamConsumer(client=client, stream="in", config=config, handler=forward)
    task = asyncio.create_task(consumer.run())
    await when_settled(given.url, given.entries, OUTPUT, REST, last)
    watch.stop()
    consumer.stop()
    await task
    await client.close()
    watch.report()


if __name__ == "__main__":
    given = order()
    uvloop.run(fill(given) if given.action == "fill" else run(given))
