"""The operators' side of dead letters: find, look at, replay, discard, restore."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from events import keys, topology
from events.connection import call
from events.publisher import SESSION_TTL, SESSION_TTL_IN_FLIGHT
from shared.delivery import packing
from shared.delivery.dead_letter import DeadLetter, letter_of, read_letter
from shared.operations import causes, letter_names, scripts
from shared.operations.letter_pages import letter_pages, sort_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from redis.asyncio import Redis

    from events.keys import Keys
    from shared.operations.letter_index import LetterIndex

_AT_FIRST: Final = 8
_AT_ONCE: Final = 128
"""Dead letters of known ids that are read in one round trip: few at first, as often one is asked for."""


class DeadFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Selects dead letters: all given conditions must hold.

    In `session` and `photo`, a ``*`` stands for any characters, and then upper and lower case are alike.
    """

    agent: str | None = None
    id: str | None = None
    """Of one dead letter; another agent may have one of the same id."""
    reason: str | None = None
    error_type: str | None = None
    fingerprint: str | None = None
    session: str | None = None
    photo: str | None = None
    """A photo id, a file name, or the name of the file in SharePoint if the message mentions it."""
    trace: str | None = None
    """A trace id, 32 hex digits."""
    older_than: float | None = None
    """Seconds since the failure, at least."""
    newer_than: float | None = None
    """Seconds since the failure, at most."""
    limit: int | None = None

    @property
    def by_cause(self) -> bool:
        """Return whether the counts that are kept by cause answer how many it selects."""
        return self == DeadFilter(agent=self.agent, fingerprint=self.fingerprint)

    @property
    def by_part(self) -> bool:
        """Return whether names have to be compared in a way that Redis does not."""
        return (
            letter_names.is_part(self.session)
            or letter_names.is_part(self.photo)
            or letter_names.is_stored(self.photo)
        )

    @property
    def empty(self) -> bool:
        """Return whether no condition is given."""
        return self == DeadFilter(limit=self.limit)

    def matches(self, letter: DeadLetter, now: float) -> bool:
        """Return whether the filter selects a dead letter; `now` in Unix seconds."""
        age = now - letter.failed_at
        return (
            self.id in (None, letter.id)
            and self.reason in (None, letter.reason)
            and self.error_type in (None, letter.error_type)
            and self.fingerprint in (None, letter.fingerprint)
            and (self.session is None or letter_names.fits(self.session, letter.session_id))
            and (self.photo is None or self._of_photo(letter))
            and self.trace in (None, letter.traceparent[3:35])
            and (self.older_than is None or age >= self.older_than)
            and (self.newer_than is None or age <= self.newer_than)
        )

    def _of_photo(self, letter: DeadLetter) -> bool:
        wanted = self.photo or ""
        names = (letter.photo_id, letter.file_name, letter_names.stored_in(letter.message))
        return any(letter_names.fits(wanted, name) for name in names)


class Group(msgspec.Struct, kw_only=True):
    """The dead letters of one cause."""

    fingerprint: str
    count: int = 0
    newest: list[DeadLetter] = []
    """At most three, oldest first."""
    since: float = 0.0
    """When the first of them failed, in Unix seconds; 0: not known."""


Bounds: TypeAlias = "dict[str, str]"
"""By place (`place_of`): the newest dead letter that belongs to a selection; later ones do not."""


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one dead letter: what was done, gone (somebody else was faster), or refused."""

    letter: DeadLetter
    outcome: str
    """replayed, discarded, restored, deleted, gone or refused"""
    entry_id: str = ""
    message: str = ""


class DeadLetters:
    """Dead letters of all agents and lanes. Raises what redis-py raises when Redis is away."""

    def __init__(
        self,
        redis: Redis,
        *,
        lanes: int = 1,
        session_ttl: int = SESSION_TTL,
        index: LetterIndex | None = None,
    ) -> None:
        """`redis`: of `events.connection.connect`, whose replies come as the server sent them.

        `index`: of a process that stays, for which it makes looking for a session, photo or cause fast.
        """
        self._redis = redis
        self._index = index
        self._lanes = keys.all_lanes(lanes)
        self._session_ttl = session_ttl

    async def find(
        self,
        wanted: DeadFilter,
        *,
        archived: bool = False,
        upto: Bounds | None = None,
        after: Bounds | None = None,
        now: float | None = None,
    ) -> AsyncIterator[DeadLetter]:
        """Yield the selected dead letters, oldest first by agent. Raises KeyError for an unknown agent.

        Entries that die during the read are left out: somebody may be replaying, and would see them again.
        `archived`: look among the discarded ones. `upto` and `after` bound the ids, `now` (Unix seconds) is
        the moment that ages count from: with them a selection stays the same over time.
        """
        found, now = 0, time.time() if now is None else now
        all_of_them = wanted == DeadFilter(agent=wanted.agent, limit=wanted.limit)
        last = await self.bounds(wanted, archived=archived) if upto is None else upto
        for agent, lane in self._places(wanted):
            where = place_of(agent, lane)
            stream = lane.archive(agent) if archived else lane.dead(agent)
            begin, end = f"({after[where]}" if after and where in after else "-", last.get(where, "")
            if wanted.id is not None and end and begin == "-":
                begin, end = wanted.id, min(wanted.id, end, key=sort_key)
            ids = None
            if self._index is not None and wanted.id is None and end:
                ids = await self._index.ids(wanted, agent, lane, archived=archived)
            pages = (
                self._pages(agent, lane, stream, begin, end)
                if ids is None
                else self._known(agent, lane, stream, _between(ids, begin[1:], end))
            )
            async for page in pages:
                for letter in page:
                    if not all_of_them and not wanted.matches(letter, now):
                        continue
                    if wanted.limit is not None and found >= wanted.limit:
                        return
                    found += 1
                    yield letter

    def _places(self, wanted: DeadFilter) -> list[tuple[str, Keys]]:
        if wanted.agent is not None:
            topology.stage_of(wanted.agent)
        agents = topology.CONSUMERS if wanted.agent is None else (wanted.agent,)
        return [(agent, lane) for agent in agents for lane in self._lanes]

    async def bounds(self, wanted: DeadFilter, *, archived: bool = False) -> Bounds:
        """Return the newest dead letter of each place that a filter looks at; empty places are missing."""
        found = {}
        for agent, lane in self._places(wanted):
            newest = await self._newest_id(lane.archive(agent) if archived else lane.dead(agent))
            if newest:
                found[place_of(agent, lane)] = newest
        return found

    async def count(self, wanted: DeadFilter, *, archived: bool = False) -> int:
        """Return how many a filter selects; from the counts by cause where they answer it."""
        if archived:
            if wanted == DeadFilter(agent=wanted.agent):
                sizes = [
                    await call(self._redis, "XLEN", lane.archive(agent))
                    for agent, lane in self._places(wanted)
                ]
                return int(sum(sizes))
            count = 0
            # no list of them: there may be more than the memory holds
            async for _ in self.find(wanted, archived=True):
                count += 1
            return count
        if wanted.by_cause:
            found = [await self._causes(agent, lane, wanted) for agent, lane in self._places(wanted)]
            return sum(count for these in found for count, _ in these.values())
        return sum(group.count for group in await self.groups(wanted))

    async def groups(self, wanted: DeadFilter, *, archived: bool = False) -> list[Group]:
        """Group what is selected by fingerprint, the largest first. Raises KeyError for an unknown agent.

        Redis counts, page by page: only a few dead letters of each group are read. A filter by time or with
        a limit is applied here, to all of them, and so is one by a part of a name and every filter of
        discarded ones (`archived`).
        """
        found: dict[str, Group] = {}
        known = self._index is not None and (wanted.session, wanted.photo) != (None, None)
        if (
            archived
            or known
            or wanted.by_part
            or wanted.id
            or (wanted.older_than, wanted.newer_than, wanted.limit) != (None, None, None)
        ):
            async for letter in self.find(wanted, archived=archived):
                _add(found, letter.fingerprint, 1, [letter], letter.failed_at)
        else:
            for agent, lane in self._places(wanted):
                await self._group(found, agent, lane, wanted)
        return sorted(found.values(), key=lambda group: -group.count)

    async def _group(self, found: dict[str, Group], agent: str, lane: Keys, wanted: DeadFilter) -> None:
        if wanted.by_cause:
            these = await self._causes(agent, lane, wanted)
        else:
            these = {}
            newest = await self._newest_id(lane.dead(agent))
            if newest:
                await causes.grouped(self._redis, lane, agent, newest, _conditions(wanted), into=these)
        firsts: dict[str, list[str]] = {}
        if self._index is not None and wanted.by_cause:
            firsts = await self._index.firsts(these, agent, lane)
        ids = [dead_id for _, newest_ids in these.values() for dead_id in newest_ids]
        ids += [dead_id for first_ids in firsts.values() for dead_id in first_ids]
        rows = await scripts.letters_at(self._redis, lane.dead(agent), ids) if ids else []
        # one may have been replayed meanwhile
        read = {row.id: letter_of(row, agent=agent, lane=lane.lane) for row in rows}
        for fingerprint, (count, newest_ids) in these.items():
            examples = [read[dead_id] for dead_id in newest_ids if dead_id in read]
            known = firsts.get(fingerprint, newest_ids if count <= len(newest_ids) else [])
            since = min((read[dead_id].failed_at for dead_id in known if dead_id in read), default=0.0)
            _add(found, fingerprint, count, examples, since)

    async def _causes(self, agent: str, lane: Keys, wanted: DeadFilter) -> causes.Causes:
        """Return what is counted by cause, of the one that a filter names if it names one."""
        these = await causes.of_agent(self._redis, lane, agent)
        if wanted.fingerprint is None:
            return these
        return {name: one for name, one in these.items() if name == wanted.fingerprint}

    async def _newest_id(self, stream: str) -> str:
        page = await call(self._redis, "XREVRANGE", stream, "+", "-", "COUNT", 1)
        return str(page[0][0].decode()) if page else ""

    async def _pages(
        self, agent: str, lane: Keys, stream: str, begin: str, newest: str
    ) -> AsyncIterator[Iterator[DeadLetter]]:
        """Yield the dead letters of one stream up to an id ('': none), page by page."""
        if not newest:
            return
        async with aclosing(letter_pages(self._redis, stream, begin, newest)) as pages:
            async for rows in pages:
                yield (letter_of(row, agent=agent, lane=lane.lane) for row in rows)

    async def _known(
        self, agent: str, lane: Keys, stream: str, ids: Sequence[str]
    ) -> AsyncIterator[Iterator[DeadLetter]]:
        """Yield the dead letters of some ids that are still there."""
        start, many = 0, _AT_FIRST
        while start < len(ids):
            rows = await scripts.letters_at(self._redis, stream, ids[start : start + many])
            yield (letter_of(row, agent=agent, lane=lane.lane) for row in rows)
            start, many = start + many, _AT_ONCE

    async def get(
        self, dead_id: str, *, agent: str | None = None, archived: bool = False
    ) -> DeadLetter | None:
        """Return one dead letter by its id; ids of two agents may be equal, then `agent` says which."""
        found = await self._raw(dead_id, agent, archived=archived)
        return read_letter(found[2], found[3], agent=found[0], lane=found[1].lane) if found else None

    async def archived_as(self, dead_id: str, agent: str) -> str:
        """Return the id in the archive of a letter that was discarded; '' if it is not there, or no index."""
        found = await self._index.archived_as(dead_id, agent) if self._index is not None else ""
        return found if found and await self._raw(found, agent, archived=True) else ""

    async def original(self, letter: DeadLetter, *, archived: bool = False) -> list[bytes]:
        """Return the fields of the entry as they came: name, value, … Empty if the dead letter is gone."""
        found = await self._raw(letter.id, letter.agent, archived=archived)
        if not found:
            return []
        flat = found[3]
        raw = next((flat[i + 1] for i in range(0, len(flat) - 1, 2) if flat[i] == b"raw"), None)
        return packing.unpack_fields(raw) if raw else []

    async def _raw(
        self, dead_id: str, agent: str | None, *, archived: bool
    ) -> tuple[str, Keys, bytes, list[bytes]] | None:
        for name in topology.CONSUMERS if agent is None else (agent,):
            for lane in self._lanes:
                stream = lane.archive(name) if archived else lane.dead(name)
                page = await call(self._redis, "XRANGE", stream, dead_id, dead_id)
                if page:
                    return name, lane, page[0][0], page[0][1]
        return None

    async def replay(
        self,
        letter: DeadLetter,
        *,
        mark: scripts.Mark | None = None,
        edited: Sequence[bytes] = (),
        who: str = "",
    ) -> Replayed:
        """Move one dead letter back to the stream it failed on; atomic, so two operators move it once.

        `edited`: the fields of an entry that goes in the place of the original one, which is then archived;
        `who`: who edited them (`shared.operations.editing`).
        """
        if letter.cut and not edited:
            return Replayed(
                letter=letter,
                outcome="refused",
                message=f"its entry had {letter.cut} bytes, and only the beginning was kept; discard it and"
                " publish the photo again with a smaller event",
            )
        stream = stream_of(letter)
        outcome, value = await scripts.replay(
            self._redis,
            keys.Keys(letter.lane),
            letter.agent,
            stream,
            letter.id,
            # only what was counted moves back: a report that could not be written is no photo
            letter.session_id if letter.stream != topology.COMPLETED else None,
            ttl_ms=self._session_ttl * 1000,
            long_ttl_ms=SESSION_TTL_IN_FLIGHT * 1000,
            mark=mark,
            edited=edited,
            who=who,
        )
        if outcome == "OK":
            return Replayed(letter=letter, outcome="replayed", entry_id=value)
        if outcome == "GONE":
            return Replayed(letter=letter, outcome="gone", message="somebody else replayed or discarded it")
        if outcome == "TOO_MANY":
            return Replayed(
                letter=letter,
                outcome="refused",
                message=f"its entry has {value.removesuffix('.0')} fields, more than {scripts.REPLAY_PAIRS}"
                " cannot be written back; discard it and publish the photo again",
            )
        return Replayed(
            letter=letter,
            outcome="refused",
            message="it holds no original entry (it was not written by an agent); discard it",
        )

    async def discard(self, letter: DeadLetter, *, who: str = "", mark: scripts.Mark | None = None) -> bool:
        """Move one dead letter into the archive; return False if it was gone already.

        Without `who`, it is deleted for good.
        """
        lane = keys.Keys(letter.lane)
        return await scripts.discard(self._redis, lane, letter.agent, letter.id, who=who, mark=mark)

    async def delete_archived(self, letter: DeadLetter, *, mark: scripts.Mark | None = None) -> bool:
        """Delete a discarded dead letter for good; return False if it was gone already."""
        return await scripts.delete(self._redis, keys.Keys(letter.lane), letter.agent, letter.id, mark=mark)

    async def restore(self, letter: DeadLetter, *, mark: scripts.Mark | None = None) -> str:
        """Move one dead letter out of the archive; return its new id, '' if it was gone already."""
        return await scripts.restore(self._redis, keys.Keys(letter.lane), letter.agent, letter.id, mark=mark)


def place_of(agent: str, lane: Keys) -> str:
    """Return the name of an agent's dead letters in a lane: ``photo_fetcher`` or ``photo_fetcher/2``."""
    return agent if lane.lane is None else f"{agent}/{lane.lane}"


def archived_at(letter: DeadLetter) -> float:
    """Return when a letter of the archive was moved there, in Unix seconds: its id there says so."""
    return int(letter.id.partition("-")[0]) / 1000


def stream_of(letter: DeadLetter) -> str:
    """Return the stream that a replay writes to: the one it failed on, if the agent reads it."""
    stage = topology.stage_of(letter.agent)
    return letter.stream if letter.stream in stage.streams else stage.reads[0]


def _add(
    found: dict[str, Group], fingerprint: str, count: int, newest: list[DeadLetter], since: float
) -> None:
    group = found.setdefault(fingerprint, Group(fingerprint=fingerprint))
    group.since = min(filter(None, (group.since, since)), default=0.0)
    group.count += count
    group.newest = sorted([*group.newest, *newest], key=lambda letter: letter.failed_at)[-causes.EXAMPLES :]


def _conditions(wanted: DeadFilter) -> list[str]:
    fields = {
        "reason": wanted.reason,
        "error_type": wanted.error_type,
        "fingerprint": wanted.fingerprint,
        "session": wanted.session,
        "name": wanted.photo,
        "trace": wanted.trace,
    }
    return [word for name, value in fields.items() if value is not None for word in (name, value)]


def _between(ids: Sequence[str], after: str, upto: str) -> list[str]:
    """Return the ids behind one ('': none) up to another."""
    first, last = sort_key(after) if after else (-1, -1), sort_key(upto)
    return [dead_id for dead_id in ids if first < sort_key(dead_id) <= last]


async def dead_of_session(redis: Redis, session_id: str, lanes: int = 1) -> list[DeadLetter]:
    """Return the dead letters of one session's photos; a report that failed is no photo."""
    letters = DeadLetters(redis, lanes=lanes)
    found = [letter async for letter in letters.find(DeadFilter(session=session_id))]
    return [letter for letter in found if letter.stream != topology.COMPLETED]
