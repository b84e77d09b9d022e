"""Reads the numbers of an agent as a whole; each of its processes does so every few seconds."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import structlog

from events import topology
from events.connection import RedisError, call
from shared.operations import scripts, status
from shared.telemetry.metrics import PUBLISH_REFUSED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from events.keys import Keys
    from events.topology import Stage
    from shared.telemetry.metrics import AgentMetrics

EVERY_SECONDS: Final = 5.0
_PAGE: Final = 200
_log = structlog.get_logger(__name__)


async def keep(redis: Redis, stage: Stage, metrics: AgentMetrics, lanes: Sequence[Keys]) -> None:
    """Keep backlog, age, pending, delayed and dead letters of the agent up to date, until cancelled."""
    dead = DeadByReason(redis, stage, lanes)
    while True:
        try:
            depth = await status.depth_of(redis, stage, lanes)
            reasons = await dead.count()
            if topology.INTAKE in stage.reads:
                PUBLISH_REFUSED.set(sum([int(await redis.get(lane.refused) or 0) for lane in lanes]))
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


class DeadByReason:
    """Dead letters of an agent by reason, counted again only when some came or went."""

    def __init__(self, redis: Redis, stage: Stage, lanes: Sequence[Keys]) -> None:
        self._redis = redis
        self._keys = [lane.dead(stage.agent) for lane in lanes]
        self._seen: dict[str, tuple[Any, ...]] = {}
        self._counts: dict[str, Counter[str]] = {}

    async def count(self) -> Counter[str]:
        """The counts over all lanes. Raises what redis-py raises."""
        total: Counter[str] = Counter()
        for key in self._keys:
            look = await self._look(key)
            if look != self._seen.get(key):
                self._counts[key] = await self._count(key)
                self._seen[key] = look
            total += self._counts[key]
        return total

    async def _look(self, key: str) -> tuple[Any, ...]:
        """Changes whenever a letter is added or removed."""
        ends = [await call(self._redis, command, key, *ids, "COUNT", 1) for command, ids in _ENDS]
        return (await self._redis.xlen(key), *(end[0][0] if end else b"" for end in ends))

    async def _count(self, key: str) -> Counter[str]:
        counts: Counter[str] = Counter()
        start = "-"
        while start != "(":
            last, page = await scripts.reasons(self._redis, key, start, _PAGE)
            counts.update(page)
            start = "(" + last
        return counts


_ENDS: Final = (("XRANGE", ("-", "+")), ("XREVRANGE", ("+", "-")))
