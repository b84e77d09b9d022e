"""How the pipeline stands: per agent its processes, what waits, what is dead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from events import keys, topology
from events.connection import RedisError, Trouble, call, trouble_of
from shared.delivery.heartbeat import ProcessInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from events.keys import Keys
    from events.topology import Stage


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One process as it told of itself, and how long ago (by the server's clock)."""

    consumer: str
    beat_seconds_ago: float
    says: ProcessInfo


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for an agent."""

    backlog: int
    """Entries in its streams, those in hand included."""
    pending: int
    """Of these, handed out and not settled."""
    oldest_seconds: float
    """Age of the oldest entry, 0 without one."""
    delayed: int
    dead: int


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One agent."""

    agent: str
    processes: list[ProcessStatus]
    depth: Depth
    paused_since: float | None

    @property
    def in_hand(self) -> int:
        """Entries its processes work on."""
        return sum(process.says.in_hand for process in self.processes)

    @property
    def breakers_open(self) -> list[str]:
        """Outside parts that are down for one of its processes."""
        return sorted({name for process in self.processes for name in process.says.breakers_open})


class PipelineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All agents in the topology's order, and the public streams' lengths."""

    agents: list[AgentStatus]
    public: dict[str, int]
    server_time: float


async def read_status(redis: Redis, *, lanes: int = 1, alive_within: float = 15.0) -> PipelineStatus:
    """Read the whole pipeline. A process that has not beaten for `alive_within` seconds is left out."""
    all_keys = keys.all_lanes(lanes)
    now = await _now(redis)
    agents = []
    for stage in topology.PIPELINE:
        processes = await _processes(redis, stage, all_keys, now, alive_within)
        paused = await _paused(redis, stage, all_keys)
        depth = await depth_of(redis, stage, all_keys)
        agents.append(AgentStatus(agent=stage.agent, processes=processes, depth=depth, paused_since=paused))
    public = {
        name: sum([await redis.xlen(lane.stream(name)) for lane in all_keys]) for name in topology.PUBLIC
    }
    return PipelineStatus(agents=agents, public=public, server_time=now)


async def depth_of(redis: Redis, stage: Stage, lanes: Sequence[Keys]) -> Depth:
    """What waits for one agent, over all lanes."""
    now = await _now(redis)
    backlog = pending = delayed = dead = 0
    oldest = 0.0
    for lane in lanes:
        for name in stage.reads:
            stream = lane.stream(name)
            backlog += await redis.xlen(stream)
            first = await call(redis, "XRANGE", stream, "-", "+", "COUNT", 1)
            if first:
                oldest = max(oldest, now - int(first[0][0].split(b"-")[0]) / 1000)
            try:
                pending += (await call(redis, "XPENDING", stream, stage.agent))[0]
            except RedisError as error:
                if trouble_of(error) is not Trouble.NO_GROUP:
                    raise
        delayed += await redis.zcard(lane.delayed(stage.agent))
        dead += await redis.xlen(lane.dead(stage.agent))
    return Depth(
        backlog=backlog,
        pending=pending,
        oldest_seconds=round(max(0.0, oldest), 3),
        delayed=delayed,
        dead=dead,
    )


async def _now(redis: Redis) -> float:
    seconds, micros = await redis.time()
    return float(seconds) + micros / 1e6


async def _paused(redis: Redis, stage: Stage, lanes: Sequence[Keys]) -> float | None:
    since = [await call(redis, "HGET", lane.paused, stage.agent) for lane in lanes]
    return min((float(value) for value in since if value), default=None)


async def _processes(
    redis: Redis, stage: Stage, lanes: Sequence[Keys], now: float, alive_within: float
) -> list[ProcessStatus]:
    found: dict[str, ProcessStatus] = {}
    for lane in lanes:
        record: dict[bytes, bytes] = await call(redis, "HGETALL", lane.processes(stage.agent))
        for consumer, text in record.items():
            millis, _, says = text.partition(b" ")
            try:
                status = ProcessStatus(
                    consumer=consumer.decode(),
                    beat_seconds_ago=round(max(0.0, now - int(millis) / 1000), 3),
                    says=msgspec.json.decode(says, type=ProcessInfo),
                )
            except ValueError:
                continue
            if status.beat_seconds_ago <= alive_within:
                # a process beats in every lane and says the same in each
                found[status.consumer] = status
    return sorted(found.values(), key=lambda status: status.says.started)
