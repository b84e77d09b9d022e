"""Runs the bare redis-py loop: read 100 entries, move them by one script; no check, decoding or counters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import uvloop

from benchmarks.peers.stopwatch import Order, Stopwatch, order
from benchmarks.subjects.engine import connect
from benchmarks.subjects.entries import OUTPUT, STREAM

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BATCH: Final = 100
SCRIPT: Final = """#!lua
local ids = {}
for i = 2, #ARGV, 2 do
  redis.call('XADD', KEYS[2], '*', 'data', ARGV[i + 1])
  ids[#ids + 1] = ARGV[i]
end
redis.call('XACK', KEYS[1], ARGV[1], unpack(ids))
redis.call('XDEL', KEYS[1], unpack(ids))
return #ids
"""


async def run(given: Order) -> None:
    """Move all entries and print the figures."""
    redis = connect(given.url)
    call: Callable[..., Awaitable[Any]] = redis.execute_command
    await redis.xgroup_create(STREAM, "bare", id="0")
    sha = await call("SCRIPT", "LOAD", SCRIPT)
    watch = Stopwatch(given.url, given.entries, lambda: None)
    moved = 0
    while moved < given.entries:
        reply = await call("XREADGROUP", "GROUP", "bare", "me", "COUNT", BATCH, "STREAMS", STREAM, ">")
        if moved == 0:
            watch.entry()
        args: list[bytes] = []
        for entry_id, fields in reply[0][1]:
            args += (entry_id, fields[-1])
        moved += await call("EVALSHA", sha, 2, STREAM, OUTPUT, "bare", *args)
    watch.stop()
    watch.report()
    await redis.aclose()


if __name__ == "__main__":
    uvloop.run(run(order()))
