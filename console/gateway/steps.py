"""Looks for what agents did with the photos of the sessions that somebody watches, in the photos' records.

The records show the last state and not each change, so steps are best effort: a photo that went through two
agents between two looks shows both, and one that an agent handled twice shows the second time.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from console.gateway.ends import Listener, Seen
from events import keys, topology
from events.connection import RedisError, call
from shared.delivery.photo_record import AgentPart, Submitted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis.asyncio import Redis

LOOK_SECONDS: Final = 1.0
_SHARE: Final = 50
"""The pause after a look, divided by the time the look took: Redis has other things to do."""
_NEWEST: Final = 1_000
"""Photos of a session that are watched: those that began last."""
_PAGE: Final = 100
_PART: Final = msgspec.json.Decoder(AgentPart)
_NOTE: Final = msgspec.json.Decoder(Submitted)

log = structlog.get_logger(__name__)


class StepView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an agent did with a photo."""

    photo_id: str
    session_id: str
    agent: str
    outcome: str
    """``done``, ``dead`` or ``postponed``"""
    started: float
    """Unix time in seconds."""
    seconds: float
    attempts: int
    message: str = ""
    until: float = 0.0
    """Unix time in seconds when a postponed photo comes back."""


class _Watched:
    """A session: who watches it, and what was seen of its photos."""

    def __init__(self) -> None:
        self.listeners: set[Listener] = set()
        self.looked = False
        self.seen: dict[str, dict[str, float]] = {}
        """By photo, by agent: when it began with it."""
        self.ended: set[str] = set()


class Steps:
    """Reads records for all clients that watch a session."""

    def __init__(self, redis: Redis, *, lanes: int) -> None:
        self._redis = redis
        self._lanes = lanes
        self._watched: dict[str, _Watched] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, session_id: str, listener: Listener) -> None:
        """Offer the steps of a session's photos to a listener from now on."""
        self._watched.setdefault(session_id, _Watched()).listeners.add(listener)
        if self._task is None:
            self._task = asyncio.create_task(self._look_on())

    def leave(self, session_id: str, listener: Listener) -> None:
        """Offer them no longer."""
        watched = self._watched.get(session_id)
        if watched is not None:
            watched.listeners.discard(listener)
            if not watched.listeners:
                del self._watched[session_id]

    async def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look_on(self) -> None:
        while self._watched:
            started = time.monotonic()
            try:
                for session_id, watched in list(self._watched.items()):
                    await self._look(session_id, watched)
            except RedisError as error:
                log.debug("steps wait for Redis", reason=str(error))
            await asyncio.sleep(max(LOOK_SECONDS, _SHARE * (time.monotonic() - started)))
        self._task = None

    async def _look(self, session_id: str, watched: _Watched) -> None:
        """Look at a session once. What was there at the first look is no news."""
        lane = keys.lane_of(session_id, self._lanes)
        names = await call(self._redis, "ZREVRANGE", lane.session_photos(session_id), 0, _NEWEST - 1)
        photos = [name.decode() for name in names]
        photos = [photo for photo in photos if photo not in watched.ended]
        for first in range(0, len(photos), _PAGE):
            await self._look_at(lane, session_id, watched, photos[first : first + _PAGE])
        watched.looked = True

    async def _look_at(
        self, lane: keys.Keys, session_id: str, watched: _Watched, photos: Sequence[str]
    ) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for photo in photos:
                pipe.execute_command("HMGET", lane.photo(photo), "submitted", *topology.AGENTS)
            records: list[Any] = await pipe.execute(raise_on_error=False)
        for photo, record in zip(photos, records, strict=True):
            if not isinstance(record, list):
                continue
            found = [
                Seen(session_id=session_id, source=_source(record[0]), step=_step(photo, session_id, part))
                for part in self._news(watched, photo, record[1:])
            ]
            if found and watched.looked:
                for listener in watched.listeners:
                    listener.offer(found)

    def _news(self, watched: _Watched, photo: str, values: Sequence[bytes | None]) -> Iterator[AgentPart]:
        """Yield what was not seen before, in the order in which it happened."""
        seen = watched.seen.setdefault(photo, {})
        parts: list[AgentPart] = []
        for value in values:
            try:
                parts += [_PART.decode(value)] if value else []
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
        for part in sorted(parts, key=lambda one: one.started):
            if seen.get(part.agent) != part.started:
                seen[part.agent] = part.started
                if part.agent == topology.AGENTS[-1] and part.outcome == "done":
                    watched.ended.add(photo)
                yield part


def _source(note: bytes | None) -> str | None:
    try:
        return _NOTE.decode(note).source if note else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _step(photo: str, session_id: str, part: AgentPart) -> bytes:
    return msgspec.json.encode(
        StepView(
            photo_id=photo,
            session_id=session_id,
            agent=part.agent,
            outcome=part.outcome,
            started=part.started,
            seconds=part.seconds,
            attempts=part.attempts,
            message=part.message,
            until=part.until,
        )
    )
