"""The operators' side of dead letters: find, look at, replay, discard."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import msgspec

from events import keys, topology
from events.connection import call
from events.publisher import SESSION_TTL, SESSION_TTL_IN_FLIGHT
from shared.delivery import packing
from shared.delivery.dead_letter import DeadLetter, Row, letter_of, read_letter
from shared.operations import causes, scripts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from redis.asyncio import Redis

    from events.keys import Keys

_PAGE: Final = 500


class DeadFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Selects dead letters: all given conditions must hold."""

    agent: str | None = None
    reason: str | None = None
    error_type: str | None = None
    fingerprint: str | None = None
    session: str | None = None
    photo: str | None = None
    """A photo id, or a file name."""
    older_than: float | None = None
    """Seconds since the failure, at least."""
    newer_than: float | None = None
    """Seconds since the failure, at most."""
    limit: int | None = None

    @property
    def empty(self) -> bool:
        """Return whether no condition is given."""
        return self == DeadFilter(limit=self.limit)

    def matches(self, letter: DeadLetter, now: float) -> bool:
        """Return whether the filter selects a dead letter; `now` in Unix seconds."""
        age = now - letter.failed_at
        return (
            self.reason in (None, letter.reason)
            and self.error_type in (None, letter.error_type)
            and self.fingerprint in (None, letter.fingerprint)
            and self.session in (None, letter.session_id)
            and self.photo in (None, letter.photo_id, letter.file_name)
            and (self.older_than is None or age >= self.older_than)
            and (self.newer_than is None or age <= self.newer_than)
        )


class Group(msgspec.Struct, kw_only=True):
    """The dead letters of one cause."""

    fingerprint: str
    count: int = 0
    newest: list[DeadLetter] = []
    """At most three, oldest first."""


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one replay: replayed, gone (somebody else did it), or refused with a sentence."""

    letter: DeadLetter
    outcome: str
    entry_id: str = ""
    message: str = ""


class DeadLetters:
    """Dead letters of all agents and lanes. Raises what redis-py raises when Redis is away."""

    def __init__(self, redis: Redis, *, lanes: int = 1, session_ttl: int = SESSION_TTL) -> None:
        self._redis = redis
        self._lanes = keys.all_lanes(lanes)
        self._session_ttl = session_ttl

    async def find(self, wanted: DeadFilter) -> AsyncIterator[DeadLetter]:
        """Yield the selected dead letters, oldest first by agent. Raises KeyError for an unknown agent.

        Entries that die during the read are left out: somebody may be replaying, and would see them again.
        """
        if wanted.agent is not None:
            topology.stage_of(wanted.agent)
        found, now = 0, time.time()
        agents = topology.CONSUMERS if wanted.agent is None else (wanted.agent,)
        last = {(agent, lane): await self._newest_id(agent, lane) for agent in agents for lane in self._lanes}
        for agent in agents:
            for lane in self._lanes:
                async for page in self._pages(agent, lane, last[agent, lane]):
                    for letter in page:
                        if not wanted.matches(letter, now):
                            continue
                        if wanted.limit is not None and found >= wanted.limit:
                            return
                        found += 1
                        yield letter

    async def groups(self, wanted: DeadFilter) -> list[Group]:
        """Group what is selected by fingerprint, the largest first. Raises KeyError for an unknown agent.

        Redis counts, page by page: only a few dead letters of each group are read. A filter by time or with
        a limit is applied here, to all of them.
        """
        found: dict[str, Group] = {}
        if (wanted.older_than, wanted.newer_than, wanted.limit) != (None, None, None):
            async for letter in self.find(wanted):
                _add(found, letter.fingerprint, 1, [letter])
        else:
            for agent in (
                topology.CONSUMERS if wanted.agent is None else (topology.stage_of(wanted.agent).agent,)
            ):
                for lane in self._lanes:
                    await self._group(found, agent, lane, _conditions(wanted))
        return sorted(found.values(), key=lambda group: -group.count)

    async def _group(
        self, found: dict[str, Group], agent: str, lane: Keys, conditions: Sequence[str]
    ) -> None:
        if conditions:
            these: causes.Causes = {}
            newest = await self._newest_id(agent, lane)
            if newest:
                await causes.grouped(self._redis, lane, agent, newest, conditions, into=these)
        else:
            these = await causes.of_agent(self._redis, lane, agent)
        ids = [dead_id for _, newest_ids in these.values() for dead_id in newest_ids]
        rows = await scripts.letters_at(self._redis, lane, agent, ids) if ids else []
        # one may have been replayed meanwhile
        read = {row.id: letter_of(row, agent=agent, lane=lane.lane) for row in rows}
        for fingerprint, (count, newest_ids) in these.items():
            _add(found, fingerprint, count, [read[dead_id] for dead_id in newest_ids if dead_id in read])

    async def _newest_id(self, agent: str, lane: Keys) -> str:
        page = await call(self._redis, "XREVRANGE", lane.dead(agent), "+", "-", "COUNT", 1)
        return str(page[0][0].decode()) if page else ""

    async def _pages(self, agent: str, lane: Keys, newest: str) -> AsyncIterator[Iterator[DeadLetter]]:
        """Yield the dead letters of one stream up to an id ('': none), one page for each round trip.

        Redis looks for the next page while this one is read.
        """
        if not newest:
            return
        last = _place(newest)
        asked = self._ask(agent, lane, "-")
        try:
            ended = False
            while not ended:
                page = await asked
                ended = len(page) < _PAGE or _place(page[-1].id) >= last
                if ended:
                    page = [row for row in page if _place(row.id) <= last]
                else:
                    asked = self._ask(agent, lane, "(" + page[-1].id)
                    # the task sends its question now
                    await asyncio.sleep(0)
                yield (letter_of(row, agent=agent, lane=lane.lane) for row in page)
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    def _ask(self, agent: str, lane: Keys, start: str) -> asyncio.Task[list[Row]]:
        return asyncio.create_task(scripts.letters(self._redis, lane, agent, start, _PAGE))

    async def get(self, dead_id: str, *, agent: str | None = None) -> DeadLetter | None:
        """Return one dead letter by its id; ids of two agents may be equal, then `agent` says which."""
        found = await self._raw(dead_id, agent)
        return read_letter(found[2], found[3], agent=found[0], lane=found[1].lane) if found else None

    async def original(self, letter: DeadLetter) -> list[bytes]:
        """Return the fields of the entry as they came: name, value, … Empty if the dead letter is gone."""
        found = await self._raw(letter.id, letter.agent)
        if not found:
            return []
        flat = found[3]
        raw = next((flat[i + 1] for i in range(0, len(flat) - 1, 2) if flat[i] == b"raw"), None)
        return packing.unpack_fields(raw) if raw else []

    async def _raw(self, dead_id: str, agent: str | None) -> tuple[str, Keys, bytes, list[bytes]] | None:
        for name in topology.CONSUMERS if agent is None else (agent,):
            for lane in self._lanes:
                page = await call(self._redis, "XRANGE", lane.dead(name), dead_id, dead_id)
                if page:
                    return name, lane, page[0][0], page[0][1]
        return None

    async def replay(self, letter: DeadLetter) -> Replayed:
        """Move one dead letter back to the stream it failed on; atomic, so two operators move it once."""
        if letter.cut:
            return Replayed(
                letter=letter,
                outcome="refused",
                message=f"its entry had {letter.cut} bytes, and only the beginning was kept; discard it and"
                " publish the photo again with a smaller event",
            )
        known = letter.stream in topology.stage_of(letter.agent).streams
        stream = letter.stream if known else topology.stage_of(letter.agent).reads[0]
        outcome, value = await scripts.replay(
            self._redis,
            keys.Keys(letter.lane),
            letter.agent,
            stream,
            topology.COMPLETED,
            letter.id,
            # only what was counted moves back: a report that could not be written is no photo
            letter.session_id if letter.stream != topology.COMPLETED else None,
            ttl_ms=self._session_ttl * 1000,
            long_ttl_ms=SESSION_TTL_IN_FLIGHT * 1000,
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

    async def replay_all(self, wanted: DeadFilter, *, rate: float | None = None) -> AsyncIterator[Replayed]:
        """Replay the selected dead letters, at most `rate` a second, and none of them twice."""
        letters = [letter async for letter in self.find(wanted)]
        for number, letter in enumerate(letters):
            if rate and number:
                await asyncio.sleep(1 / rate)
            yield await self.replay(letter)

    async def discard(self, letter: DeadLetter) -> bool:
        """Delete one dead letter for good; return False if it was gone already."""
        return await scripts.discard(self._redis, keys.Keys(letter.lane), letter.agent, letter.id)


def _add(found: dict[str, Group], fingerprint: str, count: int, newest: list[DeadLetter]) -> None:
    group = found.setdefault(fingerprint, Group(fingerprint=fingerprint))
    group.count += count
    group.newest = sorted([*group.newest, *newest], key=lambda letter: letter.failed_at)[-causes.EXAMPLES :]


def _conditions(wanted: DeadFilter) -> list[str]:
    fields = {
        "reason": wanted.reason,
        "error_type": wanted.error_type,
        "fingerprint": wanted.fingerprint,
        "session": wanted.session,
        "name": wanted.photo,
    }
    return [word for name, value in fields.items() if value is not None for word in (name, value)]


def _place(dead_id: str) -> tuple[int, int]:
    """Return an entry id as the two numbers it sorts by."""
    millis, _, sequence = dead_id.partition("-")
    return int(millis), int(sequence)


async def dead_of_session(redis: Redis, session_id: str, lanes: int = 1) -> list[DeadLetter]:
    """Return the dead letters of one session's photos; a report that failed is no photo."""
    letters = DeadLetters(redis, lanes=lanes)
    found = [letter async for letter in letters.find(DeadFilter(session=session_id))]
    return [letter for letter in found if letter.stream != topology.COMPLETED]
