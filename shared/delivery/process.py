"""An agent process: its lanes and loops, from start-up to the last entry."""

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
from events.connection import connect
from events.publisher import SESSION_TTL_IN_FLIGHT
from shared.delivery import startup
from shared.delivery.dead_letter import VERSION
from shared.delivery.endings import Endings
from shared.delivery.handling import Handling
from shared.delivery.heartbeat import Heart, Says
from shared.delivery.lane import Lane
from shared.delivery.reader import Intake
from shared.delivery.settler import Settler, Ttls
from shared.delivery.slots import Slots
from shared.retry.breaker import Breakers
from shared.retry.limit import TimeLimits
from shared.sessions.shared_store import SharedSessions
from shared.telemetry.metrics import BREAKER_OPEN, AgentMetrics
from shared.telemetry.server import HealthServer, HealthState
from shared.telemetry.tracing import DeliverySpans

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from redis.asyncio import Redis

    from events.topology import Stage
    from shared.delivery.agent import Agent
    from shared.settings import Settings

_STUCK_LEASES = 4.0
"""A loop that has not turned for so many leases has stopped."""
_GIVE_BACK_SECONDS = 5.0
"""How long a process that stops waits for Redis to take its last settlements."""
_log = structlog.get_logger(__name__)


def consumer_name() -> str:
    """Unique per start: host, pid, and a random part (a pid comes back after a restart of a container)."""
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(3)}"


class AgentProcess:
    """Runs one agent until it is told to stop.

    `stop` ends reading and retry waits; what is in hand is finished within GRACE_SECONDS and settled, the
    rest is given back. `hurry` gives everything back at once.
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
    ) -> None:
        """`lanes`: those to read, default all of LANES. `background` runs beside the loops until they end."""
        self.agent = agent
        self.stage: Stage = topology.stage_of(agent.name)
        self.settings = settings
        self.consumer = consumer or consumer_name()
        self.keys = tuple(lanes) if lanes else keys.all_lanes(settings.lanes)
        self._background = background
        self._spans = spans or DeliverySpans(consumer=self.consumer)
        self.metrics = AgentMetrics(agent.name)
        self.slots = Slots(settings.concurrency)
        self.breakers = Breakers(agent.dependencies, on_change=_show_breaker)
        self._limits = TimeLimits(settings.handle_timeout)
        self.stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._started = time.time()
        self._lanes: list[_LaneLoops] = []
        self._server: HealthServer | None = None
        self._clients: list[Redis] = []
        self.ready = asyncio.Event()
        """Set when the process has beaten in every lane and reads."""

    @property
    def redis(self) -> Redis:
        """The connection that is not used for reading entries, of the first lane."""
        return self._lanes[0].lane.writing

    def stop(self) -> None:
        """Stop as SIGTERM does; a second call hurries."""
        if self.stopping.is_set():
            self._hurry.set()
        self.stopping.set()

    def handle_signals(self) -> None:
        """SIGTERM and SIGINT stop; a second one gives everything back at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    async def run(self, *, serve: bool = True) -> None:
        """Run until stopped. Raises RedisUnfitError or SettingsError if it cannot start.

        `serve`: whether to serve /health, /ready and /metrics.
        """
        if serve:
            self._server = HealthServer(self.settings, self.health)
            await self._server.start()
        try:
            self._lanes = [self._make_lane(lane_keys) for lane_keys in self.keys]
            await self._fit()
            if self.stopping.is_set():
                return
            await self.agent.open()
            _calm_collector()
            try:
                await self._work()
            finally:
                await self.agent.close()
        finally:
            if self._server:
                await self._server.stop()
            for client in self._clients:
                await client.aclose()

    async def _fit(self) -> None:
        """Wait until Redis answers, then check that it can keep what we promise."""
        lane = self._lanes[0].lane
        while not self.stopping.is_set():
            try:
                await startup.insist(
                    lane.writing,
                    lanes=self.settings.lanes,
                    allow_volatile=self.settings.allow_volatile_redis,
                )
            except Exception as error:
                if startup.is_passing(error):
                    _log.warning("waiting for redis", error=str(error)[:300])
                    await _either(asyncio.sleep(1.0), self.stopping.wait())
                    continue
                raise
            return

    async def _work(self) -> None:
        hearts = [asyncio.create_task(loops.heart.run(), name="heart") for loops in self._lanes]
        intakes = [asyncio.create_task(loops.intake.run(), name="intake") for loops in self._lanes]
        others = [asyncio.create_task(self._limits.watch()), asyncio.create_task(self._begun())]
        if self._background is not None:
            others.append(asyncio.ensure_future(self._background(self)))
        try:
            # a loop that ends by itself has a bug: let the process end with it, the supervisor starts another
            done, _ = await asyncio.wait([*hearts, *intakes], return_when=asyncio.FIRST_COMPLETED)
            if not self.stopping.is_set():
                for task in done:
                    task.result()
            await asyncio.wait(intakes)
            await self._drain()
        finally:
            await _end(*hearts, *intakes, *others)
        # after the last beat, which would bring the record back
        for loops in self._lanes:
            await loops.leave()
        _log.info("stopped")
        for task in intakes:
            if not task.cancelled() and (error := task.exception()):
                raise error

    async def _begun(self) -> None:
        """Say so when every lane reads."""
        for loops in self._lanes:
            await loops.intake.begun.wait()
        self.ready.set()
        _log.info(
            "agent reads",
            streams=[key.stream(name) for key in self.keys for name in self.stage.reads],
            concurrency=self.settings.concurrency,
        )

    async def _drain(self) -> None:
        """Finish what is in hand within the grace and give back the rest, as far as Redis answers."""
        tasks = [task for loops in self._lanes for task in loops.intake.hands.tasks()]
        _log.info("stopping", in_hand=len(tasks), grace_seconds=self.settings.grace_seconds)
        if not tasks:
            return
        await _either(_all(tasks), self._hurry.wait(), timeout=self.settings.grace_seconds)
        for loops in self._lanes:
            loops.intake.hands.cancel_handlers()
        await _either(_all(tasks), timeout=_GIVE_BACK_SECONDS)
        left = [task for task in tasks if not task.done()]
        if left:
            # Redis does not answer; what is not settled stays pending, and is taken over after a lease
            _log.warning("left entries behind, others take them over", entries=len(left))
            settlers = [settler for loops in self._lanes for settler in loops.settlers]
            await _end(*left, *(sending for settler in settlers if (sending := settler.sending)))

    def _make_lane(self, lane_keys: keys.Keys) -> _LaneLoops:
        settings, stage = self.settings, self.stage
        clients = [
            connect(
                settings.redis_url, password=str(settings.redis_password), client_name=f"erni:{stage.agent}"
            )
            for _ in range(2)
        ]
        self._clients += clients
        lane = Lane(lane_keys, reading=clients[0], writing=clients[1])
        ttls = Ttls(
            photo=int(settings.photo_record_hours * 3600_000),
            session=settings.session_ttl * 1000,
            session_in_flight=SESSION_TTL_IN_FLIGHT * 1000,
        )
        loops = _LaneLoops(lane, self)
        sessions = SharedSessions(
            lane.writing, lanes=settings.lanes, most=settings.session_max, ttl=settings.session_ttl
        )
        settlers = [
            Settler(
                lane,
                stream=name,
                completed=topology.COMPLETED,
                agent=stage.agent,
                consumer=self.consumer,
                ttls=ttls,
                metrics=self.metrics,
                group_lost=loops.group_lost,
                sessions=sessions,
            )
            for name in stage.reads
        ]
        loops.handling = Handling(
            self.agent,
            stage,
            lane,
            lanes=settings.lanes,
            endings=Endings(
                stage,
                lane_keys,
                self.consumer,
                photo_records=settings.photo_record_hours > 0,
                sessions=settings.session_backend == "redis",
            ),
            settlers=settlers,
            breakers=self.breakers,
            metrics=self.metrics,
            spans=self._spans,
            limits=self._limits,
            max_deliveries=settings.max_deliveries,
            stopping=self.stopping,
            unwell=self._unwell,
        )
        loops.heart = Heart(
            lane, stage, consumer=self.consumer, lease=settings.lease_seconds, says=self._says, ttls=ttls
        )
        loops.intake = Intake(
            lane,
            stage,
            consumer=self.consumer,
            heart=loops.heart,
            handling=loops.handling,
            slots=self.slots,
            breakers=self.breakers,
            metrics=self.metrics,
            lease=settings.lease_seconds,
            max_deliveries=settings.max_deliveries,
            stopping=self.stopping,
        )
        loops.settlers = settlers
        return loops

    def _unwell(self, message: str, only_redis: bool) -> None:  # noqa: FBT001 - a callback's value
        for loops in self._lanes:
            loops.intake.be_unwell(message, only_redis=only_redis)

    def _says(self) -> Says:
        address = self._server.address if self._server else ""
        in_hand = sum(len(loops.intake.hands) for loops in self._lanes)
        self.metrics.in_hand.set(in_hand)
        return Says(
            host=socket.gethostname(),
            pid=os.getpid(),
            version=VERSION,
            started=round(self._started, 3),
            metrics_address=address,
            concurrency=self.settings.concurrency,
            in_hand=in_hand,
            breakers_open=self.breakers.open_names,
            unwell=next((loops.intake.unwell for loops in self._lanes if loops.intake.unwell), ""),
            stopping=self.stopping.is_set(),
            done=sum(loops.handling.done for loops in self._lanes),
        )

    def health(self) -> HealthState:
        """Live unless a loop has stopped turning; ready while Redis answers and no breaker is open."""
        now = time.monotonic()
        longest = self.settings.lease_seconds * _STUCK_LEASES
        reasons: list[str] = []
        live = True
        ready = self.ready.is_set() and not self.stopping.is_set()
        if not self.ready.is_set():
            reasons.append("starting")
        if self.stopping.is_set():
            reasons.append("stopping")
        for loops in self._lanes:
            if loops.lane.away_since is not None:
                ready = False
                trouble = loops.lane.trouble.value if loops.lane.trouble else "away"
                reasons.append(f"Redis is away ({trouble}) for {now - loops.lane.away_since:.0f} s")
            elif self.ready.is_set() and not self.stopping.is_set():
                stuck = [n for n, at in loops.turns().items() if now - at > longest]
                if stuck:
                    live = False
                    reasons.append(f"the loop {' and '.join(stuck)} has stopped turning")
        if self.breakers.reading_stopped:
            ready = False
            reasons.append(f"{', '.join(self.breakers.open_names)} fails or throttles: breaker open")
        details: dict[str, str | int | float | bool] = {
            "agent": self.agent.name,
            "consumer": self.consumer,
            "in_hand": sum(len(loops.intake.hands) for loops in self._lanes),
        }
        return HealthState(live=live, ready=ready, reasons=tuple(reasons), details=details)


class _LaneLoops:
    """The parts of one lane in a process."""

    lane: Lane
    heart: Heart
    intake: Intake
    handling: Handling
    settlers: list[Settler]

    def __init__(self, lane: Lane, process: AgentProcess) -> None:
        self.lane = lane
        self._process = process

    def group_lost(self) -> None:
        """A settle found no group: the intake makes it again."""
        self.heart.without_group = True

    def turns(self) -> dict[str, float]:
        """Loop name → monotonic time of its last turn."""
        return {"heart": self.heart.turned, "intake": self.intake.turned}

    async def leave(self) -> None:
        """Take consumer and record away with the last entry; if some entry is still ours, leave both.

        Best effort: what is left behind, the others take over after a lease.
        """
        from shared.delivery.scripts import take_over

        process = self._process
        try:
            await take_over(
                self.lane.writing,
                self.lane.keys,
                process.stage.agent,
                process.stage.reads,
                taker=keys.RETURNED,
                whose=process.consumer,
                seen="*",
                most=0,
                suspect=False,
                max_deliveries=1 << 30,
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the take-over of the others mends it
            _log.warning("left without signing off", error=str(error)[:200])


def _show_breaker(name: str, is_open: bool) -> None:  # noqa: FBT001 - a callback's value
    BREAKER_OPEN.labels(name).set(1 if is_open else 0)


def _calm_collector() -> None:
    """Look for reference cycles less often, and not among what was loaded at the start.

    The objects of a hand-off die by their count; the collector's default, a look every 700 allocations,
    finds nothing among them.
    """
    if not gc.get_freeze_count():
        # once: frozen a second time, what an earlier agent of this process left would stay for good
        gc.collect()
        gc.freeze()
    gc.set_threshold(10_000, 10, 10)


async def _end(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks until they have ended: a client that is connecting may swallow a cancellation."""
    pending = set(tasks)
    for _ in range(100):
        if not pending:
            return
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)
    _log.error("tasks that do not end are left alone", tasks=[str(task) for task in pending])


async def _all(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Return when all have ended; a cancellation of the wait does not reach them."""
    await asyncio.wait(tasks)


async def _either(*waits: Any, timeout: float | None = None) -> None:  # noqa: ASYNC109 - for asyncio.wait
    """Return when one of the waits is over, or after `timeout` seconds; the others are cancelled."""
    tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
