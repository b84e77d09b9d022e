"""Finds entries in lanes that LANES does not have: nobody reads them while it stays as it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from events import topology
from events.connection import call
from events.keys import Keys, all_lanes

if TYPE_CHECKING:
    from redis.asyncio import Redis

MOST: Final = 99
"""The highest lane that is looked at; the roles of deploy/redis/users.acl and the manifests end there too."""


async def stranded(redis: Redis, lanes: int) -> dict[int, int]:
    """Return how many entries wait or are postponed in other lanes than those of LANES: lane → entries.

    The lane 0 stands for the keys of LANES=1. Raises what redis-py raises.
    """
    read = {lane.lane for lane in all_lanes(lanes)}
    others = [lane for lane in (Keys(), *map(Keys, range(1, MOST + 1))) if lane.lane not in read]
    waiting = await asyncio.gather(*(_waiting(redis, lane) for lane in others))
    return {lane.lane or 0: count for lane, count in zip(others, waiting, strict=True) if count}


async def _waiting(redis: Redis, lane: Keys) -> int:
    keys = list(_keys(lane))
    # the keys of LANES=1 have many slots, and those of a lane have one
    asked = [keys] if lane.lane else [[key] for key in keys]
    if not sum([await call(redis, "EXISTS", *some) for some in asked]):
        return 0
    return sum([await _length(redis, key) for key in keys])


def _keys(lane: Keys) -> dict[str, None]:
    streams = {lane.stream(name): None for stage in topology.STAGES for name in stage.streams}
    return streams | {lane.delayed(stage.agent): None for stage in topology.STAGES}


async def _length(redis: Redis, key: str) -> int:
    kind = await call(redis, "TYPE", key)
    command = {b"stream": "XLEN", b"zset": "ZCARD"}.get(kind.encode() if isinstance(kind, str) else kind)
    return int(await call(redis, command, key)) if command else 0
