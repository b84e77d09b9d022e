"""Reads how much of its memory limit Redis uses, and what fills it."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

import msgspec

from events import keys, topology
from events.connection import RedisError, Trouble, call, servers_of, trouble_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

NEARLY_FULL: Final = 0.9
"""The share of the limit from which a person has to look: at the limit, publishing is refused."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The server's memory in bytes."""

    used: int
    limit: int
    """0: the server has none."""
    biggest: str = ""
    """The stream that takes most of it, in words; only looked up when the memory is nearly full."""

    @property
    def nearly_full(self) -> bool:
        """Whether a person has to look."""
        return self.limit > 0 and self.used >= NEARLY_FULL * self.limit

    @property
    def full(self) -> bool:
        """Whether the server refuses what needs memory."""
        return 0 < self.limit <= self.used

    @property
    def sentence(self) -> str:
        """How full it is, what fills it, and what to do."""
        filled = f"; {self.biggest}" if self.biggest else ""
        return (
            f"redis: {self.used / 1e6:.1f} of {self.limit / 1e6:.1f} MB are used"
            f" ({100 * self.used / self.limit:.0f} %), and at the limit publishing is refused{filled}."
            " Replay dead letters, or delete them (erni dead discard --for-good; else the archive keeps"
            " them, which frees nothing), start more agents, or raise maxmemory"
        )


async def read_memory(redis: Redis, *, lanes: int = 1) -> Memory:
    """Read it; without a limit where the caller's role may not look. Raises what redis-py raises."""
    try:
        memory = await fullest(redis)
    except RedisError as error:
        if trouble_of(error) is Trouble.NO_PERMISSION:
            return Memory(used=0, limit=0)
        raise
    if not memory.nearly_full:
        return memory
    return msgspec.structs.replace(memory, biggest=await _biggest(redis, lanes))


async def fullest(redis: Redis) -> Memory:
    """Read the memory of the server, or of the fullest node of a cluster. Raises what redis-py raises."""
    found = []
    for server in await servers_of(redis):
        info: dict[str, int] = await call(server, "INFO", "memory")
        found.append(Memory(used=int(info.get("used_memory", 0)), limit=int(info.get("maxmemory", 0))))
    return max(found, key=lambda one: one.used / (one.limit or inf), default=Memory(used=0, limit=0))


async def _biggest(redis: Redis, lanes: int) -> str:
    """Return the largest of our streams by an estimate from samples; '' where nobody may ask."""
    sizes: dict[str, int] = {}
    try:
        for lane in keys.all_lanes(lanes):
            for agent in topology.CONSUMERS:
                name = f"the dead letters of {agent}"
                sizes[name] = sizes.get(name, 0) + await _size(redis, lane.dead(agent))
                name = f"the discarded dead letters of {agent}"
                sizes[name] = sizes.get(name, 0) + await _size(redis, lane.archive(agent))
            for event in topology.STREAMS:
                name = f"the stream {event}"
                sizes[name] = sizes.get(name, 0) + await _size(redis, lane.stream(event))
    except RedisError as error:
        if trouble_of(error) is Trouble.NO_PERMISSION:
            return ""
        raise
    name, size = max(sizes.items(), key=lambda pair: pair[1])
    verb = "take" if " dead letters " in name else "takes"
    return f"{name} {verb} about {size / 1e6:.1f} MB" if size else ""


async def _size(redis: Redis, key: str) -> int:
    return int(await call(redis, "MEMORY", "USAGE", key) or 0)
