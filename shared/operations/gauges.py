"""Reads the numbers of an agent as a whole; each of its processes does so every few seconds."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import structlog

from events import topology
from events.connection import RedisError, call, servers_of
from shared.operations import causes, scripts, status
from shared.operations.memory import fullest
from shared.telemetry.metrics import (
    PUBLISH_REFUSED,
    REDIS_MEMORY_LIMIT,
    REDIS_MEMORY_USED,
    REDIS_REFUSED,
    WEBHOOKS_WAITING,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from events.keys import Keys
    from events.topology import Stage
    from shared.telemetry.metrics import AgentMetrics

EVERY_SECONDS: Final = 5.0
RECOUNT_SECONDS: Final = 60.0
"""At most so often dead letters are counted again: Redis reads all of them for that."""
_PAGE: Final = 200
_log = structlog.get_logger(__name__)


async def keep(redis: Redis, stage: Stage, metrics: AgentMetrics, lanes: Sequence[Keys]) -> None:
    """Keep backlog, age, pending, delayed and dead letters of the agent up to date, until cancelled."""
    dead, due = DeadByReason(redis, stage, lanes), 0.0
    while True:
        try:
            depth = await status.depth_of(redis, stage, lanes)
            reasons = await dead.count()
            if sum(reasons.values()) >= causes.PAGE and time.monotonic() >= due:
                # so that `erni dead list` finds nearly all of them counted
                for lane in lanes:
                    await causes.of_agent(redis, lane, stage.agent)
                due = time.monotonic() + RECOUNT_SECONDS
            if topology.INTAKE in stage.reads:
                PUBLISH_REFUSED.set(sum([int(await redis.get(lane.refused) or 0) for lane in lanes]))
                await _note_memory(redis)
                await _note_notices(redis, lanes)
        except (RedisError, OSError) as error:
            _log.debug("numbers not read", error=str(error)[:200])
        else:
            metrics.backlog.set(depth.backlog)
            metrics.oldest_entry_seconds.set(depth.oldest_seconds)
            metrics.pending.set(depth.pending)
            metrics.delayed.set(depth.delayed)
            for reason, gauge in metrics.dead_letters.items():
                gauge.set(reasons.get(reason, 0))
        await asyncio.sleep(EVERY_SECONDS)


async def _note_memory(redis: Redis) -> None:
    """Note how full Redis is, of a cluster its fullest node, and what all nodes refused there.

    They count that themselves: a refused script cannot.
    """
    memory = await fullest(redis)
    REDIS_MEMORY_USED.set(memory.used)
    REDIS_MEMORY_LIMIT.set(memory.limit)
    refused = 0
    for server in await servers_of(redis):
        errors: dict[str, Any] = await call(server, "INFO", "errorstats")
        refused += errors.get("errorstat_OOM", {}).get("count", 0)
    REDIS_REFUSED.set(refused)


async def _note_notices(redis: Redis, lanes: Sequence[Keys]) -> None:
    """Note how many notices wait. Not the notifier itself, which may be what is missing."""
    waiting = 0
    for lane in lanes:
        waiting += sum([await redis.xlen(lane.stream(name)) for name in topology.NOTIFIER.streams])
        waiting += await redis.zcard(lane.delayed(topology.NOTIFIER.agent))
    WEBHOOKS_WAITING.set(waiting)


class DeadByReason:
    """Dead letters of an agent by reason, as settle, replay and discard count them.

    The counts are kept beside the letters. An older version of the code, or a person with redis-cli, changes
    the letters and not the counts: where their sum is not the number of letters, one process counts again.
    """

    def __init__(self, redis: Redis, stage: Stage, lanes: Sequence[Keys]) -> None:
        self._redis = redis
        self._agent = stage.agent
        self._lanes = lanes

    async def count(self) -> Counter[str]:
        """Return the counts over all lanes. Raises what redis-py raises."""
        total: Counter[str] = Counter()
        for lane in self._lanes:
            length, counts = await scripts.counted(self._redis, lane, self._agent)
            if sum(counts.values()) != length or min(counts.values(), default=0) < 0:
                mine = await self._redis.set(
                    lane.counting(self._agent), "", nx=True, px=int(RECOUNT_SECONDS * 1000)
                )
                if mine:
                    counts = await self._recount(lane)
            total += Counter({reason.decode("utf-8", "replace"): n for reason, n in counts.items()})
        return total

    async def _recount(self, lane: Keys) -> Counter[bytes]:
        counts: Counter[bytes] = Counter()
        last, kept = "0", False
        while not kept:
            seen, page = await scripts.reasons(self._redis, lane, self._agent, "(" + last, _PAGE)
            counts.update(page)
            last = seen or last
            if sum(page.values()) < _PAGE:
                kept = await scripts.recounted(self._redis, lane, self._agent, last, counts)
                if not seen:
                    # not kept, and nothing came: letters went, so there will be another count
                    break
        return counts
