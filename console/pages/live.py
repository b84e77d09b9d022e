"""Reads the pipeline once a second while somebody looks, for all open pages of the process together."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from console.up_state import agent_states
from events import topology
from events.connection import RedisError, Trouble, trouble_of
from shared.operations import activity
from shared.operations.bulk import Bulk, Operation, Progress
from shared.operations.dead_letters import DeadFilter
from shared.operations.letter_index import LetterIndex
from shared.operations.memory import Memory, read_memory
from shared.operations.session_reports import SessionReports
from shared.operations.status import PipelineStatus, read_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from shared.settings import Settings

WATCHED_SECONDS: Final = 1.0
"""Between two looks while a page is open."""
IDLE_SECONDS: Final = 5.0
"""Between two looks otherwise: so the charts have a past when somebody opens the page."""
AWAKE_SECONDS: Final = 3600.0
"""How long after the last look at a page it goes on: a gateway that nobody looks at asks Redis nothing."""
POINTS: Final = 60
"""Points of a chart, one for each IDLE_SECONDS: five minutes."""

_log = structlog.get_logger(__name__)


class Running(msgspec.Struct, frozen=True):
    """An operation that has not ended."""

    operation: Operation
    progress: Progress


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The pipeline at one moment."""

    at: float
    """By this process's monotonic clock."""
    status: PipelineStatus
    rates: Mapping[str, float]
    """Agent → entries done a second, over the last minute."""
    charts: Mapping[str, tuple[float, ...]]
    """Agent → the same over IDLE_SECONDS each, oldest first."""
    up: Mapping[str, str]
    """What an `erni up` says of agents whose processes do not run."""
    memory: Memory
    running: tuple[Running, ...]
    versions: Mapping[str, str]
    """Topic → changes whenever something of it did."""


class Live:
    """Takes snapshots, and wakes whoever waits for the next one."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._bulk = Bulk(redis, lanes=settings.lanes)
        self.index = LetterIndex(redis, lanes=settings.lanes)
        self.reports = SessionReports(redis, lanes=settings.lanes)
        self._lock = asyncio.Lock()
        self._snapshot: Snapshot | None = None
        self._charts = {agent: _Chart() for agent in topology.CONSUMERS}
        self._memory, self._memory_at = Memory(used=0, limit=0), float("-inf")
        self._closed = False
        self._failed = ""
        self._watching = 0
        self._asked = float("-inf")
        self._wanted = asyncio.Event()
        self._taken = asyncio.Condition()

    async def run(self) -> None:
        """Take a snapshot now and then, until cancelled."""
        while True:
            if not self._watching and time.monotonic() - self._asked > AWAKE_SECONDS:
                await self._wanted.wait()
            await self._round()
            async with self._taken:
                self._taken.notify_all()
            self._wanted.clear()
            if self._watching:
                await asyncio.sleep(WATCHED_SECONDS)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._wanted.wait()

    async def now(self) -> Snapshot:
        """Return a snapshot that is no older than WATCHED_SECONDS. Raises what redis-py raises."""
        self._asked = time.monotonic()
        self._wanted.set()
        async with self._lock:
            if self._snapshot is None or time.monotonic() - self._snapshot.at > WATCHED_SECONDS:
                return await self._read()
            return self._snapshot

    async def changes(self) -> AsyncIterator[Mapping[str, str]]:
        """Yield the versions of all topics, at first and after each snapshot."""
        self._watching += 1
        self._wanted.set()
        try:
            while not self._closed:
                async with self._taken:
                    await self._taken.wait()
                if self._snapshot is not None:
                    yield self._snapshot.versions
        finally:
            self._watching -= 1

    async def close(self) -> None:
        """End what waits for changes: open pages must not hold up the end of the process."""
        self._closed = True
        async with self._taken:
            self._taken.notify_all()

    async def _round(self) -> None:
        try:
            async with self._lock:
                await self._read()
            # behind the snapshot: the first time it reads all dead letters
            await self.index.refresh()
        except (RedisError, OSError):
            # the page itself says that Redis is away
            self._failed = ""
        except Exception as error:  # noqa: BLE001 - whatever it is, the next round is to come
            # the task must live as long as the process; the same failure is said once, not each second
            if repr(error) != self._failed:
                _log.exception("pipeline not read")
            self._failed = repr(error)
        else:
            self._failed = ""

    async def _running(self) -> list[Running]:
        """Return the operations that have not ended, without those that this version cannot read."""
        found = []
        for operation_id in await self._bulk.running():
            try:
                operation = await self._bulk.get(operation_id)
                found.append(Running(operation, await self._bulk.progress(operation_id)))
            except LookupError:
                continue
            except Exception as error:
                # the runner of operations logs it
                if trouble_of(error) not in (None, Trouble.NOT_SENT) or isinstance(error, OSError):
                    raise
        return found

    async def _memory_now(self) -> Memory:
        """Return the server's memory, asked for now and then: it fills slowly."""
        now = time.monotonic()
        if now - self._memory_at >= IDLE_SECONDS:
            self._memory = await read_memory(self._redis, lanes=self._settings.lanes)
            self._memory_at = now
        return self._memory

    async def _read(self) -> Snapshot:
        settings = self._settings
        status = await read_status(
            self._redis, lanes=settings.lanes, alive_within=max(settings.lease_seconds, 3.0)
        )
        up = await asyncio.to_thread(agent_states, settings)
        memory = await self._memory_now()
        running = await self._running()
        letters = await self._bulk.letters.bounds(DeadFilter())
        acted = await activity.latest_id(self._redis)
        await self.reports.refresh()
        for agent in status.agents:
            self._charts[agent.agent].note(
                {process.consumer: process.says.done for process in agent.processes}
            )
        rates = {agent: chart.rate for agent, chart in self._charts.items()}
        depths = [(agent.agent, agent.depth, agent.paused_since) for agent in status.agents]
        silent = [one.consumer for a in status.agents for one in (*a.frozen, *a.ended)]
        processes = [
            (
                one.consumer,
                one.says.breakers_open,
                one.says.done,
                one.says.unwell,
                sorted(one.says.slow_parts),
            )
            for a in status.agents
            for one in a.processes
        ]
        self._snapshot = Snapshot(
            at=time.monotonic(),
            status=status,
            rates=rates,
            charts={agent: tuple(chart.points) for agent, chart in self._charts.items()},
            up=up,
            memory=memory,
            running=tuple(running),
            versions={
                "pipeline": _version(depths, processes, rates, silent, up, memory.nearly_full),
                "photos": _version(status.public, processes, [depth for _, depth, _ in depths]),
                "dead": _version(letters, [depth.dead for _, depth, _ in depths]),
                "activity": _version(acted, running),
                "running": _version(running),
            },
        )
        return self._snapshot


class _Chart:
    """Turns the counters of an agent's processes into rates."""

    def __init__(self) -> None:
        self.points: deque[float] = deque(maxlen=POINTS)
        self._seen: dict[str, int] = {}
        self._at = 0.0
        self._began = 0.0
        self._done = 0

    @property
    def rate(self) -> float:
        """Return the rate of the last minute."""
        last = list(self.points)[-12:]
        return sum(last) / len(last) if last else 0.0

    def note(self, done: Mapping[str, int]) -> None:
        """Note how many entries each process has done since it started."""
        now = time.monotonic()
        if self._at:
            # what a process did before we first saw it belongs to no moment
            self._done += sum(max(0, count - self._seen.get(name, count)) for name, count in done.items())
        else:
            self._began = now
        self._seen, self._at = dict(done), now
        if now - self._began >= IDLE_SECONDS:
            self.points.append(self._done / (now - self._began))
            self._began, self._done = now, 0


def _version(*parts: object) -> str:
    """Return a short text that changes with what the parts say; ages change every second and are left out."""
    text = msgspec.json.encode(parts, enc_hook=str)
    return hashlib.sha256(text).hexdigest()[:12]
