"""Reads how the pipeline stands: per agent its processes, what waits, what is dead."""

from __future__ import annotations

import contextlib
import itertools
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from events import codec, keys, topology
from events.connection import RedisError, Trouble, call, trouble_of
from shared.delivery import packing
from shared.delivery.dead_letter import read_letter
from shared.delivery.heartbeat import ProcessInfo
from shared.delivery.photo_record import AgentPart
from shared.operations.local_processes import local_state
from shared.webhooks.subscriptions import read_index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from events.keys import Keys
    from events.topology import Stage
    from shared.retry.call_times import SlowCalls


SILENT_SECONDS: Final = 3.0
"""Heartbeats come at least once a second: a process that misses three is frozen, dead, or has no Redis."""
_DEATHS: Final = 5
"""Dead letters whose causes are compared."""


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One process as it described itself, and how long ago (by the server's clock)."""

    consumer: str
    beat_seconds_ago: float
    says: ProcessInfo


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for an agent."""

    backlog: int
    """Entries in its streams, those in flight included."""
    pending: int
    """Of these, handed out and not settled."""
    oldest_seconds: float
    """Age of the oldest entry, 0 without one."""
    delayed: int
    dead: int
    next_due: float | None = None
    """Unix seconds when the first postponed entry comes back; None without one."""
    next_reason: str = ""
    """Why that one was postponed; '' if its photo has no record."""

    @property
    def waiting(self) -> int:
        """Entries that no process has taken yet."""
        return max(self.backlog - self.pending, 0)


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One agent."""

    agent: str
    processes: list[ProcessStatus]
    depth: Depth
    paused_since: float | None
    frozen: list[ProcessStatus] = []
    """Processes that send no heartbeat and exist: on this machine for certain, elsewhere within the lease."""
    ended: list[ProcessStatus] = []
    """Processes of this machine that were killed: their entries are taken over when the lease is over."""
    last_death: str = ""
    """The message of the newest dead letter; only read where recent entries died."""
    last_death_cause: str = ""
    """Its fingerprint, without what differs from photo to photo."""
    deaths_alike: int = 0
    """How many of the newest five dead letters in a row have the same fingerprint as the newest."""

    @property
    def in_hand(self) -> int:
        """Entries its processes work on."""
        return sum(process.says.in_hand for process in self.processes)

    @property
    def breakers_open(self) -> list[str]:
        """Outside parts, and targets as ``part/target``, that are down for one of its processes."""
        return sorted(self.outages)

    @property
    def outages(self) -> dict[str, str]:
        """The same with the reason of each, in a sentence; '' where an older process gives none."""
        return {
            name: process.says.breaker_reasons.get(name, "")
            for process in self.processes
            for name in sorted(process.says.breakers_open)
        }

    @property
    def slow_parts(self) -> dict[str, SlowCalls]:
        """Outside parts that answer slowly, as the process says for which each is slowest."""
        slow: dict[str, SlowCalls] = {}
        for process in self.processes:
            for part, calls in process.says.slow_parts.items():
                if part not in slow or calls.seconds_now > slow[part].seconds_now:
                    slow[part] = calls
        return slow


class PipelineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All agents in the topology's order, and the public streams' lengths.

    The notifier is among them if it runs, if something waits for it, or if a web hook is on.
    """

    agents: list[AgentStatus]
    public: dict[str, int]
    server_time: float


async def read_status(redis: Redis, *, lanes: int = 1, alive_within: float = 15.0) -> PipelineStatus:
    """Read the whole pipeline; `alive_within`: seconds since the last heartbeat of a process that counts."""
    all_keys = keys.all_lanes(lanes)
    now = await _now(redis)
    agents = []
    for stage in topology.STAGES:
        known = await _processes(redis, stage, all_keys, now)
        recent = [process for process in known if process.beat_seconds_ago <= alive_within]
        ended = [process for process in recent if _ended(process)]
        processes = [process for process in recent if process not in ended]
        paused = await _paused(redis, stage, all_keys)
        depth = await depth_of(redis, stage, all_keys)
        if stage is topology.NOTIFIER and not (known or _busy(depth) or await _wanted(redis)):
            # nobody asked for notices, so that nothing is missing
            continue
        some_died = any("x" in process.says.recent for process in processes)
        message, cause, alike = await _last_deaths(redis, stage, all_keys) if some_died else ("", "", 0)
        agents.append(
            AgentStatus(
                agent=stage.agent,
                processes=processes,
                depth=depth,
                paused_since=paused,
                frozen=[process for process in known if _frozen(process, alive_within)],
                ended=ended,
                last_death=message,
                last_death_cause=cause,
                deaths_alike=alike,
            )
        )
    public = {
        name: sum([await redis.xlen(lane.stream(name)) for lane in all_keys]) for name in topology.PUBLIC
    }
    return PipelineStatus(agents=agents, public=public, server_time=now)


def _busy(depth: Depth) -> bool:
    return any((depth.backlog, depth.delayed, depth.dead))


async def _wanted(redis: Redis) -> bool:
    """Return whether there is a web hook that is on; False where the caller's role may not look."""
    try:
        return any((await read_index(redis)).values())
    except RedisError as error:
        if trouble_of(error) is Trouble.NO_PERMISSION:
            return False
        raise


async def depth_of(redis: Redis, stage: Stage, lanes: Sequence[Keys]) -> Depth:
    """What waits for one agent, over all lanes."""
    now = await _now(redis)
    backlog = pending = delayed = dead = 0
    oldest = 0.0
    due: list[tuple[float, str]] = []
    for lane in lanes:
        for name in stage.streams:
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
        first_due = await call(redis, "ZRANGE", lane.delayed(stage.agent), 0, 0, "WITHSCORES")
        if first_due:
            due.append((float(first_due[1]) / 1000, await _why_postponed(redis, stage, lane, first_due[0])))
        dead += await redis.xlen(lane.dead(stage.agent))
    return Depth(
        backlog=backlog,
        pending=pending,
        oldest_seconds=round(max(0.0, oldest), 3),
        delayed=delayed,
        dead=dead,
        next_due=min(due)[0] if due else None,
        next_reason=min(due)[1] if due else "",
    )


async def _why_postponed(redis: Redis, stage: Stage, lane: Keys, member: bytes) -> str:
    """Read in the photo's record why an entry of the delayed set was postponed; '' if it is not known."""
    try:
        photo_id = _photo_of(stage, packing.unpack(member)[1])
    except (ValueError, TypeError, LookupError):
        # a foreign value in our set
        return ""
    raw = await call(redis, "HGET", lane.photo(photo_id), stage.agent) if photo_id else None
    try:
        part = msgspec.json.decode(raw or b"", type=AgentPart)
    except msgspec.DecodeError:
        return ""
    return part.message if part.outcome == "postponed" else ""


def _photo_of(stage: Stage, fields: Sequence[bytes]) -> str:
    for name in stage.reads:
        with contextlib.suppress(codec.UndecodableError):
            return codec.decode(name, "0-0", fields).photo_id or ""
    return ""


async def _now(redis: Redis) -> float:
    seconds, micros = await redis.time()
    return float(seconds) + micros / 1e6


async def _paused(redis: Redis, stage: Stage, lanes: Sequence[Keys]) -> float | None:
    since = [await call(redis, "HGET", lane.paused, stage.agent) for lane in lanes]
    return min((float(value) for value in since if value), default=None)


async def _last_deaths(redis: Redis, stage: Stage, lanes: Sequence[Keys]) -> tuple[str, str, int]:
    """Return the newest dead letter's message and fingerprint, and how many of the newest have its cause."""
    letters: list[tuple[bytes, str, str]] = []
    for lane in lanes:
        page = await call(redis, "XREVRANGE", lane.dead(stage.agent), "+", "-", "COUNT", _DEATHS)
        for dead_id, flat in page:
            letter = read_letter(dead_id, flat, agent=stage.agent, lane=lane.lane)
            letters.append((dead_id, letter.fingerprint, letter.message))
    letters = sorted(letters, key=lambda letter: _moment(letter[0]), reverse=True)[:_DEATHS]
    if not letters:
        return "", "", 0
    _, cause, message = letters[0]
    return message, cause, sum(1 for _ in itertools.takewhile(lambda letter: letter[1] == cause, letters))


def _moment(entry_id: bytes) -> tuple[int, int]:
    millis, _, sequence = entry_id.partition(b"-")
    return int(millis), int(sequence)


def _frozen(process: ProcessStatus, alive_within: float) -> bool:
    """Whether a process without a heartbeat exists: asked of this system, elsewhere believed for a lease."""
    if process.beat_seconds_ago <= SILENT_SECONDS:
        return False
    if process.says.host != socket.gethostname():
        return process.beat_seconds_ago <= alive_within
    return local_state(process.says.pid) != ""


def _ended(process: ProcessStatus) -> bool:
    """Whether a process of this machine is silent and gone; after signing off it would have no record."""
    silent = process.beat_seconds_ago > SILENT_SECONDS and process.says.host == socket.gethostname()
    return silent and Path("/proc/self").exists() and not Path(f"/proc/{process.says.pid}").exists()


async def anybody_lives(redis: Redis, *, lanes: int, alive_within: float) -> bool:
    """Return whether a process of any agent sends heartbeats. Raises what redis-py raises."""
    now = await _now(redis)
    for stage in topology.STAGES:
        for process in await _processes(redis, stage, keys.all_lanes(lanes), now):
            if process.beat_seconds_ago <= alive_within and not _ended(process):
                return True
    return False


async def _processes(redis: Redis, stage: Stage, lanes: Sequence[Keys], now: float) -> list[ProcessStatus]:
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
            # a process has a heartbeat in every lane and says the same in each: the freshest counts
            before = found.get(status.consumer)
            if before is None or status.beat_seconds_ago < before.beat_seconds_ago:
                found[status.consumer] = status
    return sorted(found.values(), key=lambda status: status.says.started)
