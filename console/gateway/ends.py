"""Reads the ends of photos and sessions for all clients of `/v1/stream`: one plain reader of public streams.

A lane is read only while somebody listens to it. The reader belongs to no group and acknowledges nothing, so
that no other reader of these streams loses an entry.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import structlog

from events import codec, keys, topology
from events.connection import BLOCK_SECONDS, RedisError, call
from shared.operations import submissions

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from redis.asyncio import Redis

    from events.keys import Keys

PAGE: Final = 200
"""Entries of one read."""
_AGAIN_SECONDS: Final = 1.0
_ENGINE: Final = b"erni"
"""How the names of attributes begin that belong to the delivery engine."""

EntryNumber: TypeAlias = tuple[int, int]
"""An entry id as numbers, which compare: milliseconds and sequence."""
Place: TypeAlias = tuple[int | None, str]
"""A public stream: its lane, and the type of its events."""
Positions: TypeAlias = dict[Place, EntryNumber]
"""Of each stream the last entry that was read."""

log = structlog.get_logger(__name__)


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a photo, or the report of a session."""

    place: Place
    number: EntryNumber
    session_id: str | None
    source: str | None
    """Who published it, as the entry says it, else the photo's record; None where neither does."""
    event: bytes
    """The CloudEvent in JSON, on one line."""


class Page(msgspec.Struct, frozen=True):
    """Some ends, and the last entry that was looked at for them."""

    ends: list[End | Seen]
    last: EntryNumber


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent did with a photo, as its record says."""

    session_id: str
    source: str | None
    step: bytes
    """JSON on one line."""


class Listener:
    """Holds what one client has not been sent yet."""

    def __init__(self, lanes: Collection[int | None], *, most: int) -> None:
        """`most`: ends and steps that may wait for a client that reads slowly."""
        self.lanes = frozenset(lanes)
        self.overrun = False
        """Whether an end did not fit in: the client has to come again, and goes on after its last one."""
        self._most = most
        self._waiting: list[End | Seen] = []
        self._wake = asyncio.Event()

    def offer(self, found: Sequence[End | Seen]) -> None:
        """Add ends, in the order of their streams, or steps, of which some may be left out."""
        if len(self._waiting) + len(found) > self._most:
            self.overrun |= any(isinstance(one, End) for one in found)
        elif not self.overrun:
            self._waiting += found
        self._wake.set()

    def wake(self) -> None:
        """Let `take` return at once."""
        self._wake.set()

    async def take(self, seconds: float) -> list[End | Seen]:
        """Return what has come, after `seconds` at the latest."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return []
        self._wake.clear()
        found, self._waiting = self._waiting, []
        return found


class Ends:
    """Reads the public streams and gives each end to all listeners of its lane."""

    def __init__(self, redis: Redis) -> None:
        """`redis` is a client of its own: a read waits for entries, and needs a connection for each lane."""
        self._redis = redis
        self._listeners: set[Listener] = set()
        self._positions: Positions = {}
        self._tasks: dict[int | None, asyncio.Task[None]] = {}
        self._beginning = asyncio.Lock()

    async def listen(self, listener: Listener) -> Positions:
        """Add a listener, and return after which entries its ends begin. Raises what redis-py raises."""
        async with self._beginning:
            for lane in listener.lanes:
                if lane not in self._tasks:
                    self._positions |= await self._newest(keys.Keys(lane))
            # no reader turns from here on: what it reads next is offered to this listener, too
            self._listeners.add(listener)
            for lane in listener.lanes:
                if lane not in self._tasks:
                    self._tasks[lane] = asyncio.create_task(self._read(keys.Keys(lane)))
        return {place: at for place, at in self._positions.items() if place[0] in listener.lanes}

    def leave(self, listener: Listener) -> None:
        """Remove a listener; the reader of a lane ends without any."""
        self._listeners.discard(listener)

    async def close(self) -> None:
        """End the readers."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def between(self, place: Place, after: EntryNumber, until: EntryNumber) -> Page:
        """Return the first ends of a stream after one entry, up to another. Raises what redis-py raises."""
        stream = keys.Keys(place[0]).stream(place[1])
        page = await call(self._redis, "XRANGE", stream, f"({_text(after)}", _text(until), "COUNT", PAGE)
        if not page:
            return Page([], until)
        return Page(list(await self._ends(place, page)), number_of(page[-1][0]))

    async def _newest(self, lane: Keys) -> Positions:
        found: Positions = {}
        for name in topology.PUBLIC:
            newest = await call(self._redis, "XREVRANGE", lane.stream(name), "+", "-", "COUNT", 1)
            found[lane.lane, name] = number_of(newest[0][0]) if newest else (0, 0)
        return found

    async def _read(self, lane: Keys) -> None:
        """Read a lane while somebody listens to it."""
        is_away = False
        while self._of_lane(lane.lane):
            try:
                await self._read_on(lane)
                is_away = False
            except RedisError as error:
                if not is_away:
                    log.warning("the stream of events waits for Redis", reason=str(error))
                is_away = True
                await asyncio.sleep(_AGAIN_SECONDS)
        del self._tasks[lane.lane]

    async def _read_on(self, lane: Keys) -> None:
        names = [lane.stream(name) for name in topology.PUBLIC]
        after = [_text(self._positions[lane.lane, name]) for name in topology.PUBLIC]
        block = int(BLOCK_SECONDS * 1000)
        reply = await call(self._redis, "XREAD", "COUNT", PAGE, "BLOCK", block, "STREAMS", *names, *after)
        for key, page in reply or ():
            name = topology.PUBLIC[names.index(key.decode())]
            ends = await self._ends((lane.lane, name), page)
            # together, so that a client that comes now gets these ends in one way and not in both or neither
            self._positions[lane.lane, name] = number_of(page[-1][0])
            for listener in self._of_lane(lane.lane):
                listener.offer(ends)

    def _of_lane(self, lane: int | None) -> list[Listener]:
        return [one for one in self._listeners if lane in one.lanes]

    async def _ends(self, place: Place, page: Sequence[Any]) -> list[End]:
        lane, name = place
        found: list[tuple[EntryNumber, codec.Envelope, bytes]] = []
        for entry_id, fields in page:
            try:
                envelope = codec.decode(name, entry_id.decode(), fields)
            except (codec.UndecodableError, UnicodeDecodeError):
                # somebody else wrote it
                continue
            found.append((number_of(entry_id), envelope, _event(entry_id, fields)))
        # An entry without its source: its photo was submitted without one, or by an older version. That of a
        # session has the source of the photo that was settled first, and somebody else may have begun it.
        unsaid = [(one.photo_id, one.session_id) for _, one, _ in found if not (one.origin and one.photo_id)]
        recorded = iter(await submissions.sources(self._redis, keys.Keys(lane), unsaid))
        return [
            End(
                place=place,
                number=number,
                session_id=one.session_id,
                source=(None if one.origin and one.photo_id else next(recorded)) or _origin(one),
                event=event,
            )
            for number, one, event in found
        ]


def _origin(end: codec.Envelope) -> str | None:
    return end.origin.decode("utf-8", "replace") if end.origin else None


def number_of(entry_id: bytes | str) -> EntryNumber:
    """Return an entry id as numbers. Raises ValueError for what is none."""
    millis, _, sequence = (entry_id.decode() if isinstance(entry_id, bytes) else entry_id).partition("-")
    return int(millis), int(sequence)


def _text(number: EntryNumber) -> str:
    return f"{number[0]}-{number[1]}"


def _event(entry_id: bytes, fields: Sequence[bytes]) -> bytes:
    """Return an entry as a CloudEvent in JSON (its structured mode), on one line."""
    event: dict[str, str | msgspec.Raw] = {}
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        if name == b"data":
            event["data"] = msgspec.Raw(msgspec.json.format(value, indent=-1))
        elif not name.startswith(_ENGINE):
            event[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    event.setdefault("id", entry_id.decode())
    return msgspec.json.encode(event)
