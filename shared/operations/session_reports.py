"""Follows the reports of sessions: how many photos of each need a person, by the newest report."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from events import codec, keys
from events.connection import call
from events.types import SessionReported

if TYPE_CHECKING:
    from redis.asyncio import Redis

_REPORTED: Final = "session.reported"
_AT_FIRST: Final = 2000
"""Reports that are read at the start: what is older belongs to sessions that nobody waits for."""
_KEPT: Final = 20_000


class SessionReports:
    """Reads each report once; later looks read only what is new."""

    def __init__(self, redis: Redis, *, lanes: int) -> None:
        self._redis = redis
        self._last = dict.fromkeys(keys.all_lanes(lanes), "")
        self._found: dict[str, SessionReported] = {}

    def of(self, session_id: str) -> SessionReported | None:
        """Return the newest report of a session that `refresh` has seen."""
        return self._found.get(session_id)

    async def refresh(self) -> None:
        """Read what is new. Raises what redis-py raises when Redis is away."""
        for lane, last in self._last.items():
            stream = lane.stream(_REPORTED)
            if last:
                page = await call(self._redis, "XRANGE", stream, f"({last}", "+", "COUNT", _AT_FIRST)
            else:
                newest = await call(self._redis, "XREVRANGE", stream, "+", "-", "COUNT", _AT_FIRST)
                page = list(reversed(newest))
            for entry_id, flat in page:
                self._last[lane] = entry_id.decode()
                with contextlib.suppress(codec.UndecodableError):
                    event = codec.decode(_REPORTED, entry_id.decode(), flat).event
                    if isinstance(event, SessionReported):
                        self._found.pop(event.session_id, None)
                        self._found[event.session_id] = event
        while len(self._found) > _KEPT:
            # the one that was reported longest ago
            del self._found[next(iter(self._found))]
