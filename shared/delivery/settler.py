"""Settles deliveries in batches: those that end while a batch is in flight form the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import structlog

from events import topology
from events.connection import RedisError, Trouble, trouble_of
from shared.delivery import packing, scripts
from shared.delivery.news import GroupLost
from shared.telemetry.metrics import SESSION_CREATED, SESSION_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shared.delivery.accounting import Accounting
    from shared.delivery.delivery import Delivery
    from shared.delivery.lane import Lane
    from shared.delivery.news import News
    from shared.delivery.outcome import SessionMove
    from shared.delivery.runtime import Runtime

BATCH: Final = 200
"""Deliveries ended in one script call: 250 entries of four outputs stay far below Lua's limits, and the
server answers others between two calls."""
_AGAIN_SECONDS: Final = 1.0
_log = structlog.get_logger(__name__)


class Settler:
    """Settle the deliveries of one stream in one lane, in order, until Redis has answered."""

    def __init__(self, runtime: Runtime, lane: Lane, stream: str, accounting: Accounting, news: News) -> None:
        """Prepare to settle the stream named after the event type `stream`."""
        self._runtime = runtime
        self._lane = lane
        self._accounting = accounting
        self._news = news
        keys = lane.keys
        self._marker = keys.marker(f"{runtime.consumer}:{stream}")
        self._replicas = runtime.settings.wait_replicas
        self._fixed = {
            key: position
            for position, key in enumerate(
                (
                    keys.stream(stream),
                    self._marker,
                    keys.session_open,
                    keys.session_lru,
                    keys.stream(topology.COMPLETED),
                    keys.session_stats,
                ),
                start=1,
            )
        }
        self._dead_counts = keys.dead_counts(runtime.stage.agent)
        ttls = runtime.ttls
        self._constant = {
            "group": runtime.stage.agent,
            "consumer": runtime.consumer,
            "marker_ttl": scripts.MARKER_SECONDS * 1000,
            "photo_ttl": ttls.photo,
            "session_ttl": ttls.session,
            "in_flight_ttl": ttls.session_in_flight,
        }
        self._queue: deque[Delivery] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._batch = 0
        self._stands_still = False
        """Whether the batch in flight waits for Redis or its replicas, and what ends waits behind it."""
        # kept, because asking for the running loop is a system call each time
        self._loop = asyncio.get_running_loop()

    def settle(self, delivery: Delivery) -> None:
        """Settle a delivery as its outcome says, however long Redis is away, and then account for it."""
        self._queue.append(delivery)
        if self._stands_still:
            self._accounting.lend_slots((delivery,))
        if self._sending is None:
            self._sending = self._loop.create_task(self._send_all())

    async def close(self) -> None:
        """Stop sending; entries that are not settled stay pending, and are taken over after a lease."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending], timeout=1.0)

    async def _send_all(self) -> None:
        try:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                try:
                    await self._send(batch)
                except Exception:  # noqa: BLE001 - our own mistake: the entries stay pending and come back
                    _log.exception("the delivery engine failed on a batch", entries=len(batch))
                    self._stands_still = False
                    self._accounting.release(batch)
        finally:
            self._sending = None

    async def _send(self, batch: list[Delivery]) -> None:
        self._batch += 1
        again = False
        while True:
            if self._lane.away_since is not None:
                # found by the reader or the heartbeat
                self._stand_still(batch)
            await self._lane.wait_here()
            # each time, because entries are lost meanwhile
            keys, packed = self._pack(batch)
            try:
                settled = await self._settle(batch, keys, packed, again=again)
            except (RedisError, OSError) as error:
                again = True
                trouble = trouble_of(error)
                if trouble is Trouble.NO_GROUP:
                    # flushed or failed over: all unsettled entries will be delivered again
                    self._news.append(GroupLost())
                    self._stands_still = False
                    self._accounting.end(batch, ["GONE"] * len(batch))
                    return
                self._stand_still(batch)
                if trouble is Trouble.NOT_SENT:
                    _log.exception("a batch of settlements was refused; trying again", entries=len(batch))
                    await asyncio.sleep(_AGAIN_SECONDS)
                    continue
                # sent again with the same number: if it was applied, its marker returns the first answer
                await self._lane.trouble_with(error, "settling")
            else:
                break
        self._stands_still = False
        self._count(settled)
        await self._make_room(settled)
        self._account(batch, settled.replies)

    async def _settle(
        self, batch: Sequence[Delivery], keys: Sequence[str], packed: bytes, *, again: bool
    ) -> scripts.Settled:
        """Settle a batch, and wait for WAIT_REPLICAS. Raises what redis-py raises."""
        if not self._replicas:
            return await scripts.settle(self._lane.writing, keys, packed)
        settled, have = await scripts.settle_and_wait(
            self._lane.writing, keys, packed, replicas=self._replicas
        )
        # a batch sent again may find itself settled, and has then written nothing that WAIT counts
        await self._wait_for_replicas(batch, 0 if again else have)
        return settled

    async def _wait_for_replicas(self, batch: Sequence[Delivery], have: int) -> None:
        """Return when enough replicas have a batch. Raises what redis-py raises."""
        if have < self._replicas:
            have = await self._wait_again()
        if have >= self._replicas:
            return
        _log.warning("too few replicas have the settlements; waiting for them", replicas=have)
        self._stand_still(batch)
        while have < self._replicas:
            have = await self._wait_again()
        _log.info("enough replicas have the settlements again", replicas=have)

    def _stand_still(self, batch: Sequence[Delivery]) -> None:
        """Lend the slots of what waits to the other lanes, whose servers may well answer."""
        self._stands_still = True
        self._accounting.lend_slots((*batch, *self._queue))

    async def _wait_again(self) -> int:
        return await scripts.wait_again(self._lane.writing, self._marker, replicas=self._replicas)

    def _account(self, batch: list[Delivery], replies: dict[int, str]) -> None:
        """Account for a batch. `replies`: those that are not OK, by their place in the batch."""
        answers = ["OK"] * len(batch)
        for place, reply in replies.items():
            answers[place] = reply
            if reply not in ("FENCED", "GONE"):
                self._again(batch[place], reply)
        if any(reply not in ("OK", "FENCED", "GONE") for reply in replies.values()):
            ended = [(d, a) for d, a in zip(batch, answers, strict=True) if a in ("OK", "FENCED", "GONE")]
            batch, answers = [d for d, _ in ended], [a for _, a in ended]
        self._accounting.end(batch, answers)

    def _again(self, delivery: Delivery, reply: str) -> None:
        """Try again later: a person has to repair the key that the reply names, and the entry stays ours."""
        self._accounting.set_apart(delivery)
        _log.error("hand-off refused, trying again", entry_id=delivery.entry_id, error=reply[:300])
        self._loop.call_later(_AGAIN_SECONDS, self.settle, delivery)

    def _count(self, settled: scripts.Settled) -> None:
        metrics = self._runtime.metrics
        if settled.sessions_missing:
            metrics.session_missing.inc(settled.sessions_missing)
        if settled.side_writes_failed:
            metrics.side_write_failures.inc(settled.side_writes_failed)
            _log.error("session counters or photo records not written", writes=settled.side_writes_failed)
        if settled.sessions_created:
            SESSION_CREATED.inc(settled.sessions_created)
        if settled.sessions_corrupt:
            SESSION_ERRORS.labels("corrupt").inc(settled.sessions_corrupt)
            _log.error(
                "a foreign or corrupt value stood where a session belongs, it counted as none",
                sessions=settled.sessions_corrupt,
            )

    async def _make_room(self, settled: scripts.Settled) -> None:
        """Evict before the settlements are accounted for: so the excess is at most the entries in flight."""
        sessions = self._lane.sessions
        if not sessions.crowded(settled.sessions_open, settled.sessions_rest):
            return
        try:
            await sessions.evict(self._lane.keys)
        except (RedisError, OSError) as error:
            # the sweep of the next second evicts instead
            _log.debug("no session evicted", error=str(error)[:200])

    def _pack(self, batch: Sequence[Delivery]) -> tuple[list[str], bytes]:
        """Return the keys and the packed argument of settle.lua; entries name their keys by position."""
        index = self._fixed.copy()

        def at(key: str) -> int:
            return index.setdefault(key, len(index) + 1)

        entries = []
        for delivery in batch:
            outcome = delivery.outcome
            # no delivery has the number 0: whoever owns an entry of this id, it is another one
            number = 0 if delivery.lost else delivery.deliveries
            entry: dict[str, Any] = {"id": delivery.entry_id, "n": number, "what": outcome.what}
            if outcome.outputs:
                entry["outputs"] = [(at(key), fields) for key, fields in outcome.outputs]
            if outcome.what == "dead":
                entry["counts"], entry["reason"] = at(self._dead_counts), outcome.reason
            if outcome.raw is not None:
                entry["raw"] = outcome.raw
            if outcome.delayed_key:
                entry["delayed"], entry["wait"] = at(outcome.delayed_key), outcome.delay_ms
                if outcome.held:
                    entry["held"] = True
            if outcome.photo:
                entry["photo"], entry["record"] = at(outcome.photo[0]), outcome.photo[1]
            if move := outcome.session:
                entry["session"] = _packed(move, at)
            entries.append(entry)
        ids = sorted((delivery.entry_id for delivery in batch), key=_order)
        packed = packing.pack(
            {**self._constant, "batch": self._batch, "lowest": ids[0], "highest": ids[-1], "entries": entries}
        )
        return list(index), packed


def _packed(move: SessionMove, at: Callable[[str], int]) -> dict[str, object]:
    packed: dict[str, object] = {
        "key": at(move.key),
        "id": move.session_id,
        "deltas": move.deltas,
        "create": move.create,
        "expected": move.expected,
        "photos": at(move.photos_key) if move.photos_key else 0,
        "photo": move.photo_id,
    }
    if move.source:
        packed["source"], packed["first"] = move.source, at(move.first_key)
    return packed


def _order(entry_id: str) -> tuple[int, int]:
    millis, _, sequence = entry_id.partition("-")
    return int(millis), int(sequence)
