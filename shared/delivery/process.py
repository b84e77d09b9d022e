"""Runs an agent process: its lanes and loops, from start-up to the last entry."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import structlog

from events import keys, topology
from shared.delivery import startup
from shared.delivery.dead_letter import VERSION
from shared.delivery.heartbeat import ProcessInfo
from shared.delivery.lane import ReconnectBackoff
from shared.delivery.lane_worker import LaneWorker
from shared.delivery.runtime import Runtime
from shared.retry.call_times import slow_parts
from shared.telemetry.server import HealthServer, HealthState
from shared.telemetry.tracing import DeliverySpans

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from redis.asyncio import Redis

    from shared.delivery.agent import Agent
    from shared.settings import Settings
    from shared.telemetry.metrics import AgentMetrics

_STUCK_LEASES = 4.0
"""A loop that has not turned for so many leases has stopped."""
_RELEASE_SECONDS = 5.0
"""How long a process that stops waits for Redis to take its last settlements."""
_BACKGROUND_PAUSE = 10.0
"""Seconds before background jobs begin again after a mistake in them."""
_log = structlog.get_logger(__name__)


def consumer_name() -> str:
    """Make a name unique per start: host, pid, a random part (a restarted container reuses pids)."""
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(3)}"


class AgentProcess:
    """Run one agent until it is stopped.

    `stop` ends reading and retry waits. Entries in flight that finish within GRACE_SECONDS are settled, and
    the rest is released. A second `stop` releases everything at once.
    """

    def __init__(
        self,
        agent: Agent[Any, Any],
        settings: Settings,
        *,
        consumer: str | None = None,
        lanes: Sequence[keys.Keys] | None = None,
        spans: DeliverySpans | None = None,
        background: Callable[[AgentProcess], Awaitable[None]] | None = None,
        join: Callable[[Redis, Settings], Awaitable[None]] | None = None,
    ) -> None:
        """Read `lanes`, by default all of LANES. `background` runs beside the loops until they end.

        `join` runs once Redis answers, before the first heartbeat; what it raises ends the process.
        """
        name = consumer or consumer_name()
        self.runtime = Runtime.of(
            agent, topology.stage_of(agent.name), settings, name, spans or DeliverySpans(consumer=name)
        )
        self.keys = tuple(lanes) if lanes else keys.all_lanes(settings.lanes)
        self._background = background
        self._join = join
        self._hurry = asyncio.Event()
        self._started = time.time()
        self._lanes: list[LaneWorker] = []
        self._server: HealthServer | None = None
        self.ready = asyncio.Event()
        """Set when the process has sent a heartbeat in every lane and reads."""

    @property
    def redis(self) -> Redis:
        """Return the first lane's connection that is not used for reading entries."""
        return self._lanes[0].lane.writing

    @property
    def metrics(self) -> AgentMetrics:
        """Return the metrics of the process."""
        return self.runtime.metrics

    def stop(self) -> None:
        """Stop as SIGTERM does; a second call releases everything at once."""
        if self.runtime.stopping.is_set():
            self._hurry.set()
        self.runtime.stopping.set()

    def handle_signals(self) -> None:
        """Stop at SIGTERM and SIGINT; a second one releases everything at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    async def run(self, *, serve: bool = True) -> None:
        """Run until stopped. Raises RedisUnfitError or SettingsError if it cannot start.

        `serve`: whether to serve /health, /ready and /metrics.
        """
        runtime = self.runtime
        if serve:
            self._server = HealthServer(runtime.settings, self.health)
            await self._server.start()
        try:
            self._lanes = [LaneWorker(runtime, lane_keys, self._info) for lane_keys in self.keys]
            await self._wait_for_redis()
            if runtime.stopping.is_set():
                return
            await runtime.agent.open()
            calm_collector()
            try:
                await self._work()
            finally:
                await runtime.agent.close()
        finally:
            if self._server:
                await self._server.stop()
            for worker in self._lanes:
                await worker.close()

    async def _wait_for_redis(self) -> None:
        """Wait until Redis answers, then check that its settings can keep our promises."""
        settings, stopping = self.runtime.settings, self.runtime.stopping
        backoff, away_since = ReconnectBackoff(), 0.0
        while not stopping.is_set():
            try:
                await startup.require(
                    self.redis, lanes=settings.lanes, allow_volatile=settings.allow_volatile_redis
                )
                if self._join is not None:
                    await self._join(self.redis, settings)
                # before the first entry ends, whose notices would be missing
                await self.runtime.subscriptions.refresh(self.redis)
            except Exception as error:
                if not startup.is_passing(error):
                    raise
                if not away_since:
                    away_since = time.monotonic()
                    _log.warning("waiting for redis", error=str(error)[:300])
                await _either(asyncio.sleep(backoff.next()), stopping.wait())
                continue
            if away_since:
                _log.info("redis is back", seconds=round(time.monotonic() - away_since, 3))
            return

    async def _work(self) -> None:
        heartbeats = [asyncio.create_task(worker.heartbeat.run()) for worker in self._lanes]
        readers = [asyncio.create_task(worker.read()) for worker in self._lanes]
        others = [
            asyncio.create_task(self.runtime.limits.watch()),
            asyncio.create_task(self.runtime.subscriptions.keep(self.redis)),
            asyncio.create_task(self._begun()),
        ]
        if self._background is not None:
            others.append(asyncio.create_task(self._run_background(self._background)))
        stopped = asyncio.create_task(self.runtime.stopping.wait())
        try:
            # a loop that ends by itself has a bug: the process ends too, the supervisor starts another
            done, _ = await asyncio.wait(
                [*heartbeats, *readers, stopped], return_when=asyncio.FIRST_COMPLETED
            )
            if not self.runtime.stopping.is_set():
                for task in done:
                    task.result()
            await asyncio.wait(readers)
            await self._drain()
        finally:
            await _end(*heartbeats, *readers, *others, stopped)
            for worker in self._lanes:
                await worker.stop_work()
        # after the last heartbeat, which would bring the record back
        for worker in self._lanes:
            await worker.sign_off()
        _log.info("stopped")
        for task in readers:
            if not task.cancelled() and (error := task.exception()):
                raise error

    async def _run_background(self, background: Callable[[AgentProcess], Awaitable[None]]) -> None:
        """Run the background jobs, and begin again after a mistake in them, whose end nobody would notice."""
        while True:
            try:
                await background(self)
            except Exception:  # noqa: BLE001 - photos go on, whatever it is
                _log.exception("a background job failed; all begin again")
            else:
                return
            await asyncio.sleep(_BACKGROUND_PAUSE)

    async def _begun(self) -> None:
        """Report when every lane reads."""
        for worker in self._lanes:
            await worker.reader.begun.wait()
        self.ready.set()
        _log.info(
            "agent reads",
            streams=[key.stream(name) for key in self.keys for name in self.runtime.stage.streams],
            concurrency=self.runtime.settings.concurrency,
        )

    async def _drain(self) -> None:
        """Finish the entries in flight within the grace and release the rest, as far as Redis answers."""
        grace = self.runtime.settings.grace_seconds
        _log.info("stopping", in_hand=self._in_flight, grace_seconds=grace)
        if not self._in_flight:
            return
        await _either(self._wait_empty(), self._hurry.wait(), timeout=grace)
        for worker in self._lanes:
            worker.in_flight.cancel_handlers()
        await _either(self._wait_empty(), timeout=_RELEASE_SECONDS)
        if self._in_flight:
            # Redis does not answer; what is not settled stays pending, and is taken over after a lease
            _log.warning("left entries behind, others take them over", entries=self._in_flight)

    async def _wait_empty(self) -> None:
        for worker in self._lanes:
            await worker.in_flight.wait_empty()

    @property
    def _in_flight(self) -> int:
        return sum(len(worker.in_flight) for worker in self._lanes)

    def _info(self) -> ProcessInfo:
        runtime = self.runtime
        runtime.metrics.in_hand.set(self._in_flight)
        recent = [worker.accounting.recent for worker in self._lanes]
        return ProcessInfo(
            host=socket.gethostname(),
            pid=os.getpid(),
            version=VERSION,
            started=round(self._started, 3),
            metrics_address=self._server.address if self._server else "",
            concurrency=runtime.settings.concurrency,
            in_hand=self._in_flight,
            breakers_open=runtime.breakers.open_names,
            breaker_reasons=runtime.breakers.reasons,
            unwell=runtime.gate.reason,
            stopping=runtime.stopping.is_set(),
            done=sum(worker.accounting.done for worker in self._lanes),
            recent="".join(one.outcomes for one in recent),
            seconds_now=round(max(one.seconds_now for one in recent), 4),
            seconds_usual=round(max(one.seconds_usual for one in recent), 4),
            slow_parts=slow_parts(),
        )

    def health(self) -> HealthState:
        """Report live unless a loop stopped turning, and ready while it can read.

        It cannot while Redis is away, an outside part is down, or this machine is unhealthy.
        """
        runtime, now = self.runtime, time.monotonic()
        longest = runtime.settings.lease_seconds * _STUCK_LEASES
        stopping = runtime.stopping.is_set()
        reasons: list[str] = []
        live = True
        ready = self.ready.is_set() and not stopping
        if not self.ready.is_set():
            reasons.append("starting")
        if stopping:
            reasons.append("stopping")
        for worker in self._lanes:
            lane = worker.lane
            if lane.away_since is not None:
                ready = False
                trouble = lane.trouble.value if lane.trouble else "away"
                reasons.append(f"Redis is away ({trouble}) for {now - lane.away_since:.0f} s")
            elif self.ready.is_set() and not stopping:
                stuck = [name for name, at in worker.turns().items() if now - at > longest]
                if stuck:
                    live = False
                    reasons.append(f"the loop {' and '.join(stuck)} has stopped turning")
        if runtime.breakers.reading_stopped:
            ready = False
            reasons += [f"{name}: {reason}" for name, reason in runtime.breakers.reasons.items()]
        if why := runtime.gate.reason:
            ready = False
            reasons.append(f"this machine is unhealthy, reading stops: {why}")
        details: dict[str, str | int | float | bool] = {
            "agent": runtime.agent.name,
            "consumer": runtime.consumer,
            "in_hand": self._in_flight,
        }
        return HealthState(live=live, ready=ready, reasons=tuple(reasons), details=details)


def calm_collector() -> None:
    """Look for reference cycles less often, and not among what was loaded at the start.

    Reference counts free the objects of a hand-off. The collector by default looks every 700 allocations, and
    finds nothing among them. A request of the gateway is the same.
    """
    if not gc.get_freeze_count():
        # freeze once: a second time would keep for good what an earlier agent of this process left
        gc.collect()
        gc.freeze()
    gc.set_threshold(10_000, 10, 10)


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until they have ended: a client that is connecting may swallow a cancellation."""
    pending = set(tasks)
    for _ in range(100):
        if not pending:
            return
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)
    _log.error("tasks that do not end are left alone", tasks=[str(task) for task in pending])


async def _either(*waits: Any, timeout: float | None = None) -> None:  # noqa: ASYNC109 - for asyncio.wait
    """Return when one of the waits is over, or after `timeout` seconds; the others are cancelled."""
    tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
