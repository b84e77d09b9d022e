"""Pauses an agent: its processes finish the entries in flight and read nothing more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from events import keys, topology
from events.connection import call
from shared.operations import scripts

if TYPE_CHECKING:
    from redis.asyncio import Redis


async def pause(redis: Redis, agent: str, *, lanes: int = 1) -> None:
    """Stop all processes of the agent from reading within a second. Raises KeyError for an unknown agent."""
    topology.stage_of(agent)
    for lane in keys.all_lanes(lanes):
        await scripts.write(redis, "HSETNX", lane.paused, agent, f"{time.time():.0f}")


async def resume(redis: Redis, agent: str, *, lanes: int = 1) -> bool:
    """Let them read again; return False if the agent was not paused. Raises KeyError for an unknown agent."""
    topology.stage_of(agent)
    removed = 0
    for lane in keys.all_lanes(lanes):
        removed += await call(redis, "HDEL", lane.paused, agent)
    return removed > 0
