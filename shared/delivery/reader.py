"""Reads the entries of one lane into a process: reads, take-overs and orphans, one after the other.

Only this coroutine reads or claims. Between two claims no reply is outstanding, so Redis's pending list can
be compared with what is in flight.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import structlog

from events.connection import BLOCK_SECONDS, RedisError, Trouble, trouble_of
from events.keys import RETURNED
from events.scripts import load_for_publishers
from shared.delivery import scripts
from shared.delivery.bulk_share import BulkShare
from shared.delivery.delivery import Delivery
from shared.delivery.news import GroupLost, Neighbours, Paused, Stalled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shared.delivery.delivery import InFlight
    from shared.delivery.handler import Handler
    from shared.delivery.lane import Lane
    from shared.delivery.news import News
    from shared.delivery.runtime import Runtime

READ_AT_ONCE: Final = 500
"""Limit of entries of one read, however many slots are free: a reply stays a few megabytes."""
_IDLE_LOOK: Final = 0.5
"""Seconds between two looks at a gate that is shut (paused, breaker open, unhealthy)."""
_log = structlog.get_logger(__name__)


class Reader:
    """Run the read loop of one lane."""

    def __init__(
        self, runtime: Runtime, lane: Lane, in_flight: InFlight, handler: Handler, news: News
    ) -> None:
        self._runtime = runtime
        self._lane = lane
        self._in_flight = in_flight
        self._handler = handler
        self._news = news
        self._stage = runtime.stage
        self._keys = [lane.keys.stream(name) for name in runtime.stage.streams]
        self._others = self._keys[: len(runtime.stage.reads)]
        self._bulk = self._keys[len(runtime.stage.reads) :]
        self._slots = runtime.slots
        self._share = BulkShare(runtime.slots)
        self._lease = runtime.settings.lease_seconds
        self.begun = asyncio.Event()
        """Set when the groups are there and the first read is due."""
        self.turned = time.monotonic()
        """Monotonic time of the last turn of the loop; health looks at it."""
        self._reclaimed = time.monotonic()
        self._dead: tuple[tuple[str, str], ...] = ()
        self._returned = 0
        self._paused = False
        self._suspects = False
        self._turn = 0
        self._filled = False
        """Whether the last read got all the entries it asked a stream for, which then may have more."""
        self._ends: list[str] = []
        """Newest entries before the last read; empty when they have to be looked up again."""

    async def run(self) -> None:
        """Read entries until the process stops; entries in flight go on."""
        await self._persist(self._make_groups, "creating consumer groups")
        self.begun.set()
        while not self._runtime.stopping.is_set():
            self.turned = time.monotonic()
            await self._persist(self._turn_once, "reading")

    async def _persist(self, call: Callable[[], Awaitable[None]], doing: str) -> None:
        """Make a call, and wait while Redis is away; make a vanished group again."""
        try:
            await call()
        except (RedisError, OSError) as error:
            trouble = trouble_of(error)
            if trouble is Trouble.NO_GROUP:
                _log.error("consumer group was gone, made again", streams=self._keys, error=str(error)[:200])
                self._runtime.metrics.group_recreated.inc()
                await self._persist(self._make_groups, "creating consumer groups")
            elif trouble is Trouble.NOT_SENT:
                _log.exception("reading is refused, trying again", doing=doing)
                await asyncio.sleep(_IDLE_LOOK)
            else:
                away = asyncio.ensure_future(self._lane.trouble_with(error, doing))
                stopped = asyncio.ensure_future(self._runtime.stopping.wait())
                await asyncio.wait({away, stopped}, return_when=asyncio.FIRST_COMPLETED)
                for task in (away, stopped):
                    task.cancel()
                if away.done() and not away.cancelled() and (raised := away.exception()):
                    raise raised from error

    async def _make_groups(self) -> None:
        await load_for_publishers(self._lane.reading)
        for key in self._keys:
            try:
                # at 0, not $: what was published before the first agent started counts
                await self._lane.reading.xgroup_create(key, self._stage.agent, id="0", mkstream=True)
            except RedisError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def _turn_once(self) -> None:
        """Take one turn: handle what goes before reading, then read."""
        stalled = await self._hear()
        if stalled or time.monotonic() - self._reclaimed > self._lease / 4:
            await self._reclaim()
        if not self._shut:
            if (self._dead or self._returned) and self._may_read():
                await self._take_over()
            if await self._suspect():
                return
        count = self._may_read()
        slots = self._slots.take(count) if count else 0
        if not slots and count:
            # the slot that comes belongs to this lane: waiting lanes get slots in turn
            slots = await self._slots.changed(min(self._lease / 4, _IDLE_LOOK))
        elif not slots:
            await asyncio.sleep(min(self._lease / 4, _IDLE_LOOK))
        if slots:
            await self._read(slots)

    async def _hear(self) -> bool:
        """Handle the messages of the other parts; return whether this process stood still."""
        stalled = False
        while self._news:
            match self._news.popleft():
                case GroupLost():
                    await self._make_groups()
                case Stalled():
                    stalled = True
                case Paused(paused):
                    self._paused = paused
                case Neighbours(dead, returned):
                    self._dead, self._returned = dead, returned
        return stalled

    @property
    def _shut(self) -> bool:
        """Return whether nothing may be read: paused, unhealthy, or stopping."""
        runtime = self._runtime
        return runtime.stopping.is_set() or self._paused or runtime.gate.is_shut

    @property
    def _stands_still(self) -> bool:
        """Return whether this lane cannot settle now. What it reads would keep the slots of other lanes."""
        if self._runtime.settings.lanes == 1:
            return False
        return self._lane.away_since is not None or bool(self._in_flight.without_slots)

    def _may_read(self) -> int:
        """Return how many entries may be read now."""
        if self._shut or self._stands_still:
            return 0
        if self._runtime.gate.probing:
            return 0 if len(self._in_flight) else 1
        breakers = self._runtime.breakers
        if breakers.reading_stopped:
            # one entry at a time probes the part that is down
            return 1 if breakers.probe_in == 0 and not len(self._in_flight) else 0
        return READ_AT_ONCE

    async def _read(self, slots: int) -> None:
        """Read up to `slots` entries; if there are none, wait for entries.

        A process with one lane waits with one slot in a blocking read. With several lanes an idle one would
        keep that slot from the busy ones, so it only looks at the streams' ends until something is added.
        """
        taken = 0
        alone = self._runtime.settings.lanes == 1
        try:
            if not alone and not self._ends:
                self._ends = await self._newest()
            taken = await self._read_waiting(slots)
            if taken == 0 and not alone:
                self._slots.give(slots)
                slots = 0
                await self._wait_for_entries()
                return
            if taken == 0 and slots > 1:
                # an idle lane must not sit on slots that a busy one could use
                self._slots.give(slots - 1)
                slots = 1
            if taken == 0:
                taken = await self._read_streams(self._keys, 1, block=True)
        finally:
            self._slots.give(slots - min(taken, slots))

    async def _read_waiting(self, slots: int) -> int:
        """Read what waits, bulk work after all other work except for its share; return how many entries."""
        bulk = 0
        if self._bulk and (count := min(slots, self._share.before_others())):
            bulk = await self._read_streams(self._bulk, count)
            self._share.note_bulk(bulk, share=True)
            if bulk >= slots:
                return bulk
        left, others = slots - bulk, 0
        for _ in self._others if left < len(self._others) else (0,):
            others = others or await self._read_streams(self._others, left)
        more = self._filled
        self._share.note_others(others, more=more)
        count = 0 if more or not self._bulk else self._share.after_others(left - others, only=others == 0)
        if count:
            read = await self._read_streams(self._bulk, count)
            self._share.note_bulk(read)
            bulk += read
        return bulk + others

    async def _newest(self) -> list[str]:
        """Return the ids of the newest entries, in the order of the streams; an empty stream has 0-0.

        Call it before a read: that read could take all older entries.
        """
        call: Callable[..., Awaitable[Any]] = self._lane.reading.execute_command
        ends = []
        for key in self._keys:
            newest = await call("XREVRANGE", key, "+", "-", "COUNT", 1)
            ends.append(newest[0][0].decode() if newest else "0-0")
        return ends

    async def _wait_for_entries(self) -> None:
        """Return when an entry was added behind the ends that `_newest` returned, or after a while."""
        call: Callable[..., Awaitable[Any]] = self._lane.reading.execute_command
        milliseconds = int(min(BLOCK_SECONDS, self._lease / 4) * 1000)
        if await call("XREAD", "COUNT", 1, "BLOCK", milliseconds, "STREAMS", *self._keys, *self._ends):
            self._ends = []

    async def _read_streams(self, keys: list[str], slots: int, *, block: bool = False) -> int:
        """Send one XREADGROUP over these streams of the agent; return how many entries it took.

        COUNT counts per stream: slots are divided over the streams, and with fewer slots than streams the
        streams take turns. A blocking read waits on all of them with COUNT 1; should both streams answer,
        the second entry runs beside the others for once, which is better than leaving it unread.
        """
        self._turn += 1
        if not block and slots < len(keys):
            keys = [keys[self._turn % len(keys)]]
        args: list[str | int] = ["GROUP", self._stage.agent, self._runtime.consumer]
        count = max(1, slots // len(keys))
        args += ["COUNT", count]
        if block:
            args += ["BLOCK", int(min(BLOCK_SECONDS, self._lease / 4) * 1000)]
        args += ["STREAMS", *keys, *(">" for _ in keys)]
        # never cancelled in flight: an entry in a reply that nobody reads would wait for the orphan check
        call: Callable[..., Awaitable[Any]] = self._lane.reading.execute_command
        reply = await call("XREADGROUP", *args)
        taken = 0
        self._filled = any(len(entries) >= count for _, entries in reply or ())
        for key, entries in reply or ():
            stream = self._keys.index(key.decode())
            for entry_id, fields in entries:
                if fields is None:
                    self._lost_body(stream, entry_id.decode())
                    continue
                taken += 1
                self._begin(Delivery(stream, entry_id.decode(), 1, fields), 1 if taken <= slots else 0)
        return taken

    def _begin(self, delivery: Delivery, slots: int) -> None:
        delivery.slots = slots
        if slots:
            self._slots.bulk += delivery.stream >= len(self._others)
        self._in_flight.hold(delivery)
        self._handler.handle(delivery)

    async def _take_over(self) -> None:
        """Take over from the dead and from `returned` while there is room; suspects wait for `_suspect`."""
        for whose, seen in [(RETURNED, "*")] * bool(self._returned) + list(self._dead):
            slots = self._slots.take(self._may_read())
            taken = 0
            try:
                result = await self._claim_from(whose, seen, limit=slots)
                taken = len(result.taken)
            finally:
                self._slots.give(slots - taken)
            if whose == RETURNED:
                self._returned = result.left
            elif result.alive or not result.left:
                self._dead = tuple(other for other in self._dead if other[0] != whose)
            if result.suspects:
                self._suspects = True
            if not self._slots.free and slots == taken:
                break

    async def _claim_from(
        self, whose: str, seen: str, *, limit: int, suspect: bool = False
    ) -> scripts.TakenOver:
        runtime = self._runtime
        result = await scripts.take_over(
            self._lane.reading,
            self._lane.keys,
            self._stage.agent,
            self._stage.streams,
            taker=runtime.consumer,
            whose=whose,
            seen=seen,
            limit=limit,
            suspect=suspect,
            max_deliveries=runtime.settings.max_deliveries,
        )
        for stream, entry_id in result.lost:
            self._lost_body(stream, entry_id)
        for delivery in result.over_limit:
            self._begin(delivery, 0)
        for delivery in result.taken:
            self._begin(delivery, self._slots.total if suspect else 1)
        if whose != RETURNED and (result.taken or result.over_limit):
            runtime.metrics.taken_over.inc(len(result.taken) + len(result.over_limit))
            _log.warning(
                "took over from a dead process",
                consumer=whose,
                entries=len(result.taken),
                # the field's name is older than our word for it
                doomed=len(result.over_limit),
                suspects_left=result.suspects,
            )
        return result

    async def _suspect(self) -> bool:
        """Handle one suspect alone, because an entry delivered twice and never settled may kill the process.

        Returns True while nothing else may be read: the last entries in flight end first.
        """
        if not self._suspects:
            return False
        if not self._may_read():
            # a part that is down gets one entry at a time, a suspect too
            self._slots.want_all_no_more(self)
            return False
        if not self._slots.want_all(self):
            return False
        if not self._slots.take_all(self):
            self._slots.give(await self._slots.changed(min(self._lease / 4, _IDLE_LOOK)))
            return True
        self._suspects = False
        taken = 0
        try:
            for whose, seen in [(RETURNED, "*"), *self._dead]:
                result = await self._claim_from(whose, seen, limit=0, suspect=True)
                self._suspects = self._suspects or result.suspects > 0
                taken = len(result.taken)
                if taken:
                    break
        finally:
            self._slots.want_all_no_more(self)
            if not taken:
                self._slots.give(self._slots.total)
        return False

    async def _reclaim(self) -> None:
        """Cancel entries that are no longer ours; claim again entries that are ours and not in flight."""
        for stream, key in enumerate(self._keys):
            # while a part or this machine is tested, orphans come one at a time too
            may_read = self._may_read()
            held: list[str | int] = []
            known: dict[str, int] = {}
            for delivery in self._in_flight.of_stream(stream):
                held += (delivery.entry_id, delivery.deliveries)
                known[delivery.entry_id] = delivery.deliveries
            slots = self._slots.take(may_read) if may_read else 0
            taken = 0
            try:
                found = await scripts.reclaim(
                    self._lane.reading,
                    key,
                    self._stage.agent,
                    self._runtime.consumer,
                    stream=stream,
                    limit=slots,
                    in_flight=held,
                )
                orphans = [o for o in found.orphans if not self._in_flight.holds(stream, o.entry_id)]
                taken = len(orphans)
                for orphan in orphans:
                    self._begin(orphan, 1)
            finally:
                self._slots.give(slots - taken)
            for entry_id in found.lost:
                if self._in_flight.lose(stream, entry_id, known[entry_id]):
                    _log.warning("no longer ours, cancelled", entry_id=entry_id)
            for entry_id in found.gone:
                self._lost_body(stream, entry_id)
            if orphans:
                self._runtime.metrics.orphans_reclaimed.inc(len(orphans))
                _log.warning("claimed orphans", entries=len(orphans))
        self._reclaimed = time.monotonic()

    def _lost_body(self, stream: int, entry_id: str) -> None:
        """Report a pending entry whose body somebody deleted: nothing else can be done."""
        self._runtime.metrics.lost_bodies.inc()
        _log.error(
            "entry lost: its body was deleted from outside", stream=self._keys[stream], entry_id=entry_id
        )
