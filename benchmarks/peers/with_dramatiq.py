"""Measures dramatiq with its Redis broker (lists, not streams): one message per entry in worker threads.

dramatiq acknowledges after the actor, by a separate command. It has retries and dead letters, but no fence.
"""

from __future__ import annotations

import threading
from typing import Final

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers.stopwatch import PATIENCE_SECONDS, Order, Stopwatch, order, wait_settled
from benchmarks.subjects.entries import fields

THREADS: Final = 8
"""What its command line takes by default."""
OUTPUT: Final = ("LLEN", "dramatiq:out")
REST: Final = ("HLEN", "dramatiq:in.msgs")


def run(given: Order) -> None:
    """Send all entries, or hand all on and print the figures."""
    broker = RedisBroker(url=given.url)
    last = threading.Event()
    watch = Stopwatch(given.url, given.entries, last.set)

    def take(event: dict[str, str]) -> None:
        """End here: no worker reads this queue."""

    output = dramatiq.actor(take, broker=broker, queue_name="out")

    def forward(event: dict[str, str]) -> None:
        watch.entry()
        output.send(event)

    actor = dramatiq.actor(forward, broker=broker, queue_name="in")
    if given.action == "fill":
        for number in range(given.entries):
            actor.send(fields(number))
        return
    worker = dramatiq.Worker(broker, queues={"in"}, worker_threads=THREADS)
    worker.start()
    if not last.wait(PATIENCE_SECONDS):
        raise SystemExit("dramatiq did not handle all entries in time")
    wait_settled(given.url, given.entries, OUTPUT, REST)
    watch.stop()
    worker.stop()
    watch.report()


if __name__ == "__main__":
    run(order())
