"""Ending deliveries: settlements that come in while a batch is in flight go out together in the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec
import structlog

from events.connection import RedisError, Trouble, trouble_of
from shared.delivery import packing, scripts
from shared.telemetry.metrics import SESSION_CREATED, SESSION_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.delivery.lane import Lane
    from shared.sessions.shared_store import SharedSessions
    from shared.telemetry.metrics import AgentMetrics

BATCH: Final = 200
"""Settlements in one script call: 250 entries of four outputs stay far below Lua's limits, and the server
answers others between two calls."""
_AGAIN_SECONDS: Final = 1.0
_log = structlog.get_logger(__name__)

Fields: TypeAlias = "Sequence[str | bytes]"
What: TypeAlias = Literal["done", "dead", "postponed", "interrupted"]


class SessionMove(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a settlement changes in its session."""

    key: str
    session_id: str
    deltas: Mapping[str, int]
    create: bool = False
    expected: int = 0
    photos_key: str = ""
    """Where the photo is noted as one of the session's; '' where it was noted before."""
    photo_id: str = ""


class Settlement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How one delivery ends."""

    entry_id: str
    deliveries: int
    what: What
    outputs: Sequence[tuple[str, Fields]] = ()
    """Key and fields: the output events, or the one dead letter."""
    delay_ms: int = 0
    delayed_key: str = ""
    photo: tuple[str, Fields] | None = None
    session: SessionMove | None = None


class Ttls(msgspec.Struct, frozen=True, kw_only=True):
    """Lifetimes in ms: photo records (0: none are written), sessions, sessions in flight."""

    photo: int
    session: int
    session_in_flight: int


class Settler:
    """Settles the deliveries of one stream in one lane, in order, until Redis has answered."""

    def __init__(
        self,
        lane: Lane,
        *,
        stream: str,
        completed: str,
        agent: str,
        consumer: str,
        ttls: Ttls,
        metrics: AgentMetrics,
        group_lost: Callable[[], None],
        sessions: SharedSessions,
    ) -> None:
        """`stream` and `completed` are event type names; `group_lost` is told when the group is not there.

        `sessions` makes room where a batch of settlements brought more than there may be.
        """
        self._lane = lane
        keys = lane.keys
        self._fixed = (
            keys.stream(stream),
            keys.marker(f"{consumer}:{stream}"),
            keys.session_open,
            keys.session_lru,
            keys.stream(completed),
            keys.session_stats,
        )
        self._agent = agent
        self._consumer = consumer
        self._ttls = ttls
        self._metrics = metrics
        self._group_lost = group_lost
        self._sessions = sessions
        self._queue: deque[tuple[Settlement, asyncio.Future[str]]] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._batch = 0
        self._loop = asyncio.get_running_loop()

    def settle(self, settlement: Settlement) -> asyncio.Future[str]:
        """Queue a settlement; the future gives OK, FENCED or GONE, however long Redis is away."""
        # the loop is kept: asking for the running one is a system call each time
        reply: asyncio.Future[str] = self._loop.create_future()
        self._enqueue(settlement, reply)
        return reply

    def _enqueue(self, settlement: Settlement, reply: asyncio.Future[str]) -> None:
        self._queue.append((settlement, reply))
        if self._sending is None:
            self._sending = self._loop.create_task(self._send_all())

    @property
    def sending(self) -> asyncio.Task[None] | None:
        """The task that sends, if something is under way."""
        return self._sending

    async def _send_all(self) -> None:
        try:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                try:
                    await self._send(batch)
                except Exception as error:  # noqa: BLE001 - our own mistake: who waits must hear of it
                    for _, reply in batch:
                        if not reply.done():
                            reply.set_exception(error)
        finally:
            self._sending = None

    async def _send(self, batch: list[tuple[Settlement, asyncio.Future[str]]]) -> None:
        self._batch += 1
        keys, packed = self._pack([settlement for settlement, _ in batch])
        while True:
            await self._lane.wait_here()
            try:
                settled = await scripts.settle(self._lane.writing, keys, packed)
            except (RedisError, OSError) as error:
                if trouble_of(error) is Trouble.NO_GROUP:
                    # flushed or failed over: whatever was unsettled will be delivered again
                    self._group_lost()
                    replies = ["GONE"] * len(batch)
                    break
                if trouble_of(error) is Trouble.NOT_SENT:
                    _log.exception("a batch of settlements was refused; trying again", entries=len(batch))
                    await asyncio.sleep(_AGAIN_SECONDS)
                    continue
                # sent again as it is, same number: if it was applied, its marker gives the first answer
                await self._lane.trouble_with(error, "settling")
            else:
                replies = settled.replies
                self._count(settled)
                await self._make_room(settled)
                break
        for (settlement, reply), answer in zip(batch, replies, strict=True):
            if answer in ("OK", "FENCED", "GONE"):
                if not reply.done():
                    reply.set_result(answer)
            else:
                self._later(settlement, reply, answer)

    def _later(self, settlement: Settlement, reply: asyncio.Future[str], answer: str) -> None:
        """An entry that Redis refused to end stays ours; a person has to mend the key it names."""
        _log.error("hand-off refused, trying again", entry_id=settlement.entry_id, error=answer[:300])
        self._loop.call_later(_AGAIN_SECONDS, self._enqueue, settlement, reply)

    def _count(self, settled: scripts.Settled) -> None:
        if settled.sessions_missing:
            self._metrics.session_missing.inc(settled.sessions_missing)
        if settled.side_writes_failed:
            self._metrics.side_write_failures.inc(settled.side_writes_failed)
            _log.error("session counters or photo records not written", writes=settled.side_writes_failed)
        SESSION_CREATED.inc(settled.sessions_created)
        if settled.sessions_corrupt:
            SESSION_ERRORS.labels("corrupt").inc(settled.sessions_corrupt)
            _log.error(
                "a foreign or corrupt value stood where a session belongs, it counted as none",
                sessions=settled.sessions_corrupt,
            )

    async def _make_room(self, settled: scripts.Settled) -> None:
        """Evict before anybody hears of the settlements: so the excess stays within what is in hand."""
        if not self._sessions.crowded(settled.sessions_open, settled.sessions_rest):
            return
        try:
            await self._sessions.evict(self._lane.keys)
        except (RedisError, OSError) as error:
            # the sweep of the next second makes up for it
            _log.debug("no session evicted", error=str(error)[:200])

    def _pack(self, settlements: Sequence[Settlement]) -> tuple[list[str], bytes]:
        index = {key: position for position, key in enumerate(self._fixed, start=1)}

        def at(key: str) -> int:
            return index.setdefault(key, len(index) + 1)

        entries = []
        low = high = _order(settlements[0].entry_id)
        for s in settlements:
            low, high = min(low, order := _order(s.entry_id)), max(high, order)
            payload: object = False
            if s.what == "done":
                payload = [(at(key), fields) for key, fields in s.outputs]
            elif s.what == "dead":
                payload = (at(s.outputs[0][0]), s.outputs[0][1])
            elif s.what == "postponed":
                payload = (at(s.delayed_key), s.delay_ms)
            photo: object = (at(s.photo[0]), s.photo[1]) if s.photo else False
            session: object = False
            if m := s.session:
                photos = at(m.photos_key) if m.photos_key else 0
                session = (at(m.key), m.session_id, m.deltas, m.create, m.expected, photos, m.photo_id)
            entries.append((s.entry_id, s.deliveries, s.what, payload, photo, session))
        packed = packing.pack(
            (
                self._agent,
                self._consumer,
                self._batch,
                scripts.MARKER_SECONDS * 1000,
                self._ttls.photo,
                self._ttls.session,
                self._ttls.session_in_flight,
                f"{low[0]}-{low[1]}",
                f"{high[0]}-{high[1]}",
                entries,
            )
        )
        return list(index), packed


def _order(entry_id: str) -> tuple[int, int]:
    millis, _, sequence = entry_id.partition("-")
    return int(millis), int(sequence)
