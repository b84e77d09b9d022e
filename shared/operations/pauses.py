"""Pausing an agent: its processes finish what they have in hand and read nothing more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from events import keys, topology
from events.connection import call

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def pause(redis: Redis, agent: str, *, lanes: int = 1) -> None:
    """All processes of the agent stop reading within a beat. Raises KeyError for an unknown agent."""
    topology.stage_of(agent)
    for lane in keys.all_lanes(lanes):
        await call(redis, "HSETNX", lane.paused, agent, f"{time.time():.0f}")


async def resume(redis: Redis, agent: str, *, lanes: int = 1) -> bool:
    """They read again; False if the agent was not paused. Raises KeyError for an unknown agent."""
    topology.stage_of(agent)
    removed = 0
    for lane in keys.all_lanes(lanes):
        removed += await call(redis, "HDEL", lane.paused, agent)
    return removed > 0
