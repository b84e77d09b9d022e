"""Sends heartbeats, one loop per process and lane: each process shows that it lives and watches others."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from events.connection import RedisError, Trouble, trouble_of
from events.keys import RETURNED
from shared.delivery import postponed, scripts
from shared.delivery.lane import ReconnectBackoff
from shared.delivery.news import GroupLost, Neighbours, Paused, Stalled
from shared.retry.call_times import SlowCalls

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shared.delivery.lane import Lane
    from shared.delivery.news import News
    from shared.delivery.runtime import Runtime

BEAT_SECONDS: Final = 1.0
"""Between two heartbeats; less where the lease is so short that looks would lie too far apart (see Watch)."""
MANY: Final = 256
"""With more consumers than this, each look costs the server milliseconds, so looks become as rare as Watch
allows."""
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
    """Seconds for which a delivery is handled now; what Redis takes does not count."""
    seconds_usual: float = 0.0
    """The same usually; 0: not known yet."""
    slow_parts: dict[str, SlowCalls] = {}
    """Outside parts whose calls take much longer than usual (`shared.retry.call_times`)."""


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
        self._interval = min(BEAT_SECONDS, self._lease / 8)
        self._watch = Watch(self._lease, clock)
        self._many = False
        self._looked = -math.inf
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
            self._lane.back()
            try:
                async with asyncio.timeout(self._interval):
                    await self._lane.missed.wait()
            except TimeoutError:
                backoff = ReconnectBackoff()
            else:
                # a server that takes heartbeats and refuses other calls is not asked without pause
                await asyncio.sleep(backoff.next())

    async def send(self) -> None:
        """Send one heartbeat and report what it saw. Raises what redis-py raises."""
        lane, stage, consumer = self._lane, self._runtime.stage, self._runtime.consumer
        record = msgspec.json.encode(self._info())
        beat = await scripts.beat(
            lane.writing, lane.keys, stage.agent, stage.streams, consumer, record, look=not self._many
        )
        self.paused = self._noted(paused=beat.paused_since is not None)
        beats, owners = beat.beats, beat.owners
        lost = bool(beat.without_group)
        if self._many and self._last_chance:
            try:
                beats, owners = await scripts.look(
                    lane.writing, lane.keys, stage.agent, stage.streams, consumer
                )
            except RedisError as error:
                # a stream that is missing is an error without a name of its own
                if trouble_of(error) not in (Trouble.NO_GROUP, Trouble.NOT_SENT):
                    raise
                lost = True
        if beats:
            self._report(beats, owners)
        if lost:
            self._news.append(GroupLost())
        self.sent.set()
        if beat.due:
            await postponed.move_due(lane, stage, self._runtime.ttls)

    @property
    def _last_chance(self) -> bool:
        """Return whether the next heartbeat would look too late: Watch would start its count again."""
        return self._clock() - self._looked + self._interval > self._lease / 4 * 0.6

    def _noted(self, *, paused: bool) -> bool:
        """Send the reader a message when a pause begins or ends; return whether the agent is paused."""
        if paused != self.paused:
            _log.info("paused" if paused else "resumed", agent=self._runtime.stage.agent)
            self._news.append(Paused(paused=paused))
        return paused

    def _report(self, beats: dict[str, str], owners: Sequence[tuple[int, str, int]]) -> None:
        """Report what a look saw, and choose how to look the next time."""
        self._looked = self._clock()
        self._many = len(owners) > MANY
        # also those that own nothing: a read that arrived after its sender's end created the consumer again
        names = {name for _, name, _ in owners}
        self._news.append(
            Neighbours(
                dead=tuple(self._watch.look(beats, names, self._runtime.consumer)),
                returned=sum(pending for _, name, pending in owners if name == RETURNED),
            )
        )
