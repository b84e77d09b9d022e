"""Entries that belong to nobody: delivered once, pending with no consumer, and still in their stream.

`XGROUP DELCONSUMER` throws away what the consumer had, and so does a log that was cut in the middle. Reads
never return such an entry again, because the group's last delivered id is behind it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import structlog

from events.connection import RedisError, call, server_of
from shared.operations import scripts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from events.keys import Keys
    from events.topology import Stage
    from shared.telemetry.metrics import AgentMetrics

EVERY_SECONDS: Final = 30.0
_RESTART_SECONDS: Final = 2.0
"""How often a process looks whether the server was started again."""
_log = structlog.get_logger(__name__)


async def keep(
    redis: Redis, stage: Stage, metrics: AgentMetrics, lanes: Sequence[Keys], every: float = EVERY_SECONDS
) -> None:
    """Take ownerless entries in again, until cancelled. One process of the agent looks at a time.

    The first look after a restart of the server comes at once: its log may have been cut.
    """
    seen: dict[Keys, str] = {}
    due = 0.0
    while True:
        try:
            runs = await _runs(redis, lanes)
            if runs != seen or time.monotonic() >= due:
                for lane, run in runs.items():
                    if await _may_look(redis, lane, stage.agent, run, int(every * 900)):
                        await _adopt_all(redis, stage, metrics, lane)
                seen, due = runs, time.monotonic() + every
        except (RedisError, OSError) as error:
            _log.debug("no ownerless entries looked for", error=str(error)[:200])
        await asyncio.sleep(min(every, _RESTART_SECONDS))


async def count(redis: Redis, stage: Stage, lanes: Sequence[Keys]) -> int:
    """Return how many entries of an agent belong to nobody. Raises what redis-py raises."""
    found = 0
    for stream in (lane.stream(name) for lane in lanes for name in stage.streams):
        start = "-"
        while start:
            page, start = await scripts.adopt(redis, stream, stage.agent, start, count_only=True)
            found += page
    return found


async def _runs(redis: Redis, lanes: Sequence[Keys]) -> dict[Keys, str]:
    """Return for each lane the id of this run of its server; each server is asked once."""
    servers = {lane: await server_of(redis, lane.paused) for lane in lanes}
    runs = {
        server: str((await call(server, "INFO", "server")).get("run_id", ""))
        for server in dict.fromkeys(servers.values())
    }
    return {lane: runs[server] for lane, server in servers.items()}


async def _may_look(redis: Redis, lane: Keys, agent: str, run: str, milliseconds: int) -> bool:
    """Return whether nobody else looks, or has looked since the server with this run id started."""
    key = lane.adopting(agent)
    if await redis.get(key) == run.encode():
        return False
    # a mark that the server read from its log is from before its start
    before = await call(redis, "SET", key, run, "PX", milliseconds, "GET")
    return bool(before != run.encode())


async def _adopt_all(redis: Redis, stage: Stage, metrics: AgentMetrics, lane: Keys) -> None:
    for name in stage.streams:
        stream, start = lane.stream(name), "-"
        while start:
            adopted, start = await scripts.adopt(redis, stream, stage.agent, start)
            if adopted:
                metrics.ownerless.inc(adopted)
                _log.error(
                    "entries belonged to nobody, taken in again (XGROUP DELCONSUMER, or a torn log)",
                    stream=stream,
                    entries=adopted,
                )
