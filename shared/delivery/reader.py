"""How entries come into a process, in one lane: reads, take-overs and orphans, one after the other.

All claims are made here, by one coroutine: between two of them nothing is on its way to us, so what Redis
says we own can be held against what we have in hand.
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
from shared.delivery.in_flight import Hands, InHand
from shared.delivery.scripts import Claimed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from events.topology import Stage
    from shared.delivery.handling import Handling
    from shared.delivery.heartbeat import Heart
    from shared.delivery.lane import Lane
    from shared.delivery.slots import Slots
    from shared.retry.breaker import Breakers
    from shared.telemetry.metrics import AgentMetrics

READ_AT_ONCE: Final = 500
"""Most entries of one read, however many slots are free: a reply stays a few megabytes."""
_IDLE_LOOK: Final = 0.5
"""Seconds between two looks at a gate that is shut (paused, breaker open, unwell)."""
_UNWELL_SECONDS: Final = 10.0
"""How long a process that is unwell does not read before it tries again."""
_REDIS_SECONDS: Final = 0.5
"""The same after a handler found Redis away: it may be back already, and work resumes within 2 s of that. The
pause keeps an entry from going round and round should Redis refuse the handler alone."""
_log = structlog.get_logger(__name__)


class Intake:
    """The read loop of one lane."""

    def __init__(
        self,
        lane: Lane,
        stage: Stage,
        *,
        consumer: str,
        heart: Heart,
        handling: Handling,
        slots: Slots,
        breakers: Breakers,
        metrics: AgentMetrics,
        lease: float,
        max_deliveries: int,
        stopping: asyncio.Event,
    ) -> None:
        self._lane = lane
        self._stage = stage
        self._keys = [lane.keys.stream(name) for name in stage.reads]
        self._consumer = consumer
        self._heart = heart
        self._handling = handling
        self._slots = slots
        self._breakers = breakers
        self._metrics = metrics
        self._lease = lease
        self._max_deliveries = max_deliveries
        self._stopping = stopping
        self.hands = Hands()
        self.begun = asyncio.Event()
        """Set when the groups are there and the first read is due."""
        self.turned = time.monotonic()
        """Monotonic time of the last turn of the loop; health looks at it."""
        self._reclaimed = time.monotonic()
        self._unwell_until = 0.0
        self.unwell = ""
        self._suspects = False
        self._turn = 0
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Take entries in until the process stops; entries in hand go on."""
        await self._persist(self._make_groups, "creating consumer groups")
        self.begun.set()
        while not self._stopping.is_set():
            self.turned = time.monotonic()
            await self._persist(self._turn_once, "reading")

    async def _persist(self, call: Callable[[], Awaitable[None]], doing: str) -> None:
        """Do it, however long Redis is away; a vanished group is made again."""
        try:
            await call()
        except (RedisError, OSError) as error:
            trouble = trouble_of(error)
            if trouble is Trouble.NO_GROUP:
                _log.error("consumer group was gone, made again", streams=self._keys, error=str(error)[:200])
                self._metrics.group_recreated.inc()
                await self._persist(self._make_groups, "creating consumer groups")
            elif trouble is Trouble.NOT_SENT:
                _log.exception("reading is refused, trying again", doing=doing)
                await asyncio.sleep(_IDLE_LOOK)
            else:
                away = asyncio.ensure_future(self._lane.trouble_with(error, doing))
                stopped = asyncio.ensure_future(self._stopping.wait())
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
        """One turn: what has to be looked after first, then a read."""
        heart = self._heart
        if heart.without_group:
            heart.without_group = False
            await self._make_groups()
        if heart.stalled or time.monotonic() - self._reclaimed > self._lease / 4:
            heart.stalled = False
            await self._reclaim()
        if not self.shut:
            if heart.dead or heart.returned:
                await self._take_over()
            if await self._suspect():
                return
        count = self._may_read()
        slots = self._slots.take(count) if count else 0
        if slots:
            await self._read(slots)
        else:
            await self._slots.changed(min(self._lease / 4, _IDLE_LOOK))

    @property
    def shut(self) -> bool:
        """Whether nothing may come in: paused, unwell, or stopping."""
        if self.unwell and time.monotonic() > self._unwell_until:
            _log.info("reading again, to see whether this machine is well", was=self.unwell)
            self.unwell = ""
        return self._stopping.is_set() or self._heart.paused_since is not None or bool(self.unwell)

    def be_unwell(self, message: str, *, only_redis: bool = False) -> None:
        """This machine cannot work (disk full, too many open files): stop reading for a while.

        `only_redis`: a handler found Redis away; whether it is, the lane finds out by itself.
        """
        seconds = _REDIS_SECONDS if only_redis else _UNWELL_SECONDS
        if only_redis:
            _log.warning("redis failed under a handler, reading pauses", error=message, seconds=seconds)
        elif not self.unwell:
            _log.error("this machine is unwell, reading stops", error=message, seconds=seconds)
        self.unwell = message
        self._unwell_until = max(self._unwell_until, time.monotonic() + seconds)

    def _may_read(self) -> int:
        """How many entries may come in now."""
        if self.shut:
            return 0
        if self._breakers.reading_stopped:
            # one entry at a time probes the part that is down
            return 1 if self._breakers.probe_in == 0 and not len(self.hands) else 0
        return READ_AT_ONCE

    async def _read(self, slots: int) -> None:
        """Read what is there for all `slots`; if nothing is, wait for news with one of them."""
        taken = 0
        try:
            taken = await self._read_streams(slots, block=False)
            if taken == 0 and slots > 1:
                # an idle lane must not sit on slots that a busy one could use
                self._slots.give(slots - 1)
                slots = 1
            if taken == 0:
                taken = await self._read_streams(1, block=True)
        finally:
            self._slots.give(slots - min(taken, slots))

    async def _read_streams(self, slots: int, *, block: bool) -> int:
        """One XREADGROUP over the agent's streams; the number of entries taken in hand.

        COUNT counts per stream: slots are divided over the streams, and with fewer slots than streams the
        streams take turns. A blocking read waits on all of them with COUNT 1; should both streams answer,
        the second entry runs beside the others for once, which is better than leaving it unread.
        """
        keys = self._keys
        self._turn += 1
        if not block and slots < len(keys):
            keys = [keys[self._turn % len(keys)]]
        args: list[str | int] = ["GROUP", self._stage.agent, self._consumer]
        args += ["COUNT", max(1, slots // len(keys))]
        if block:
            args += ["BLOCK", int(min(BLOCK_SECONDS, self._lease / 4) * 1000)]
        args += ["STREAMS", *keys, *(">" for _ in keys)]
        # never cancelled in flight: an entry whose reply nobody reads would wait for its orphan check
        call: Callable[..., Awaitable[Any]] = self._lane.reading.execute_command
        reply = await call("XREADGROUP", *args)
        taken = 0
        for key, entries in reply or ():
            stream = self._keys.index(key.decode())
            for entry_id, fields in entries:
                if fields is None:
                    self._lost_body(stream, entry_id.decode())
                    continue
                taken += 1
                self._begin(Claimed(stream, entry_id.decode(), 1, fields), 1 if taken <= slots else 0)
        return taken

    def _begin(self, claimed: Claimed, slots: int) -> None:
        hand = InHand(claimed, slots)
        self.hands.hold(hand)
        hand.task = self._loop.create_task(self._handle(hand))

    async def _handle(self, hand: InHand) -> None:
        try:
            await self._handling.deliver(hand)
        except asyncio.CancelledError:
            return
        except Exception:  # noqa: BLE001 - said with its traceback; the process goes on
            # our own mistake, not the handler's: the entry stays pending and is reclaimed as an orphan
            _log.exception("the machinery failed on an entry", entry_id=hand.claimed.entry_id)
        finally:
            self.hands.release(hand)
            if hand.slots:
                self._slots.give(hand.slots)

    # --- take-over -----------------------------------------------------------------------------------

    async def _take_over(self) -> None:
        """Take from the dead and the returned what there is room for; suspects wait for `_suspect`."""
        for whose, seen in [(RETURNED, "*")] * bool(self._heart.returned) + self._heart.dead:
            slots = self._slots.take(READ_AT_ONCE)
            taken = 0
            try:
                result = await self._claim_from(whose, seen, most=slots)
                taken = len(result.taken)
            finally:
                self._slots.give(slots - taken)
            if whose == RETURNED:
                self._heart.returned = result.left
            elif result.alive or not result.left:
                self._heart.dead = [other for other in self._heart.dead if other[0] != whose]
            if result.suspects:
                self._suspects = True
            if not self._slots.free and slots == taken:
                break

    async def _claim_from(
        self, whose: str, seen: str, *, most: int, suspect: bool = False
    ) -> scripts.TakenOver:
        result = await scripts.take_over(
            self._lane.reading,
            self._lane.keys,
            self._stage.agent,
            self._stage.reads,
            taker=self._consumer,
            whose=whose,
            seen=seen,
            most=most,
            suspect=suspect,
            max_deliveries=self._max_deliveries,
        )
        for stream, entry_id in result.lost:
            self._lost_body(stream, entry_id)
        for claimed in result.doomed:
            self._begin(claimed, 0)
        for claimed in result.taken:
            self._begin(claimed, self._slots.total if suspect else 1)
        if whose != RETURNED and (result.taken or result.doomed):
            self._metrics.taken_over.inc(len(result.taken) + len(result.doomed))
            _log.warning(
                "took over from a dead process",
                consumer=whose,
                entries=len(result.taken),
                doomed=len(result.doomed),
                suspects_left=result.suspects,
            )
        return result

    async def _suspect(self) -> bool:
        """Handle one suspect, alone: what was delivered twice and never settled may be what kills.

        True while nothing else may come in: the last entries in hand end first.
        """
        if not self._suspects:
            return False
        if not self._slots.want_all(self):
            return False
        if not self._slots.take_all(self):
            await self._slots.changed(min(self._lease / 4, _IDLE_LOOK))
            return True
        self._suspects = False
        taken = 0
        try:
            for whose, seen in [(RETURNED, "*"), *self._heart.dead]:
                result = await self._claim_from(whose, seen, most=0, suspect=True)
                self._suspects = self._suspects or result.suspects > 0
                taken = len(result.taken)
                if taken:
                    break
        finally:
            self._slots.want_all_no_more(self)
            if not taken:
                self._slots.give(self._slots.total)
        return False

    # --- what is ours ----------------------------------------------------------------------------------

    async def _reclaim(self) -> None:
        """Cancel what is no longer ours; claim anew what is ours and not in hand."""
        for stream, key in enumerate(self._keys):
            held: list[str | int] = []
            known: dict[str, int] = {}
            for hand in self.hands.of_stream(stream):
                held += (hand.claimed.entry_id, hand.claimed.deliveries)
                known[hand.claimed.entry_id] = hand.claimed.deliveries
            slots = self._slots.take(READ_AT_ONCE) if not self.shut else 0
            taken = 0
            try:
                found = await scripts.reclaim(
                    self._lane.reading,
                    key,
                    self._stage.agent,
                    self._consumer,
                    stream=stream,
                    most=slots,
                    in_hand=held,
                )
                orphans = [o for o in found.orphans if not self.hands.holds(stream, o.entry_id)]
                taken = len(orphans)
                for orphan in orphans:
                    self._begin(orphan, 1)
            finally:
                self._slots.give(slots - taken)
            for entry_id in found.lost:
                if self.hands.lose(stream, entry_id, known[entry_id]):
                    _log.warning("no longer ours, cancelled", entry_id=entry_id)
            for entry_id in found.gone:
                self._lost_body(stream, entry_id)
            if orphans:
                self._metrics.orphans_reclaimed.inc(len(orphans))
                _log.warning("claimed orphans", entries=len(orphans))
        self._reclaimed = time.monotonic()

    def _lost_body(self, stream: int, entry_id: str) -> None:
        """An entry that was pending and whose body somebody deleted: nothing can be done but say so."""
        self._metrics.lost_bodies.inc()
        _log.error(
            "entry lost: its body was deleted from outside", stream=self._keys[stream], entry_id=entry_id
        )
