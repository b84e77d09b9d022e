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
from shared.operations import letter_names
from shared.operations.letter_pages import letter_pages, sort_key

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
            (agent, lane.lane, archived): _Place()
            for agent in topology.CONSUMERS
            for lane in keys.all_lanes(lanes)
            for archived in (False, True)
        }
        self._lock = asyncio.Lock()

    async def ids(
        self, wanted: DeadFilter, agent: str, lane: Keys, *, archived: bool = False
    ) -> list[str] | None:
        """Return ids of an agent's letters, among them all that a filter selects, oldest first.

        None: the index does not help with this filter.
        """
        if wanted.session is None and wanted.photo is None and wanted.fingerprint is None:
            return None
        place = await self._place(agent, lane, archived=archived)
        found: list[list[str]] = []
        if wanted.session is not None:
            found.append(place.of_session(wanted.session))
        if wanted.fingerprint is not None:
            found.append(place.causes.get(wanted.fingerprint, []))
        if wanted.photo is not None:
            found.append(place.of_photo(wanted.photo))
        fewest = min(found, key=len)
        return fewest.copy()

    async def firsts(self, causes: Iterable[str], agent: str, lane: Keys) -> dict[str, list[str]]:
        """Return the first few ids of each cause of an agent; some of them may be gone."""
        place = await self._place(agent, lane, archived=False)
        return {cause: place.causes.get(cause, [])[:_FIRST] for cause in causes}

    async def archived_as(self, dead_id: str, agent: str) -> str:
        """Return the id that a discarded letter got in the archive; '' if none. It may be gone since."""
        for name, lane, archived in self._places:
            if archived and name == agent:
                place = await self._place(agent, keys.Keys(lane), archived=True)
                if dead_id in place.moved:
                    return place.moved[dead_id]
        return ""

    async def refresh(self) -> None:
        """Read what is new, so that the next question is answered at once.

        The archive is read when somebody asks for something in it: it is large, and few look there.
        """
        for agent, lane, archived in self._places:
            if not archived:
                await self._place(agent, keys.Keys(lane), archived=False)

    async def _place(self, agent: str, lane: Keys, *, archived: bool) -> _Place:
        place = self._places[agent, lane.lane, archived]
        await self._refresh(place, lane.archive(agent) if archived else lane.dead(agent))
        return place

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
        """Photo id, file name or name in SharePoint → ids with spaces between: most have one, for which a
        list is large."""
        self.moved: dict[str, str] = {}
        """Of the archive: the id that a letter had before → its id there."""

    def clear(self) -> None:
        """Forget everything."""
        self.noted, self.last = 0, ""
        for known in (self.sessions, self.causes, self.names, self.moved):
            known.clear()

    def of_session(self, wanted: str) -> list[str]:
        """Return the ids of a session's letters, or of all whose sessions fit a part of a name."""
        if not letter_names.is_part(wanted):
            return self.sessions.get(wanted, [])
        return _in_order(self.sessions[name] for name in letter_names.fitting(wanted, self.sessions))

    def of_photo(self, wanted: str) -> list[str]:
        """Return the ids of a photo's letters, or of all whose names fit a part of one."""
        if not letter_names.is_part(wanted):
            return self.names.get(wanted, "").split()
        return _in_order(self.names[name].split() for name in letter_names.fitting(wanted, self.names))

    def note(self, row: Row) -> None:
        """Add a letter."""
        self.noted += 1
        if row.session:
            self.sessions.setdefault(row.session, []).append(row.id)
        self.causes.setdefault(row.fingerprint or "", []).append(row.id)
        if row.dead_id:
            self.moved[row.dead_id] = row.id
        for name in {row.photo, row.file_name, letter_names.stored_in(row.message or "")} - {None, ""}:
            before = self.names.get(name or "")
            self.names[name or ""] = f"{before} {row.id}" if before else row.id


def _in_order(lists: Iterable[list[str]]) -> list[str]:
    """Return the ids of some lists, each once, oldest first."""
    return sorted({dead_id for ids in lists for dead_id in ids}, key=sort_key)
