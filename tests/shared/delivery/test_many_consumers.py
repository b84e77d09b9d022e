"""Thousands of consumers that processes left behind cost a heartbeat little, and go."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from shared.delivery.heartbeat import MANY, Heartbeat, ProcessInfo
from shared.delivery.lane_worker import LaneWorker
from shared.delivery.news import Neighbours
from shared.delivery.process import AgentProcess
from tests.shared.delivery.harness import FirstAgent, running, settings_for, until

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from shared.delivery.news import News

GROUP = "schema_extractor"
STREAM = "erni:photo.submitted"
HEARTBEATS = 40


async def leftovers(redis: Redis, count: int) -> None:
    """Consumers whose processes ended without signing off."""
    for stream in (STREAM, f"{STREAM}.bulk"):
        await redis.xgroup_create(stream, GROUP, id="0", mkstream=True)
    async with redis.pipeline(transaction=False) as many:
        for number in range(count):
            many.xgroup_createconsumer(STREAM, GROUP, f"left-{number}")
        await many.execute()


def info() -> ProcessInfo:
    return ProcessInfo(
        host="here", pid=1, version="1", started=0.0, metrics_address="", concurrency=1, in_hand=0
    )


async def used(redis: Redis, *commands: str) -> float:
    """Server time of commands in microseconds, those that a script calls included."""
    stats: dict[str, Any] = await redis.info("commandstats")
    return float(sum(stats.get(f"cmdstat_{name}", {}).get("usec", 0) for name in commands))


async def test_a_heartbeat_among_thousands_costs_less_than_one_look_by_xinfo(
    redis: Redis, redis_url: str
) -> None:
    await leftovers(redis, 3_000)
    now = 0.0
    news: News = deque()
    settings = settings_for(redis_url, lease_seconds=15.0)
    process = AgentProcess(FirstAgent(settings, redis), settings)
    worker = LaneWorker(process.runtime, process.keys[0], info)
    heartbeat = Heartbeat(process.runtime, worker.lane, info, news, clock=lambda: now)
    await redis.config_resetstat()
    for _ in range(HEARTBEATS):
        await heartbeat.send()
        now += 1.0
    cost = await used(redis, "evalsha", "eval", "hgetall", "xinfo|consumers")
    await redis.config_resetstat()
    for _ in range(HEARTBEATS):
        await redis.xinfo_consumers(STREAM, GROUP)
    assert cost < 1.5 * await used(redis, "xinfo|consumers")
    # looks are rare, but close enough to each other to see that all of them are dead
    dead = [len(message.dead) for message in news if isinstance(message, Neighbours)]
    assert dead[-1] == 3_000
    await worker.close()


async def test_more_leftovers_than_a_heartbeat_looks_at_each_time_are_removed(
    redis: Redis, redis_url: str
) -> None:
    await leftovers(redis, 2 * MANY)

    async def alone() -> bool:
        return len(await redis.xinfo_consumers(STREAM, GROUP)) == 1

    async with running(settings_for(redis_url)):
        await until(alone)
