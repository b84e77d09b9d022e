"""Entries that belong to nobody: delivered once, pending with no consumer, and still in their stream.

`XGROUP DELCONSUMER` throws away what the consumer had, and so does a log that was cut in the middle. Reads
never return such an entry again, because the group's last delivered id is behind it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from events.connection import RedisError
from shared.operations import scripts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from events.keys import Keys
    from events.topology import Stage
    from shared.telemetry.metrics import AgentMetrics

EVERY_SECONDS: Final = 30.0
_log = structlog.get_logger(__name__)


async def keep(
    redis: Redis, stage: Stage, metrics: AgentMetrics, lanes: Sequence[Keys], every: float = EVERY_SECONDS
) -> None:
    """Take ownerless entries in again, until cancelled. One process of the agent looks at a time."""
    while True:
        try:
            for lane in lanes:
                if await redis.set(lane.adopting(stage.agent), "", nx=True, px=int(every * 900)):
                    await _adopt_all(redis, stage, metrics, lane)
        except (RedisError, OSError) as error:
            _log.debug("no ownerless entries looked for", error=str(error)[:200])
        await asyncio.sleep(every)


async def _adopt_all(redis: Redis, stage: Stage, metrics: AgentMetrics, lane: Keys) -> None:
    for name in stage.reads:
        stream, start = lane.stream(name), "-"
        while start:
            adopted, start = await scripts.adopt(redis, stream, stage.agent, start)
            if adopted:
                metrics.ownerless.inc(adopted)
                _log.error(
                    "entries belonged to nobody, taken in again: was XGROUP DELCONSUMER used?",
                    stream=stream,
                    entries=adopted,
                )
