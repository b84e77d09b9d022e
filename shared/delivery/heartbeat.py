"""Beats: a process is alive, not a message. Each tells the others so, and watches whether they do."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from events.connection import RedisError, trouble_of
from events.keys import RETURNED
from shared.delivery import postponed as delayed
from shared.delivery import scripts
from shared.delivery.lane import Knocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from events.topology import Stage
    from shared.delivery.lane import Lane
    from shared.delivery.settler import Ttls

BEAT_SECONDS: Final = 1.0
"""Between two beats; less where the lease is so short that looks would lie too far apart (see Watch)."""
_log = structlog.get_logger(__name__)


class Says(msgspec.Struct, frozen=True, kw_only=True):
    """What a process tells of itself with every beat; `erni status` and service discovery read it."""

    host: str
    pid: int
    version: str
    started: float
    """Unix time in seconds."""
    metrics_address: str
    concurrency: int
    in_hand: int
    breakers_open: list[str] = []
    unwell: str = ""
    stopping: bool = False
    done: int = 0
    """Entries settled since the start."""


class Watch:
    """Who stood still for a lease, on our own monotonic clock.

    Stillness counts only between successful looks that follow each other closely (a quarter of the lease):
    after a Redis outage, or a stall of this process, everybody gets a fresh lease, or all would take over
    from all.
    """

    def __init__(self, lease: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease = lease
        self._clock = clock
        self._looked: float | None = None
        self._since: dict[str, tuple[str, float]] = {}

    def forget(self) -> None:
        """A look failed: start the count again."""
        self._looked = None

    def look(self, beats: dict[str, str], owners: set[str], me: str) -> list[tuple[str, str]]:
        """Note the counters as they are now; gives (consumer, counter) of those that are dead.

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


class Heart:
    """The beat loop of one process in one lane; also knocks while Redis is away."""

    def __init__(
        self,
        lane: Lane,
        stage: Stage,
        *,
        consumer: str,
        lease: float,
        says: Callable[[], Says],
        ttls: Ttls,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lane = lane
        self._stage = stage
        self._consumer = consumer
        self._says = says
        self._ttls = ttls
        self._clock = clock
        self._lease = lease
        self._watch = Watch(lease, clock)
        self.turned = clock()
        """Monotonic time of the last turn, successful or not: health looks at it."""
        self.dead: list[tuple[str, str]] = []
        """Dead consumers and their last counters, for the intake to take over from."""
        self.returned = 0
        """Entries that wait with the consumer `returned`."""
        self.paused_since: float | None = None
        self.without_group = False
        self.stalled = False
        """This process itself stood still for half a lease: somebody may have taken over from it."""
        self.news = asyncio.Event()
        """Set when there is something for the intake to look at."""

    async def run(self) -> None:
        """Beat every second until cancelled."""
        knocks = Knocks()
        while True:
            before = self._clock()
            if before - self.turned > self._lease / 2:
                self.stalled = True
                self.news.set()
            self.turned = before
            self._lane.knock.clear()
            try:
                await self.beat()
            except (RedisError, OSError) as error:
                self._watch.forget()
                trouble = trouble_of(error)
                if trouble is None:
                    raise
                await self._lane.gone(trouble, error, "beating")
                await asyncio.sleep(knocks.next())
                continue
            knocks = Knocks()
            self._lane.back()
            try:
                async with asyncio.timeout(min(BEAT_SECONDS, self._lease / 8)):
                    await self._lane.knock.wait()
            except TimeoutError:
                continue

    async def beat(self) -> None:
        """One beat and what follows from it. Raises what redis-py raises."""
        says = msgspec.json.encode(self._says())
        lane, stage = self._lane, self._stage
        beat = await scripts.beat(lane.writing, lane.keys, stage.agent, stage.reads, self._consumer, says)
        # those that own nothing, too: a read that arrived after its sender's end has made the consumer again
        owners = {name for _, name, _ in beat.owners}
        self.dead = self._watch.look(beat.beats, owners, self._consumer)
        self.returned = sum(pending for _, name, pending in beat.owners if name == RETURNED)
        if (beat.paused_since is None) != (self.paused_since is None):
            _log.info("paused" if beat.paused_since is not None else "resumed", agent=stage.agent)
        self.paused_since = beat.paused_since
        self.without_group = bool(beat.without_group)
        if beat.due:
            await delayed.move_due(lane, stage, self._ttls)
        if self.dead or self.returned or self.without_group:
            self.news.set()
