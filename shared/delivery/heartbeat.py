"""Sends heartbeats, one loop per process and lane: each process shows that it lives and watches others."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from events.connection import RedisError, trouble_of
from events.keys import RETURNED
from shared.delivery import postponed, scripts
from shared.delivery.lane import ReconnectBackoff
from shared.delivery.news import GroupLost, Neighbours, Stalled

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.delivery.lane import Lane
    from shared.delivery.news import News
    from shared.delivery.runtime import Runtime

BEAT_SECONDS: Final = 1.0
"""Between two heartbeats; less where the lease is so short that looks would lie too far apart (see Watch)."""
_log = structlog.get_logger(__name__)


class ProcessInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what a process records of itself with every heartbeat, for `erni status` and service discovery.

    The names are stored in Redis, where older and newer processes read them.
    """

    host: str
    pid: int
    version: str
    started: float
    """Unix time in seconds."""
    metrics_address: str
    concurrency: int
    in_hand: int
    breakers_open: list[str] = []
    """Outside parts, and targets as ``part/target``, that are down or refuse every photo."""
    breaker_reasons: dict[str, str] = {}
    """Their last failures, in a sentence each."""
    unwell: str = ""
    stopping: bool = False
    done: int = 0
    """Entries handed on since the start; no dead letters, nothing postponed."""
    recent: str = ""
    """The outcomes of the last entries, oldest first: ``.`` done, ``x`` dead (`shared.delivery.recent`)."""
    seconds_now: float = 0.0
    """Seconds a delivery takes now."""
    seconds_usual: float = 0.0
    """Seconds a delivery usually takes; 0: not known yet."""


class Watch:
    """Find the processes whose counter stood still for a lease, on our own monotonic clock.

    Only time between successful looks at most a quarter of the lease apart counts. After a Redis outage, or a
    stall of this process, every process gets a fresh lease; otherwise all would take over from all.
    """

    def __init__(self, lease: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease = lease
        self._clock = clock
        self._looked: float | None = None
        self._since: dict[str, tuple[str, float]] = {}

    def forget(self) -> None:
        """Start the count again, because a look failed."""
        self._looked = None

    def look(self, beats: dict[str, str], owners: set[str], me: str) -> list[tuple[str, str]]:
        """Note the counters as they are now, and return (consumer, counter) of those that are dead.

        A consumer (`owners`) that has no record at all counts as one whose counter is ''.
        """
        now = self._clock()
        if self._looked is None or now - self._looked > self._lease / 4:
            self._since.clear()
        self._looked = now
        seen = {name: beats.get(name, "") for name in beats.keys() | owners if name not in (me, RETURNED)}
        self._since = {
            name: before if (before := self._since.get(name)) and before[0] == counter else (counter, now)
            for name, counter in seen.items()
        }
        return [(name, c) for name, (c, since) in self._since.items() if now - since >= self._lease]


class Heartbeat:
    """Run the heartbeat loop of one process in one lane; it also tries to reach Redis while that is away."""

    def __init__(
        self,
        runtime: Runtime,
        lane: Lane,
        info: Callable[[], ProcessInfo],
        news: News,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the loop. `info` describes the process now; what a heartbeat sees goes to `news`."""
        self._runtime = runtime
        self._lane = lane
        self._info = info
        self._news = news
        self._clock = clock
        self._lease = runtime.settings.lease_seconds
        self._watch = Watch(self._lease, clock)
        self.paused = False
        self.turned = clock()
        """Monotonic time of the last turn, successful or not: health looks at it."""
        self.sent = asyncio.Event()
        """Set after the first heartbeat: what it saw (a pause, for one) is known before the first read."""

    async def run(self) -> None:
        """Send a heartbeat every second until cancelled."""
        backoff = ReconnectBackoff()
        while True:
            before = self._clock()
            if before - self.turned > self._lease / 2:
                self._news.append(Stalled())
            self.turned = before
            self._lane.missed.clear()
            try:
                await self.send()
            except (RedisError, OSError) as error:
                self._watch.forget()
                trouble = trouble_of(error)
                if trouble is None:
                    raise
                await self._lane.gone(trouble, error, "sending a heartbeat")
                await asyncio.sleep(backoff.next())
                continue
            backoff = ReconnectBackoff()
            self._lane.back()
            try:
                async with asyncio.timeout(min(BEAT_SECONDS, self._lease / 8)):
                    await self._lane.missed.wait()
            except TimeoutError:
                continue

    async def send(self) -> None:
        """Send one heartbeat and report what it saw. Raises what redis-py raises."""
        lane, stage, consumer = self._lane, self._runtime.stage, self._runtime.consumer
        record = msgspec.json.encode(self._info())
        beat = await scripts.beat(lane.writing, lane.keys, stage.agent, stage.reads, consumer, record)
        # also those that own nothing: a read that arrived after its sender's end created the consumer again
        owners = {name for _, name, _ in beat.owners}
        paused = beat.paused_since is not None
        if paused != self.paused:
            _log.info("paused" if paused else "resumed", agent=stage.agent)
            self.paused = paused
        self._news.append(
            Neighbours(
                dead=tuple(self._watch.look(beat.beats, owners, consumer)),
                returned=sum(pending for _, name, pending in beat.owners if name == RETURNED),
                paused=paused,
            )
        )
        if beat.without_group:
            self._news.append(GroupLost())
        self.sent.set()
        if beat.due:
            await postponed.move_due(lane, stage, self._runtime.ttls)
