"""Knows which dead letters belong to a session, photo or cause, so that a page need not read all of them.

The index lives in the memory of one process. It reads each dead letter once; later looks read only what came
since. Letters that were replayed or discarded are not taken out: whoever asks reads the letters of the ids
that it names, and those that are gone are not there.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from events import keys, topology
from events.connection import call
from shared.operations.letter_pages import letter_pages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis.asyncio import Redis

    from events.keys import Keys
    from shared.delivery.dead_letter import Row
    from shared.operations.dead_letters import DeadFilter

_FIRST: Final = 3
_SPARE: Final = 50_000
"""Ids of letters that are gone may stay up to this number before they are counted."""


class LetterIndex:
    """Finds ids of dead letters. Raises what redis-py raises when Redis is away."""

    def __init__(self, redis: Redis, *, lanes: int = 1) -> None:
        self._redis = redis
        self._places = {
            (agent, lane.lane): _Place() for agent in topology.CONSUMERS for lane in keys.all_lanes(lanes)
        }
        self._lock = asyncio.Lock()

    async def ids(self, wanted: DeadFilter, agent: str, lane: Keys) -> list[str] | None:
        """Return ids of an agent's letters, among them all that a filter selects, oldest first.

        None: the index does not help with this filter.
        """
        if wanted.session is None and wanted.photo is None and wanted.fingerprint is None:
            return None
        place = self._places[agent, lane.lane]
        await self._refresh(place, lane.dead(agent))
        found: list[list[str]] = []
        if wanted.session is not None:
            found.append(place.sessions.get(wanted.session, []))
        if wanted.fingerprint is not None:
            found.append(place.causes.get(wanted.fingerprint, []))
        if wanted.photo is not None:
            found.append(place.names.get(wanted.photo, "").split())
        fewest = min(found, key=len)
        return fewest.copy()

    async def firsts(self, causes: Iterable[str], agent: str, lane: Keys) -> dict[str, list[str]]:
        """Return the first few ids of each cause of an agent; some of them may be gone."""
        place = self._places[agent, lane.lane]
        await self._refresh(place, lane.dead(agent))
        return {cause: place.causes.get(cause, [])[:_FIRST] for cause in causes}

    async def refresh(self) -> None:
        """Read what is new, so that the next question is answered at once."""
        for (agent, lane), place in self._places.items():
            await self._refresh(place, keys.Keys(lane).dead(agent))

    async def _refresh(self, place: _Place, stream: str) -> None:
        async with self._lock:
            if place.noted > _SPARE and place.noted > 2 * await call(self._redis, "XLEN", stream):
                # most of what it names is gone
                place.clear()
            start = f"({place.last}" if place.last else "-"
            async with aclosing(letter_pages(self._redis, stream, start)) as pages:
                async for page in pages:
                    for row in page:
                        place.note(row)
                        place.last = row.id


class _Place:
    """What is known of one agent's dead letters in one lane."""

    def __init__(self) -> None:
        self.noted = 0
        self.last = ""
        self.sessions: dict[str, list[str]] = {}
        self.causes: dict[str, list[str]] = {}
        self.names: dict[str, str] = {}
        """Photo id or file name → ids with spaces between: most have one, for which a list is large."""

    def clear(self) -> None:
        """Forget everything."""
        self.noted, self.last = 0, ""
        for known in (self.sessions, self.causes, self.names):
            known.clear()

    def note(self, row: Row) -> None:
        """Add a letter."""
        self.noted += 1
        if row.session:
            self.sessions.setdefault(row.session, []).append(row.id)
        self.causes.setdefault(row.fingerprint or "", []).append(row.id)
        for name in {row.photo, row.file_name} - {None, ""}:
            before = self.names.get(name or "")
            self.names[name or ""] = f"{before} {row.id}" if before else row.id
