"""Pauses an agent: its processes finish the entries in flight and read nothing more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from events import keys, topology
from events.connection import call
from shared.operations import activity, scripts

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.operations.activity import Person


async def pause(redis: Redis, agent: str, *, lanes: int = 1, by: Person | None = None) -> None:
    """Stop all processes of the agent from reading within a second. Raises KeyError for an unknown agent.

    `by`: who does it, for the list of activities; None: nobody is named there.
    """
    topology.stage_of(agent)
    for lane in keys.all_lanes(lanes):
        await scripts.write(redis, "HSETNX", lane.paused, agent, f"{time.time():.0f}")
    await activity.noted(redis, by, "pause", agent)


async def resume(redis: Redis, agent: str, *, lanes: int = 1, by: Person | None = None) -> bool:
    """Let them read again; return False if the agent was not paused. Raises KeyError for an unknown agent.

    `by`: who does it, for the list of activities; None: nobody is named there.
    """
    topology.stage_of(agent)
    removed = 0
    for lane in keys.all_lanes(lanes):
        removed += await call(redis, "HDEL", lane.paused, agent)
    if removed:
        await activity.noted(redis, by, "resume", agent)
    return removed > 0
