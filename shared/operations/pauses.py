"""Pausing an agent: its processes finish what they have in hand and read nothing more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from events import keys, topology

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis


async def pause(redis: Redis, agent: str, *, lanes: int = 1) -> None:
    """All processes of the agent stop reading within a beat. Raises KeyError for an unknown agent."""
    topology.stage_of(agent)
    call: Callable[..., Awaitable[Any]] = redis.execute_command
    for lane in keys.all_lanes(lanes):
        await call("HSETNX", lane.paused, agent, f"{time.time():.0f}")


async def resume(redis: Redis, agent: str, *, lanes: int = 1) -> bool:
    """They read again; False if the agent was not paused. Raises KeyError for an unknown agent."""
    topology.stage_of(agent)
    call: Callable[..., Awaitable[Any]] = redis.execute_command
    removed = 0
    for lane in keys.all_lanes(lanes):
        removed += await call("HDEL", lane.paused, agent)
    return removed > 0
