"""The hand that carries a schedule out: on processes, on Redis, on connections and on what agents call."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final, Protocol

from events import topology
from events.connection import RedisError
from tests.chaos.schedule import HOUR
from tests.chaos.server import Server
from tests.chaos.several import Several

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.chaos.herd import Process
    from tests.chaos.proxy import Proxy
    from tests.chaos.schedule import Action, Schedule

_NAP: Final = 0.05


@dataclass(frozen=True)
class TakeOver:
    """How long after a SIGKILL what the process had in hand was with others."""

    agent: str
    entries: int
    seconds: float


@dataclass(frozen=True)
class Interval:
    """Monotonic times of something that lasted."""

    what: str
    start: float
    end: float


class Outside(Protocol):
    """What agents call."""

    async def trouble(self, *, on: bool) -> None:
        """Let a share of the calls fail, or none any more."""


class Processes(Protocol):
    """The processes that may be hit: a herd, or two that run different code."""

    @property
    def slots(self) -> Sequence[Process]:
        """The one that is at work in each place."""

    @property
    def all(self) -> Sequence[Process]:
        """Every process there ever was."""


class Nemesis:
    """Carries a schedule out, and remembers what it did and when."""

    def __init__(
        self, plan: Schedule, *, server: Server | Several, proxy: Proxy, herd: Processes, outside: Outside
    ) -> None:
        self.plan = plan
        self._server = server
        self._proxy = proxy
        self._herd = herd
        self._outside_world = outside
        self._rng = random.Random(f"hand {plan.seed}")
        self.done: Counter[str] = Counter()
        self.take_overs: list[TakeOver] = []
        self.intervals: list[Interval] = []
        """Outages of Redis, strikes, and time the take-over measurement must not count."""
        self.bytes_lost = 0
        """Unsynced bytes that power cuts took."""
        self.longest_lag = 0.0
        """Seconds by which our own loop was late at worst: how busy this machine is."""
        self._busy: set[asyncio.Task[None]] = set()
        self._server_lock = asyncio.Lock()

    async def run(self) -> None:
        """Do everything at its time; returns when the last of it has ended."""
        begun = time.monotonic()
        for action in self.plan.actions:
            await asyncio.sleep(max(0.0, begun + action.at - time.monotonic()))
            self._begin(self._do(action))
        await asyncio.sleep(max(0.0, begun + self.plan.duration - time.monotonic()))
        while self._busy:
            await asyncio.wait(self._busy)

    async def watch_machine(self) -> None:
        """Note when this machine was so busy that a process may have looked dead; until cancelled."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(_NAP)
            now = time.monotonic()
            self.longest_lag = max(self.longest_lag, now - before - _NAP)
            if now - before > self.plan.lease / 4:
                self.intervals.append(Interval("starved", before, now))

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._busy.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._busy.discard(task)
        if not task.cancelled() and task.exception():
            task.get_loop().call_exception_handler(
                {"message": "the nemesis failed", "exception": task.exception(), "task": task}
            )
            self.done["failed"] += 1

    async def _do(self, action: Action) -> None:
        call: Callable[[Action], Awaitable[None]] = getattr(self, f"_{action.what}")
        await call(action)

    def _process(self, place: int) -> Process | None:
        """The process in that place, or the next one that runs."""
        slots = self._herd.slots
        for number in range(len(slots)):
            process = slots[(place + number) % len(slots)]
            if process.alive and not self._stopped(process):
                return process
        return None

    @staticmethod
    def _stopped(process: Process) -> bool:
        pauses = [number for _, number in process.signals if number in (signal.SIGSTOP, signal.SIGCONT)]
        return bool(pauses) and pauses[-1] == signal.SIGSTOP

    # --- processes --------------------------------------------------------------------------------------

    async def _kill(self, action: Action) -> None:
        process = self._process(action.target)
        if process is None:
            return
        process.send(signal.SIGKILL)
        self.done["SIGKILL"] += 1
        self._begin(self._watch_take_over(process, time.monotonic()))

    async def _stop(self, action: Action) -> None:
        process = self._process(action.target)
        if process is None:
            return
        process.send(signal.SIGSTOP)
        self.done["SIGSTOP past the lease"] += 1
        await asyncio.sleep(action.value)
        process.send(signal.SIGCONT)

    async def _term(self, action: Action) -> None:
        process = self._process(action.target)
        if process is not None:
            process.send(signal.SIGTERM)
            self.done["SIGTERM"] += 1

    async def _watch_take_over(self, process: Process, killed: float) -> None:
        """Measure, unless something kept all others from it: Redis away, strikes, or they were killed too."""
        deadline = killed + self.plan.lease * 3 + 10
        had = await self._owned(process)
        owned = had
        while owned and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
            owned = await self._owned(process)
        if not had or owned is None:
            return
        now = time.monotonic()
        watched = any(
            other.agent == process.agent
            and other.alive
            and other.started < killed
            and not any(at > killed for at, _ in other.signals)
            for other in self._herd.all
        )
        troubled = any(
            interval.start < now and interval.end > killed - self.plan.lease for interval in self.intervals
        )
        if watched and not troubled:
            self.take_overs.append(TakeOver(process.agent, had, now - killed))

    async def _owned(self, process: Process) -> int | None:
        """How many entries Redis says a process has in hand; None if it does not say."""
        mark = f"-{process.pid}-"
        pending = 0
        try:
            for lane, stream in product(self._server.lanes, topology.stage_of(process.agent).streams):
                for consumer in await self._server.admin.xinfo_consumers(lane.stream(stream), process.agent):
                    if mark in consumer["name"].decode():
                        pending += consumer["pending"]
        except (RedisError, OSError):
            return None
        return pending

    # --- the server -------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _interval(self, what: str) -> Any:
        start = time.monotonic()
        try:
            yield
        finally:
            self.intervals.append(Interval(what, start, time.monotonic()))

    @property
    def _one(self) -> Server:
        assert isinstance(self._server, Server), "these faults are those of one server"
        return self._server

    @property
    def _several(self) -> Several:
        assert isinstance(self._server, Several), "these faults are those of several servers"
        return self._server

    async def _fail_over(self, action: Action) -> None:
        async with self._server_lock, self._interval("fail-over"):
            began, changed = await self._several.fail_over(action.kind, self._rng)
            self.intervals.append(Interval("change of primary", began, changed))
            self.done[f"fail-over: {action.kind}"] += 1

    async def _move(self, action: Action) -> None:
        async with self._server_lock, self._interval("move"):
            await self._several.move(action.value, self._rng)
            self.done["slot moved"] += 1

    async def _cut(self, action: Action) -> None:
        async with self._server_lock, self._interval("outage"):
            await self._several.cut(action.value, self._rng)
            self.done["cut off"] += 1

    async def _redis_kill(self, action: Action) -> None:
        async with self._server_lock, self._interval("outage"):
            self._one.kill()
            self.done["Redis SIGKILL"] += 1
            await asyncio.sleep(action.value)
            await self._one.start()
            await self._one.rotate()

    async def _power_cut(self, action: Action) -> None:
        async with self._server_lock, self._interval("outage"):
            self.bytes_lost += self._one.cut_power()
            self.done["power cut"] += 1
            await asyncio.sleep(action.value)
            await self._one.start()
            await self._one.rotate()

    async def _fill_disk(self, action: Action) -> None:
        if self._one.disk is None:
            return
        async with self._server_lock, self._interval("outage"):
            await asyncio.to_thread(self._one.disk.fill)
            self.done["full disk"] += 1
            end = time.monotonic() + action.value
            while time.monotonic() < end:
                await asyncio.sleep(0.1)
                if not self._one.running:
                    # as a supervisor would: it comes up only when there is space
                    with contextlib.suppress(TimeoutError):
                        await self._one.start(max(0.1, end - time.monotonic()))
            await asyncio.to_thread(self._one.disk.free)
            await self._one.start()

    async def _squeeze(self, action: Action) -> None:
        async with self._server_lock:
            await self._one.squeeze()
            self.done["memory limit"] += 1
            await asyncio.sleep(action.value)
            await self._one.release()

    async def _jump(self, action: Action) -> None:
        async with self._server_lock, self._interval("clock"):
            self._one.jump(HOUR if action.kind == "forward" else -HOUR)
            self.done["clock jump"] += 1
            await asyncio.sleep(action.value)
            self._one.jump(0)
            self.done["clock jump"] += 1

    # --- the network and the outside ----------------------------------------------------------------------

    async def _strike(self, action: Action) -> None:
        self._proxy.strike(action.kind, self._rng, stall=action.value)
        self.done["network strike"] += 1
        now = time.monotonic()
        self.intervals.append(Interval("strike", now, now + max(action.value, 1.0)))

    async def _refuse_connections(self, action: Action) -> None:
        async with self._interval("strike"):
            self._proxy.shut = True
            self.done["connections refused"] += 1
            await asyncio.sleep(action.value)
            self._proxy.shut = False

    async def _outside(self, action: Action) -> None:
        await self._outside_world.trouble(on=True)
        self.done["outside trouble"] += 1
        await asyncio.sleep(action.value)
        await self._outside_world.trouble(on=False)
